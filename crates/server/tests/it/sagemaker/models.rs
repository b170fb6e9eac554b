//! Models and endpoint configurations.

use serde_json::{Value, json};

use crate::app::TestApp;

fn model(name: &str) -> Value {
    json!({
        "ModelName": name,
        "PrimaryContainer": {"Image": "img:1", "ModelDataUrl": "s3://b/model.tar.gz", "Environment": {"A": "1"}},
        "ExecutionRoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
    })
}

#[tokio::test]
async fn models_live_and_go() {
    let app = TestApp::new().await;
    let created = app.ok("SageMaker.CreateModel", model("m")).await;
    assert_eq!(created["ModelArn"], "arn:aws:sagemaker:us-east-1:123456789012:model/m");
    let shown = app.ok("SageMaker.DescribeModel", json!({"ModelName": "m"})).await;
    assert_eq!(shown["PrimaryContainer"]["Environment"], json!({"A": "1"}));
    assert!(shown.get("VpcConfig").is_none(), "unset structures are left out");
    let (code, message) = app.refused("SageMaker.CreateModel", model("m")).await;
    assert_eq!(code, "ValidationException");
    assert!(message.contains("already existing model"), "{message}");
    let listed = app.ok("SageMaker.ListModels", json!({"NameContains": "m"})).await;
    assert_eq!(listed["Models"][0]["ModelName"], "m");
    app.ok("SageMaker.DeleteModel", json!({"ModelName": "m"})).await;
    let (code, message) = app.refused("SageMaker.DescribeModel", json!({"ModelName": "m"})).await;
    assert_eq!(code, "ValidationException");
    assert!(message.starts_with("Could not find model"), "{message}");
}

#[tokio::test]
async fn a_model_has_one_container_with_an_image() {
    let app = TestApp::new().await;
    let refused = |change: fn(&mut Value)| {
        let mut input = model("m");
        change(&mut input);
        app.refused("SageMaker.CreateModel", input)
    };
    assert!(refused(|input| input["PrimaryContainer"]["Image"] = Value::Null).await.1.contains("Image"));
    assert!(refused(|input| input["PrimaryContainer"] = Value::Null).await.1.contains("PrimaryContainer"));
    assert!(
        refused(|input| input["PrimaryContainer"]["Mode"] = json!("MultiModel")).await.1.contains("Mode")
    );
    assert!(
        refused(|input| input["PrimaryContainer"]["ModelDataUrl"] = json!("s3://b/"))
            .await
            .1
            .contains("ModelDataUrl")
    );
    let two = |input: &mut Value| {
        input["PrimaryContainer"] = Value::Null;
        input["Containers"] = json!([{"Image": "a"}, {"Image": "b"}]);
    };
    assert!(refused(two).await.1.contains("Containers"));
}

#[tokio::test]
async fn configurations_need_models_weights_and_distinct_names() {
    let app = TestApp::new().await;
    app.ok("SageMaker.CreateModel", model("m")).await;
    let variant = |name: &str, model: &str, weight: f64| json!({"VariantName": name, "ModelName": model, "InitialVariantWeight": weight});
    let create = |name: &str, variants: Vec<Value>| json!({"EndpointConfigName": name, "ProductionVariants": variants});
    app.ok(
        "SageMaker.CreateEndpointConfig",
        create("c", vec![variant("a", "m", 1.0), variant("b", "m", 3.0)]),
    )
    .await;
    let shown = app.ok("SageMaker.DescribeEndpointConfig", json!({"EndpointConfigName": "c"})).await;
    assert_eq!(shown["ProductionVariants"][1]["InitialVariantWeight"], 3.0);
    let listed = app.ok("SageMaker.ListEndpointConfigs", json!({})).await;
    assert_eq!(listed["EndpointConfigs"][0]["EndpointConfigName"], "c");
    for (variants, text) in [
        (vec![variant("a", "none", 1.0)], "Could not find model"),
        (vec![variant("a", "m", 1.0), variant("a", "m", 1.0)], "given twice"),
        (vec![variant("a", "m", 0.0)], "InitialVariantWeight"),
    ] {
        let (_, message) = app.refused("SageMaker.CreateEndpointConfig", create("d", variants)).await;
        assert!(message.contains(text), "{message}");
    }
    app.ok("SageMaker.DeleteEndpointConfig", json!({"EndpointConfigName": "c"})).await;
    let (_, message) =
        app.refused("SageMaker.DescribeEndpointConfig", json!({"EndpointConfigName": "c"})).await;
    assert!(message.starts_with("Could not find endpoint configuration"), "{message}");
}
