//! Who may run: instance types, reservations, queues, and what a waiting job says.

use serde_json::{Value, json};

use crate::app::{TestApp, training_job};

/// A job that runs until it is stopped.
fn endless(name: &str, instance_type: &str) -> Value {
    let mut job = training_job(name);
    job["ResourceConfig"]["InstanceType"] = json!(instance_type);
    job["AlgorithmSpecification"]["ContainerEntrypoint"] = json!(["sleep", "1000"]);
    job
}

async fn describe(app: &TestApp, name: &str) -> Value {
    app.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": name})).await
}

async fn wait_for(app: &TestApp, name: &str, secondary: &str) -> Value {
    wait_until(app, name, secondary, |job| job["SecondaryStatus"] == secondary).await
}

/// Looks at the job every few milliseconds.
async fn wait_until(app: &TestApp, name: &str, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
    let looking = async {
        loop {
            looks.tick().await;
            let job = describe(app, name).await;
            if reached(&job) {
                return job;
            }
        }
    };
    match tokio::time::timeout(std::time::Duration::from_secs(60), looking).await {
        Ok(job) => job,
        Err(_) => panic!("{name} did not become {what}: {}", describe(app, name).await),
    }
}

async fn stop(app: &TestApp, name: &str) {
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": name})).await;
    // There is no bucket for its model, which may fail it in the end.
    wait_until(app, name, "ended", |job| {
        job.get("TrainingEndTime").is_some() && job["TrainingJobStatus"] != "Stopping"
    })
    .await;
}

#[tokio::test]
async fn what_can_never_fit_fails_at_once_and_says_what_would_fit() {
    let app = TestApp::with_capacity("mode = 'reserved'").await;
    app.ok("SageMaker.CreateTrainingJob", endless("wide", "ml.p3.2xlarge")).await;
    let job = wait_for(&app, "wide", "Failed").await;
    assert_eq!(
        job["FailureReason"],
        "CapacityError: the job needs ml.p3.2xlarge (8 vCPUs, 61 GiB, 1 x NVIDIA V100), and this machine has \
         2 CPUs, 8.0 GiB memory and no GPU. What fits: ml.m5.large."
    );
}

#[tokio::test]
async fn a_waiting_job_says_what_it_waits_for_and_runs_when_there_is_room() {
    let app = TestApp::with_capacity("mode = 'reserved'").await;
    app.ok("SageMaker.CreateTrainingJob", endless("first", "ml.m5.large")).await;
    wait_for(&app, "first", "Training").await;
    app.ok("SageMaker.CreateTrainingJob", endless("second", "ml.m5.large")).await;
    let job = wait_for(&app, "second", "Pending").await;
    let last = job["SecondaryStatusTransitions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        last["StatusMessage"],
        "Waiting for 2 CPUs (0 free), 8.0 GiB memory (0.0 free); in use by first (place 1 of 1 in line)"
    );
    stop(&app, "first").await;
    wait_for(&app, "second", "Training").await;
    stop(&app, "second").await;
}

#[tokio::test]
async fn a_waiting_job_can_be_stopped() {
    let app = TestApp::with_capacity("queues.small.max_running_jobs = 1").await;
    let job = |name: &str| {
        let mut job = endless(name, "ml.m5.large");
        job["Tags"] = json!([{"Key": "modelyard:queue", "Value": "small"}]);
        job
    };
    app.ok("SageMaker.CreateTrainingJob", job("holds")).await;
    wait_for(&app, "holds", "Training").await;
    app.ok("SageMaker.CreateTrainingJob", job("waits")).await;
    let waiting = wait_for(&app, "waits", "Pending").await;
    let message = waiting["SecondaryStatusTransitions"][1]["StatusMessage"].as_str().unwrap();
    assert!(message.contains("queue \"small\""), "{message}");
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "waits"})).await;
    wait_for(&app, "waits", "Stopped").await;
    stop(&app, "holds").await;
}

#[tokio::test]
async fn types_of_the_users_own_are_accepted_and_unknown_ones_refused() {
    let table = "instance_types.'ml.team.big' = { vcpus = 1, memory_gib = 2 }";
    let app = TestApp::with_capacity(table).await;
    app.ok("SageMaker.CreateTrainingJob", endless("own", "ml.team.big")).await;
    wait_for(&app, "own", "Training").await;
    stop(&app, "own").await;
    let (code, message) = app.refused("SageMaker.CreateTrainingJob", endless("no", "ml.team.small")).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("'ml.team.small' at 'resourceConfig.instanceType'"), "{message}");
    let mut job = endless("no", "ml.m5.large");
    job["Tags"] = json!([{"Key": "modelyard:priority", "Value": "high"}]);
    let (_, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
    assert!(message.contains("modelyard:priority"), "{message}");
}
