//! What CreateTrainingJob may ask for of its hosts. What they do is in the client tests.

use serde_json::{Value, json};

use crate::app::{TestApp, training_job};

fn with_groups(groups: &Value) -> Value {
    let mut job = training_job("groups");
    job["ResourceConfig"] = json!({"VolumeSizeInGB": 10, "InstanceGroups": groups});
    job
}

fn group(name: &str, count: i64) -> Value {
    json!({"InstanceGroupName": name, "InstanceType": "ml.m5.large", "InstanceCount": count})
}

fn channel(groups: &Value) -> Value {
    json!({"ChannelName": "train", "DataSource": {"S3DataSource": {
        "S3DataType": "S3Prefix", "S3Uri": "s3://bucket/prefix", "InstanceGroupNames": groups,
    }}})
}

#[tokio::test]
async fn groups_are_taken_and_shown() {
    let app = TestApp::new().await;
    let mut job = with_groups(&json!([group("train", 2), group("data", 1)]));
    job["InputDataConfig"] = json!([channel(&json!(["data"]))]);
    let asked = job.clone();
    app.ok("SageMaker.CreateTrainingJob", job).await;
    let shown = app.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": "groups"})).await;
    for field in ["ResourceConfig", "InputDataConfig"] {
        assert_eq!(shown[field], asked[field], "{field}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_reason() {
    let app = TestApp::new().await;
    let refused = async |job: Value, expected: &str| {
        let (code, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
        assert_eq!(code, "ValidationException");
        assert!(message.contains(expected), "{expected}: {message}");
    };
    let mut both = with_groups(&json!([group("train", 1)]));
    both["ResourceConfig"]["InstanceCount"] = json!(2);
    refused(both, "ResourceConfig.InstanceCount cannot be given together").await;
    refused(with_groups(&json!([group("a", 1), group("a", 1)])), "the name \"a\" is given twice").await;
    refused(with_groups(&json!([group("a", 0)])), "of the group \"a\" must be at least 1").await;
    refused(with_groups(&json!([])), "ResourceConfig.InstanceCount must be given").await;
    let mut unknown = with_groups(&json!([group("train", 1)]));
    unknown["InputDataConfig"] = json!([channel(&json!(["data"]))]);
    refused(unknown, "names \"data\", which is not in ResourceConfig.InstanceGroups").await;

    let with = |field: &str, value: Value| {
        let mut job = training_job("hosts");
        job["ResourceConfig"]["InstanceCount"] = json!(2);
        job[field] = value;
        job
    };
    refused(
        with("HyperParameters", json!({"sagemaker_parameter_server_enabled": "true"})),
        "the hyperparameter sagemaker_parameter_server_enabled",
    )
    .await;
    for (count, expected) in [(251, "InstanceCount above 250"), (0, "must be at least 1")] {
        let mut job = training_job("hosts");
        job["ResourceConfig"]["InstanceCount"] = json!(count);
        refused(job, expected).await;
    }
    app.ok("SageMaker.CreateTrainingJob", with("EnableNetworkIsolation", json!(true))).await;
}
