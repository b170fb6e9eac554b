//! Definitions that cannot be: each is refused over the wire with its place, and with nothing but a ValidationException.

use serde_json::{Value, json};

use crate::app::TestApp;

const ACCOUNT: &str = "123456789012";
const ROLE: &str = "arn:aws:iam::123456789012:role/ModelyardExecutionRole";

fn create(definition: &str) -> Value {
    json!({"PipelineName": "P", "RoleArn": ROLE, "PipelineDefinition": definition, "ClientRequestToken": "t".repeat(32)})
}

fn lambda(name: &str, more: &Value) -> Value {
    let mut step = json!({"Name": name, "Type": "Lambda", "FunctionArn": "f", "Arguments": {}});
    step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    step
}

fn definition(steps: &Value) -> String {
    json!({"Version": "2020-12-01", "Steps": steps}).to_string()
}

#[tokio::test]
async fn each_flaw_is_a_validation_exception_that_names_its_place() {
    let app = TestApp::new().await;
    let uses = |reference: &str| {
        definition(&json!([
            {"Name": "Train", "Type": "Training", "Arguments": {}},
            lambda("Use", &json!({"Arguments": {"x": [{"Get": reference}]}})),
        ]))
    };
    let parameter = |parameter: Value| {
        json!({"Version": "2020-12-01", "Parameters": [parameter], "Steps": [lambda("a", &json!({}))]})
            .to_string()
    };
    let nested_conditions = (0..60).fold(json!([]), |inner, at| {
        let equal = json!([{"Type": "Equals", "LeftValue": 1, "RightValue": 1}]);
        json!([{"Name": format!("c{at}"), "Type": "Condition", "Arguments": {"Conditions": equal, "IfSteps": inner}}])
    });
    let cases = [
        (String::from("not json"), "PipelineDefinition: "),
        (String::from("[]"), "PipelineDefinition: "),
        (String::from("null"), "PipelineDefinition: "),
        (definition(&json!([])), "Steps: "),
        (definition(&json!("steps")), "Steps: "),
        (
            definition(&json!([
                lambda("a", &json!({"DependsOn": ["b"]})),
                lambda("b", &json!({"DependsOn": ["a"]}))
            ])),
            "Steps[0]: the steps wait for each other in a circle",
        ),
        (definition(&json!([lambda("a", &json!({"DependsOn": ["a"]}))])), "a waits for a"),
        (definition(&json!([lambda("a", &json!({})), lambda("a", &json!({}))])), "Steps[1].Name: "),
        (definition(&json!([lambda("a", &json!({"DependsOn": ["nobody"]}))])), "Steps[0].DependsOn[0]: "),
        (definition(&json!([lambda("a", &json!({"DependsOn": [1]}))])), "Steps[0].DependsOn[0]: "),
        (definition(&json!([lambda("a b", &json!({}))])), "Steps[0].Name: "),
        (definition(&json!([lambda("a", &json!({"Type": 7}))])), "Steps[0].Type: "),
        (definition(&json!([lambda("a", &json!({"Arguments": "x"}))])), "Steps[0].Arguments: "),
        (
            definition(&json!([lambda("a", &json!({"CacheConfig": {"Enabled": "yes"}}))])),
            "Steps[0].CacheConfig.Enabled: ",
        ),
        (
            definition(&json!([lambda(
                "a",
                &json!({"RetryPolicies": [{"ExceptionType": ["Step.THROTTLING"], "MaxAttempts": 1e300}]})
            )])),
            "Steps[0].RetryPolicies[0].MaxAttempts: ",
        ),
        (
            definition(&json!([lambda(
                "a",
                &json!({"RetryPolicies": [{"ExceptionType": ["Step.THROTTLING"], "IntervalSeconds": -1}]})
            )])),
            "Steps[0].RetryPolicies[0].IntervalSeconds: ",
        ),
        (uses("Steps.Nobody.ModelArtifacts.S3ModelArtifacts"), "Steps[1]: the reference to Steps.Nobody"),
        (
            uses("Steps.Train.ModelArtifact.S3ModelArtifacts"),
            "Steps[1]: Steps.Train.ModelArtifact.S3ModelArtifacts leads to nothing",
        ),
        (uses("Steps.Use.OutputParameters['x']"), "Use waits for Use"),
        (uses("Steps.Train"), "Steps[1].Arguments.x[0].Get: "),
        (uses("Parameters.Nobody"), "Steps[1]: the reference to Parameters.Nobody"),
        (uses("Execution.Weather"), "Steps[1].Arguments.x[0].Get: "),
        (uses("Steps.Train.ModelArtifacts['x"), "Steps[1].Arguments.x[0].Get: "),
        (
            parameter(json!({"Name": "P", "Type": "Integer", "DefaultValue": 1.5})),
            "Parameters[0].DefaultValue: ",
        ),
        (
            parameter(json!({"Name": "P", "Type": "Boolean", "DefaultValue": "true"})),
            "Parameters[0].DefaultValue: ",
        ),
        (
            parameter(json!({"Name": "P", "Type": "String", "DefaultValue": "x", "EnumValues": ["y"]})),
            "Parameters[0].DefaultValue: ",
        ),
        (parameter(json!({"Name": "P", "Type": "String", "EnumValues": [1]})), "Parameters[0].EnumValues: "),
        (parameter(json!({"Name": "P", "Type": "String", "EnumValues": "y"})), "Parameters[0].EnumValues: "),
        (parameter(json!({"Name": "P", "Type": "Date"})), "Parameters[0].Type: "),
        (parameter(json!({"Name": "", "Type": "String"})), "Parameters[0].Name: "),
        (parameter(json!(7)), "Parameters[0]: "),
        (definition(&nested_conditions), "PipelineDefinition: this is not JSON that can be read (recursion"),
        (
            format!("{{\"Version\": \"2020-12-01\", \"Steps\": [{}", "{\"a\":[".repeat(150_000)),
            "PipelineDefinition: this is not JSON that can be read (recursion",
        ),
        (
            String::from("{\"Version\": \"2020-12-01\", \"Steps\": [{\"Name\": \"\\ud800\"}]}"),
            "PipelineDefinition: ",
        ),
        (String::from("{\"Version\": 1e999, \"Steps\": []}"), "number out of range"),
        ("x".repeat(1_048_577), "at 'pipelineDefinition' failed to satisfy constraint"),
    ];
    for (definition, named) in &cases {
        let (code, text) = app.refused("SageMaker.CreatePipeline", create(definition)).await;
        let start: String = definition.chars().take(200).collect();
        assert_eq!(code, "ValidationException", "{start}");
        // What the model of the operation refuses is quoted whole; a flaw is short, however long the definition.
        assert!(
            text.contains(named) && (text.len() < 8_000 || definition.len() > 1 << 20),
            "{start}: {text}"
        );
    }
    // An update is no back door, and leaves the version that was there.
    let good = definition(&json!([lambda("a", &json!({}))]));
    app.ok("SageMaker.CreatePipeline", create(&good)).await;
    for (definition, _) in &cases {
        let update = json!({"PipelineName": "P", "PipelineDefinition": definition});
        assert_eq!(app.refused("SageMaker.UpdatePipeline", update).await.0, "ValidationException");
    }
    let shown = app.ok("SageMaker.DescribePipeline", json!({"PipelineName": "P"})).await;
    assert_eq!(shown["PipelineDefinition"], good);
    let versions = app.ok("SageMaker.ListPipelineVersions", json!({"PipelineName": "P"})).await;
    assert_eq!(versions["PipelineVersionSummaries"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn definitions_in_s3_are_read_within_bounds() {
    let app = TestApp::new().await;
    app.other_account("210987654321").await;
    let good = definition(&json!([lambda("a", &json!({}))]));
    let large = vec![b' '; (1 << 20) + 1];
    for (account, bucket, key, bytes) in [
        (ACCOUNT, "mine", "good.json", good.as_bytes()),
        (ACCOUNT, "mine", "large.json", &large),
        (ACCOUNT, "mine", "bytes.json", &[0xff, 0xfe, 0x00]),
        ("210987654321", "theirs", "good.json", good.as_bytes()),
    ] {
        // The bucket may be there from the object before.
        let _ = app.app.objects.create_bucket(account, "us-east-1", bucket).await;
        let mut object = app.app.objects.begin(account, bucket).await.unwrap();
        object.write(bytes).unwrap();
        let (attributes, condition) = Default::default();
        app.app.objects.commit(account, bucket, key, object, attributes, condition).await.unwrap();
    }
    let from = |bucket: &str, key: &str| {
        json!({"PipelineName": "P", "RoleArn": ROLE, "ClientRequestToken": "t".repeat(32),
            "PipelineDefinitionS3Location": {"Bucket": bucket, "ObjectKey": key}})
    };
    for (bucket, key, named) in [
        ("mine", "none.json", "cannot be read"),
        ("mine", "large.json", "has more than 1048576 bytes"),
        ("mine", "bytes.json", "is not UTF-8 text"),
        ("nobody-has-this", "good.json", "cannot be read"),
        ("theirs", "good.json", "belongs to another account"),
        ("theirs", "none.json", "belongs to another account"),
    ] {
        let (code, text) = app.refused("SageMaker.CreatePipeline", from(bucket, key)).await;
        assert_eq!(code, "ValidationException", "{bucket}/{key}");
        assert!(
            text.contains("PipelineDefinitionS3Location") && text.contains(named),
            "{bucket}/{key}: {text}"
        );
    }
    app.ok("SageMaker.CreatePipeline", from("mine", "good.json")).await;
}
