//! Endpoints and autoscaling: what is refused. What they do when they serve is in the client tests.

use serde_json::json;

use crate::app::TestApp;

#[tokio::test]
async fn missing_endpoints_are_refused_in_the_words_of_the_service() {
    let app = TestApp::new().await;
    for operation in [
        "SageMaker.DescribeEndpoint",
        "SageMaker.DeleteEndpoint",
        "Modelyard.DescribeEndpointEngines",
        "Modelyard.DescribeEndpointModels",
    ] {
        let (code, message) = app.refused(operation, json!({"EndpointName": "none"})).await;
        assert_eq!(code, "ValidationException");
        assert!(message.starts_with("Could not find endpoint \"arn:aws:sagemaker:"), "{message}");
    }
    let input = json!({"EndpointName": "none", "EndpointConfigName": "none"});
    let (_, message) = app.refused("SageMaker.CreateEndpoint", input.clone()).await;
    assert!(message.starts_with("Could not find endpoint configuration"), "{message}");
    let (_, message) = app.refused("SageMaker.UpdateEndpoint", input).await;
    assert!(message.starts_with("Could not find endpoint"), "{message}");
    let input = json!({"EndpointName": "none", "DesiredWeightsAndCapacities": [{"VariantName": "a", "DesiredWeight": 1.0}]});
    let (_, message) = app.refused("SageMaker.UpdateEndpointWeightsAndCapacities", input).await;
    assert!(message.starts_with("Could not find endpoint"), "{message}");
    assert_eq!(app.ok("SageMaker.ListEndpoints", json!({})).await["Endpoints"], json!([]));
}

#[tokio::test]
async fn scaling_needs_an_endpoint_variant() {
    let app = TestApp::new().await;
    let target = json!({
        "ServiceNamespace": "sagemaker", "ResourceId": "endpoint/none/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    });
    let with = |more: serde_json::Value| {
        let mut input = target.clone();
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let (code, _) = app
        .refused(
            "AnyScaleFrontendService.RegisterScalableTarget",
            with(json!({"MinCapacity": 1, "MaxCapacity": 2})),
        )
        .await;
    assert_eq!(code, "ValidationException");
    let policy = json!({
        "PolicyName": "p", "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 70.0,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        },
    });
    let (code, _) = app.refused("AnyScaleFrontendService.PutScalingPolicy", with(policy)).await;
    assert_eq!(code, "ObjectNotFoundException");
    for operation in ["DeregisterScalableTarget", "DeleteScalingPolicy"] {
        let input = if operation == "DeleteScalingPolicy" {
            with(json!({"PolicyName": "p"}))
        } else {
            target.clone()
        };
        let (code, _) = app.refused(&format!("AnyScaleFrontendService.{operation}"), input).await;
        assert_eq!(code, "ObjectNotFoundException");
    }
    let namespace = json!({"ServiceNamespace": "sagemaker"});
    let targets = app.ok("AnyScaleFrontendService.DescribeScalableTargets", namespace.clone()).await;
    assert_eq!(targets["ScalableTargets"], json!([]));
    let policies = app.ok("AnyScaleFrontendService.DescribeScalingPolicies", namespace).await;
    assert_eq!(policies["ScalingPolicies"], json!([]));
}
