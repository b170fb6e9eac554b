//! Jobs that begin anew: interruptions of spot jobs, retries, and how long a job may wait.

use serde_json::{Value, json};

use super::failures::{explained, log, script, system, until_event};
use crate::app::{TestApp, training_job};

/// Runs until it is ended when it finds no checkpoint, and ends well when it finds one.
pub const TWO_RUNS: &str = "mkdir -p /opt/ml/checkpoints; if [ -e /opt/ml/checkpoints/one ]; then echo went on; exit 0; fi; \
     trap 'exit 0' TERM; echo 1 > /opt/ml/checkpoints/one; echo begun; while :; do sleep 0.05; done";

/// A job of `text` that keeps its checkpoints.
pub fn job(name: &str, text: &str) -> Value {
    let mut job = script(name, text);
    job["CheckpointConfig"] = json!({"S3Uri": format!("s3://results/checkpoints/{name}")});
    job
}

pub fn spot(mut job: Value) -> Value {
    job["EnableManagedSpotTraining"] = json!(true);
    job["StoppingCondition"] = json!({"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120});
    job
}

pub async fn describe(app: &TestApp, name: &str) -> Value {
    app.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": name})).await
}

pub async fn until_status(app: &TestApp, name: &str, secondary: &str) -> Value {
    app.until(&format!("{name} is {secondary}"), || async {
        let job = describe(app, name).await;
        (job["SecondaryStatus"] == secondary).then_some(job)
    })
    .await
}

pub async fn until_line(app: &TestApp, name: &str, line: &str) {
    app.until(&format!("{name} says {line}"), || async {
        let logs = explained(app, name).await["Logs"].as_str()?.to_owned();
        let (group, stream) = logs.split_once(' ').unwrap();
        // The record of a host may come before its stream.
        let prefix = json!({"logGroupName": group, "logStreamNamePrefix": stream});
        let streams = app.call("Logs_20140328.DescribeLogStreams", prefix).await;
        if streams.status != 200 || streams.json()["logStreams"].as_array().is_none_or(Vec::is_empty) {
            return None;
        }
        log(app, name).await.iter().any(|one| one == line).then_some(())
    })
    .await;
}

/// Waits for what follows the end of a job.
pub async fn until_nothing_is_left(app: &TestApp) {
    app.until("all workloads are removed", || async {
        app.app.executor.list().unwrap().is_empty().then_some(())
    })
    .await;
}

pub fn statuses(job: &Value) -> Vec<&str> {
    let transitions = job["SecondaryStatusTransitions"].as_array().unwrap().iter();
    transitions.map(|transition| transition["Status"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn times_that_make_no_sense_are_refused_in_the_words_of_the_service() {
    let app = TestApp::new().await;
    let only =
        "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true";
    let present = "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds";
    let times = |wait: Option<i32>| json!({"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": wait});
    for (is_spot, wait, text) in [(false, Some(60), only), (true, None, present), (true, Some(59), present)] {
        let mut job = training_job("refused");
        job["EnableManagedSpotTraining"] = json!(is_spot);
        job["StoppingCondition"] = times(wait);
        let (code, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
        assert_eq!((code.as_str(), message.as_str()), ("ValidationException", text));
    }
    let mut job = training_job("refused");
    job["RetryStrategy"] = json!({"MaximumRetryAttempts": 31});
    job["StoppingCondition"]["MaxPendingTimeInSeconds"] = json!(1_799);
    let (_, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
    assert!(message.contains("'retryStrategy.maximumRetryAttempts'"), "{message}");
    assert!(message.contains("'stoppingCondition.maxPendingTimeInSeconds'"), "{message}");
}

#[tokio::test]
async fn an_interrupted_job_goes_on_from_its_checkpoint() {
    let app = system(|_| {}).await;
    app.ok("SageMaker.CreateTrainingJob", spot(job("two-runs", TWO_RUNS))).await;
    until_line(&app, "two-runs", "begun").await;
    let asked = json!({"TrainingJobName": "two-runs"});
    let answer = app.ok("Modelyard.InterruptTrainingJob", asked.clone()).await;
    assert_eq!(answer, json!({"Interruptions": 1}));
    let job = app.ended("two-runs").await;
    assert_eq!(job["TrainingJobStatus"], "Completed", "{job}");
    assert_eq!(
        statuses(&job),
        [
            "Starting",
            "Downloading",
            "Training",
            "Interrupted",
            "Restarting",
            "Starting",
            "Downloading",
            "Training",
            "Uploading",
            "Completed"
        ]
    );
    let message = job["SecondaryStatusTransitions"][3]["StatusMessage"].as_str().unwrap();
    assert!(
        message.starts_with("The spot instances of the training job were interrupted: asked for by arn:")
    );
    assert_eq!(job["EnableManagedSpotTraining"], true);
    assert_eq!(job["StoppingCondition"], json!({"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120}));
    assert!(job["TrainingTimeInSeconds"].as_i64().unwrap() >= 1);
    assert_eq!(job["TrainingTimeInSeconds"], job["BillableTimeInSeconds"]);
    // Both runs have the same stream, because the clock of this test stands still; for the same reason its lines are not in order.
    let lines = log(&app, "two-runs").await;
    for text in ["the spot instances of the job are interrupted", "attempt 2 of the job begins", "went on"] {
        assert!(lines.iter().any(|line| line.contains(text)), "{text}: {lines:?}");
    }
    assert_eq!(lines.iter().filter(|line| *line == "begun").count(), 1, "{lines:?}");
    until_nothing_is_left(&app).await;

    let (code, message) = app.refused("Modelyard.InterruptTrainingJob", asked).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("it is Completed"), "{message}");
}

#[tokio::test]
async fn only_spot_jobs_are_interrupted_and_one_that_ignores_it_stays_stoppable() {
    let app = system(|_| {}).await;
    let endless = "trap '' TERM; echo begun; while :; do sleep 0.05; done";
    app.ok("SageMaker.CreateTrainingJob", script("steady", "while :; do sleep 0.05; done")).await;
    app.ok("SageMaker.CreateTrainingJob", spot(script("deaf", endless))).await;
    until_status(&app, "steady", "Training").await;
    let (_, message) =
        app.refused("Modelyard.InterruptTrainingJob", json!({"TrainingJobName": "steady"})).await;
    assert!(message.contains("does not use managed spot training"), "{message}");
    until_line(&app, "deaf", "begun").await;
    for _ in 0..2 {
        app.ok("Modelyard.InterruptTrainingJob", json!({"TrainingJobName": "deaf"})).await;
    }
    until_event(&app, "deaf", "Interrupted").await;
    let why = explained(&app, "deaf").await["Sentence"].as_str().unwrap().to_owned();
    assert!(why.starts_with("Its spot instances were interrupted"), "{why}");
    for name in ["steady", "deaf"] {
        app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": name})).await;
    }
    // It would have two minutes.
    for id in app.app.executor.list().unwrap() {
        app.app.executor.kill(&id).unwrap();
    }
    let job = app.ended("deaf").await;
    assert_eq!((&job["TrainingJobStatus"], &job["SecondaryStatus"]), (&json!("Stopped"), &json!("Stopped")));
    assert_eq!(app.ended("steady").await["TrainingJobStatus"], "Stopped");
}

#[tokio::test]
async fn a_spot_job_makes_room_for_one_on_demand_and_comes_back() {
    let app = system(|config| config.capacity = toml::from_str("mode = 'reserved'").unwrap()).await;
    app.ok("SageMaker.CreateTrainingJob", spot(job("cheap", TWO_RUNS))).await;
    until_line(&app, "cheap", "begun").await;
    let steady = script("steady", "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    app.ok("SageMaker.CreateTrainingJob", steady).await;
    until_status(&app, "steady", "Training").await;
    let cheap = until_status(&app, "cheap", "Pending").await;
    assert_eq!(statuses(&cheap)[2..], ["Training", "Interrupted", "Restarting", "Pending"]);
    assert!(cheap.to_string().contains("others need the room on this machine"), "{cheap}");
    let run = app.ok("Modelyard.DescribeRun", json!({"TrainingJobName": "cheap"})).await;
    assert_eq!(run, json!({"Hosts": {}}), "nothing of it runs");
    let why = explained(&app, "cheap").await["Sentence"].as_str().unwrap().to_owned();
    assert!(why.contains("in use by steady"), "{why}");
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "steady"})).await;
    let cheap = app.ended("cheap").await;
    assert_eq!(cheap["TrainingJobStatus"], "Completed", "{cheap}");
    app.ended("steady").await;
}

#[tokio::test]
async fn the_settings_may_interrupt_every_spot_job() {
    let app = system(|config| config.capacity.spot_interrupt_after_seconds = vec![0, 0]).await;
    let runs = "echo x >> /opt/ml/checkpoints/runs; test $(wc -l < /opt/ml/checkpoints/runs) -ge 3 && exit 0; sleep 1000";
    app.ok("SageMaker.CreateTrainingJob", spot(job("often", runs))).await;
    app.ok("SageMaker.CreateTrainingJob", script("never", "true")).await;
    let often = until_event(&app, "often", "Restarting").await;
    assert!(often["message"].as_str().unwrap().contains("interruption"), "{often}");
    // Whatever of the file the first two runs came to write, the third is left alone.
    app.until("the third run", || async {
        let job = describe(&app, "often").await;
        (statuses(&job).iter().filter(|status| **status == "Training").count() == 3).then_some(())
    })
    .await;
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "often"})).await;
    let often = app.ended("often").await;
    assert_eq!(statuses(&often).iter().filter(|status| **status == "Interrupted").count(), 2, "{often}");
    assert_eq!(app.ended("never").await["TrainingJobStatus"], "Completed");
}

#[tokio::test]
async fn waiting_and_running_have_their_limits() {
    let app = system(|config| config.capacity = toml::from_str("mode = 'reserved'").unwrap()).await;
    let endless = "trap 'exit 0' TERM; echo begun; while :; do sleep 0.05; done";
    app.ok("SageMaker.CreateTrainingJob", script("holds", endless)).await;
    until_status(&app, "holds", "Training").await;
    app.ok("SageMaker.CreateTrainingJob", spot(script("waits", "true"))).await;
    let mut patient = script("patient", "true");
    patient["StoppingCondition"] = json!({"MaxRuntimeInSeconds": 60, "MaxPendingTimeInSeconds": 1_800});
    app.ok("SageMaker.CreateTrainingJob", patient).await;
    for name in ["waits", "patient"] {
        until_status(&app, name, "Pending").await;
    }
    let exceeded = |job: &Value| {
        assert_eq!(
            (&job["TrainingJobStatus"], &job["SecondaryStatus"]),
            (&json!("Stopped"), &json!("MaxWaitTimeExceeded")),
            "{job}"
        );
    };
    app.clock.advance(121_000);
    exceeded(&app.ended("waits").await);
    assert_eq!(describe(&app, "patient").await["SecondaryStatus"], "Pending");
    app.clock.advance(1_800_000);
    let patient = app.ended("patient").await;
    assert_eq!(
        (&patient["TrainingJobStatus"], &patient["SecondaryStatus"]),
        (&json!("Stopped"), &json!("Stopped"))
    );
    let last = patient["SecondaryStatusTransitions"].as_array().unwrap().last().unwrap();
    assert_eq!(last["StatusMessage"], "Training job pending time exceeded MaxPendingTimeInSeconds provided");
    assert!(patient.get("TrainingTimeInSeconds").is_none(), "it never ran: {patient}");
    let why = explained(&app, "patient").await["Hint"].as_str().unwrap().to_owned();
    assert!(why.contains("MaxPendingTimeInSeconds"), "{why}");
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "holds"})).await;

    app.ok("SageMaker.CreateTrainingJob", spot(script("runs", endless))).await;
    until_line(&app, "runs", "begun").await;
    app.clock.advance(121_000);
    let runs = app.ended("runs").await;
    exceeded(&runs);
    let last = statuses(&runs).split_off(statuses(&runs).len() - 4);
    assert_eq!(last, ["Training", "Stopping", "Uploading", "MaxWaitTimeExceeded"]);
    assert!(runs["ModelArtifacts"]["S3ModelArtifacts"].is_string(), "what it left is kept: {runs}");
    let why = explained(&app, "runs").await["Hint"].as_str().unwrap().to_owned();
    assert!(why.contains("MaxWaitTimeInSeconds"), "{why}");
}

/// Kills the supervisor of the one workload of an app.
async fn kill_supervisor(app: &TestApp) {
    let ids = app.app.executor.list().unwrap();
    let [id] = ids.as_slice() else { panic!("{ids:?}") };
    let is_supervisor = |command: &[u8]| {
        let command = String::from_utf8_lossy(command);
        let mut words = command.split('\0');
        words.any(|word| word == "supervise")
            && words.next().is_some_and(|directory| directory.ends_with(id.as_str()))
    };
    let pid = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        is_supervisor(&command).then(|| entry.file_name().into_string().unwrap())
    });
    let killed = std::process::Command::new("kill").args(["-9", &pid.unwrap()]).status().unwrap();
    assert!(killed.success());
}

#[tokio::test]
async fn a_fault_of_the_server_is_tried_again_as_often_as_asked_for() {
    let app = system(|_| {}).await;
    let mut retried = job("retried", TWO_RUNS);
    retried["RetryStrategy"] = json!({"MaximumRetryAttempts": 2});
    app.ok("SageMaker.CreateTrainingJob", retried).await;
    until_line(&app, "retried", "begun").await;
    kill_supervisor(&app).await;
    let retried = app.ended("retried").await;
    assert_eq!(retried["TrainingJobStatus"], "Completed", "{retried}");
    assert_eq!(retried["RetryStrategy"], json!({"MaximumRetryAttempts": 2}));
    assert_eq!(statuses(&retried)[2..5], ["Training", "Restarting", "Starting"]);
    let message = retried["SecondaryStatusTransitions"][3]["StatusMessage"].as_str().unwrap();
    let expected = "Restarting the training job (retry 1 of 2) after InternalServerError: the supervisor of the job was killed";
    assert!(message.starts_with(expected), "{message}");

    // Without a strategy, and for a fault of the program, a failure is the end.
    app.ok("SageMaker.CreateTrainingJob", job("once", TWO_RUNS)).await;
    until_line(&app, "once", "begun").await;
    kill_supervisor(&app).await;
    let once = app.ended("once").await;
    assert_eq!(once["TrainingJobStatus"], "Failed");
    assert!(once["FailureReason"].as_str().unwrap().starts_with("InternalServerError: "));
    let mut wrong = script("wrong", "exit 3");
    wrong["RetryStrategy"] = json!({"MaximumRetryAttempts": 30});
    app.ok("SageMaker.CreateTrainingJob", wrong).await;
    let wrong = app.ended("wrong").await;
    assert_eq!(wrong["TrainingJobStatus"], "Failed");
    assert!(!statuses(&wrong).contains(&"Restarting"), "{wrong}");
}
