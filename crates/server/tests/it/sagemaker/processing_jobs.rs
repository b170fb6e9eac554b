//! Processing jobs: what is accepted, refused, described and listed. What they do when they run is in the client tests.

use serde_json::{Value, json};

use crate::app::TestApp;

const IMAGE: &str = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-base-python:3.11";

/// A request that would be accepted.
fn processing_job(name: &str) -> Value {
    json!({
        "ProcessingJobName": name,
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", "--version"]},
        "ProcessingInputs": [input("data")],
        "ProcessingOutputConfig": {"Outputs": [output("train")]},
        "ProcessingResources": {"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10}},
        "RoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
    })
}

fn input(name: &str) -> Value {
    json!({"InputName": name, "S3Input": {
        "S3Uri": "s3://data/p", "LocalPath": format!("/opt/ml/processing/input/{name}"),
        "S3DataType": "S3Prefix", "S3InputMode": "File",
    }})
}

fn output(name: &str) -> Value {
    json!({"OutputName": name, "S3Output": {
        "S3Uri": "s3://data/o", "LocalPath": format!("/opt/ml/processing/{name}"), "S3UploadMode": "EndOfJob",
    }})
}

async fn ended(app: &TestApp, name: &str) -> Value {
    app.until(&format!("{name} ends"), || async {
        let job = app.ok("SageMaker.DescribeProcessingJob", json!({"ProcessingJobName": name})).await;
        let ended = matches!(job["ProcessingJobStatus"].as_str(), Some("Completed" | "Failed" | "Stopped"));
        ended.then_some(job)
    })
    .await
}

#[tokio::test]
async fn a_job_is_described_as_it_was_asked_for() {
    let app = TestApp::new().await;
    let mut job = processing_job("first");
    job["Environment"] = json!({"A": "1"});
    job["ExperimentConfig"] = json!({"ExperimentName": "e"});
    job["Tags"] = json!([{"Key": "team", "Value": "a"}]);
    let (code, text) = app.refused("SageMaker.CreateProcessingJob", job.clone()).await;
    assert_eq!(code, "ValidationException");
    assert!(text.contains("ExperimentConfig.ExperimentName"), "{text}");
    app.ok("SageMaker.CreateExperiment", json!({"ExperimentName": "e"})).await;
    let created = app.ok("SageMaker.CreateProcessingJob", job.clone()).await;
    let arn = "arn:aws:sagemaker:us-east-1:123456789012:processing-job/first";
    assert_eq!(created, json!({"ProcessingJobArn": arn}));
    let shown = app.ok("SageMaker.DescribeProcessingJob", json!({"ProcessingJobName": "first"})).await;
    for member in [
        "ProcessingInputs",
        "ProcessingOutputConfig",
        "ProcessingResources",
        "AppSpecification",
        "Environment",
        "RoleArn",
        "ExperimentConfig",
    ] {
        assert_eq!(shown[member], job[member], "{member}");
    }
    assert_eq!(shown["CreationTime"], 1_770_000_000.0);
    assert!(shown.get("Tags").is_none() && shown.get("ExitMessage").is_none());
    let tags = app.ok("SageMaker.ListTags", json!({"ResourceArn": arn})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "team", "Value": "a"}]));
    let (code, message) = app.refused("SageMaker.CreateProcessingJob", processing_job("first")).await;
    assert_eq!(code, "ResourceInUse");
    assert!(message.starts_with("Processing job names must be unique"), "{message}");
    // A training job may have the name, too; who asks for the job by name then says which is meant.
    app.ok("SageMaker.CreateTrainingJob", crate::app::training_job("first")).await;
    for operation in ["ExplainTrainingJob", "DescribeRun", "DescribeFailure", "OpenShell"] {
        let target = format!("Modelyard.{operation}");
        let (code, message) = app.refused(&target, json!({"TrainingJobName": "first"})).await;
        assert_eq!(code, "ValidationException");
        let expected = "A training job and a processing job have the name first: say which one is meant";
        assert!(message.starts_with(expected), "{message}");
    }
    for kind in ["training", "processing"] {
        let told =
            app.ok("Modelyard.ExplainTrainingJob", json!({"TrainingJobName": "first", "Kind": kind})).await;
        let logs = told["Explanation"]["Logs"].as_str().unwrap_or_default().to_ascii_lowercase();
        assert!(logs.is_empty() || logs.contains(kind), "{kind}: {logs}");
    }
    let asked = json!({"TrainingJobName": "first", "Kind": "transform"});
    let (_, message) = app.refused("Modelyard.ExplainTrainingJob", asked).await;
    assert!(message.contains("transform-job") || message.contains("transform job"), "{message}");
    let (code, _) = app
        .refused("Modelyard.ExplainTrainingJob", json!({"TrainingJobName": "first", "Kind": "other"}))
        .await;
    assert_eq!(code, "ValidationException");
}

#[tokio::test]
async fn a_job_that_cannot_run_fails_with_its_card_and_its_events() {
    let app = TestApp::new().await;
    app.ok("SageMaker.CreateProcessingJob", processing_job("no-bucket")).await;
    let job = ended(&app, "no-bucket").await;
    assert_eq!(job["ProcessingJobStatus"], "Failed");
    let reason = job["FailureReason"].as_str().unwrap();
    assert!(reason.starts_with("ClientError: ") && reason.contains("s3://data/p"), "{reason}");
    let told =
        app.ok("Modelyard.ExplainTrainingJob", json!({"TrainingJobName": "no-bucket"})).await["Explanation"]
            .clone();
    assert_eq!((&told["Status"], &told["Card"]["cause"]), (&json!("Failed"), &json!("missing_object")));
    assert!(told["Logs"].as_str().unwrap().starts_with("/aws/sagemaker/ProcessingJobs no-bucket/algo-1-"));
    let events =
        app.ok("Modelyard.ListEvents", json!({"After": 0, "MaxResults": 1000})).await["Events"].clone();
    let states: Vec<_> = events
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["detail-type"] == "SageMaker Processing Job State Change")
        .map(|event| event["detail"]["ProcessingJobStatus"].clone())
        .collect();
    assert_eq!(states, ["InProgress", "Failed"], "changes of its status, and nothing in between");
    let (code, message) =
        app.refused("SageMaker.StopProcessingJob", json!({"ProcessingJobName": "no-bucket"})).await;
    assert_eq!(code, "ValidationException");
    assert_eq!(message, "The request was rejected because the processing job is in status Failed.");
    app.ok("SageMaker.DeleteProcessingJob", json!({"ProcessingJobName": "no-bucket"})).await;
    for operation in ["DescribeProcessingJob", "StopProcessingJob", "DeleteProcessingJob"] {
        let (code, message) =
            app.refused(&format!("SageMaker.{operation}"), json!({"ProcessingJobName": "no-bucket"})).await;
        assert_eq!(code, "ValidationException");
        assert!(message.starts_with("Could not find requested job with name"), "{message}");
    }
}

#[tokio::test]
async fn jobs_of_both_kinds_stand_in_one_line() {
    let app = TestApp::with_capacity("mode = 'reserved'").await;
    let mut holds = crate::app::training_job("holds");
    holds["AlgorithmSpecification"]["ContainerEntrypoint"] = json!(["sleep", "1000"]);
    app.ok("SageMaker.CreateTrainingJob", holds).await;
    app.until("it runs", || async {
        let job = app.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": "holds"})).await;
        (job["SecondaryStatus"] == "Training").then_some(())
    })
    .await;
    app.ok("SageMaker.CreateProcessingJob", processing_job("waits")).await;
    let why = || app.ok("Modelyard.ExplainTrainingJob", json!({"TrainingJobName": "waits"}));
    let sentence = app.until("it waits", || async {
        let told = why().await["Explanation"].clone();
        (told["SecondaryStatus"] == "Pending")
            .then(|| told["Sentence"].as_str().unwrap_or_default().to_owned())
    });
    let sentence = sentence.await;
    assert!(sentence.contains("in use by holds (place 1 of 1 in line)"), "{sentence}");
    app.ok("SageMaker.StopProcessingJob", json!({"ProcessingJobName": "waits"})).await;
    let job = ended(&app, "waits").await;
    assert_eq!(job["ProcessingJobStatus"], "Stopped");
    assert!(job.get("ProcessingStartTime").is_none(), "{job}");
    let mut wide = processing_job("wide");
    wide["ProcessingResources"]["ClusterConfig"]["InstanceType"] = json!("ml.p3.2xlarge");
    app.ok("SageMaker.CreateProcessingJob", wide).await;
    let job = ended(&app, "wide").await;
    let reason = job["FailureReason"].as_str().unwrap();
    assert!(reason.starts_with("CapacityError: the job needs ml.p3.2xlarge"), "{reason}");
    app.ok("SageMaker.StopTrainingJob", json!({"TrainingJobName": "holds"})).await;
    app.ended("holds").await;
}

#[tokio::test]
async fn lists_filter_and_page() {
    let app = TestApp::new().await;
    for name in ["b-one", "a-two", "c-one"] {
        app.ok("SageMaker.CreateProcessingJob", processing_job(name)).await;
        app.clock.advance(1_000);
    }
    let names = |answer: &Value| -> Vec<String> {
        let rows = answer["ProcessingJobSummaries"].as_array().unwrap();
        rows.iter().map(|row| row["ProcessingJobName"].as_str().unwrap().to_owned()).collect()
    };
    let list = |input: Value| app.ok("SageMaker.ListProcessingJobs", input);
    assert_eq!(names(&list(json!({})).await), ["c-one", "a-two", "b-one"], "the newest comes first");
    assert_eq!(names(&list(json!({"NameContains": "ONE"})).await), ["c-one", "b-one"]);
    let first = list(json!({"MaxResults": 2, "SortBy": "Name", "SortOrder": "Ascending"})).await;
    assert_eq!(names(&first), ["a-two", "b-one"]);
    let rest = list(
        json!({"MaxResults": 2, "SortBy": "Name", "SortOrder": "Ascending", "NextToken": first["NextToken"]}),
    );
    assert_eq!(names(&rest.await), ["c-one"]);
}

/// An input that is the result of a query, with a change of its definition.
fn athena(change: Value) -> Value {
    let mut definition = json!({
        "Catalog": "AwsDataCatalog", "Database": "d", "QueryString": "SELECT 1", "OutputS3Uri": "s3://b/o", "OutputFormat": "PARQUET"});
    let Value::Object(change) = change else { panic!("a change has members") };
    for (name, value) in change {
        definition[name] = value;
    }
    json!({"InputName": "a", "DatasetDefinition": {
        "LocalPath": "/opt/ml/processing/a", "AthenaDatasetDefinition": definition}})
}

/// A change of a good request, and what the refusal must say.
type Case = (fn(&mut Value), &'static str);

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let app = TestApp::new().await;
    let cases: &[Case] = &[
        (|job| job["ProcessingInputs"][0]["AppManaged"] = json!(true), "ProcessingInputs.AppManaged"),
        (|job| job["ProcessingInputs"][0]["S3Input"] = json!(null), "S3Input must be given"),
        (
            |job| job["ProcessingInputs"][0] = athena(json!({"Catalog": "mine"})),
            "there is only AwsDataCatalog",
        ),
        (|job| job["ProcessingInputs"][0] = athena(json!({"WorkGroup": "mine"})), "the work group primary"),
        (|job| job["ProcessingInputs"][0] = athena(json!({"OutputFormat": "AVRO"})), "OutputFormat: AVRO"),
        (
            |job| job["ProcessingInputs"][0] = athena(json!({"OutputCompression": "ZLIB"})),
            "OutputCompression: ZLIB",
        ),
        (|job| job["ProcessingInputs"][0] = athena(json!({"OutputS3Uri": "https://b/o"})), "OutputS3Uri"),
        (|job| job["ProcessingInputs"][0] = athena(json!({"KmsKeyId": "nothere"})), "KmsKeyId"),
        (
            |job| {
                job["ProcessingInputs"][0] = athena(json!({}));
                job["ProcessingInputs"][0]["DatasetDefinition"]["LocalPath"] = json!("/x");
            },
            "DatasetDefinition.LocalPath",
        ),
        (
            |job| {
                job["ProcessingInputs"][0]["DatasetDefinition"] =
                    athena(json!({}))["DatasetDefinition"].clone();
            },
            "has an S3Input and a DatasetDefinition",
        ),
        (
            |job| {
                job["ProcessingInputs"][0] =
                    json!({"InputName": "a", "DatasetDefinition": {"LocalPath": "/opt/ml/processing/x"}});
            },
            "needs an AthenaDatasetDefinition",
        ),
        (
            |job| {
                job["ProcessingInputs"][0] = json!({"InputName": "a", "DatasetDefinition": {
                    "LocalPath": "/opt/ml/processing/x", "RedshiftDatasetDefinition": {
                    "ClusterId": "c", "Database": "d", "DbUser": "u", "QueryString": "SELECT 1", "OutputS3Uri": "s3://b/o",
                    "ClusterRoleArn": "arn:aws:iam::123456789012:role/NotThere", "OutputFormat": "CSV"}}});
            },
            "Could not assume role arn:aws:iam::123456789012:role/NotThere",
        ),
        (|job| job["ProcessingInputs"] = json!([input("a"), input("a")]), "\"a\" is given twice"),
        (|job| job["ProcessingInputs"][0]["InputName"] = json!("a/b"), "ProcessingInputs.InputName"),
        (|job| job["ProcessingInputs"][0]["S3Input"]["S3Uri"] = json!("https://data/p"), "is not an S3 URI"),
        (
            |job| job["ProcessingInputs"][0]["S3Input"]["LocalPath"] = json!("/data"),
            "must be an absolute path that begins with",
        ),
        (
            |job| job["ProcessingInputs"][0]["S3Input"]["LocalPath"] = json!("/opt/ml/processing/../x"),
            "S3Input.LocalPath",
        ),
        (
            |job| job["ProcessingInputs"][0]["S3Input"]["S3CompressionType"] = json!("Gzip"),
            "Gzip can only be used when S3InputMode is Pipe",
        ),
        (
            |job| {
                job["ProcessingInputs"][0]["S3Input"]["S3DataType"] = json!("ManifestFile");
                job["ProcessingInputs"][0]["S3Input"]["S3Uri"] = json!("s3://data/folder/");
            },
            "must name an object",
        ),
        (
            |job| job["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["LocalPath"] = json!("/usr/lib"),
            "S3Output.LocalPath",
        ),
        (
            |job| {
                job["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["LocalPath"] = json!("/opt/ml/config")
            },
            "S3Output.LocalPath",
        ),
        (
            |job| {
                job["ProcessingOutputConfig"]["Outputs"][0]["FeatureStoreOutput"] =
                    json!({"FeatureGroupName": "group"})
            },
            "FeatureStoreOutput",
        ),
        (|job| job["ProcessingOutputConfig"]["Outputs"][0]["AppManaged"] = json!(true), "Outputs.AppManaged"),
        (|job| job["ProcessingOutputConfig"]["KmsKeyId"] = json!("no-such-key"), "KmsKeyId"),
        (
            |job| {
                job["NetworkConfig"] =
                    json!({"VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}})
            },
            "VpcConfig",
        ),
        (
            |job| job["NetworkConfig"] = json!({"EnableInterContainerTrafficEncryption": true}),
            "EnableInterContainerTrafficEncryption",
        ),
        (
            |job| job["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"] = json!("key"),
            "VolumeKmsKeyId",
        ),
        (
            |job| {
                drop(
                    job["ProcessingResources"]["ClusterConfig"]
                        .as_object_mut()
                        .unwrap()
                        .remove("InstanceType"),
                )
            },
            "InstanceType must be given",
        ),
        (
            |job| {
                job["AppSpecification"]["ImageUri"] =
                    json!("1.dkr.ecr.us-east-1.amazonaws.com/sagemaker-model-monitor-analyzer")
            },
            "the analyzer of Model Monitor",
        ),
        (
            |job| {
                job["AppSpecification"]["ImageUri"] =
                    json!("1.dkr.ecr.us-east-1.amazonaws.com/sagemaker-clarify-processing:1.0")
            },
            "the analyzer of Clarify",
        ),
        (
            |job| job["Tags"] = json!([{"Key": "modelyard:priority", "Value": "high"}]),
            "must be a whole number",
        ),
    ];
    for (change, expected) in cases {
        let mut job = processing_job("refused");
        change(&mut job);
        let (code, message) = app.refused("SageMaker.CreateProcessingJob", job).await;
        assert_eq!(code, "ValidationException", "{message}");
        assert!(message.contains(expected), "{expected}: {message}");
    }
}
