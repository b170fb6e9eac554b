//! Shadow variants: what a configuration may say, and what is known where there is none. What they do is in the client tests.

use serde_json::{Value, json};

use crate::app::TestApp;

async fn app_with_models() -> TestApp {
    let app = TestApp::new().await;
    for name in ["m", "n"] {
        let model = json!({
            "ModelName": name, "PrimaryContainer": {"Image": "img:1"},
            "ExecutionRoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
        });
        app.ok("SageMaker.CreateModel", model).await;
    }
    app
}

fn variant(name: &str, model: &str) -> Value {
    json!({
        "VariantName": name, "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large",
        "InitialVariantWeight": 0.5,
    })
}

fn config(name: &str) -> Value {
    json!({
        "EndpointConfigName": name,
        "ProductionVariants": [variant("p", "m")],
        "ShadowProductionVariants": [variant("s", "n")],
    })
}

#[tokio::test]
async fn a_configuration_is_kept_as_it_was_given() {
    let app = app_with_models().await;
    app.ok("SageMaker.CreateEndpointConfig", config("c")).await;
    let shown = app.ok("SageMaker.DescribeEndpointConfig", json!({"EndpointConfigName": "c"})).await;
    assert_eq!(shown["ShadowProductionVariants"], json!([variant("s", "n")]));
}

#[tokio::test]
async fn what_cannot_have_a_shadow_is_refused_by_name() {
    let app = app_with_models().await;
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 6] = [
        (
            |given| given["ProductionVariants"] = json!([variant("p", "m"), variant("q", "m")]),
            "one variant in ProductionVariants",
        ),
        (|given| given["ShadowProductionVariants"][0]["VariantName"] = json!("p"), "another name"),
        (|given| given["ShadowProductionVariants"][0]["ModelName"] = json!("none"), "Could not find model"),
        (
            |given| given["AsyncInferenceConfig"] = json!({"OutputConfig": {"S3OutputPath": "s3://b/p"}}),
            "AsyncInferenceConfig",
        ),
        (
            |given| {
                given["ShadowProductionVariants"][0]["ServerlessConfig"] =
                    json!({"MemorySizeInMB": 1024, "MaxConcurrency": 1})
            },
            "ServerlessConfig",
        ),
        (
            |given| given["ShadowProductionVariants"][0]["EnableSSMAccess"] = json!(true),
            "ShadowProductionVariants.EnableSSMAccess",
        ),
    ];
    for (change, named) in cases {
        let mut given = config("c");
        change(&mut given);
        let (code, message) = app.refused("SageMaker.CreateEndpointConfig", given).await;
        assert_eq!(code, "ValidationException", "{message}");
        assert!(message.contains(named), "{named}: {message}");
    }
}

#[tokio::test]
async fn an_endpoint_shows_its_shadow() {
    let app = app_with_models().await;
    app.ok("SageMaker.CreateEndpointConfig", config("c")).await;
    let mut plain = config("plain");
    plain.as_object_mut().unwrap().remove("ShadowProductionVariants");
    app.ok("SageMaker.CreateEndpointConfig", plain).await;
    app.ok("SageMaker.CreateEndpoint", json!({"EndpointName": "e", "EndpointConfigName": "c"})).await;
    app.ok("SageMaker.CreateEndpoint", json!({"EndpointName": "plain", "EndpointConfigName": "plain"})).await;
    let shown = app.ok("SageMaker.DescribeEndpoint", json!({"EndpointName": "e"})).await;
    let shadow = &shown["ShadowProductionVariants"][0];
    assert_eq!((&shadow["VariantName"], &shadow["DesiredWeight"]), (&json!("s"), &json!(0.5)));
    assert_eq!(shown["ProductionVariants"].as_array().unwrap().len(), 1);
    let known = app.ok("Modelyard.DescribeShadow", json!({"EndpointName": "e"})).await;
    let known = &known["Shadow"];
    assert_eq!((&known["SharePercent"], &known["Verdict"]), (&json!(100.0), &json!("TooFew")));
    assert_eq!(known["Latencies"][1]["VariantName"], "s");
    let (code, message) = app.refused("Modelyard.DescribeShadow", json!({"EndpointName": "plain"})).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("plain has no shadow variant"), "{message}");
    let (_, message) = app.refused("Modelyard.DescribeShadow", json!({"EndpointName": "none"})).await;
    assert!(message.starts_with("Could not find endpoint"), "{message}");
    let target = json!({
        "ServiceNamespace": "sagemaker", "ResourceId": "endpoint/e/variant/s",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount", "MinCapacity": 1, "MaxCapacity": 2,
    });
    let (_, message) = app.refused("AnyScaleFrontendService.RegisterScalableTarget", target).await;
    assert!(message.starts_with("No endpoint variant found"), "{message}");
}
