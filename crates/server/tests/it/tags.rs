//! Tags of everything that has them: given with its creation, added, listed, removed, limited, and gone with it.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::app::{TestApp, training_job};

const ROLE: &str = "arn:aws:iam::123456789012:role/ModelyardExecutionRole";
const IMAGE: &str = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-base-python:3.11";

/// A kind of resource with tags.
struct Tagged {
    /// For example `Model`: what follows `Create` and `Delete`, and comes before `Arn`.
    noun: &'static str,
    /// Creates one named `tagged`.
    create: Value,
    /// Deletes it; `Arn` stands for its ARN. None where nobody can.
    delete: Option<Value>,
}

fn kinds() -> Vec<Tagged> {
    let tagged = |noun, create, delete| Tagged { noun, create, delete: Some(delete) };
    let source = json!({"SourceUri": "s3://b/tagged"});
    let container = json!({"Image": IMAGE, "ModelDataUrl": "s3://data/model.tar.gz"});
    let definition = json!({"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": [
        {"Name": "F", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}},
    ]});
    let cluster = json!({"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10});
    let transform = json!({
        "TransformJobName": "tagged", "ModelName": "tagged",
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://data/in"}}},
        "TransformOutput": {"S3OutputPath": "s3://data/out"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    });
    // In an order in which what one needs is there.
    vec![
        tagged("Experiment", json!({"ExperimentName": "tagged"}), json!({"ExperimentName": "tagged"})),
        tagged(
            "Trial",
            json!({"TrialName": "tagged", "ExperimentName": "tagged"}),
            json!({"TrialName": "tagged"}),
        ),
        tagged(
            "TrialComponent",
            json!({"TrialComponentName": "tagged"}),
            json!({"TrialComponentName": "tagged"}),
        ),
        tagged(
            "Action",
            json!({"ActionName": "tagged", "ActionType": "A", "Source": source}),
            json!({"ActionName": "tagged"}),
        ),
        tagged(
            "Context",
            json!({"ContextName": "tagged", "ContextType": "C", "Source": source}),
            json!({"ContextName": "tagged"}),
        ),
        tagged("Artifact", json!({"ArtifactType": "T", "Source": source}), json!({"ArtifactArn": "Arn"})),
        tagged(
            "Model",
            json!({"ModelName": "tagged", "PrimaryContainer": container, "ExecutionRoleArn": ROLE}),
            json!({"ModelName": "tagged"}),
        ),
        tagged(
            "EndpointConfig",
            json!({"EndpointConfigName": "tagged", "ProductionVariants": [
                {"VariantName": "a", "ModelName": "tagged", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1},
            ]}),
            json!({"EndpointConfigName": "tagged"}),
        ),
        tagged(
            "ModelPackageGroup",
            json!({"ModelPackageGroupName": "tagged"}),
            json!({"ModelPackageGroupName": "tagged"}),
        ),
        tagged(
            "ModelCard",
            json!({"ModelCardName": "tagged", "Content": "{}", "ModelCardStatus": "Draft"}),
            json!({"ModelCardName": "tagged"}),
        ),
        tagged(
            "Pipeline",
            json!({"PipelineName": "tagged", "RoleArn": ROLE, "ClientRequestToken": "t".repeat(32),
                   "PipelineDefinition": definition.to_string()}),
            json!({"PipelineName": "tagged", "ClientRequestToken": "d".repeat(32)}),
        ),
        Tagged { noun: "TrainingJob", create: training_job("tagged"), delete: None },
        Tagged {
            noun: "ProcessingJob",
            create: json!({
                "ProcessingJobName": "tagged", "RoleArn": ROLE, "AppSpecification": {"ImageUri": IMAGE},
                "ProcessingResources": {"ClusterConfig": cluster},
            }),
            delete: None,
        },
        Tagged { noun: "TransformJob", create: transform, delete: None },
    ]
}

async fn listed(app: &TestApp, arn: &str) -> Value {
    app.ok("SageMaker.ListTags", json!({"ResourceArn": arn})).await["Tags"].clone()
}

fn tag(key: &str, value: &str) -> Value {
    json!({"Key": key, "Value": value})
}

#[tokio::test]
async fn every_kind_takes_tags_and_loses_them_with_its_end() {
    let app = TestApp::new().await;
    let mut deletions = Vec::new();
    for Tagged { noun, mut create, delete } in kinds() {
        let operation = format!("SageMaker.Create{noun}");
        create["Tags"] = json!([tag("aws:mine", "x")]);
        let (code, message) = app.refused(&operation, create.clone()).await;
        assert_eq!(code, "ValidationException", "{noun}: {message}");
        assert!(message.contains("aws: prefixed tag key names are not allowed"), "{noun}: {message}");
        create["Tags"] = json!([tag("team", "a"), tag("team", "b")]);
        assert_eq!(app.refused(&operation, create.clone()).await.0, "ValidationException", "{noun}");
        create["Tags"] = json!([tag("team", "a"), tag("empty", "")]);
        let arn = app.ok(&operation, create).await[format!("{noun}Arn")].as_str().unwrap().to_owned();
        assert_eq!(listed(&app, &arn).await, json!([tag("empty", ""), tag("team", "a")]), "{noun}");

        let add = json!({"ResourceArn": arn, "Tags": [tag("team", "b"), tag("more", "c")]});
        let all = json!([tag("empty", ""), tag("more", "c"), tag("team", "b")]);
        assert_eq!(app.ok("SageMaker.AddTags", add).await["Tags"], all, "{noun}");
        app.ok("SageMaker.DeleteTags", json!({"ResourceArn": arn, "TagKeys": ["empty", "none"]})).await;
        assert_eq!(listed(&app, &arn).await, json!([tag("more", "c"), tag("team", "b")]), "{noun}");

        let many: Vec<Value> = (0..48).map(|number| tag(&format!("k{number}"), "v")).collect();
        app.ok("SageMaker.AddTags", json!({"ResourceArn": arn, "Tags": many})).await;
        let page = app.ok("SageMaker.ListTags", json!({"ResourceArn": arn, "MaxResults": 50})).await;
        assert_eq!(
            (page["Tags"].as_array().unwrap().len(), &page["NextToken"]),
            (50, &Value::Null),
            "{noun}"
        );
        for one_too_many in
            [tag("k48", "v"), tag("AWS:x", "v"), tag("semi;colon", "v"), tag(&"k".repeat(129), "v")]
        {
            let add = json!({"ResourceArn": arn, "Tags": [one_too_many]});
            assert_eq!(app.refused("SageMaker.AddTags", add).await.0, "ValidationException", "{noun}");
        }
        assert_eq!(listed(&app, &arn).await.as_array().unwrap().len(), 50, "{noun}");
        if let Some(mut delete) = delete {
            for value in delete.as_object_mut().unwrap().values_mut().filter(|value| **value == "Arn") {
                *value = json!(arn);
            }
            deletions.push((noun, arn, delete));
        }
    }
    for (noun, arn, delete) in deletions.into_iter().rev() {
        app.ok(&format!("SageMaker.Delete{noun}"), delete).await;
        let (code, _) = app.refused("SageMaker.ListTags", json!({"ResourceArn": arn})).await;
        assert_eq!(code, "ValidationException", "{noun}");
        let left = app.app.database.read(move |session| session.tags(&arn)).await.unwrap();
        assert_eq!(left, [], "{noun}");
    }
}

#[tokio::test]
async fn log_groups_have_tags_by_arn_and_by_name() {
    let app = TestApp::new().await;
    let logs = |operation: &str| format!("Logs_20140328.{operation}");
    let arn = "arn:aws:logs:us-east-1:123456789012:log-group:tagged";
    let by_name = json!({"logGroupName": "tagged"});
    let reserved = json!({"logGroupName": "tagged", "tags": {"aws:x": "1"}});
    assert_eq!(app.refused(&logs("CreateLogGroup"), reserved).await.0, "InvalidParameterException");
    app.ok(&logs("CreateLogGroup"), json!({"logGroupName": "tagged", "tags": {"a": "1"}})).await;
    app.ok(&logs("TagResource"), json!({"resourceArn": arn, "tags": {"b": "2"}})).await;
    app.ok(&logs("TagLogGroup"), json!({"logGroupName": "tagged", "tags": {"c": "3"}})).await;
    let shown = app.ok(&logs("ListTagsForResource"), json!({"resourceArn": arn})).await;
    assert_eq!(shown["tags"], json!({"a": "1", "b": "2", "c": "3"}));
    app.ok(&logs("UntagResource"), json!({"resourceArn": arn, "tagKeys": ["a"]})).await;
    app.ok(&logs("UntagLogGroup"), json!({"logGroupName": "tagged", "tags": ["b"]})).await;
    assert_eq!(app.ok(&logs("ListTagsLogGroup"), by_name.clone()).await["tags"], json!({"c": "3"}));
    let many: serde_json::Map<String, Value> =
        (0..50).map(|number| (format!("k{number}"), json!("v"))).collect();
    let refused = app.refused(&logs("TagResource"), json!({"resourceArn": arn, "tags": many})).await;
    assert_eq!(refused.0, "TooManyTagsException");
    app.ok(&logs("DeleteLogGroup"), by_name.clone()).await;
    let refused = app.refused(&logs("ListTagsForResource"), json!({"resourceArn": arn})).await;
    assert_eq!(refused.0, "ResourceNotFoundException");
    app.ok(&logs("CreateLogGroup"), by_name.clone()).await;
    assert_eq!(app.ok(&logs("ListTagsLogGroup"), by_name).await["tags"], json!({}), "a new group has none");
}

#[tokio::test]
async fn rules_queues_keys_and_schedule_groups_have_tags() {
    let app = TestApp::new().await;
    let rule = json!({"Name": "tagged", "ScheduleExpression": "rate(1 day)", "Tags": [tag("a", "1")]});
    let reserved = json!({"Name": "other", "ScheduleExpression": "rate(1 day)", "Tags": [tag("aws:a", "1")]});
    assert_eq!(app.refused("AWSEvents.PutRule", reserved).await.0, "ValidationException");
    let arn = app.ok("AWSEvents.PutRule", rule).await["RuleArn"].clone();
    let reserved = json!({"ResourceARN": arn, "Tags": [tag("aws:a", "1")]});
    assert_eq!(app.refused("AWSEvents.TagResource", reserved).await.0, "ValidationException");
    app.ok("AWSEvents.TagResource", json!({"ResourceARN": arn, "Tags": [tag("b", "2")]})).await;
    app.ok("AWSEvents.UntagResource", json!({"ResourceARN": arn, "TagKeys": ["a"]})).await;
    let shown = app.ok("AWSEvents.ListTagsForResource", json!({"ResourceARN": arn})).await;
    assert_eq!(shown["Tags"], json!([tag("b", "2")]));
    app.ok("AWSEvents.DeleteRule", json!({"Name": "tagged"})).await;
    let arn = arn.as_str().unwrap().to_owned();
    assert_eq!(app.app.database.read(move |session| session.tags(&arn)).await.unwrap(), []);

    let created = app.ok("AmazonSQS.CreateQueue", json!({"QueueName": "tagged", "tags": {"a": "1"}})).await;
    let url = &created["QueueUrl"];
    let reserved = json!({"QueueUrl": url, "Tags": {"aws:a": "1"}});
    assert!(app.refused("AmazonSQS.TagQueue", reserved).await.0.contains("InvalidParameterValue"));
    app.ok("AmazonSQS.TagQueue", json!({"QueueUrl": url, "Tags": {"b": "2"}})).await;
    app.ok("AmazonSQS.UntagQueue", json!({"QueueUrl": url, "TagKeys": ["a"]})).await;
    let shown = app.ok("AmazonSQS.ListQueueTags", json!({"QueueUrl": url})).await;
    assert_eq!(shown["Tags"], json!({"b": "2"}));
    app.ok("AmazonSQS.DeleteQueue", json!({"QueueUrl": url})).await;
    let arn = "arn:aws:sqs:us-east-1:123456789012:tagged";
    assert_eq!(app.app.database.read(move |session| session.tags(arn)).await.unwrap(), []);

    let kms_tag = |key: &str| json!([{"TagKey": key, "TagValue": "1"}]);
    let refused = app.refused("TrentService.CreateKey", json!({"Tags": kms_tag("aws:a")})).await;
    assert_eq!(refused.0, "TagException");
    let key =
        app.ok("TrentService.CreateKey", json!({"Tags": kms_tag("a")})).await["KeyMetadata"]["KeyId"].clone();
    app.ok("TrentService.TagResource", json!({"KeyId": key, "Tags": kms_tag("b")})).await;
    app.ok("TrentService.UntagResource", json!({"KeyId": key, "TagKeys": ["a"]})).await;
    let shown = app.ok("TrentService.ListResourceTags", json!({"KeyId": key})).await;
    assert_eq!(shown["Tags"], kms_tag("b"));

    let schedules = async |method: &str, path: &str, body: Value| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(())
            .unwrap();
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        app.send_signed(request, body, "scheduler", &app.key()).await
    };
    let reserved = schedules("POST", "/schedule-groups/tagged", json!({"Tags": [tag("aws:a", "1")]})).await;
    assert_eq!(reserved.status, 400);
    let made = schedules("POST", "/schedule-groups/tagged", json!({"Tags": [tag("a", "1")]})).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let path = "/tags/arn%3Aaws%3Ascheduler%3Aus-east-1%3A123456789012%3Aschedule-group%2Ftagged";
    assert_eq!(schedules("POST", path, json!({"Tags": [tag("b", "2")]})).await.status, 200);
    assert_eq!(schedules("POST", path, json!({"Tags": [tag("aws:b", "2")]})).await.status, 400);
    assert_eq!(
        schedules("GET", path, Value::Null).await.json()["Tags"],
        json!([tag("a", "1"), tag("b", "2")])
    );
}
