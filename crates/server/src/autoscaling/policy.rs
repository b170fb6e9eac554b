//! Scaling policies as they are acted upon: read from what was stored, and checked when they are put.

use serde::Deserialize;
use serde_json::Value;

use super::steps::Steps;
use crate::endpoints::scaled::Scaled;
use crate::monitoring::TrackedMetric;

/// Seconds of a cool-down where a policy for a variant says none, as in the service.
const DEFAULT_COOLDOWN_SECONDS: i64 = 300;

/// A policy that keeps a metric near a target.
pub struct Tracking {
    /// The target.
    pub target: f64,
    /// What is kept near it.
    pub metric: Metric,
    /// Seconds after growth in which only larger growth follows.
    pub out_cooldown_seconds: i64,
    /// Seconds after a shrinking in which none follows.
    pub in_cooldown_seconds: i64,
    /// Whether it never asks for less.
    pub only_out: bool,
    /// What the metric says something of, when it is a predefined one.
    pub of: Option<Scaled>,
}

/// What a policy watches.
pub enum Metric {
    /// Invocations a minute, for each instance.
    Invocations,
    /// Requests under way at once, for each instance.
    ConcurrentRequests,
    /// The part of the provisioned concurrency that is in use.
    ProvisionedUtilization,
    /// A metric, or an expression over metrics, of the user's choice.
    Customized(TrackedMetric),
}

impl Metric {
    /// Seconds that its value is of.
    pub fn seconds(&self) -> i64 {
        match self {
            Metric::ConcurrentRequests | Metric::ProvisionedUtilization => 10,
            Metric::Invocations | Metric::Customized(_) => 60,
        }
    }
}

impl Tracking {
    /// Refuses a metric that says nothing of what scales.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self, scaled: Scaled) -> Result<(), String> {
        if self.of.is_none_or(|of| of == scaled) {
            return Ok(());
        }
        let use_this = match scaled {
            Scaled::Instances => {
                "SageMakerVariantInvocationsPerInstance or SageMakerVariantConcurrentRequestsPerModelHighResolution"
            }
            Scaled::ProvisionedConcurrency => "SageMakerVariantProvisionedConcurrencyUtilization",
            Scaled::Copies => {
                "SageMakerInferenceComponentInvocationsPerCopy or SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
            }
        };
        Err(format!(
            "PredefinedMetricType cannot be used with the scalable dimension {}; use {use_this}, or a CustomizedMetricSpecification.",
            scaled.dimension()
        ))
    }

    /// Reads a `TargetTrackingScalingPolicyConfiguration`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn read(configuration: &Value, account: &str) -> Result<Tracking, String> {
        let target = configuration["TargetValue"].as_f64().unwrap_or_default();
        if !(target.is_finite() && target > 0.0) {
            return Err("TargetValue must be above 0.".into());
        }
        let seconds = |name: &str| match configuration[name].as_i64() {
            None => Ok(DEFAULT_COOLDOWN_SECONDS),
            Some(seconds) if seconds >= 0 => Ok(seconds),
            Some(_) => Err(format!("{name} must not be below 0.")),
        };
        let (predefined, customized) = (
            &configuration["PredefinedMetricSpecification"],
            &configuration["CustomizedMetricSpecification"],
        );
        let (metric, of) = match (predefined.is_null(), customized.is_null()) {
            (false, true) => predefined_metric(predefined).map(|(metric, of)| (metric, Some(of)))?,
            (true, false) => (Metric::Customized(customized_metric(customized, account)?), None),
            _ => {
                return Err(
                    "Give either PredefinedMetricSpecification or CustomizedMetricSpecification, and not both.".into(),
                );
            }
        };
        Ok(Tracking {
            target,
            metric,
            out_cooldown_seconds: seconds("ScaleOutCooldown")?,
            in_cooldown_seconds: seconds("ScaleInCooldown")?,
            only_out: configuration["DisableScaleIn"] == true,
            of,
        })
    }
}

fn predefined_metric(specification: &Value) -> Result<(Metric, Scaled), String> {
    if !specification["ResourceLabel"].is_null() {
        return Err("ResourceLabel does not go with metrics of endpoints; leave it out.".into());
    }
    match specification["PredefinedMetricType"].as_str().unwrap_or_default() {
        "SageMakerVariantInvocationsPerInstance" => Ok((Metric::Invocations, Scaled::Instances)),
        "SageMakerVariantConcurrentRequestsPerModelHighResolution" => {
            Ok((Metric::ConcurrentRequests, Scaled::Instances))
        }
        "SageMakerVariantProvisionedConcurrencyUtilization" => {
            Ok((Metric::ProvisionedUtilization, Scaled::ProvisionedConcurrency))
        }
        "SageMakerInferenceComponentInvocationsPerCopy" => Ok((Metric::Invocations, Scaled::Copies)),
        "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution" => {
            Ok((Metric::ConcurrentRequests, Scaled::Copies))
        }
        other => Err(format!(
            "PredefinedMetricType {other} cannot be used with endpoints; use SageMakerVariantInvocationsPerInstance, \
             SageMakerVariantConcurrentRequestsPerModelHighResolution, SageMakerVariantProvisionedConcurrencyUtilization, \
             SageMakerInferenceComponentInvocationsPerCopy, SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution or a \
             CustomizedMetricSpecification."
        )),
    }
}

fn customized_metric(specification: &Value, account: &str) -> Result<TrackedMetric, String> {
    let given = |name: &str| !specification[name].is_null();
    let single = ["MetricName", "Namespace", "Dimensions", "Statistic", "Unit"];
    let problem = |text: String| format!("CustomizedMetricSpecification: {text}");
    match specification["Metrics"].as_array() {
        Some(_) if single.into_iter().any(given) => {
            Err(problem("give either Metrics or one metric with its Statistic, and not both.".into()))
        }
        Some(queries) => TrackedMetric::queries(queries, account).map_err(problem),
        None => {
            if let Some(missing) =
                ["MetricName", "Namespace", "Statistic"].into_iter().find(|name| !given(name))
            {
                return Err(problem(format!("{missing} is required without Metrics.")));
            }
            TrackedMetric::metric(specification, account).map_err(problem)
        }
    }
}

/// Reads a `StepScalingPolicyConfiguration`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn read_steps(configuration: &Value) -> Result<Steps, String> {
    if configuration["AdjustmentType"].is_null() {
        return Err("AdjustmentType is required in StepScalingPolicyConfiguration.".into());
    }
    if configuration["StepAdjustments"].is_null() {
        return Err("StepAdjustments is required in StepScalingPolicyConfiguration.".into());
    }
    let steps = Steps::deserialize(configuration)
        .map_err(|error| format!("StepScalingPolicyConfiguration: {error}."))?;
    steps.check()?;
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "it is made for the call")]
    fn read(configuration: Value) -> Result<Tracking, String> {
        Tracking::read(&configuration, "123456789012")
    }

    #[test]
    fn tracking_policies_are_read_with_the_defaults_of_the_service() {
        let invocations = json!({"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"});
        let policy = read(json!({
            "TargetValue": 70.0, "PredefinedMetricSpecification": invocations, "ScaleInCooldown": 10, "DisableScaleIn": true,
        }))
        .ok()
        .unwrap();
        assert_eq!((policy.target, policy.out_cooldown_seconds, policy.in_cooldown_seconds), (70.0, 300, 10));
        assert!(policy.only_out && matches!(policy.metric, Metric::Invocations));
        let one = json!({"MetricName": "Backlog", "Namespace": "Mine", "Statistic": "Average"});
        assert!(read(json!({"TargetValue": 1, "CustomizedMetricSpecification": one})).is_ok());
        let metrics = json!({"Metrics": [
            {"Id": "a", "MetricStat": {"Metric": {"Namespace": "Mine", "MetricName": "Backlog"}, "Stat": "Sum"}, "ReturnData": false},
            {"Id": "b", "Expression": "a / 2", "Label": "half"},
        ]});
        assert!(read(json!({"TargetValue": 1, "CustomizedMetricSpecification": metrics})).is_ok());
        for (configuration, why) in [
            (json!({"TargetValue": 0}), "TargetValue"),
            (json!({"TargetValue": 1}), "either"),
            (
                json!({"TargetValue": 1, "PredefinedMetricSpecification": invocations, "CustomizedMetricSpecification": one}),
                "either",
            ),
            (
                json!({"TargetValue": 1, "PredefinedMetricSpecification": invocations, "ScaleOutCooldown": -1}),
                "ScaleOutCooldown",
            ),
            (
                json!({"TargetValue": 1, "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"}}),
                "cannot be used",
            ),
            (
                json!({"TargetValue": 1, "CustomizedMetricSpecification": {"MetricName": "a", "Namespace": "b"}}),
                "Statistic",
            ),
            (
                json!({"TargetValue": 1, "CustomizedMetricSpecification": {"Metrics": [{"Id": "b", "Expression": "1 +"}]}}),
                "expression",
            ),
        ] {
            let text = read(configuration.clone()).err().unwrap_or_else(|| panic!("{configuration}"));
            assert!(text.contains(why), "{configuration}: {text}");
        }
    }

    #[test]
    fn step_policies_need_their_parts() {
        let step = json!({"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1});
        assert!(
            read_steps(&json!({"AdjustmentType": "ChangeInCapacity", "StepAdjustments": [step]})).is_ok()
        );
        assert!(read_steps(&json!({"StepAdjustments": [step]})).unwrap_err().contains("AdjustmentType"));
        assert!(
            read_steps(&json!({"AdjustmentType": "ExactCapacity"})).unwrap_err().contains("StepAdjustments")
        );
    }
}
