//! Data capture: what a configuration may say, and what a replay needs. Real captures are in the client tests.

use serde_json::{Value, json};

use crate::app::TestApp;

async fn app_with_model() -> TestApp {
    let app = TestApp::new().await;
    let model = json!({
        "ModelName": "m", "PrimaryContainer": {"Image": "img:1"},
        "ExecutionRoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
    });
    app.ok("SageMaker.CreateModel", model).await;
    app
}

fn config(name: &str, capture: &Value) -> Value {
    let variant = json!({"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"});
    json!({"EndpointConfigName": name, "ProductionVariants": [variant], "DataCaptureConfig": capture})
}

fn capture() -> Value {
    json!({
        "EnableCapture": true, "InitialSamplingPercentage": 30, "DestinationS3Uri": "s3://b/p", "KmsKeyId": "alias/mine",
        "CaptureOptions": [{"CaptureMode": "InputAndOutput"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
    })
}

#[tokio::test]
async fn a_configuration_is_kept_as_it_was_given() {
    let app = app_with_model().await;
    app.ok("SageMaker.CreateEndpointConfig", config("c", &capture())).await;
    let shown = app.ok("SageMaker.DescribeEndpointConfig", json!({"EndpointConfigName": "c"})).await;
    assert_eq!(shown["DataCaptureConfig"], capture());
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let app = app_with_model().await;
    let refused = |change: fn(&mut Value)| {
        let mut given = capture();
        change(&mut given);
        app.refused("SageMaker.CreateEndpointConfig", config("c", &given))
    };
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 5] = [
        (|given| given["InitialSamplingPercentage"] = json!(101), "nitialSamplingPercentage"),
        (|given| given["DestinationS3Uri"] = json!("https://b/p"), "DestinationS3Uri"),
        (|given| given["CaptureOptions"] = json!([]), "aptureOptions"),
        (|given| given["CaptureOptions"] = json!([{"CaptureMode": "Both"}]), "aptureMode"),
        (
            |given| given["CaptureContentTypeHeader"]["CsvContentTypes"] = json!(["application/json"]),
            "application/json",
        ),
    ];
    for (change, named) in cases {
        let (code, message) = refused(change).await;
        assert_eq!(code, "ValidationException", "{message}");
        assert!(message.contains(named), "{message}");
    }
}

#[tokio::test]
async fn a_replay_needs_two_endpoints() {
    let app = TestApp::new().await;
    let replay = |candidate: &str| json!({"EndpointName": "users", "CandidateName": candidate});
    let (code, message) = app.refused("Modelyard.ReplayCapture", replay("none")).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("users"), "{message}");
    let (_, message) = app.refused("Modelyard.ReplayCapture", replay("Users")).await;
    assert!(message.starts_with("CandidateName: "), "{message}");
    let mut input = replay("none");
    input["Tolerance"] = json!(-1);
    assert!(app.refused("Modelyard.ReplayCapture", input).await.1.to_lowercase().contains("tolerance"));
}
