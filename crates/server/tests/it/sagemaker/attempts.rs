//! Attempts that a server finds half done, as one leaves them that was killed; and jobs of several hosts.

use serde_json::{Value, json};
use store::resources::ResourceKey;

use super::failures::{explained, log, script, system};
use super::spot::{TWO_RUNS, describe, job, spot, statuses, until_line, until_nothing_is_left, until_status};
use crate::app::TestApp;

/// An app whose one place is taken by the job `holds`.
async fn held() -> TestApp {
    let app = system(|config| config.capacity = toml::from_str("mode = 'reserved'").unwrap()).await;
    app.ok("SageMaker.CreateTrainingJob", script("holds", "while :; do sleep 0.05; done")).await;
    until_status(&app, "holds", "Training").await;
    app
}

/// Creates a job that waits, and changes what is kept of it while it does.
async fn waiting(app: &TestApp, job: Value, change: impl FnOnce(&mut Value) + Send + 'static) {
    let name = job["TrainingJobName"].as_str().unwrap().to_owned();
    app.ok("SageMaker.CreateTrainingJob", job).await;
    until_status(app, &name, "Pending").await;
    let key = ResourceKey::new("123456789012", "us-east-1", "training-job", name.as_str());
    let now_ms = app.clock.now_ms();
    let changed = app.app.database.write(move |session| {
        session.update_resource(&key, now_ms, |resource| {
            change(&mut resource.document);
            Ok(())
        })
    });
    changed.await.unwrap();
}

async fn let_go(app: &TestApp) {
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "holds"})).await;
}

#[tokio::test]
async fn an_interruption_that_was_only_written_down_is_carried_out() {
    let app = held().await;
    let noted = |document: &mut Value| {
        document["attempts"]["interruption"] = json!({"asked_at": 1, "reason": "asked for before"});
    };
    waiting(&app, spot(script("noted", "echo ran")), noted).await;
    let_go(&app).await;
    let noted = app.ended("noted").await;
    assert_eq!(noted["TrainingJobStatus"], "Completed", "{noted}");
    let statuses = statuses(&noted);
    assert_eq!(statuses.iter().filter(|status| **status == "Restarting").count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == "Training").count(), 1, "{statuses:?}");
    assert_eq!(log(&app, "noted").await.iter().filter(|line| *line == "ran").count(), 1);
}

#[tokio::test]
async fn what_an_attempt_left_is_removed_before_the_next_one() {
    let app = held().await;
    let folder = app.app.config.data_dir.join("jobs/job-over");
    std::fs::create_dir_all(folder.join("opt-ml")).unwrap();
    let over = |document: &mut Value| {
        document["hosts"] =
            json!([{"name": "algo-1", "workload": "job-over", "log_stream": "over/algo-1-1"}]);
        document["training_started_at"] = json!(1_000);
        document["attempts"] = json!({"interruptions": 1, "ran_before_ms": 7_000, "is_between": true});
    };
    waiting(&app, spot(script("over", "true")), over).await;
    let why = explained(&app, "over").await["Sentence"].as_str().unwrap().to_owned();
    assert!(why.contains("in use by holds"), "{why}");
    let_go(&app).await;
    let over = app.ended("over").await;
    assert_eq!(over["TrainingJobStatus"], "Completed", "{over}");
    assert!(!folder.exists());
    assert_eq!(over["TrainingStartTime"], 1.0, "the first attempt's");
    assert!(over["TrainingTimeInSeconds"].as_i64().unwrap() >= 8, "{over}");
    assert!(log(&app, "over").await.contains(&"modelyard: attempt 2 of the job begins".to_owned()));
}

#[tokio::test]
async fn the_time_limit_is_that_of_all_attempts() {
    let app = held().await;
    let used = |ran_before_ms: i64| {
        move |document: &mut Value| {
            document["attempts"] = json!({"retries": 1, "ran_before_ms": ran_before_ms});
        }
    };
    waiting(&app, script("second-left", "echo begun; sleep 1000"), used(59_000)).await;
    let nothing_left = |document: &mut Value| {
        document["attempts"] =
            json!({"ran_before_ms": 60_000, "interruption": {"asked_at": 1, "reason": "late"}});
    };
    waiting(&app, spot(script("nothing-left", "echo begun")), nothing_left).await;
    waiting(&app, script("time-left", "echo begun"), used(30_000)).await;
    let_go(&app).await;
    let ended = app.ended("second-left").await;
    assert_eq!(
        (&ended["TrainingJobStatus"], &ended["SecondaryStatus"]),
        (&json!("Stopped"), &json!("MaxRuntimeExceeded"))
    );
    assert!((60..=75).contains(&ended["TrainingTimeInSeconds"].as_i64().unwrap()), "{ended}");
    let ended = app.ended("nothing-left").await;
    assert_eq!(ended["SecondaryStatus"], "MaxRuntimeExceeded", "{ended}");
    assert!(!statuses(&ended).contains(&"Training"), "{ended}");
    assert_eq!(app.ended("time-left").await["TrainingJobStatus"], "Completed");
}

#[tokio::test]
async fn a_job_that_is_stopped_between_two_attempts_is_stopped() {
    let app = held().await;
    let between = |document: &mut Value| {
        document["attempts"] = json!({"interruptions": 1, "ran_before_ms": 2_500, "is_between": true});
    };
    waiting(&app, spot(script("between", "true")), between).await;
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "between"})).await;
    let between = app.ended("between").await;
    assert_eq!(between["TrainingJobStatus"], "Stopped");
    assert_eq!(between["TrainingTimeInSeconds"], 3, "what it had run before: {between}");
    let_go(&app).await;
    app.ended("holds").await;
}

#[tokio::test]
async fn all_hosts_are_interrupted_and_begin_anew_together() {
    let app = system(|_| {}).await;
    let mut pair = spot(job("pair", TWO_RUNS));
    pair["ResourceConfig"]["InstanceCount"] = json!(2);
    app.ok("SageMaker.CreateTrainingJob", pair).await;
    // Each host has its own trap; wait until both have set it.
    until_line(&app, "pair", "begun").await;
    app.until("both hosts keep a checkpoint", || async {
        let streams = app
            .ok(
                "Logs_20140328.FilterLogEvents",
                json!({"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamNamePrefix": "pair/"}),
            )
            .await;
        let begun =
            streams["events"].as_array().unwrap().iter().filter(|event| event["message"] == "begun").count();
        (begun == 2).then_some(())
    })
    .await;
    app.ok("Modelyard.InterruptTrainingJob", json!({"TrainingJobName": "pair"})).await;
    let pair = app.ended("pair").await;
    assert_eq!(pair["TrainingJobStatus"], "Completed", "{pair}");
    assert_eq!(statuses(&pair).iter().filter(|status| **status == "Interrupted").count(), 1);
    assert_eq!(describe(&app, "pair").await["SecondaryStatus"], "Completed");
    until_nothing_is_left(&app).await;
}
