//! Jobs that are prepared while they wait, and what keeps them from running what was prepared.

use serde_json::json;

use super::failures::{explained, log, script, system};
use super::spot::{describe, statuses, until_line, until_nothing_is_left, until_status};
use crate::app::TestApp;

/// An app with one place, which a job has until it is stopped.
async fn one_place() -> TestApp {
    let app = system(|config| config.parallel_jobs = 1).await;
    app.ok("SageMaker.CreateTrainingJob", script("holds", "while :; do sleep 0.02; done")).await;
    until_status(&app, "holds", "Training").await;
    app
}

/// The workload of a job that is held.
async fn until_held(app: &TestApp) -> String {
    app.until("a job is held", || async {
        let ids = app.app.executor.list().unwrap();
        let is_ready = |id: &String| {
            app.app.executor.is_held(id).unwrap_or(false)
                && app.app.executor.containment(id).unwrap().is_some()
        };
        ids.into_iter().find(is_ready)
    })
    .await
}

async fn put(app: &TestApp, key: &str, content: &str) {
    let file = app.app.config.data_dir.join("put");
    std::fs::write(&file, content).unwrap();
    let put = app.app.objects.put_from_path("123456789012", "results", key, &file, None, None);
    put.await.unwrap();
}

async fn stop(app: &TestApp, name: &str) {
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": name})).await;
}

#[tokio::test]
async fn a_job_that_waits_is_prepared_and_runs_on_its_turn() {
    let app = one_place().await;
    app.ok("SageMaker.CreateTrainingJob", script("next", "echo ran; hostname")).await;
    let workload = until_held(&app).await;
    let waiting = describe(&app, "next").await;
    assert_eq!(statuses(&waiting), ["Starting", "Pending"]);
    assert!(waiting["TrainingStartTime"].is_null(), "{waiting}");
    let why = explained(&app, "next").await["Sentence"].as_str().unwrap().to_owned();
    assert!(why.contains("in use by holds"), "{why}");
    let run = app.ok("Modelyard.DescribeRun", json!({"TrainingJobName": "next"})).await;
    assert_eq!(run["Hosts"], json!({}), "its program has not run");
    stop(&app, "holds").await;
    let next = app.ended("next").await;
    assert_eq!(next["TrainingJobStatus"], "Completed", "{next}");
    let expected = ["Starting", "Pending", "Starting", "Downloading", "Training", "Uploading", "Completed"];
    assert_eq!(statuses(&next), expected);
    assert_eq!(log(&app, "next").await, ["ran", "algo-1"]);
    let recorded = app.app.database.read(|session| session.all_resources("training-job")).await.unwrap();
    let next = recorded.iter().find(|job| job.key.name == "next").unwrap();
    assert_eq!(next.document["hosts"][0]["workload"], json!(workload), "it ran in what was prepared");
    until_nothing_is_left(&app).await;
}

#[tokio::test]
async fn each_status_of_a_job_that_was_prepared_has_its_event() {
    let app = one_place().await;
    app.ok("SageMaker.CreateTrainingJob", script("next", "true")).await;
    until_held(&app).await;
    stop(&app, "holds").await;
    app.ended("next").await;
    let events = super::failures::events(&app, "next").await;
    let whats: Vec<&str> = events.iter().map(|event| event.what.as_str()).collect();
    let follow = whats.iter().filter(|what| !what.contains("State Change")).copied().collect::<Vec<_>>();
    let expected = ["Pending", "Starting", "Downloading", "Training", "Uploading", "Completed"];
    let found: Vec<&str> = follow.into_iter().filter(|what| expected.contains(what)).collect();
    assert_eq!(found, expected, "{whats:?}");
}

#[tokio::test]
async fn inputs_that_change_while_a_job_waits_are_read_on_its_turn() {
    let app = one_place().await;
    put(&app, "data/part", "old").await;
    let mut job = script("reads", "cat /opt/ml/input/data/train/*");
    job["InputDataConfig"] = json!([{"ChannelName": "train", "DataSource": {"S3DataSource":
        {"S3DataType": "S3Prefix", "S3Uri": "s3://results/data/"}}}]);
    app.ok("SageMaker.CreateTrainingJob", job).await;
    let stale = until_held(&app).await;
    put(&app, "elsewhere", "not read").await;
    put(&app, "data/part", "new").await;
    stop(&app, "holds").await;
    let job = app.ended("reads").await;
    assert_eq!(job["TrainingJobStatus"], "Completed", "{job}");
    assert_eq!(log(&app, "reads").await, ["new"]);
    until_nothing_is_left(&app).await;
    assert!(!app.app.config.data_dir.join("jobs").join(stale).exists());
}

#[tokio::test]
async fn a_job_that_is_stopped_while_it_is_held_leaves_nothing() {
    let app = one_place().await;
    app.ok("SageMaker.CreateTrainingJob", script("unwanted", "echo ran")).await;
    let workload = until_held(&app).await;
    stop(&app, "unwanted").await;
    let job = app.ended("unwanted").await;
    assert_eq!(statuses(&job), ["Starting", "Pending", "Stopping", "Stopped"]);
    app.until("its folders are gone", || async {
        let folder = app.app.config.data_dir.join("jobs").join(&workload);
        let is_known = app.app.executor.list().unwrap().contains(&workload);
        (!is_known && !folder.exists()).then_some(())
    })
    .await;
    stop(&app, "holds").await;
    app.ended("holds").await;
}

#[tokio::test]
async fn a_job_that_cannot_be_prepared_ahead_fails_on_its_turn_and_says_why() {
    let app = one_place().await;
    let mut job = script("lacks", "true");
    job["InputDataConfig"] = json!([{"ChannelName": "train", "DataSource": {"S3DataSource":
        {"S3DataType": "S3Prefix", "S3Uri": "s3://results/nothing/"}}}]);
    app.ok("SageMaker.CreateTrainingJob", job).await;
    // It is the third that is held, so the other one was looked at.
    app.ok("SageMaker.CreateTrainingJob", script("good", "true")).await;
    until_held(&app).await;
    assert_eq!(statuses(&describe(&app, "lacks").await), ["Starting", "Pending"]);
    stop(&app, "holds").await;
    let lacks = app.ended("lacks").await;
    assert!(lacks["FailureReason"].as_str().unwrap().contains("s3://results/nothing/"), "{lacks}");
    assert_eq!(app.ended("good").await["TrainingJobStatus"], "Completed");
    until_nothing_is_left(&app).await;
}

#[tokio::test]
async fn a_held_sandbox_that_was_killed_is_made_anew() {
    let app = one_place().await;
    app.ok("SageMaker.CreateTrainingJob", script("tough", "echo ran")).await;
    let workload = until_held(&app).await;
    app.app.executor.kill(&workload).unwrap();
    app.app.executor.wait(&workload).await.unwrap();
    stop(&app, "holds").await;
    assert_eq!(app.ended("tough").await["TrainingJobStatus"], "Completed");
    until_line(&app, "tough", "ran").await;
}

/// Puts a processing job in line that succeeds when its input says `word`; waits until it is held; puts `later` into the input, and lets
/// the job have its turn. Answers its description, and whether it ran in what was prepared.
async fn processed(word: &str, later: Option<&str>) -> (serde_json::Value, bool) {
    let app = one_place().await;
    put(&app, "data/part", "old").await;
    let training = script("none", "true");
    let source = json!({
        "S3Uri": "s3://results/data/", "LocalPath": "/opt/ml/processing/input/data", "S3DataType": "S3Prefix", "S3InputMode": "File",
    });
    let test = format!("test \"$(cat /opt/ml/processing/input/data/part)\" = {word}");
    let job = json!({
        "ProcessingJobName": "next", "RoleArn": training["RoleArn"], "ProcessingInputs": [{"InputName": "data", "S3Input": source}],
        "AppSpecification": {
            "ImageUri": training["AlgorithmSpecification"]["TrainingImage"], "ContainerEntrypoint": ["/bin/sh", "-c", test],
        },
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
    });
    app.ok("SageMaker.CreateProcessingJob", job).await;
    let workload = until_held(&app).await;
    if let Some(later) = later {
        put(&app, "data/part", later).await;
    }
    stop(&app, "holds").await;
    let ended = app
        .until("the processing job ends", || async {
            let job = app.ok("SageMaker.DescribeProcessingJob", json!({"ProcessingJobName": "next"})).await;
            (job["ProcessingJobStatus"] != "InProgress").then_some(job)
        })
        .await;
    let recorded = app.app.database.read(|session| session.all_resources("processing-job")).await.unwrap();
    let is_prepared = recorded[0].document["hosts"][0]["workload"] == json!(workload);
    until_nothing_is_left(&app).await;
    (ended, is_prepared)
}

#[tokio::test]
async fn a_processing_job_that_waits_is_prepared_and_reads_what_is_there_on_its_turn() {
    let (job, is_prepared) = processed("old", None).await;
    assert_eq!((&job["ProcessingJobStatus"], is_prepared), (&json!("Completed"), true), "{job}");
    let (job, is_prepared) = processed("new", Some("new")).await;
    assert_eq!((&job["ProcessingJobStatus"], is_prepared), (&json!("Completed"), false), "{job}");
}
