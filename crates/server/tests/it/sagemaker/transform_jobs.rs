//! Transform jobs: what is accepted, refused, described and listed. What they do when they run is in the client tests.

use serde_json::{Value, json};

use crate::app::TestApp;

/// A request that is accepted once the model is there.
fn transform_job(name: &str) -> Value {
    json!({
        "TransformJobName": name,
        "ModelName": "model",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/in"}},
            "ContentType": "text/csv", "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": "s3://data/out", "Accept": "text/csv"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    })
}

async fn with_model() -> TestApp {
    let app = TestApp::new().await;
    let image = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-base-python:3.11";
    let model = json!({
        "ModelName": "model", "PrimaryContainer": {"Image": image, "ModelDataUrl": "s3://data/model.tar.gz"},
        "ExecutionRoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
    });
    app.ok("SageMaker.CreateModel", model).await;
    app
}

async fn ended(app: &TestApp, name: &str) -> Value {
    app.until(&format!("{name} ends"), || async {
        let job = app.ok("SageMaker.DescribeTransformJob", json!({"TransformJobName": name})).await;
        let ended = matches!(job["TransformJobStatus"].as_str(), Some("Completed" | "Failed" | "Stopped"));
        ended.then_some(job)
    })
    .await
}

#[tokio::test]
async fn a_job_is_described_as_it_was_asked_for_and_fails_without_input() {
    let app = with_model().await;
    app.ok("SageMaker.CreateExperiment", json!({"ExperimentName": "e"})).await;
    let mut job = transform_job("first");
    job["ExperimentConfig"] = json!({"ExperimentName": "e"});
    job["Environment"] = json!({"A": "1"});
    job["Tags"] = json!([{"Key": "team", "Value": "a"}]);
    let created = app.ok("SageMaker.CreateTransformJob", job.clone()).await;
    let arn = "arn:aws:sagemaker:us-east-1:123456789012:transform-job/first";
    assert_eq!(created, json!({"TransformJobArn": arn}));
    let shown = ended(&app, "first").await;
    for member in ["ModelName", "TransformResources", "Environment", "ExperimentConfig"] {
        assert_eq!(shown[member], job[member], "{member}");
    }
    assert_eq!(shown["TransformInput"]["CompressionType"], "None");
    assert_eq!(shown["TransformJobStatus"], "Failed");
    let reason = shown["FailureReason"].as_str().unwrap();
    assert!(reason.starts_with("ClientError: ") && reason.contains("s3://data/in"), "{reason}");
    let tags = app.ok("SageMaker.ListTags", json!({"ResourceArn": arn})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "team", "Value": "a"}]));
    let component = json!({"TrialComponentName": "first-aws-transform-job"});
    let component = app.ok("SageMaker.DescribeTrialComponent", component).await;
    assert_eq!(component["Status"]["PrimaryStatus"], "Failed");
    assert_eq!(component["InputArtifacts"]["SageMaker.ModelName"]["Value"], "model");
    let events = app.ok("Modelyard.ListEvents", json!({"After": 0})).await;
    assert!(events.to_string().contains("SageMaker Transform Job State Change"));
    let why = app.ok("Modelyard.ExplainTrainingJob", json!({"TrainingJobName": "first"})).await;
    assert_eq!(why["Explanation"]["Card"]["cause"], "input");

    let listed = app.ok("SageMaker.ListTransformJobs", json!({"StatusEquals": "Failed"})).await;
    let jobs = listed["TransformJobSummaries"].as_array().unwrap();
    assert_eq!((jobs.len(), jobs[0]["TransformJobName"].as_str()), (1, Some("first")));
    assert!(jobs[0]["FailureReason"].is_string());
    let (code, text) = app.refused("SageMaker.CreateTransformJob", transform_job("first")).await;
    assert!(code == "ResourceInUse" && text.contains("Job name must be unique"), "{code}: {text}");
    let (code, text) = app.refused("SageMaker.StopTransformJob", json!({"TransformJobName": "first"})).await;
    assert!(code == "ValidationException" && text.contains("in status Failed"), "{code}: {text}");
    let (_, text) = app.refused("SageMaker.DescribeTransformJob", json!({"TransformJobName": "none"})).await;
    assert!(text.contains("transform-job/none"), "{text}");
}

#[tokio::test]
async fn a_model_that_is_not_there_is_refused_or_fails_the_job() {
    let app = with_model().await;
    let mut job = transform_job("none");
    job["ModelName"] = "nobody".into();
    let (code, text) = app.refused("SageMaker.CreateTransformJob", job).await;
    assert!(code == "ValidationException" && text.contains("model/nobody"), "{code}: {text}");
    app.app.objects.create_bucket("123456789012", "us-east-1", "data").await.unwrap();
    let mut object = app.app.objects.begin("123456789012", "data").await.unwrap();
    object.write(b"1\n").unwrap();
    let (attributes, condition) = Default::default();
    app.app.objects.commit("123456789012", "data", "in/a.csv", object, attributes, condition).await.unwrap();
    app.ok("SageMaker.CreateTransformJob", transform_job("gone")).await;
    let reason = ended(&app, "gone").await["FailureReason"].clone();
    let reason = reason.as_str().unwrap();
    assert!(reason.starts_with("ClientError: s3://data/model.tar.gz cannot be read"), "{reason}");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let app = with_model().await;
    type Change = fn(&mut Value);
    let refusals: &[(&str, Change)] = &[
        ("S3DataType: AugmentedManifestFile", |job| {
            job["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"] =
                "AugmentedManifestFile".into();
        }),
        ("TransformOutput.S3OutputPath", |job| {
            job["TransformOutput"]["S3OutputPath"] = "https://data/out".into();
        }),
        ("MaxPayloadInMB: it cannot be above 100", |job| job["MaxPayloadInMB"] = 101.into()),
        ("MaxConcurrentTransforms times MaxPayloadInMB", |job| {
            job["MaxPayloadInMB"] = 26.into();
            job["MaxConcurrentTransforms"] = 4.into();
        }),
        ("BatchStrategy: SingleRecord", |job| {
            job["BatchStrategy"] = "SingleRecord".into();
            job["TransformInput"]["SplitType"] = "None".into();
        }),
        ("DataProcessing.OutputFilter", |job| job["DataProcessing"] = json!({"OutputFilter": "$[?(@)]"})),
        ("TransformOutput.Accept", |job| {
            job["TransformOutput"]["Accept"] = "application/json".into();
            job["DataProcessing"] = json!({"JoinSource": "Input"});
        }),
        ("GenerateInferenceId", |job| {
            job["TransformOutput"]["Accept"] = "image/png".into();
            job["DataCaptureConfig"] =
                json!({"DestinationS3Uri": "s3://data/c", "GenerateInferenceId": true});
        }),
        ("TransformOutput.KmsKeyId", |job| job["TransformOutput"]["KmsKeyId"] = "nobody".into()),
        ("VolumeKmsKeyId", |job| job["TransformResources"]["VolumeKmsKeyId"] = "key".into()),
        ("InstanceCount above 32", |job| job["TransformResources"]["InstanceCount"] = 33.into()),
    ];
    for (expected, change) in refusals {
        let mut job = transform_job("refused");
        change(&mut job);
        let (_, text) = app.refused("SageMaker.CreateTransformJob", job).await;
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let listed = app.ok("SageMaker.ListTransformJobs", json!({})).await;
    assert_eq!(listed["TransformJobSummaries"], json!([]));
}
