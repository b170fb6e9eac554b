//! Jobs that really run and fail: their cards, what is said of those that wait, hang or run, and what may change meanwhile.

use std::io::Write;
use std::os::fd::AsFd;

use runner::shell::{self, Request};
use runner::workload::Exit;
use serde_json::{Value, json};
use server::config::{Config, HangAction};
use store::resources::ResourceKey;

use crate::app::{TestApp, training_job};

const IMAGE: &str = "example.com/system:1";

/// An app whose image is the system's own Python, so that nothing is built, and whose result bucket exists.
pub async fn system(change: impl FnOnce(&mut Config)) -> TestApp {
    let app = TestApp::with(|config| {
        let overlay = config.data_dir.join("images.toml");
        let text = "[[image]]\nname = \"system\"\npattern = 'example\\.com/system:.*'\ninterpreter = \"/usr/bin/python3\"\n";
        std::fs::write(&overlay, text).unwrap();
        config.images = vec![overlay];
        change(config);
    })
    .await;
    app.app.objects.create_bucket("123456789012", "us-east-1", "results").await.unwrap();
    app
}

/// A job that runs `words` as they are.
fn job(name: &str, words: &[&str]) -> Value {
    let mut job = training_job(name);
    let (program, arguments) = words.split_first().unwrap();
    job["AlgorithmSpecification"]["TrainingImage"] = IMAGE.into();
    job["AlgorithmSpecification"]["ContainerEntrypoint"] = json!([program]);
    job["AlgorithmSpecification"]["ContainerArguments"] = json!(arguments);
    if arguments.is_empty() {
        job["AlgorithmSpecification"].as_object_mut().unwrap().remove("ContainerArguments");
    }
    job
}

pub fn script(name: &str, text: &str) -> Value {
    job(name, &["/bin/sh", "-c", text])
}

pub async fn explained(app: &TestApp, name: &str) -> Value {
    app.ok("Modelyard.ExplainTrainingJob", json!({"TrainingJobName": name})).await["Explanation"].take()
}

/// Creates a job that must fail, and returns its FailureReason and explanation.
async fn failed(app: &TestApp, job: Value) -> (String, Value) {
    let name = job["TrainingJobName"].as_str().unwrap().to_owned();
    app.ok("SageMaker.CreateTrainingJob", job).await;
    let described = app.ended(&name).await;
    assert_eq!(described["TrainingJobStatus"], "Failed", "{described}");
    let reason = described["FailureReason"].as_str().unwrap().to_owned();
    assert!(reason.chars().count() <= 1024);
    (reason, explained(app, &name).await)
}

pub async fn events(app: &TestApp, name: &str) -> Vec<store::events::Event> {
    let key = ResourceKey::new("123456789012", "us-east-1", "training-job", name);
    app.app.database.read(move |session| session.events(&key)).await.unwrap()
}

pub async fn until_event(app: &TestApp, name: &str, what: &str) -> Value {
    app.until(&format!("{what} of {name}"), || async {
        let found = events(app, name).await.into_iter().find(|event| event.what == what);
        found.map(|event| event.detail)
    })
    .await
}

/// The job's log, whole.
pub async fn log(app: &TestApp, name: &str) -> Vec<String> {
    let logs = explained(app, name).await["Logs"].as_str().unwrap().to_owned();
    let (group, stream) = logs.split_once(' ').unwrap();
    let input = json!({"logGroupName": group, "logStreamName": stream, "startFromHead": true});
    let page = app.ok("Logs_20140328.GetLogEvents", input).await;
    let lines = page["events"].as_array().unwrap().iter();
    lines.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_exception_has_its_place_and_is_counted_with_its_like() {
    let app = system(|_| {}).await;
    // The service allows no line break in an argument.
    let program = r#"printf "def load():\n  return {}['label']\nprint('begin')\nload()" > /tmp/t.py; exec python3 /tmp/t.py"#;
    let failing = |name: &str| script(name, program);
    let (reason, first) = failed(&app, failing("one")).await;
    assert!(
        reason.starts_with("AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage \"Traceback"),
        "{reason}"
    );
    assert!(reason.ends_with(", exit code: 1"), "{reason}");
    let card = &first["Card"];
    assert_eq!((&card["cause"], &card["exit_code"]), (&json!("exception"), &json!(1)));
    assert_eq!(first["Sentence"], "The program raised KeyError in load (/tmp/t.py, line 2): 'label'");
    assert!(first["Hint"].as_str().unwrap().contains("traceback"), "{first}");
    assert!(card["traceback"].as_str().unwrap().ends_with("KeyError: 'label'"));
    assert_eq!(card["log_tail"][0], "begin");
    assert!(card["logs"].as_str().unwrap().starts_with("/aws/sagemaker/TrainingJobs one/algo-1-"));
    assert_eq!((first.get("Earlier"), first.get("Later")), (None, None));
    app.clock.advance(60_000);
    failed(&app, failing("two")).await;
    app.clock.advance(60_000);
    let other = program.replace("load", "save");
    failed(&app, script("other", &other)).await;
    let (_, third) = failed(&app, failing("three")).await;
    assert_eq!(
        third["Earlier"],
        json!({"Count": 2, "FirstJob": "one", "FirstAt": 1_770_000_000.0, "LastJob": "two", "LastAt": 1_770_000_060.0})
    );
    assert_eq!(explained(&app, "one").await["Later"]["Count"], 2);
    assert_eq!(third["Card"]["fingerprint"], card["fingerprint"]);
    let failed = until_event(&app, "one", "Failed").await;
    assert_eq!(failed, json!({"cause": "exception"}));
    let described = app.ok("Modelyard.DescribeFailure", json!({"TrainingJobName": "one"})).await;
    assert_eq!(described["Card"]["sentence"], first["Sentence"]);
}

#[tokio::test]
async fn each_way_to_end_has_its_cause() {
    let app = system(|_| {}).await;
    let cases = [
        ("segv", "kill -SEGV $$", "signal", "SIGSEGV (exit code 139)"),
        ("kill", "kill -KILL $$", "signal", "SIGKILL (exit code 137)"),
        ("shell", "sh -c 'kill -BUS $$'; exit 135", "signal", "SIGBUS (exit code 135)"),
        ("code", "echo cannot go on; exit 4", "exit", "exit code 4; its last line was: cannot go on"),
        ("none", "no-such-command", "exit", "By custom, code 127 says that the command was not found"),
        (
            "disk",
            "echo 'cp: error writing: No space left on device' >&2; exit 1",
            "disk_full",
            "no space left",
        ),
        (
            "own",
            "echo told by the job > /opt/ml/output/failure; exit 1",
            "exit",
            "its own reason: told by the job",
        ),
        ("memory", "python3 -c 'x = bytearray(10 ** 15)'", "out_of_memory", "could not get the memory"),
        (
            "module",
            "python3 -c 'import nothing_like_it'",
            "exception",
            "\"nothing_like_it\" is not installed",
        ),
    ];
    for (name, text, cause, sentence) in cases {
        let (reason, answer) = failed(&app, script(name, text)).await;
        assert_eq!(answer["Card"]["cause"], cause, "{name}: {answer}");
        assert!(answer["Sentence"].as_str().unwrap().contains(sentence), "{name}: {}", answer["Sentence"]);
        assert!(!answer["Hint"].as_str().unwrap().is_empty());
        assert_eq!(answer["Card"]["fingerprint"].as_str().unwrap().len(), 16);
        if answer["Card"]["signal"].is_null() {
            assert!(reason.contains("exit code: "), "{name}: {reason}");
        }
    }
}

#[tokio::test]
async fn what_is_missing_or_denied_is_named() {
    let app = system(|_| {}).await;
    let other = app.other_account("210987654321").await;
    assert!(!other.access_key_id.is_empty());
    app.app.objects.create_bucket("210987654321", "us-east-1", "theirs").await.unwrap();
    let channel = |uri: &str| json!([{"ChannelName": "train", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}]);
    let mut nothing = script("no-object", "true");
    nothing["InputDataConfig"] = channel("s3://results/not/there");
    let mut bucket = script("no-bucket", "true");
    bucket["InputDataConfig"] = channel("s3://nobody-has-this/x");
    let mut denied = script("denied", "true");
    denied["InputDataConfig"] = channel("s3://theirs/x");
    let mut output = script("no-output", "true");
    output["OutputDataConfig"]["S3OutputPath"] = "s3://nobody-has-this/out".into();
    let cases = [
        (
            nothing,
            "missing_object",
            "There is no object in bucket results whose key begins with \"not/there\"",
        ),
        (bucket, "missing_object", "The bucket nobody-has-this does not exist"),
        (
            denied,
            "access_denied",
            "s3:GetObject on arn:aws:s3:::theirs/x was denied because the bucket belongs to another account",
        ),
        (output, "missing_object", "The bucket nobody-has-this does not exist"),
    ];
    for (job, cause, sentence) in cases {
        let (reason, answer) = failed(&app, job).await;
        assert_eq!(answer["Card"]["cause"], cause, "{answer}");
        assert!(answer["Sentence"].as_str().unwrap().starts_with(sentence), "{answer}");
        assert!(reason.starts_with("ClientError: "), "{reason}");
    }
    let mut image = script("no-image", "true");
    image["AlgorithmSpecification"]["TrainingImage"] = "example.com/unknown:1".into();
    let (_, answer) = failed(&app, image).await;
    assert_eq!(answer["Card"]["cause"], "request");
}

#[tokio::test]
async fn a_job_that_hangs_is_ended_when_the_settings_say_so() {
    let app = system(|config| (config.hang_after_seconds, config.hang_action) = (1, HangAction::Fail)).await;
    let (reason, answer) = failed(&app, script("stuck", "echo begin; exec sleep 1000")).await;
    assert!(
        reason.starts_with("AlgorithmError: The job may hang: no line in its log and no CPU use for"),
        "{reason}"
    );
    assert_eq!(answer["Card"]["cause"], "hang");
    assert!(answer["Card"]["evidence"][0].as_str().unwrap().starts_with("sleep waits"), "{answer}");
    assert!(answer["Hint"].as_str().unwrap().contains("PYTHONFAULTHANDLER"));
    let lines = log(&app, "stuck").await;
    assert!(lines.iter().any(|line| line.contains("It is ended for that")), "{lines:?}");
    let busy = script("busy", "end=$(($(date +%s) + 3)); while [ $(date +%s) -lt $end ]; do :; done");
    app.ok("SageMaker.CreateTrainingJob", busy).await;
    assert_eq!(app.ended("busy").await["TrainingJobStatus"], "Completed");
}

#[tokio::test]
async fn a_hang_is_reported_and_withdrawn() {
    let app = system(|config| config.hang_after_seconds = 1).await;
    // Goes on for good afterwards: on a busy machine, one line may be old again when it is seen.
    let text = "mkfifo -m 666 /opt/ml/go; read x < /opt/ml/go; while :; do echo again; sleep 0.1; done";
    app.ok("SageMaker.CreateTrainingJob", script("sleepy", text)).await;
    let detail = until_event(&app, "sleepy", "HangSuspected").await;
    assert_eq!(detail["ends_job"], false);
    let job = app.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": "sleepy"})).await;
    assert_eq!(
        (&job["TrainingJobStatus"], &job["SecondaryStatus"]),
        (&json!("InProgress"), &json!("Training"))
    );
    let message = |job: &Value| {
        let transitions = job["SecondaryStatusTransitions"].as_array().unwrap();
        transitions.last().unwrap()["StatusMessage"].as_str().unwrap().to_owned()
    };
    assert!(message(&job).starts_with("The job may hang"), "{job}");
    let answer = explained(&app, "sleepy").await;
    assert!(answer["Sentence"].as_str().unwrap().starts_with("The job may hang"), "{answer}");
    assert!(answer["Hint"].as_str().unwrap().contains("jobs shell"), "{answer}");
    let id = app.app.executor.list().unwrap().remove(0);
    let go = app.app.config.data_dir.join("jobs").join(id).join("opt-ml/go");
    std::fs::OpenOptions::new().write(true).open(go).unwrap().write_all(b"\n").unwrap();
    until_event(&app, "sleepy", "HangEnded").await;
    let job = app.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": "sleepy"})).await;
    assert!(message(&job).contains("Training in progress"), "{job}");
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "sleepy"})).await;
    assert_eq!(app.ended("sleepy").await["TrainingJobStatus"], "Stopped");
}

#[tokio::test]
async fn a_job_that_waits_or_runs_is_explained_too() {
    let app = system(|config| config.parallel_jobs = 1).await;
    app.ok("SageMaker.CreateTrainingJob", script("runs", "echo step 7; exec sleep 1000")).await;
    app.until("the line is there", || async {
        let answer = explained(&app, "runs").await;
        answer["Details"].to_string().contains("step 7").then_some(())
    })
    .await;
    app.clock.advance(1_000);
    app.ok("SageMaker.CreateTrainingJob", script("waits", "true")).await;
    let answer = explained(&app, "runs").await;
    assert!(answer["Sentence"].as_str().unwrap().starts_with("Its program runs, for "), "{answer}");
    assert_eq!((&answer["Status"], answer.get("Card")), (&json!("InProgress"), None));
    let sentence = app
        .until("it waits in line", || async {
            let answer = explained(&app, "waits").await;
            let sentence = answer["Sentence"].as_str().unwrap().to_owned();
            sentence.starts_with("Waiting for ").then_some(sentence)
        })
        .await;
    assert!(sentence.contains("runs") && sentence.ends_with('.'), "{sentence}");
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "runs"})).await;
    assert_eq!(app.ended("waits").await["TrainingJobStatus"], "Completed");
    assert!(explained(&app, "runs").await["Sentence"].as_str().unwrap().contains("stopped on request"));
    assert!(explained(&app, "waits").await["Sentence"].as_str().unwrap().contains("nothing to explain"));
    let late = {
        let mut late = script("late", "exec sleep 1000");
        late["StoppingCondition"]["MaxRuntimeInSeconds"] = 1.into();
        late
    };
    app.ok("SageMaker.CreateTrainingJob", late).await;
    assert_eq!(app.ended("late").await["SecondaryStatus"], "MaxRuntimeExceeded");
    assert!(explained(&app, "late").await["Sentence"].as_str().unwrap().contains("time limit of 1 seconds"));
    let (code, _) = app.refused("Modelyard.ExplainTrainingJob", json!({"TrainingJobName": "none"})).await;
    assert_eq!(code, "ValidationException");
}

#[tokio::test]
async fn a_running_job_can_be_updated_and_looked_into() {
    let app = system(|_| {}).await;
    let mut running = script("open", "echo ready; exec sleep 1000");
    running["Environment"] = json!({"COLOUR": "green"});
    running["ProfilerConfig"] = json!({"S3OutputPath": "s3://results/profile"});
    app.ok("SageMaker.CreateTrainingJob", running).await;
    app.until("the program runs", || async {
        explained(&app, "open").await["Details"].to_string().contains("ready").then_some(())
    })
    .await;
    let open = json!({"TrainingJobName": "open"});
    let (code, text) = app.refused("Modelyard.OpenShell", open.clone()).await;
    assert!(
        code == "ValidationException" && text.contains("RemoteDebugConfig.EnableRemoteDebug"),
        "{code}: {text}"
    );
    let update = json!({
        "TrainingJobName": "open",
        "RemoteDebugConfig": {"EnableRemoteDebug": true},
        "ProfilerConfig": {"ProfilingIntervalInMilliseconds": 500},
        "ProfilerRuleConfigurations": [{"RuleConfigurationName": "r", "RuleEvaluatorImage": "example.com/rules:1"}],
    });
    let updated = app.ok("SageMaker.UpdateTrainingJob", update).await;
    assert_eq!(
        updated,
        json!({"TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/open"})
    );
    let job = app.ok("SageMaker.DescribeTrainingJob", open.clone()).await;
    assert_eq!(job["RemoteDebugConfig"], json!({"EnableRemoteDebug": true}));
    assert_eq!(
        job["ProfilerConfig"],
        json!({"S3OutputPath": "s3://results/profile", "ProfilingIntervalInMilliseconds": 500})
    );
    assert_eq!(job["ProfilerRuleConfigurations"][0]["RuleConfigurationName"], "r");
    let (_, text) =
        app.refused("Modelyard.OpenShell", json!({"TrainingJobName": "open", "Host": "algo-9"})).await;
    assert!(text.contains("Host") && text.contains("algo-1"), "{text}");
    let opened = app.ok("Modelyard.OpenShell", open.clone()).await;
    assert_eq!(opened["Host"], "algo-1");
    assert_eq!(until_event(&app, "open", "ShellOpened").await["host"], "algo-1");
    let directory = app.app.config.data_dir.join("workloads").join(opened["Workload"].as_str().unwrap());
    let asked = tokio::task::spawn_blocking(move || {
        let (input, _) = std::io::pipe().unwrap();
        let (output_reader, output) = std::io::pipe().unwrap();
        let command =
            ["sh", "-c", "echo $COLOUR $TRAINING_JOB_NAME; ls -d /opt/ml"].map(str::to_owned).to_vec();
        let request = Request { command, terminal: None };
        let pipes = [input.as_fd(), output.as_fd(), output.as_fd()];
        let mut session = shell::open(&directory, &request, &pipes).unwrap();
        drop(output);
        (std::io::read_to_string(output_reader).unwrap(), session.wait().unwrap())
    });
    assert_eq!(asked.await.unwrap(), ("green open\n/opt/ml\n".to_owned(), Exit::Code(0)));
    app.ok(
        "SageMaker.UpdateTrainingJob",
        json!({"TrainingJobName": "open", "RemoteDebugConfig": {"EnableRemoteDebug": false}}),
    )
    .await;
    app.refused("Modelyard.OpenShell", open.clone()).await;
    app.ok("SageMaker.StopTrainingJob", open.clone()).await;
    app.ended("open").await;
    let (code, text) = app
        .refused(
            "SageMaker.UpdateTrainingJob",
            json!({"TrainingJobName": "open", "RemoteDebugConfig": {"EnableRemoteDebug": true}}),
        )
        .await;
    assert!(code == "ValidationException" && text.contains("in status Stopped"), "{text}");
    let mut ended = script("ended", "true");
    ended["RemoteDebugConfig"] = json!({"EnableRemoteDebug": true});
    app.ok("SageMaker.CreateTrainingJob", ended).await;
    app.ended("ended").await;
    let (_, text) = app.refused("Modelyard.OpenShell", json!({"TrainingJobName": "ended"})).await;
    assert!(text.contains("its status is Completed"), "{text}");
}

#[tokio::test]
async fn updates_are_refused_by_name() {
    let app = system(|config| config.parallel_jobs = 1).await;
    let (code, text) = app.refused("SageMaker.UpdateTrainingJob", json!({"TrainingJobName": "none"})).await;
    assert_eq!((code.as_str(), text.as_str()), ("ValidationException", "Requested resource not found."));
    app.ok("SageMaker.CreateTrainingJob", script("runs", "exec sleep 1000")).await;
    app.clock.advance(1_000);
    app.ok("SageMaker.CreateTrainingJob", script("waits", "true")).await;
    let keep = json!({"TrainingJobName": "waits", "ResourceConfig": {"KeepAlivePeriodInSeconds": 60}});
    let (code, text) = app.refused("SageMaker.UpdateTrainingJob", keep).await;
    assert!(
        code == "ValidationException" && text.contains("ResourceConfig.KeepAlivePeriodInSeconds"),
        "{text}"
    );
    app.until("it waits in line", || async {
        let job = app.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": "waits"})).await;
        (job["SecondaryStatus"] == "Pending").then_some(())
    })
    .await;
    let early = json!({"TrainingJobName": "waits", "RemoteDebugConfig": {"EnableRemoteDebug": true}});
    let (_, text) = app.refused("SageMaker.UpdateTrainingJob", early).await;
    assert!(text.contains("it is Pending"), "{text}");
}

#[tokio::test]
async fn the_machine_is_checked_when_the_job_asks_for_it() {
    let app = system(|_| {}).await;
    let mut checked = script("checked", "echo ran");
    checked["InfraCheckConfig"] = json!({"EnableInfraCheck": true});
    app.ok("SageMaker.CreateExperiment", json!({"ExperimentName": "e"})).await;
    app.ok("SageMaker.CreateTrial", json!({"ExperimentName": "e", "TrialName": "t"})).await;
    app.ok("SageMaker.CreateTrialComponent", json!({"TrialComponentName": "r"})).await;
    checked["ExperimentConfig"] = json!({"ExperimentName": "e", "TrialName": "t", "RunName": "r"});
    app.ok("SageMaker.CreateTrainingJob", checked).await;
    let job = app.ended("checked").await;
    assert_eq!(job["TrainingJobStatus"], "Completed", "{job}");
    assert_eq!(job["InfraCheckConfig"], json!({"EnableInfraCheck": true}));
    assert_eq!(job["ExperimentConfig"]["RunName"], "r");
    let lines = log(&app, "checked").await;
    for what in ["disk: ", "storage: 4 MiB written", "memory: ", "GPU: ", "sandbox: "] {
        let is_checked =
            |line: &&String| line.starts_with("modelyard: infrastructure check: ") && line.contains(what);
        assert!(lines.iter().any(|line| is_checked(&line)), "{what}: {lines:?}");
    }
    assert!(
        lines.iter().position(|line| line.contains("check: ")) < lines.iter().position(|line| line == "ran")
    );
    app.ok("SageMaker.CreateTrainingJob", script("unchecked", "echo ran")).await;
    app.ended("unchecked").await;
    assert_eq!(log(&app, "unchecked").await, ["ran"]);
}

#[tokio::test]
async fn tags_of_a_session_go_on_to_the_job_that_asks_for_them() {
    let app = system(|_| {}).await;
    let assumed = app.assume_role("&Tags.member.1.Key=tenant&Tags.member.1.Value=blue", &app.key()).await;
    for (name, is_chained) in [("chained", true), ("unchained", false)] {
        let mut job = script(name, "echo $AWS_ACCESS_KEY_ID $AWS_SESSION_TOKEN");
        job["SessionChainingConfig"] = json!({"EnableSessionTagChaining": is_chained});
        let answer = app.call_as("SageMaker.CreateTrainingJob", job, &assumed).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(app.ended(name).await["TrainingJobStatus"], "Completed");
        let lines = log(&app, name).await;
        let (key, token) = lines[0].split_once(' ').unwrap();
        let credential = app.app.identity.sessions().verify(key, token, app.clock.now_ms()).ok().unwrap();
        let tenant = credential.session_tags.tags.get("tenant").map(String::as_str);
        assert_eq!(tenant, is_chained.then_some("blue"), "{name}");
    }
}

#[tokio::test]
async fn hostile_expressions_of_metrics_are_refused_by_field() {
    let app = system(|_| {}).await;
    let with = |expression: &str| {
        let mut job = script("regex", "echo loss=0.5");
        job["AlgorithmSpecification"]["MetricDefinitions"] =
            json!([{"Name": "good", "Regex": "loss=(.*)"}, {"Name": "bad", "Regex": expression}]);
        job
    };
    let nested = "(".repeat(200) + &")".repeat(200);
    for expression in [r"(((a{1,1000}){1,1000}){1,1000})", r"(?=x)y", r"(a)\1", "(", nested.as_str()] {
        let (code, text) = app.refused("SageMaker.CreateTrainingJob", with(expression)).await;
        assert_eq!(code, "ValidationException");
        assert!(text.starts_with("AlgorithmSpecification.MetricDefinitions[1].Regex: "), "{text}");
    }
    app.ok("SageMaker.CreateTrainingJob", with(r"(a+)+$")).await;
    assert_eq!(app.ended("regex").await["FinalMetricDataList"][0]["Value"], 0.5);
}
