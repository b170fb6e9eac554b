//! Application Auto Scaling: what is kept, what is refused, and what the clock and alarms bring about.

use serde_json::{Value, json};
use server::autoscaling::{Breach, execute_step_policy};
use store::resources::{Resource, ResourceKey};

use crate::app::TestApp;

const SERVICE: &str = "AnyScaleFrontendService";

/// An app with an endpoint in its books that has served.
async fn scene() -> TestApp {
    let app = TestApp::new().await;
    let document = json!({
        "config": "c", "generation": 1, "served_generation": 1, "failure_reason": null,
        "variants": [{
            "name": "v", "weight": 1.0, "replicas": 1, "startup_timeout_seconds": 60, "image": "none",
            "model_data": null, "environment": {}, "role_arn": null, "network_isolation": false,
        }],
    });
    let endpoint = Resource {
        key: ResourceKey::new("123456789012", "us-east-1", "endpoint", "e"),
        arn: "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e".into(),
        status: "InService".into(),
        spec: json!({"EndpointName": "e"}),
        document,
        generation: 1,
        created_at: 0,
        modified_at: 0,
    };
    app.app.database.write(move |session| session.insert_resource(&endpoint)).await.unwrap();
    app
}

#[expect(clippy::needless_pass_by_value, reason = "it is made for the call")]
fn target(more: Value) -> Value {
    let mut input = json!({
        "ServiceNamespace": "sagemaker", "ResourceId": "endpoint/e/variant/v",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    });
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    input
}

impl TestApp {
    async fn scaling(&self, operation: &str, more: Value) -> Value {
        self.ok(&format!("{SERVICE}.{operation}"), target(more)).await
    }

    async fn scaling_refused(&self, operation: &str, more: Value) -> (String, String) {
        self.refused(&format!("{SERVICE}.{operation}"), target(more)).await
    }

    /// Waits until the replicas that cannot start have failed, and puts the endpoint back into service.
    async fn serves_again(&self) {
        let name = json!({"EndpointName": "e"});
        let failed = async || {
            let shown = self.ok("SageMaker.DescribeEndpoint", name.clone()).await;
            (shown["EndpointStatus"] == "Failed").then_some(())
        };
        self.until("the endpoint has failed", failed).await;
        let key = ResourceKey::new("123456789012", "us-east-1", "endpoint", "e");
        let put_back = self.app.database.write(move |session| {
            session.update_resource(&key, 0, |endpoint| {
                endpoint.status = "InService".into();
                endpoint.document["served_generation"] = endpoint.document["generation"].clone();
                Ok(())
            })
        });
        put_back.await.unwrap();
    }

    async fn bounds(&self) -> (Value, Value) {
        let operation = format!("{SERVICE}.DescribeScalableTargets");
        let found = self.ok(&operation, json!({"ServiceNamespace": "sagemaker"})).await;
        let target = found["ScalableTargets"][0].clone();
        (target["MinCapacity"].clone(), target["MaxCapacity"].clone())
    }

    async fn causes(&self) -> Vec<String> {
        let input = json!({"ServiceNamespace": "sagemaker", "IncludeNotScaledActivities": true});
        let found = self.ok(&format!("{SERVICE}.DescribeScalingActivities"), input).await;
        let activities = found["ScalingActivities"].as_array().unwrap();
        activities.iter().map(|one| one["Cause"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn targets_are_changed_member_by_member_and_tagged() {
    let app = scene().await;
    let tags = json!({"MinCapacity": 0, "MaxCapacity": 3, "Tags": {"team": "a"}});
    let arn = app.scaling("RegisterScalableTarget", tags).await["ScalableTargetARN"].clone();
    let suspended = json!({"SuspendedState": {"DynamicScalingInSuspended": true}});
    app.scaling("RegisterScalableTarget", suspended).await;
    let schedules = json!({"MaxCapacity": 4, "SuspendedState": {"ScheduledScalingSuspended": true}});
    app.scaling("RegisterScalableTarget", schedules).await;
    assert_eq!(app.bounds().await, (json!(0), json!(4)));
    let found =
        app.ok(&format!("{SERVICE}.DescribeScalableTargets"), json!({"ServiceNamespace": "sagemaker"})).await;
    assert_eq!(
        found["ScalableTargets"][0]["SuspendedState"],
        json!({"DynamicScalingInSuspended": true, "DynamicScalingOutSuspended": false, "ScheduledScalingSuspended": true})
    );
    app.ok(&format!("{SERVICE}.TagResource"), json!({"ResourceARN": arn, "Tags": {"cost": "low"}})).await;
    app.ok(&format!("{SERVICE}.UntagResource"), json!({"ResourceARN": arn, "TagKeys": ["team"]})).await;
    let tags = app.ok(&format!("{SERVICE}.ListTagsForResource"), json!({"ResourceARN": arn})).await;
    assert_eq!(tags["Tags"], json!({"cost": "low"}));
    let other =
        json!({"ResourceARN": "arn:aws:application-autoscaling:us-east-1:123456789012:scalable-target/none"});
    let (code, _) = app.refused(&format!("{SERVICE}.ListTagsForResource"), other).await;
    assert_eq!(code, "ResourceNotFoundException");
    let (_, text) = app.scaling_refused("RegisterScalableTarget", json!({"Tags": {"a": "b"}})).await;
    assert!(text.contains("TagResource"), "{text}");
    for (dimension, why) in [
        ("sagemaker:inference-component:DesiredCopyCount", "inference-component/NAME"),
        ("sagemaker:variant:DesiredProvisionedConcurrency", "has no provisioned concurrency"),
        ("ecs:service:DesiredCount", "does not belong"),
    ] {
        let input = json!({"ScalableDimension": dimension, "MinCapacity": 1, "MaxCapacity": 1});
        let (code, text) = app.scaling_refused("RegisterScalableTarget", input).await;
        assert!(code == "ValidationException" && text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn policies_that_cannot_act_are_refused() {
    let app = scene().await;
    app.scaling("RegisterScalableTarget", json!({"MinCapacity": 1, "MaxCapacity": 3})).await;
    let step = json!({"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1});
    for (policy, why) in [
        (
            json!({"PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 1.0}}),
            "either",
        ),
        (
            json!({"PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": {
                "TargetValue": 1.0, "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantProvisionedConcurrencyUtilization"},
            }}),
            "cannot be used",
        ),
        (
            json!({"PolicyType": "StepScaling", "StepScalingPolicyConfiguration": {"StepAdjustments": [step]}}),
            "AdjustmentType",
        ),
        (
            json!({"PolicyType": "PredictiveScaling", "PredictiveScalingPolicyConfiguration": {"MetricSpecifications": [{"TargetValue": 1.0}]}}),
            "PredictiveScaling",
        ),
    ] {
        let mut policy = policy;
        policy["PolicyName"] = "p".into();
        let (code, text) = app.scaling_refused("PutScalingPolicy", policy).await;
        assert!(code == "ValidationException" && text.contains(why), "{text}");
    }
    let forecast = json!({"PolicyName": "p", "StartTime": 0, "EndTime": 1});
    app.scaling_refused("GetPredictiveScalingForecast", forecast).await;
}

#[tokio::test]
async fn a_scheduled_action_sets_the_bounds_at_its_time() {
    let app = scene().await;
    let action = json!({
        "ScheduledActionName": "night", "Schedule": "rate(1 minute)", "Timezone": "Europe/Berlin",
        "ScalableTargetAction": {"MinCapacity": 2},
    });
    let (code, _) = app.scaling_refused("PutScheduledAction", action.clone()).await;
    assert_eq!(code, "ObjectNotFoundException");
    app.scaling("RegisterScalableTarget", json!({"MinCapacity": 1, "MaxCapacity": 3})).await;
    app.scaling("PutScheduledAction", action).await;
    // What the request leaves out keeps its value.
    app.scaling("PutScheduledAction", json!({"ScheduledActionName": "night", "Schedule": "rate(2 minutes)"}))
        .await;
    let listed = app
        .ok(&format!("{SERVICE}.DescribeScheduledActions"), json!({"ServiceNamespace": "sagemaker"}))
        .await;
    let shown = &listed["ScheduledActions"][0];
    assert_eq!(
        (&shown["Schedule"], &shown["Timezone"]),
        (&json!("rate(2 minutes)"), &json!("Europe/Berlin"))
    );
    assert_eq!(shown["ScalableTargetAction"], json!({"MinCapacity": 2}));
    app.clock.advance(120_000);
    app.app.timers.ring();
    app.until("the bounds are set", || async { (app.bounds().await == (json!(2), json!(3))).then_some(()) })
        .await;
    assert_eq!(app.causes().await, ["scheduled action name night was triggered"]);
    let (_, text) = app
        .scaling_refused("PutScheduledAction", json!({"ScheduledActionName": "night", "Schedule": "noon"}))
        .await;
    assert!(text.contains("cron(...)"), "{text}");
    app.scaling("DeleteScheduledAction", json!({"ScheduledActionName": "night"})).await;
    let (code, _) =
        app.scaling_refused("DeleteScheduledAction", json!({"ScheduledActionName": "night"})).await;
    assert_eq!(code, "ObjectNotFoundException");
}

#[tokio::test]
async fn an_alarm_takes_a_step() {
    let app = scene().await;
    app.scaling("RegisterScalableTarget", json!({"MinCapacity": 1, "MaxCapacity": 3})).await;
    let policy = json!({
        "PolicyName": "steps", "PolicyType": "StepScaling", "StepScalingPolicyConfiguration": {
            "AdjustmentType": "ChangeInCapacity", "Cooldown": 60,
            "StepAdjustments": [
                {"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 10.0, "ScalingAdjustment": 1},
                {"MetricIntervalLowerBound": 10.0, "ScalingAdjustment": 2},
            ],
        },
    });
    let arn = app.scaling("PutScalingPolicy", policy.clone()).await["PolicyARN"].as_str().unwrap().to_owned();
    let tracking = json!({
        "PolicyName": "tracking", "PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 70.0,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        },
    });
    assert_eq!(app.scaling("PutScalingPolicy", tracking).await["Alarms"], json!([]));
    for (name, list) in [("busy", "AlarmActions"), ("calm", "OKActions"), ("other", "Nothing")] {
        let mut alarm = json!({
            "AlarmName": name, "Namespace": "Own", "MetricName": "Backlog", "Statistic": "Maximum", "Period": 60,
            "EvaluationPeriods": 1, "Threshold": 10.0, "ComparisonOperator": "GreaterThanThreshold",
        });
        if list != "Nothing" {
            alarm[list] = json!([arn]);
        }
        app.ok("GraniteServiceVersion20100801.PutMetricAlarm", alarm).await;
    }
    let named = |name: &str| json!({"AlarmName": name, "AlarmARN": format!("arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}")});
    let alarms = json!([named("busy"), named("calm")]);
    let shown = app.scaling("DescribeScalingPolicies", json!({})).await;
    let shown: Vec<_> =
        shown["ScalingPolicies"].as_array().unwrap().iter().map(|policy| &policy["Alarms"]).collect();
    assert_eq!(shown, [&alarms, &json!([])]);
    assert_eq!(app.scaling("PutScalingPolicy", policy).await["Alarms"], alarms);
    app.ok("GraniteServiceVersion20100801.DeleteAlarms", json!({"AlarmNames": ["busy", "calm"]})).await;
    let breach = |distance| Breach { alarm: "busy".into(), distance };
    let execute = async |distance| execute_step_policy(&app.app, &arn, &breach(distance)).await.unwrap();
    assert!(execute(5.0).await);
    assert!(!execute(5.0).await, "the same breach within the cool-down asks for no more");
    app.serves_again().await;
    assert!(execute(15.0).await, "a larger one does");
    assert!(!execute(15.0).await);
    assert!(!execute(-1.0).await, "no step is below the threshold");
    let cause = "monitor alarm busy in state ALARM triggered policy steps";
    assert_eq!(app.causes().await, [cause, cause]);
    let shown = app.ok("SageMaker.DescribeEndpoint", json!({"EndpointName": "e"})).await;
    assert_eq!(shown["ProductionVariants"][0]["DesiredInstanceCount"], 3);
    assert!(execute_step_policy(&app.app, "arn:none", &breach(1.0)).await.is_err());
    app.scaling("DeregisterScalableTarget", json!({})).await;
    assert!(
        execute_step_policy(&app.app, &arn, &breach(1.0)).await.is_err(),
        "policies go with their target"
    );
}
