//! Deployment configurations: what is refused, what is kept. Real deployments are in the client tests.

use serde_json::{Value, json};

use crate::app::TestApp;

async fn app_with_configuration(instances: u32) -> TestApp {
    let app = TestApp::new().await;
    let model = json!({
        "ModelName": "m", "PrimaryContainer": {"Image": "img:1"},
        "ExecutionRoleArn": "arn:aws:iam::123456789012:role/ModelyardExecutionRole",
    });
    app.ok("SageMaker.CreateModel", model).await;
    let variant = json!({
        "VariantName": "v", "ModelName": "m", "InitialInstanceCount": instances, "InstanceType": "ml.m5.large",
    });
    let config = json!({"EndpointConfigName": "c", "ProductionVariants": [variant]});
    app.ok("SageMaker.CreateEndpointConfig", config).await;
    app
}

fn endpoint(deployment: &Value) -> Value {
    json!({"EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": deployment})
}

fn blue_green(routing: &Value) -> Value {
    json!({"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}})
}

#[tokio::test]
async fn sizes_and_times_outside_the_limits_are_refused_by_name() {
    let app = app_with_configuration(4).await;
    let size = |kind: &str, value: i64| json!({"Type": kind, "Value": value});
    for (deployment, told) in [
        (
            blue_green(
                &json!({"Type": "CANARY", "WaitIntervalInSeconds": 1, "CanarySize": size("CAPACITY_PERCENT", 60)}),
            ),
            "CanarySize must be at most 50 percent",
        ),
        (
            blue_green(
                &json!({"Type": "LINEAR", "WaitIntervalInSeconds": 1, "LinearStepSize": size("INSTANCE_COUNT", 3)}),
            ),
            "it is 3 of 4 instances",
        ),
        (blue_green(&json!({"Type": "CANARY", "WaitIntervalInSeconds": 1})), "CanarySize is missing"),
        (blue_green(&json!({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 3601})), "3600"),
        (
            json!({"RollingUpdatePolicy": {"MaximumBatchSize": size("CAPACITY_PERCENT", 4), "WaitIntervalInSeconds": 1}}),
            "MaximumBatchSize must be from 5 to 50 percent",
        ),
        (
            json!({"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "none"}]}}),
            "the alarm none does not exist",
        ),
    ] {
        let (code, message) = app.refused("SageMaker.CreateEndpoint", endpoint(&deployment)).await;
        assert_eq!(code, "ValidationException");
        assert!(message.contains(told), "{message}");
    }
}

#[tokio::test]
async fn a_configuration_given_at_first_is_kept_for_later() {
    let app = app_with_configuration(1).await;
    let rolling = json!({"RollingUpdatePolicy": {
        "MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1}, "WaitIntervalInSeconds": 5,
    }});
    app.ok("SageMaker.CreateEndpoint", endpoint(&rolling)).await;
    let shown = app.ok("SageMaker.DescribeEndpoint", json!({"EndpointName": "e"})).await;
    assert_eq!(shown["LastDeploymentConfig"], rolling);
    assert!(shown["PendingDeploymentSummary"].is_null());
    let asked = json!({"EndpointName": "e"});
    let shown = app.ok("Modelyard.DescribeEndpointDeployment", asked.clone()).await;
    assert_eq!((&shown["Deployment"]["Current"], &shown["Deployment"]["Last"]), (&Value::Null, &Value::Null));
    let compared = app.ok("Modelyard.CompareEndpointVariants", asked).await["Comparison"].clone();
    assert_eq!(compared["Variants"][0]["Requests"], 0.0);
    assert_eq!(compared["Comparisons"], json!([]));
    let half = json!({"EndpointName": "e", "Namespace": "Mine"});
    let (_, message) = app.refused("Modelyard.CompareEndpointVariants", half).await;
    assert!(message.contains("Namespace and MetricName"), "{message}");
    let both = json!({
        "EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": rolling, "RetainDeploymentConfig": true,
    });
    let (_, message) = app.refused("SageMaker.UpdateEndpoint", both).await;
    assert!(message.contains("RetainDeploymentConfig"), "{message}");
}

#[tokio::test]
async fn questions_about_missing_endpoints_are_refused() {
    let app = TestApp::new().await;
    for operation in ["Modelyard.DescribeEndpointDeployment", "Modelyard.CompareEndpointVariants"] {
        let (code, message) = app.refused(operation, json!({"EndpointName": "none"})).await;
        assert_eq!(code, "ValidationException");
        assert!(message.starts_with("Could not find endpoint"), "{message}");
    }
}
