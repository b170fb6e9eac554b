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
        refused(
            |input| input["PrimaryContainer"]["MultiModelConfig"] = json!({"ModelCacheSetting": "Disabled"})
        )
        .await
        .1
        .contains("Mode MultiModel")
    );
    assert!(
        refused(|input| input["PrimaryContainer"]["ModelDataUrl"] = json!("s3://b/"))
            .await
            .1
            .contains("ModelDataUrl")
    );
}

#[tokio::test]
async fn a_model_may_have_many_models_or_several_containers() {
    let app = TestApp::new().await;
    let mut many = model("many");
    many["PrimaryContainer"]["Mode"] = json!("MultiModel");
    many["PrimaryContainer"]["ModelDataUrl"] = json!("s3://b/prefix/");
    many["PrimaryContainer"]["MultiModelConfig"] = json!({"ModelCacheSetting": "Disabled"});
    app.ok("SageMaker.CreateModel", many.clone()).await;
    let shown = app.ok("SageMaker.DescribeModel", json!({"ModelName": "many"})).await;
    assert_eq!(shown["PrimaryContainer"]["MultiModelConfig"]["ModelCacheSetting"], "Disabled");
    many["PrimaryContainer"]["ModelDataUrl"] = Value::Null;
    assert!(app.refused("SageMaker.CreateModel", many).await.1.contains("ModelDataUrl"));

    let several = |name: &str, mode: &str, hostnames: [Value; 2]| {
        let container = |hostname: &Value| json!({"Image": "i", "ModelDataUrl": "s3://b/m.tar.gz", "ContainerHostname": hostname});
        json!({
            "ModelName": name, "ExecutionRoleArn": model("x")["ExecutionRoleArn"],
            "Containers": hostnames.iter().map(container).collect::<Vec<_>>(),
            "InferenceExecutionConfig": {"Mode": mode},
        })
    };
    app.ok("SageMaker.CreateModel", several("direct", "Direct", [json!("a"), json!("b")])).await;
    app.ok("SageMaker.CreateModel", several("serial", "Serial", [Value::Null, Value::Null])).await;
    let shown = app.ok("SageMaker.DescribeModel", json!({"ModelName": "direct"})).await;
    assert_eq!(shown["InferenceExecutionConfig"]["Mode"], "Direct");
    assert_eq!(shown["Containers"][1]["ContainerHostname"], "b");
    for (hostnames, says) in [
        ([json!("a"), Value::Null], "ContainerHostname must be given"),
        ([json!("a"), json!("a")], "two containers"),
    ] {
        let (_, message) = app.refused("SageMaker.CreateModel", several("bad", "Direct", hostnames)).await;
        assert!(message.contains(says), "{message}");
    }
    let variant = |model: &str| json!([{"VariantName": "v", "ModelName": model, "InitialInstanceCount": 1}]);
    for model in ["many", "direct"] {
        let later = json!({
            "EndpointConfigName": model, "ProductionVariants": variant(model),
            "AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/out"}},
        });
        app.ok("SageMaker.CreateEndpointConfig", later).await;
        let input = json!({"EndpointName": model, "EndpointConfigName": model});
        let (_, message) = app.refused("SageMaker.CreateEndpoint", input).await;
        assert!(message.contains("InvokeEndpointAsync names neither"), "{message}");
    }
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
