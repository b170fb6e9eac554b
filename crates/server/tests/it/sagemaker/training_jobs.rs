//! Training jobs: what is accepted, refused, described and listed. What they do when they run is in the client tests.

use serde_json::{Value, json};

use crate::app::{TestApp, training_job};

#[tokio::test]
async fn a_job_is_described_as_it_was_asked_for() {
    let app = TestApp::new().await;
    let mut job = training_job("first");
    job["Environment"] = json!({"A": "1"});
    job["Tags"] = json!([{"Key": "team", "Value": "a"}]);
    let created = app.ok("SageMaker.CreateTrainingJob", job).await;
    let arn = "arn:aws:sagemaker:us-east-1:123456789012:training-job/first";
    assert_eq!(created, json!({"TrainingJobArn": arn}));
    let shown = app.ok("SageMaker.DescribeTrainingJob", json!({"TrainingJobName": "first"})).await;
    assert_eq!(shown["Environment"], json!({"A": "1"}));
    assert_eq!(shown["ResourceConfig"]["InstanceType"], "ml.m5.large");
    assert_eq!(shown["CreationTime"], 1_770_000_000.0);
    assert_eq!(shown["SecondaryStatusTransitions"][0]["Status"], "Starting");
    assert!(shown.get("Tags").is_none() && shown.get("VpcConfig").is_none());
    let tags = app.ok("SageMaker.ListTags", json!({"ResourceArn": arn})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "team", "Value": "a"}]));
    app.ok("SageMaker.AddTags", json!({"ResourceArn": arn, "Tags": [{"Key": "team", "Value": "b"}]})).await;
    app.ok("SageMaker.DeleteTags", json!({"ResourceArn": arn, "TagKeys": ["none"]})).await;
    let tags = app.ok("SageMaker.ListTags", json!({"ResourceArn": arn})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "team", "Value": "b"}]));
}

#[tokio::test]
async fn a_name_is_used_once() {
    let app = TestApp::new().await;
    app.ok("SageMaker.CreateTrainingJob", training_job("twice")).await;
    let (code, message) = app.refused("SageMaker.CreateTrainingJob", training_job("twice")).await;
    assert_eq!(code, "ResourceInUse");
    assert!(message.starts_with("Training job names must be unique within an AWS account and region, and a training job with this name already exists (arn:"));
}

#[tokio::test]
async fn missing_jobs_are_refused_in_the_words_of_the_service() {
    let app = TestApp::new().await;
    for operation in ["DescribeTrainingJob", "StopTrainingJob", "DeleteTrainingJob"] {
        let (code, message) =
            app.refused(&format!("SageMaker.{operation}"), json!({"TrainingJobName": "none"})).await;
        assert_eq!(
            (code.as_str(), message.as_str()),
            ("ValidationException", "Requested resource not found.")
        );
    }
    for operation in ["DescribeFailure", "DescribeRun"] {
        let (code, _) =
            app.refused(&format!("Modelyard.{operation}"), json!({"TrainingJobName": "none"})).await;
        assert_eq!(code, "ValidationException");
    }
}

#[tokio::test]
async fn all_violations_come_in_one_answer() {
    let app = TestApp::new().await;
    let mut job = training_job("not_a_name!");
    job.as_object_mut().unwrap().remove("RoleArn");
    job["ResourceConfig"]["InstanceCount"] = json!(-1);
    let (code, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
    assert_eq!(code, "ValidationException");
    assert!(message.starts_with("3 validation errors detected: "), "{message}");
    assert!(message.contains("Value 'not_a_name!' at 'trainingJobName' failed to satisfy constraint: Member must satisfy regular expression pattern"));
    assert!(
        message.contains("Value null at 'roleArn' failed to satisfy constraint: Member must not be null")
    );
    assert!(message.contains("'resourceConfig.instanceCount'"));
}

#[tokio::test]
async fn the_role_must_exist() {
    let app = TestApp::new().await;
    let role = "arn:aws:iam::123456789012:role/Nobody";
    let text = format!(
        "Could not assume role {role}. Please ensure that the role exists and allows principal 'sagemaker.amazonaws.com' to assume \
         the role."
    );
    let mut job = training_job("nobody");
    job["RoleArn"] = role.into();
    let refused = app.refused("SageMaker.CreateTrainingJob", job).await;
    assert_eq!(refused, ("ValidationException".to_owned(), text.clone()));
    let model =
        json!({"ModelName": "nobody", "ExecutionRoleArn": role, "PrimaryContainer": {"Image": "image:1"}});
    assert_eq!(app.refused("SageMaker.CreateModel", model).await.1, text);
}

/// A change of a good request, and the field that the refusal must name.
type Case = (fn(&mut Value), &'static str);

#[tokio::test]
async fn what_is_not_honoured_is_refused_by_name() {
    let app = TestApp::new().await;
    let channel = || json!([{"ChannelName": "train", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/p"}}}]);
    let cases: [Case; 5] = [
        (
            |job| job["VpcConfig"] = json!({"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}),
            "VpcConfig",
        ),
        (
            |job| {
                job["EnableInterContainerTrafficEncryption"] = json!(true);
                job["ResourceConfig"]["InstanceCount"] = json!(2);
            },
            "EnableInterContainerTrafficEncryption",
        ),
        (|job| job["OutputDataConfig"]["KmsKeyId"] = json!("key"), "KmsKeyId"),
        (
            |job| {
                job["InputDataConfig"][0]["DataSource"] = json!({"FileSystemDataSource": {
                    "FileSystemId": "fs-12345678901", "FileSystemAccessMode": "ro", "FileSystemType": "EFS", "DirectoryPath": "/d",
                }})
            },
            "FileSystemDataSource",
        ),
        (
            |job| job["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3DataType"] = json!("Converse"),
            "S3DataType",
        ),
    ];
    for (change, field) in cases {
        let mut job = training_job("refused");
        job["InputDataConfig"] = channel();
        change(&mut job);
        let (code, message) = app.refused("SageMaker.CreateTrainingJob", job).await;
        assert_eq!(code, "ValidationException");
        assert!(message.contains(field), "{field}: {message}");
    }
    let mut job = training_job("accepted");
    job["InputDataConfig"] = channel();
    job["EnableManagedSpotTraining"] = json!(false);
    app.ok("SageMaker.CreateTrainingJob", job).await;
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    let app = TestApp::new().await;
    for name in ["b-one", "a-two", "c-one"] {
        app.ok("SageMaker.CreateTrainingJob", training_job(name)).await;
        app.clock.advance(1_000);
    }
    let names = |answer: &Value| -> Vec<String> {
        let rows = answer["TrainingJobSummaries"].as_array().unwrap();
        rows.iter().map(|row| row["TrainingJobName"].as_str().unwrap().to_owned()).collect()
    };
    let list = |input: Value| app.ok("SageMaker.ListTrainingJobs", input);
    assert_eq!(names(&list(json!({})).await), ["c-one", "a-two", "b-one"], "the newest comes first");
    assert_eq!(
        names(&list(json!({"SortBy": "Name", "SortOrder": "Ascending"})).await),
        ["a-two", "b-one", "c-one"]
    );
    assert_eq!(names(&list(json!({"NameContains": "ONE"})).await), ["c-one", "b-one"]);
    assert_eq!(names(&list(json!({"CreationTimeAfter": 1_770_000_000.5})).await), ["c-one", "a-two"]);
    assert_eq!(names(&list(json!({"StatusEquals": "Stopped"})).await), Vec::<String>::new());
    let first = list(json!({"MaxResults": 2})).await;
    assert_eq!(names(&first), ["c-one", "a-two"]);
    let second = list(json!({"MaxResults": 2, "NextToken": first["NextToken"]})).await;
    assert_eq!((names(&second), second.get("NextToken")), (vec!["b-one".to_owned()], None));
    let (code, _) = app.refused("SageMaker.ListTrainingJobs", json!({"NextToken": "nonsense"})).await;
    assert_eq!(code, "ValidationException");
}
