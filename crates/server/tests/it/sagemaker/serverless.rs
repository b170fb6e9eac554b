//! Serverless variants: what is refused, and what is kept. What they do when they serve is in the client tests.

use serde_json::{Value, json};
use store::resources::{Resource, ResourceKey};

use crate::app::TestApp;

async fn app_with_model() -> TestApp {
    let app = TestApp::new().await;
    for (name, more) in [("m", json!({})), ("isolated", json!({"EnableNetworkIsolation": true}))] {
        let mut model = json!({
            "ModelName": name,
            "ExecutionRoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
            "PrimaryContainer": {"Image": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1"},
        });
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app.ok("SageMaker.CreateModel", model).await;
    }
    app
}

fn variant(more: &Value) -> Value {
    let mut variant = json!({
        "VariantName": "AllTraffic", "ModelName": "m",
        "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5},
    });
    variant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    variant
}

fn config(name: &str, variants: &Value) -> Value {
    json!({"EndpointConfigName": name, "ProductionVariants": variants})
}

#[tokio::test]
async fn a_configuration_keeps_what_it_says() {
    let app = app_with_model().await;
    let serverless = json!({"MemorySizeInMB": 1024, "MaxConcurrency": 9, "ProvisionedConcurrency": 9});
    let variant = variant(&json!({"ServerlessConfig": serverless}));
    app.ok("SageMaker.CreateEndpointConfig", config("c", &json!([variant]))).await;
    let described = app.ok("SageMaker.DescribeEndpointConfig", json!({"EndpointConfigName": "c"})).await;
    assert_eq!(described["ProductionVariants"][0]["ServerlessConfig"], serverless);
}

#[tokio::test]
async fn what_does_not_go_with_serverless_is_refused_by_name() {
    let app = app_with_model().await;
    let serverless = |config: Value| json!({"ServerlessConfig": config});
    for (more, says) in [
        (serverless(json!({"MemorySizeInMB": 1025, "MaxConcurrency": 1})), "MemorySizeInMB 1025"),
        (serverless(json!({"MemorySizeInMB": 512, "MaxConcurrency": 1})), "memorySizeInMB"),
        (serverless(json!({"MemorySizeInMB": 1024, "MaxConcurrency": 201})), "maxConcurrency"),
        (
            serverless(json!({"MemorySizeInMB": 1024, "MaxConcurrency": 2, "ProvisionedConcurrency": 3})),
            "ProvisionedConcurrency 3",
        ),
        (json!({"InitialInstanceCount": 1}), "InitialInstanceCount"),
        (json!({"InstanceType": "ml.m5.large"}), "InstanceType"),
        (json!({"ModelName": "isolated"}), "Network isolation"),
    ] {
        let (code, message) =
            app.refused("SageMaker.CreateEndpointConfig", config("c", &json!([variant(&more)]))).await;
        assert_eq!(code, "ValidationException", "{message}");
        assert!(message.to_lowercase().contains(&says.to_lowercase()), "{message}");
    }
    let two = json!([variant(&json!({})), variant(&json!({"VariantName": "other"}))]);
    let (_, message) = app.refused("SageMaker.CreateEndpointConfig", config("c", &two)).await;
    assert!(message.contains("Multiple production variants are not supported for serverless"), "{message}");
    let mut captured = config("c", &json!([variant(&json!({}))]));
    captured["DataCaptureConfig"] = json!({
        "EnableCapture": true, "InitialSamplingPercentage": 100, "DestinationS3Uri": "s3://bucket/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    });
    let (_, message) = app.refused("SageMaker.CreateEndpointConfig", captured).await;
    assert!(message.contains("DataCaptureConfig is not supported for serverless"), "{message}");
}

/// An endpoint in the books, of one variant.
async fn endpoint(app: &TestApp, name: &str, serverless: Value) {
    let mut variant = json!({
        "name": "AllTraffic", "weight": 1.0, "replicas": 1, "startup_timeout_seconds": 60, "image": "none",
        "model_data": null, "environment": {}, "role_arn": null, "network_isolation": false,
    });
    if !serverless.is_null() {
        variant["serverless"] = serverless;
    }
    let endpoint = Resource {
        key: ResourceKey::new("123456789012", "us-east-1", "endpoint", name),
        arn: format!("arn:aws:sagemaker:us-east-1:123456789012:endpoint/{name}"),
        status: "InService".into(),
        spec: json!({"EndpointName": name}),
        document: json!({
            "config": "c", "generation": 1, "served_generation": 1, "failure_reason": null, "variants": [variant],
        }),
        generation: 1,
        created_at: 0,
        modified_at: 0,
    };
    app.app.database.write(move |session| session.insert_resource(&endpoint)).await.unwrap();
}

#[tokio::test]
async fn each_kind_of_variant_has_its_own_capacity() {
    let app = app_with_model().await;
    endpoint(&app, "serverless", json!({"memory_mib": 1024, "max_concurrency": 4})).await;
    endpoint(&app, "instances", Value::Null).await;
    for (name, change, says) in [
        ("serverless", json!({"DesiredInstanceCount": 2}), "is serverless; use ServerlessUpdateConfig"),
        (
            "serverless",
            json!({"ServerlessUpdateConfig": {"ProvisionedConcurrency": 5}}),
            "ProvisionedConcurrency 5",
        ),
        (
            "instances",
            json!({"ServerlessUpdateConfig": {"MaxConcurrency": 5}}),
            "has instances; use DesiredInstanceCount",
        ),
    ] {
        let mut change = change;
        change["VariantName"] = "AllTraffic".into();
        let input = json!({"EndpointName": name, "DesiredWeightsAndCapacities": [change]});
        let (code, message) = app.refused("SageMaker.UpdateEndpointWeightsAndCapacities", input).await;
        assert!(code == "ValidationException" && message.contains(says), "{message}");
    }
    let shown = app.ok("SageMaker.DescribeEndpoint", json!({"EndpointName": "serverless"})).await;
    let described = &shown["ProductionVariants"][0];
    assert_eq!(described["CurrentServerlessConfig"], json!({"MemorySizeInMB": 1024, "MaxConcurrency": 4}));
    assert_eq!(described["DesiredInstanceCount"], Value::Null);
    app.ok("SageMaker.CreateEndpointConfig", config("c", &json!([variant(&json!({}))]))).await;
    let update = json!({"EndpointName": "instances", "EndpointConfigName": "c"});
    let (_, message) = app.refused("SageMaker.UpdateEndpoint", update).await;
    assert!(message.contains("cannot be updated to a serverless endpoint"), "{message}");
}
