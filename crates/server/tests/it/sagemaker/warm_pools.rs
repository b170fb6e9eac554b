//! What a job keeps for the next one: statuses, matching, updates, the machine's part that is held meanwhile.

use serde_json::{Value, json};

use crate::app::{TestApp, training_job};

/// One job at a time, so that whoever waits shows who holds the machine.
async fn app_for_one() -> TestApp {
    let app = TestApp::with(|config| {
        config.parallel_jobs = 1;
        // The system's own Python, so that nothing is built.
        let overlay = config.data_dir.join("images.toml");
        let text = "[[image]]\nname = \"system\"\npattern = '.*'\ninterpreter = \"/usr/bin/python3\"\n";
        std::fs::write(&overlay, text).unwrap();
        config.images = vec![overlay];
    })
    .await;
    let made = app.app.objects.create_bucket("123456789012", "us-east-1", "results").await;
    made.unwrap();
    let role = "Action=CreateRole&Version=2010-05-08&RoleName=Another&AssumeRolePolicyDocument=%7B%22Statement%22%3A%5B%5D%7D";
    assert_eq!(app.form("iam", role, &app.key()).await.status, 200);
    app
}

fn warm_job(name: &str, seconds: i64) -> Value {
    let mut job = training_job(name);
    job["ResourceConfig"]["KeepAlivePeriodInSeconds"] = json!(seconds);
    job["AlgorithmSpecification"]["ContainerEntrypoint"] = json!(["true"]);
    job
}

async fn describe(app: &TestApp, name: &str) -> Value {
    app.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": name})).await
}

/// Runs the job to its end and returns the status of its pool.
async fn run(app: &TestApp, job: Value) -> Value {
    let name = job["TrainingJobName"].as_str().unwrap().to_owned();
    app.ok("SageMaker.CreateTrainingJob", job).await;
    let job = app.ended(&name).await;
    assert_eq!(job["TrainingJobStatus"], "Completed", "{job}");
    job["WarmPoolStatus"].clone()
}

async fn keep_alive(app: &TestApp, name: &str, seconds: i64) -> Value {
    let update = json!({"TrainingJobName": name, "ResourceConfig": {"KeepAlivePeriodInSeconds": seconds}});
    app.ok("SageMaker.UpdateTrainingJob", update).await
}

async fn listed(app: &TestApp, status: &str) -> Vec<String> {
    let list = app.ok("SageMaker.ListTrainingJobs", json!({"WarmPoolStatusEquals": status})).await;
    let jobs = list["TrainingJobSummaries"].as_array().unwrap();
    assert!(jobs.iter().all(|job| job["WarmPoolStatus"]["Status"] == status), "{list}");
    jobs.iter().map(|job| job["TrainingJobName"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_pool_goes_from_job_to_job_and_ends_by_the_clock() {
    let app = app_for_one().await;
    let pool = run(&app, warm_job("first", 60)).await;
    assert_eq!(pool, json!({"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 0}));
    app.clock.advance(20_500);
    let second = run(&app, warm_job("second", 30)).await;
    assert_eq!(second["Status"], "Available");
    assert_eq!(
        describe(&app, "first").await["WarmPoolStatus"],
        json!({"Status": "Reused", "ResourceRetainedBillableTimeInSeconds": 21, "ReusedByJob": "second"})
    );
    assert_eq!(listed(&app, "Available").await, ["second"]);
    assert_eq!(listed(&app, "Reused").await, ["first"]);
    app.clock.advance(31_000);
    assert_eq!(
        describe(&app, "second").await["WarmPoolStatus"],
        json!({"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 30})
    );
    assert_eq!(listed(&app, "Available").await, Vec::<String>::new());
    assert_eq!(run(&app, training_job_without_pool("third")).await, Value::Null);
}

fn training_job_without_pool(name: &str) -> Value {
    let mut job = warm_job(name, 0);
    job["ResourceConfig"].as_object_mut().unwrap().remove("KeepAlivePeriodInSeconds");
    job
}

#[tokio::test]
async fn a_pool_holds_its_part_of_the_machine_until_it_is_given_up() {
    let app = app_for_one().await;
    run(&app, warm_job("keeper", 600)).await;
    let mut other = training_job_without_pool("other");
    other["RoleArn"] = json!("arn:aws:iam::123456789012:role/Another");
    app.ok("SageMaker.CreateTrainingJob", other).await;
    let waiting = app
        .until("the other job waits", || async {
            let job = describe(&app, "other").await;
            (job["SecondaryStatus"] == "Pending").then_some(job)
        })
        .await;
    let message = waiting["SecondaryStatusTransitions"][1]["StatusMessage"].as_str().unwrap();
    assert!(message.contains("in use by the warm pool of keeper"), "{message}");
    // A matching job does not have to wait, and gives the place back since it keeps no pool itself.
    let (code, message) =
        app.refused("SageMaker.DeleteTrainingJob", json!({"TrainingJobName": "keeper"})).await;
    assert_eq!(code, "ResourceInUse");
    assert!(message.contains("KeepAlivePeriodInSeconds"), "{message}");
    assert_eq!(run(&app, training_job_without_pool("matching")).await, Value::Null);
    assert_eq!(describe(&app, "keeper").await["WarmPoolStatus"]["ReusedByJob"], "matching");
    app.ended("other").await;
    app.ok("SageMaker.DeleteTrainingJob", json!({"TrainingJobName": "keeper"})).await;
    assert_eq!(listed(&app, "Reused").await, Vec::<String>::new());
}

#[tokio::test]
async fn an_update_puts_the_end_off_or_brings_it() {
    let app = app_for_one().await;
    run(&app, warm_job("kept", 60)).await;
    app.clock.advance(50_000);
    keep_alive(&app, "kept", 3600).await;
    app.clock.advance(50_000);
    let job = describe(&app, "kept").await;
    assert_eq!(job["WarmPoolStatus"]["Status"], "Available");
    assert_eq!(job["ResourceConfig"]["KeepAlivePeriodInSeconds"], 3600);
    keep_alive(&app, "kept", 0).await;
    assert_eq!(
        describe(&app, "kept").await["WarmPoolStatus"],
        json!({"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 100})
    );
    // The machine is free for others.
    let mut other = training_job_without_pool("other");
    other["RoleArn"] = json!("arn:aws:iam::123456789012:role/Another");
    run(&app, other).await;
    let update = json!({"TrainingJobName": "kept", "ResourceConfig": {"KeepAlivePeriodInSeconds": 60}});
    let (code, message) = app.refused("SageMaker.UpdateTrainingJob", update).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("has a warm pool in status Terminated"), "{message}");
    let update = json!({"TrainingJobName": "other", "ResourceConfig": {"KeepAlivePeriodInSeconds": 60}});
    let (_, message) = app.refused("SageMaker.UpdateTrainingJob", update).await;
    assert!(message.contains("has no warm pool"), "{message}");
}

#[tokio::test]
async fn what_the_service_keeps_no_pool_for_is_refused() {
    let app = TestApp::new().await;
    let (code, message) = app.refused("SageMaker.CreateTrainingJob", warm_job("long", 21_601)).await;
    assert_eq!(code, "ValidationException");
    assert!(
        message.contains("'resourceConfig.keepAlivePeriodInSeconds'") && message.contains("21600"),
        "{message}"
    );
    let mut mixed = warm_job("mixed", 60);
    mixed["ResourceConfig"] = json!({"VolumeSizeInGB": 1, "KeepAlivePeriodInSeconds": 60, "InstanceGroups": [
        {"InstanceGroupName": "a", "InstanceType": "ml.m5.large", "InstanceCount": 1}]});
    let (code, message) = app.refused("SageMaker.CreateTrainingJob", mixed).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("KeepAlivePeriodInSeconds"), "{message}");
    let mut spot = warm_job("spot", 60);
    spot["EnableManagedSpotTraining"] = json!(true);
    spot["StoppingCondition"]["MaxWaitTimeInSeconds"] =
        spot["StoppingCondition"]["MaxRuntimeInSeconds"].clone();
    let (code, message) = app.refused("SageMaker.CreateTrainingJob", spot).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("EnableManagedSpotTraining is set to true"), "{message}");
}

#[tokio::test]
async fn a_running_job_uses_its_pool_and_one_that_is_stopped_leaves_it() {
    let app = app_for_one().await;
    let mut job = warm_job("endless", 60);
    job["AlgorithmSpecification"]["ContainerEntrypoint"] = json!(["sleep", "1000"]);
    app.ok("SageMaker.CreateTrainingJob", job).await;
    app.until("the job runs", || async {
        (describe(&app, "endless").await["SecondaryStatus"] == "Training").then_some(())
    })
    .await;
    assert_eq!(describe(&app, "endless").await["WarmPoolStatus"], json!({"Status": "InUse"}));
    assert_eq!(listed(&app, "InUse").await, ["endless"]);
    let update = json!({"TrainingJobName": "endless", "ResourceConfig": {"KeepAlivePeriodInSeconds": 90}});
    let (_, message) = app.refused("SageMaker.UpdateTrainingJob", update).await;
    assert!(message.contains("in status InUse"), "{message}");
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "endless"})).await;
    assert_eq!(app.ended("endless").await["WarmPoolStatus"]["Status"], "Available");
}

/// The place of the job is its own, so that it does not wait for itself.
#[tokio::test]
async fn a_job_that_is_retried_keeps_the_place_of_its_pool() {
    let app = app_for_one().await;
    let mut job = warm_job("retried", 60);
    let script =
        "test -e /opt/ml/checkpoints/begun || { touch /opt/ml/checkpoints/begun; echo begun; sleep 1000; }";
    job["AlgorithmSpecification"]["ContainerEntrypoint"] = json!(["/bin/sh", "-c"]);
    job["AlgorithmSpecification"]["ContainerArguments"] = json!([script]);
    job["CheckpointConfig"] = json!({"S3Uri": "s3://results/checkpoints"});
    job["RetryStrategy"] = json!({"MaximumRetryAttempts": 1});
    app.ok("SageMaker.CreateTrainingJob", job).await;
    let checkpoint = || app.app.objects.head("123456789012", "results", "checkpoints/begun");
    app.until("the job has left its checkpoint", || async { checkpoint().await.ok() }).await;
    let ids = app.app.executor.list().unwrap();
    let attempt = app.app.config.data_dir.join("workloads").join(&ids[0]).join("attempt.json");
    let attempt: Value = serde_json::from_slice(&std::fs::read(attempt).unwrap()).unwrap();
    let supervisor = i32::try_from(attempt["supervisor_pid"].as_i64().unwrap()).unwrap();
    let supervisor = rustix::process::Pid::from_raw(supervisor).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    let job = app.ended("retried").await;
    assert_eq!(job["TrainingJobStatus"], "Completed", "{job}");
    assert_eq!(job["WarmPoolStatus"]["Status"], "Available");
    let transitions = job["SecondaryStatusTransitions"].as_array().unwrap();
    assert!(transitions.iter().any(|one| one["Status"] == "Restarting"), "{job}");
    let found = app.ok("SageMaker.Search", json!({"Resource": "TrainingJob"})).await;
    assert_eq!(found["Results"][0]["TrainingJob"]["WarmPoolStatus"]["Status"], "Available", "{found}");
}

#[tokio::test]
async fn a_matching_job_in_line_takes_the_pool_as_soon_as_it_is_there() {
    let app = app_for_one().await;
    let mut job = warm_job("holder", 600);
    job["AlgorithmSpecification"]["ContainerEntrypoint"] = json!(["sleep", "1000"]);
    app.ok("SageMaker.CreateTrainingJob", job).await;
    app.until("the job runs", || async {
        (describe(&app, "holder").await["SecondaryStatus"] == "Training").then_some(())
    })
    .await;
    app.ok("SageMaker.CreateTrainingJob", warm_job("in-line", 600)).await;
    app.until("the next job waits", || async {
        (describe(&app, "in-line").await["SecondaryStatus"] == "Pending").then_some(())
    })
    .await;
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "holder"})).await;
    assert_eq!(app.ended("in-line").await["TrainingJobStatus"], "Completed");
    assert_eq!(describe(&app, "holder").await["WarmPoolStatus"]["ReusedByJob"], "in-line");
}
