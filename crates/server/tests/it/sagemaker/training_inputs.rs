//! What channels, checkpoints and outputs of CreateTrainingJob may ask for. What they do is in the client tests.

use serde_json::{Value, json};

use crate::app::{TestApp, training_job};

fn channel(name: &str, source: &Value) -> Value {
    let mut data_source = json!({"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/prefix"});
    for (field, value) in source.as_object().unwrap() {
        data_source[field] = value.clone();
    }
    json!({"ChannelName": name, "DataSource": {"S3DataSource": data_source}})
}

fn with(mut channel: Value, fields: &Value) -> Value {
    for (field, value) in fields.as_object().unwrap() {
        channel[field] = value.clone();
    }
    channel
}

#[tokio::test]
async fn every_kind_of_channel_is_taken_and_shown() {
    let app = TestApp::new().await;
    let mut job = training_job("kinds");
    let augmented = json!({"S3DataType": "AugmentedManifestFile", "S3Uri": "s3://bucket/a.manifest", "AttributeNames": ["x-ref", "y"]});
    job["AlgorithmSpecification"]["TrainingInputMode"] = json!("Pipe");
    job["InputDataConfig"] = json!([
        with(
            channel("augmented", &augmented),
            &json!({"RecordWrapperType": "RecordIO", "ShuffleConfig": {"Seed": -3}})
        ),
        with(
            channel("packed", &json!({"S3DataDistributionType": "ShardedByS3Key"})),
            &json!({"CompressionType": "Gzip"})
        ),
        with(
            channel("listed", &json!({"S3DataType": "ManifestFile", "S3Uri": "s3://bucket/list"})),
            &json!({"InputMode": "File"})
        ),
        with(channel("fast", &json!({})), &json!({"InputMode": "FastFile", "ContentType": "text/csv"})),
    ]);
    job["OutputDataConfig"]["CompressionType"] = json!("NONE");
    job["CheckpointConfig"] = json!({"S3Uri": "s3://bucket/checkpoints", "LocalPath": "/checkpoints"});
    job["TensorBoardOutputConfig"] = json!({"S3OutputPath": "s3://bucket/tensorboard"});
    let asked = job.clone();
    app.ok("SageMaker.CreateTrainingJob", job).await;
    let shown = app.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": "kinds"})).await;
    for field in ["InputDataConfig", "OutputDataConfig", "CheckpointConfig", "TensorBoardOutputConfig"] {
        assert_eq!(shown[field], asked[field], "{field}");
    }
}

#[tokio::test]
async fn combinations_that_cannot_work_are_refused_with_the_reason() {
    let app = TestApp::new().await;
    let pipe = json!({"InputMode": "Pipe"});
    let augmented = |more: &Value| {
        let source = json!({"S3DataType": "AugmentedManifestFile", "S3Uri": "s3://bucket/a.manifest"});
        channel("train", &with(source, more))
    };
    let cases = [
        (with(augmented(&json!({})), &pipe), "AttributeNames must be given"),
        (
            augmented(&json!({"AttributeNames": ["a"]})),
            "AugmentedManifestFile, which can only be used if the channel's input mode is Pipe; it is File",
        ),
        (
            channel("train", &json!({"AttributeNames": ["a"]})),
            "AttributeNames of the channel \"train\" can only",
        ),
        (
            with(channel("train", &json!({})), &json!({"CompressionType": "Gzip"})),
            "CompressionType Gzip of the channel",
        ),
        (
            with(
                channel("train", &json!({})),
                &json!({"RecordWrapperType": "RecordIO", "InputMode": "FastFile"}),
            ),
            "RecordWrapperType RecordIO of the channel \"train\" can only be used in Pipe input mode; in FastFile mode",
        ),
        (
            channel("train", &json!({"S3DataType": "ManifestFile", "S3Uri": "s3://bucket/"})),
            "must name an object",
        ),
        (channel("train", &json!({"S3Uri": "https://bucket/x"})), "is not an S3 URI"),
        (channel("..", &json!({})), "cannot be the name of a channel"),
        (json!({"ChannelName": "train", "DataSource": {}}), "needs a DataSource.S3DataSource"),
    ];
    for (channel, expected) in cases {
        let mut job = training_job("refused");
        job["InputDataConfig"] = json!([channel]);
        let (code, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
        assert_eq!(code, "ValidationException");
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let mut job = training_job("refused");
    job["InputDataConfig"] =
        json!([with(channel("train", &json!({})), &pipe), channel("train_12", &json!({}))]);
    let (_, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
    assert!(message.contains("the name of an epoch"), "{message}");
}

#[tokio::test]
async fn folders_that_are_not_the_jobs_are_refused() {
    let app = TestApp::new().await;
    for path in [
        "relative",
        "/",
        "/opt/ml/",
        "/opt/ml/../../etc",
        "/usr/lib",
        "/proc/1",
        "/opt/ml/input/data/train",
        "/tmp",
    ] {
        let mut job = training_job("refused");
        job["CheckpointConfig"] = json!({"S3Uri": "s3://bucket/c", "LocalPath": path});
        let (code, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
        assert_eq!(code, "ValidationException");
        assert!(message.starts_with("CheckpointConfig.LocalPath:") && message.contains(path), "{message}");
    }
    let mut job = training_job("refused");
    job["TensorBoardOutputConfig"] = json!({"S3OutputPath": "https://bucket/x"});
    let (_, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
    assert!(message.contains("TensorBoardOutputConfig.S3OutputPath"), "{message}");
}
