//! What an alarm over metrics reads and how it judges it, checked.

use std::collections::BTreeMap;

use api::cloudwatch::PutMetricAlarmInput;
use serde_json::Value;
use store::metrics::{Metric, Window};

use super::super::data::{MetricQuery, Queries};
use super::super::dimension_pairs;
use super::super::math::{self, Expression, Series};
use super::super::refusal::{Refusal, Result};
use super::super::statistic::Statistic;
use super::super::window::check_period;
use super::judge::{Comparison, Condition, Missing};
use crate::{Error, sagemaker::fields};

/// Most elements of the list of an alarm.
const MOST_ELEMENTS: usize = 20;

/// Most metrics among them.
const MOST_METRICS: usize = 10;

const DAY_SECONDS: i64 = 86_400;

/// Members that are honoured.
const HONOURED: &[&str] = &[
    "AlarmName",
    "AlarmDescription",
    "ActionsEnabled",
    "OKActions",
    "AlarmActions",
    "InsufficientDataActions",
    "MetricName",
    "Namespace",
    "Statistic",
    "ExtendedStatistic",
    "Dimensions.**",
    "Period",
    "Unit",
    "EvaluationPeriods",
    "DatapointsToAlarm",
    "Threshold",
    "ComparisonOperator",
    "TreatMissingData",
    "EvaluateLowSampleCountPercentile",
    "Metrics.**",
    "Tags.**",
];

/// An alarm over metrics, ready to be judged.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The metrics that it reads; at least one.
    pub(super) metrics: Vec<MetricQuery>,
    /// Expressions over them.
    pub(super) expressions: Vec<(String, Expression)>,
    /// Id of the metric or expression that is judged.
    pub(super) returned: String,
    /// Whether it has a list of metrics and expressions.
    pub(super) is_math: bool,
    pub(super) period_seconds: i64,
    pub(super) condition: Condition,
    /// Values that a data point must stand for to be judged.
    pub(super) least_samples: Option<f64>,
}

impl Plan {
    /// Checks the settings of an alarm over metrics.
    pub(super) fn of(input: PutMetricAlarmInput, account: &str) -> Result<Plan> {
        let condition = condition(&input)?;
        let is_math = input.metrics.as_ref().is_some_and(|metrics| !metrics.is_empty());
        let low = input.evaluate_low_sample_count_percentile.clone();
        let (metrics, expressions, returned) = if is_math { several(input, account)? } else { one(input)? };
        let period_seconds = metrics[0].period_seconds;
        let total =
            period_seconds * i64::try_from(condition.evaluation_periods).unwrap_or(i64::MAX / 1_000_000);
        if period_seconds < 3_600 && total > DAY_SECONDS {
            return Err(Refusal::Validation(
                "Metrics cannot be checked across more than a day (EvaluationPeriods * Period must be <= 86400).".into(),
            ));
        }
        if total > 7 * DAY_SECONDS {
            return Err(Refusal::Validation(
                "Metrics cannot be checked across more than 7 days (EvaluationPeriods * Period must be <= 604800)."
                    .into(),
            ));
        }
        let least_samples = least_samples(low.as_deref(), &metrics[0], is_math)?;
        Ok(Plan { metrics, expressions, returned, is_math, period_seconds, condition, least_samples })
    }

    /// Reads the settings of a stored alarm.
    ///
    /// # Errors
    /// A text for the log: they were checked when they were put.
    pub(super) fn stored(name: &str, spec: &Value, account: &str) -> Result<Plan, String> {
        let mut spec = spec.clone();
        spec["AlarmName"] = name.into();
        let input = serde_json::from_value(spec).map_err(|error| error.to_string())?;
        Plan::of(input, account).map_err(|refusal| format!("{refusal:?}"))
    }

    /// How far the periods of this alarm are apart when time passes: a minute, or less for short periods.
    pub(super) fn step_seconds(&self) -> i64 {
        self.period_seconds.min(60)
    }

    /// The periods that are looked at at a moment; the last of them has ended.
    pub(super) fn window(&self, now_ms: i64) -> Window {
        let now_seconds = now_ms.div_euclid(1000);
        let end_seconds = now_seconds - now_seconds.rem_euclid(self.step_seconds());
        let periods = i64::try_from(self.condition.range_periods()).unwrap_or(i64::MAX / 1_000_000);
        Window {
            start_seconds: end_seconds - periods * self.period_seconds,
            end_seconds,
            period_seconds: self.period_seconds,
        }
    }
}

/// Refuses what is not honoured.
pub(super) fn check_members(input: &Value) -> Result<()> {
    if input["EvaluationWindow"].get("WallClockWindow").is_some() {
        return Err(Error::field("EvaluationWindow.WallClockWindow").into());
    }
    fields::check(input, HONOURED)?;
    Ok(())
}

fn condition(input: &PutMetricAlarmInput) -> Result<Condition> {
    let required = |name: &str| Refusal::Validation(format!("The parameter {name} is required."));
    let operator = input.comparison_operator.as_ref().ok_or_else(|| required("ComparisonOperator"))?;
    let Some(comparison) = Comparison::named(operator.as_str()) else {
        // They compare with a band of an anomaly detector.
        return Err(Error::field(&format!("ComparisonOperator {operator}")).into());
    };
    let threshold = input.threshold.ok_or_else(|| required("Threshold"))?;
    if !threshold.is_finite() {
        return Err(Refusal::Validation("The parameter Threshold must be a number.".into()));
    }
    let periods = input.evaluation_periods.ok_or_else(|| required("EvaluationPeriods"))?;
    let datapoints = input.datapoints_to_alarm.unwrap_or(periods);
    if datapoints > periods {
        return Err(Refusal::Validation(format!(
            "DatapointsToAlarm ({datapoints}) must be less than or equal to EvaluationPeriods ({periods})."
        )));
    }
    let treatment = input.treat_missing_data.as_deref().unwrap_or("missing");
    let missing = Missing::named(treatment).ok_or_else(|| {
        Refusal::Validation(format!(
            "The value {treatment} for parameter TreatMissingData is invalid; it must be breaching, notBreaching, ignore or missing."
        ))
    })?;
    Ok(Condition {
        comparison,
        threshold,
        evaluation_periods: usize::try_from(periods).unwrap_or(1),
        datapoints_to_alarm: usize::try_from(datapoints).unwrap_or(1),
        missing,
    })
}

type Parts = (Vec<MetricQuery>, Vec<(String, Expression)>, String);

/// The metric of an alarm that has one.
fn one(input: PutMetricAlarmInput) -> Result<Parts> {
    let required = |name: &str| Refusal::Validation(format!("The parameter {name} is required."));
    let name = input
        .metric_name
        .ok_or_else(|| Refusal::Validation("Either MetricName or Metrics is required.".into()))?;
    let namespace = input.namespace.ok_or_else(|| required("Namespace"))?;
    let period_seconds = alarm_period(input.period.ok_or_else(|| required("Period"))?)?;
    let (statistic_name, is_extended) = match (input.statistic, input.extended_statistic) {
        (Some(statistic), None) => (statistic.to_string(), false),
        (None, Some(extended)) => (extended, true),
        (None, None) => return Err(required("Statistic or ExtendedStatistic")),
        (Some(_), Some(_)) => {
            return Err(Refusal::Validation("Statistic and ExtendedStatistic exclude each other.".into()));
        }
    };
    let statistic = Statistic::parse(&statistic_name)
        .filter(|statistic| statistic.needs_distribution() == is_extended)
        .ok_or_else(|| {
            let parameter = if is_extended { "ExtendedStatistic" } else { "Statistic" };
            Refusal::Validation(format!("The value {statistic_name} for parameter {parameter} is invalid."))
        })?;
    let metric = Metric { namespace, name, dimensions: dimension_pairs(input.dimensions, "Dimensions")? };
    let unit = input.unit.map(|unit| unit.to_string());
    let id = "m".to_owned();
    let query = MetricQuery { id: id.clone(), metric, period_seconds, statistic, statistic_name, unit };
    Ok((vec![query], Vec::new(), id))
}

/// The metrics and expressions of an alarm that has a list of them.
fn several(input: PutMetricAlarmInput, account: &str) -> Result<Parts> {
    let single = [
        ("MetricName", input.metric_name.is_some()),
        ("Namespace", input.namespace.is_some()),
        ("Dimensions", input.dimensions.is_some_and(|dimensions| !dimensions.is_empty())),
        ("Period", input.period.is_some()),
        ("Unit", input.unit.is_some()),
        ("Statistic", input.statistic.is_some()),
        ("ExtendedStatistic", input.extended_statistic.is_some()),
    ];
    if let Some((name, _)) = single.iter().find(|(_, given)| *given) {
        return Err(Refusal::Validation(format!("{name} cannot be given together with Metrics.")));
    }
    let queries = input.metrics.unwrap_or_default();
    if queries.len() > MOST_ELEMENTS {
        return Err(Refusal::Validation(format!(
            "Metrics list must not have more than {MOST_ELEMENTS} elements."
        )));
    }
    let checked = Queries::check(queries, account).map_err(own_words)?;
    let [returned] = &checked.returned[..] else {
        let text = "Exactly one element of the metrics list should return data.";
        return Err(Refusal::Validation(text.into()));
    };
    let returned = returned.id.clone();
    if checked.metrics.len() > MOST_METRICS {
        return Err(Refusal::Validation(format!(
            "Metrics list must not have more than {MOST_METRICS} metrics."
        )));
    }
    let Some(first) = checked.metrics.first() else {
        return Err(Refusal::Validation("Metrics list must have at least one metric.".into()));
    };
    let period_seconds = first.period_seconds;
    let periods = checked.metrics.iter().map(|metric| metric.period_seconds);
    let stated = checked.expressions.iter().filter_map(|expression| expression.period.map(i64::from));
    if periods.chain(stated).any(|period| period != period_seconds) {
        return Err(Refusal::Validation(
            "All metrics and expressions of an alarm must have the same Period.".into(),
        ));
    }
    let expressions: Vec<_> =
        checked.expressions.into_iter().map(|expression| (expression.id, expression.expression)).collect();
    check_value(&checked.metrics, &expressions, &returned, period_seconds)?;
    Ok((checked.metrics, expressions, returned))
}

/// Tries the expressions without data: what comes of them must be one time series.
fn check_value(
    metrics: &[MetricQuery],
    expressions: &[(String, Expression)],
    returned: &str,
    period_seconds: i64,
) -> Result<()> {
    let window = Window { start_seconds: 0, end_seconds: period_seconds, period_seconds };
    let ids: Vec<String> = metrics.iter().map(|metric| metric.id.clone()).collect();
    let empty = |metric: &MetricQuery| Series {
        label: metric.metric.name.clone(),
        period_seconds,
        points: Vec::new(),
    };
    let mut values: BTreeMap<String, math::Value> =
        metrics.iter().map(|metric| (metric.id.clone(), math::Value::Series(empty(metric)))).collect();
    math::evaluate(expressions, &ids, window, &mut values)
        .map_err(|(id, problem)| Refusal::Validation(format!("Error in expression '{id}' [{problem}]")))?;
    match values.get(returned) {
        Some(math::Value::Array(_)) => Err(Refusal::Validation(format!(
            "The expression '{returned}' must return a single time series; an alarm cannot watch several."
        ))),
        _ => Ok(()),
    }
}

/// The same refusal with the name that the list has here.
fn own_words(refusal: Refusal) -> Refusal {
    let named = |text: String| text.replace("MetricDataQueries", "Metrics");
    match refusal {
        Refusal::Missing(text)
        | Refusal::Value(text)
        | Refusal::Combination(text)
        | Refusal::Validation(text) => Refusal::Validation(named(text)),
        Refusal::Other(Error::NotImplemented(text)) => Error::NotImplemented(named(text)).into(),
        other => other,
    }
}

fn alarm_period(period_seconds: i32) -> Result<i64> {
    check_period(period_seconds).map_err(own_words)
}

fn least_samples(low: Option<&str>, metric: &MetricQuery, is_math: bool) -> Result<Option<f64>> {
    let Some(low) = low else { return Ok(None) };
    let Statistic::Percentile(part) = metric.statistic else {
        return Err(Refusal::Validation(
            "EvaluateLowSampleCountPercentile goes with an ExtendedStatistic that is a percentile.".into(),
        ));
    };
    if is_math {
        return Err(Refusal::Validation(
            "EvaluateLowSampleCountPercentile cannot be given together with Metrics.".into(),
        ));
    }
    match low {
        "evaluate" => Ok(None),
        // Ten samples beyond the percentile, on its nearer side.
        "ignore" => {
            Ok(Some(10.0 / if part < 0.5 { part } else { 1.0 - part }).filter(|least| least.is_finite()))
        }
        other => Err(Refusal::Validation(format!(
            "The value {other} for parameter EvaluateLowSampleCountPercentile is invalid; it must be evaluate or ignore."
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(change: impl FnOnce(&mut Value)) -> Result<Plan, String> {
        let mut settings = json!({
            "MetricName": "loss", "Namespace": "Tests", "Statistic": "Average", "Period": 60, "EvaluationPeriods": 3,
            "Threshold": 1.0, "ComparisonOperator": "GreaterThanThreshold",
        });
        change(&mut settings);
        Plan::stored("a", &settings, "123456789012")
    }

    #[test]
    fn windows_end_with_a_whole_step() {
        let window = plan(|settings| settings["Period"] = json!(300)).unwrap().window(1_000_000_000);
        assert_eq!((window.end_seconds, window.start_seconds), (999_960, 999_960 - 5 * 300));
        let window = plan(|settings| settings["Period"] = json!(10)).unwrap().window(1_000_009_999);
        assert_eq!((window.end_seconds, window.start_seconds), (1_000_000, 999_950));
        let window = plan(|settings| settings["Period"] = json!(1)).unwrap().window(1_000_009_999);
        assert_eq!(window.end_seconds, 1_000_009);
    }

    #[test]
    fn the_samples_that_a_percentile_needs_follow_from_it() {
        for (statistic, least) in [("p50", 20.0), ("p90", 100.0), ("p10", 100.0)] {
            let read = plan(|settings| {
                settings["Statistic"] = Value::Null;
                settings["ExtendedStatistic"] = json!(statistic);
                settings["EvaluateLowSampleCountPercentile"] = json!("ignore");
            });
            assert!((read.unwrap().least_samples.unwrap() - least).abs() < 1e-6, "{statistic}");
        }
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let list = |list: Value| {
            move |settings: &mut Value| {
                for name in ["MetricName", "Namespace", "Statistic", "Period"] {
                    settings[name] = Value::Null;
                }
                settings["Metrics"] = list;
            }
        };
        let metric = |id: &str, period: i64, shown: bool| {
            json!({"Id": id, "ReturnData": shown, "MetricStat": {
                "Metric": {"Namespace": "Tests", "MetricName": "m"}, "Period": period, "Stat": "Sum"}})
        };
        let sum = json!({"Id": "e", "Expression": "a + b"});
        assert!(plan(list(json!([metric("a", 60, false), metric("b", 60, false), sum]))).is_ok());
        for wrong in [
            json!([metric("a", 60, true), metric("b", 60, true)]),
            json!([metric("a", 60, false), metric("b", 300, false), sum]),
            json!([metric("a", 60, false), sum]),
            json!([metric("a", 60, false), {"Id": "e", "Expression": "METRICS()"}]),
            json!([{"Id": "e", "Expression": "TIME_SERIES(1)"}]),
        ] {
            assert!(plan(list(wrong.clone())).is_err(), "{wrong}");
        }
        for (name, value) in [
            ("Period", json!(45)),
            ("Period", Value::Null),
            ("EvaluationPeriods", json!(1441)),
            ("DatapointsToAlarm", json!(4)),
            ("TreatMissingData", json!("zero")),
            ("Statistic", json!("p90")),
            ("ExtendedStatistic", json!("p90")),
            ("Threshold", Value::Null),
            ("ComparisonOperator", json!("GreaterThanUpperThreshold")),
            ("EvaluateLowSampleCountPercentile", json!("ignore")),
        ] {
            let wrong = value.clone();
            assert!(plan(move |settings| settings[name] = value).is_err(), "{name} {wrong}");
        }
        assert!(plan(|settings| settings["EvaluationPeriods"] = json!(1440)).is_ok());
    }
}
