//! PutMetricData.

use api::cloudwatch::{MetricDatum, PutMetricData, PutMetricDataInput, PutMetricDataOutput, StatisticSet};
use store::metrics::{NewSamples, Sample, SeriesKey};

use super::dimension_pairs;
use super::refusal::{Refusal, Result};
use crate::{Cx, Error, Registry};

/// Most metrics of a request.
const MOST_METRICS: usize = 1_000;

/// Most distinct values of a metric in a request.
const MOST_VALUES: usize = 150;

/// Largest magnitude of a value: two to the power of 360.
const LARGEST_VALUE: f64 = 2.348_542_582_773_833_3e108;

/// How old a sample may be.
const OLDEST_SECONDS: i64 = 14 * 86_400;

/// How far in the future a sample may be.
const NEWEST_SECONDS: i64 = 2 * 3_600;

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<PutMetricData, _, _, _>(put_metric_data);
}

async fn put_metric_data(cx: Cx, input: PutMetricDataInput) -> Result<PutMetricDataOutput> {
    for (field, given) in [
        ("EntityMetricData", input.entity_metric_data.is_some()),
        ("StrictEntityValidation", input.strict_entity_validation.is_some()),
    ] {
        if given {
            return Err(Error::field(field).into());
        }
    }
    check_namespace(&input.namespace)?;
    let data = input.metric_data.unwrap_or_default();
    if data.is_empty() {
        return Err(Refusal::Missing("The parameter MetricData is required.".into()));
    }
    if data.len() > MOST_METRICS {
        let text = format!("The collection MetricData must not have a size greater than {MOST_METRICS}.");
        return Err(Refusal::Value(text));
    }
    let now_seconds = cx.state.clock.now_ms().div_euclid(1000);
    let owner = (&*cx.caller.account, &*cx.caller.region);
    let mut all = Vec::with_capacity(data.len());
    for (index, datum) in data.into_iter().enumerate() {
        let at = format!("MetricData.member.{}", index + 1);
        let samples = samples(&datum, &at, now_seconds)?;
        let dimensions = dimension_pairs(datum.dimensions, &format!("{at}.Dimensions"))?;
        let unit = datum.unit.map_or_else(|| "None".to_owned(), |unit| unit.to_string());
        let series = SeriesKey::new(owner, &*input.namespace, datum.metric_name, dimensions, unit);
        all.push(NewSamples { series, samples });
    }
    cx.state.metrics.put(all).await?;
    Ok(PutMetricDataOutput::default())
}

fn check_namespace(namespace: &str) -> Result<()> {
    // The service keeps these for its own metrics.
    let reserved = namespace.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("AWS/"));
    if reserved || namespace.chars().any(char::is_control) {
        return Err(Refusal::value(namespace, "Namespace"));
    }
    Ok(())
}

/// What a datum says, as samples.
fn samples(datum: &MetricDatum, at: &str, now_seconds: i64) -> Result<Vec<Sample>> {
    let at_seconds = moment(datum, at, now_seconds)?;
    let values = datum.values.as_deref().filter(|values| !values.is_empty());
    match (datum.value, &datum.statistic_values, values) {
        (Some(value), None, None) => {
            check_value(value, &format!("{at}.Value"))?;
            refuse_counts(datum, at)?;
            Ok(vec![Sample::value(at_seconds, value)])
        }
        (None, Some(set), None) => {
            refuse_counts(datum, at)?;
            summary(set, at, at_seconds).map(|sample| vec![sample])
        }
        (None, None, Some(values)) => repeated(values, datum.counts.as_deref(), at, at_seconds),
        (None, None, None) => Err(Refusal::Missing(format!(
            "At least one of the parameters {at}.Value, {at}.StatisticValues and {at}.Values must be specified."
        ))),
        _ => Err(Refusal::Combination(format!(
            "The parameters {at}.Value, {at}.StatisticValues and {at}.Values are mutually exclusive and you have specified more than one of them."
        ))),
    }
}

/// The second that a datum is kept under: its minute, unless it asks for more.
fn moment(datum: &MetricDatum, at: &str, now_seconds: i64) -> Result<i64> {
    let given = datum.timestamp.map_or(now_seconds, |timestamp| timestamp.as_millis().div_euclid(1000));
    let parameter = format!("{at}.Timestamp");
    if given < now_seconds - OLDEST_SECONDS {
        let text = format!("The parameter {parameter} must specify a time within the past two weeks.");
        return Err(Refusal::Value(text));
    }
    if given > now_seconds + NEWEST_SECONDS {
        let text =
            format!("The parameter {parameter} must specify a time no more than two hours in the future.");
        return Err(Refusal::Value(text));
    }
    match datum.storage_resolution {
        None | Some(60) => Ok(given - given.rem_euclid(60)),
        Some(1) => Ok(given),
        Some(other) => Err(Refusal::value(other, &format!("{at}.StorageResolution"))),
    }
}

fn check_value(value: f64, parameter: &str) -> Result<()> {
    if value.abs() <= LARGEST_VALUE { Ok(()) } else { Err(Refusal::value(value, parameter)) }
}

fn refuse_counts(datum: &MetricDatum, at: &str) -> Result<()> {
    match &datum.counts {
        Some(counts) if !counts.is_empty() => {
            Err(Refusal::Combination(format!("The parameter {at}.Counts goes with {at}.Values only.")))
        }
        _ => Ok(()),
    }
}

fn summary(set: &StatisticSet, at: &str, at_seconds: i64) -> Result<Sample> {
    let parameter = |name: &str| format!("{at}.StatisticValues.{name}");
    for (name, value) in [("Sum", set.sum), ("Minimum", set.minimum), ("Maximum", set.maximum)] {
        check_value(value, &parameter(name))?;
    }
    if !(set.sample_count > 0.0 && set.sample_count <= LARGEST_VALUE) {
        return Err(Refusal::value(set.sample_count, &parameter("SampleCount")));
    }
    if set.minimum > set.maximum {
        return Err(Refusal::Combination(format!(
            "The parameter {} must not be greater than {}.",
            parameter("Minimum"),
            parameter("Maximum")
        )));
    }
    let (count, sum, minimum, maximum) = (set.sample_count, set.sum, set.minimum, set.maximum);
    Ok(Sample { at_seconds, count, sum, minimum, maximum })
}

fn repeated(values: &[f64], counts: Option<&[f64]>, at: &str, at_seconds: i64) -> Result<Vec<Sample>> {
    if values.len() > MOST_VALUES {
        let text = format!("The collection {at}.Values must not have a size greater than {MOST_VALUES}.");
        return Err(Refusal::Value(text));
    }
    if counts.is_some_and(|counts| counts.len() != values.len()) {
        let text = format!("The parameters {at}.Values and {at}.Counts must be of the same size.");
        return Err(Refusal::Value(text));
    }
    let mut samples = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        check_value(*value, &format!("{at}.Values.member.{}", index + 1))?;
        let count = counts.map_or(1.0, |counts| counts[index]);
        if !(count > 0.0 && count <= LARGEST_VALUE) {
            return Err(Refusal::value(count, &format!("{at}.Counts.member.{}", index + 1)));
        }
        samples.push(Sample::repeated(at_seconds, *value, count));
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_is_a_power_of_two() {
        assert_eq!(LARGEST_VALUE, 2f64.powi(360));
    }

    #[test]
    fn seconds_are_kept_for_high_resolution_only() {
        let datum = |resolution: Option<i32>| -> MetricDatum {
            serde_json::from_value(serde_json::json!({"MetricName": "m", "StorageResolution": resolution}))
                .unwrap()
        };
        assert_eq!(moment(&datum(None), "", 119).ok(), Some(60));
        assert_eq!(moment(&datum(Some(60)), "", 119).ok(), Some(60));
        assert_eq!(moment(&datum(Some(1)), "", 119).ok(), Some(119));
        assert!(moment(&datum(Some(30)), "", 119).is_err());
    }
}
