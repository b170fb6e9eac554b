//! GetMetricStatistics.

use std::collections::BTreeMap;

use api::Timestamp;
use api::cloudwatch::{
    Datapoint, GetMetricStatistics, GetMetricStatisticsInput, GetMetricStatisticsOutput, StandardUnit,
};
use store::metrics::{Aggregate, Metric};

use super::dimension_pairs;
use super::refusal::{Refusal, Result};
use super::statistic::Statistic;
use super::window::{check_period, periods, window};
use crate::{Cx, Registry};

/// Most datapoints of an answer.
const MOST_DATAPOINTS: i64 = 1_440;

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<GetMetricStatistics, _, _, _>(get_metric_statistics);
}

async fn get_metric_statistics(cx: Cx, input: GetMetricStatisticsInput) -> Result<GetMetricStatisticsOutput> {
    let wanted = wanted(&input)?;
    let period_seconds = check_period(input.period)?;
    let now_seconds = cx.state.clock.now_ms().div_euclid(1000);
    let window = window(input.start_time, input.end_time, period_seconds, now_seconds)?;
    let count = periods(&window);
    if count > MOST_DATAPOINTS {
        return Err(Refusal::Combination(format!(
            "You have requested up to {count} datapoints, which exceeds the limit of {MOST_DATAPOINTS}. \
             You may reduce the datapoints requested by increasing Period, or decreasing the time range."
        )));
    }
    let metric = Metric {
        namespace: input.namespace,
        name: input.metric_name.clone(),
        dimensions: dimension_pairs(input.dimensions, "Dimensions")?,
    };
    let owner = (&*cx.caller.account, &*cx.caller.region);
    let unit = input.unit.map(|unit| unit.to_string());
    let with_distribution = wanted.iter().any(|(_, statistic)| statistic.needs_distribution());
    let found = cx.state.metrics.aggregate(owner, metric, unit, window, with_distribution).await?;
    let mut datapoints: Vec<Datapoint> = found
        .iter()
        .flat_map(|(unit, periods)| periods.iter().map(|(at, one)| datapoint(*at, one, unit, &wanted)))
        .collect();
    datapoints.sort_by_key(|datapoint| datapoint.timestamp);
    Ok(GetMetricStatisticsOutput { label: Some(input.metric_name), datapoints: Some(datapoints) })
}

/// The statistics that the request names.
fn wanted(input: &GetMetricStatisticsInput) -> Result<Vec<(String, Statistic)>> {
    let names = |collection: &str, names: Vec<String>| {
        let parse = |(index, name): (usize, String)| match Statistic::parse(&name) {
            Some(statistic) => Ok((name, statistic)),
            None => Err(Refusal::value(name, &format!("{collection}.member.{}", index + 1))),
        };
        names.into_iter().enumerate().map(parse).collect::<Result<Vec<_>>>()
    };
    match (&input.statistics, &input.extended_statistics) {
        (Some(statistics), None) => names("Statistics", statistics.iter().map(ToString::to_string).collect()),
        (None, Some(extended)) => {
            let wanted = names("ExtendedStatistics", extended.clone())?;
            match wanted.iter().position(|(_, statistic)| !statistic.needs_distribution()) {
                Some(at) => {
                    Err(Refusal::value(&wanted[at].0, &format!("ExtendedStatistics.member.{}", at + 1)))
                }
                None => Ok(wanted),
            }
        }
        (None, None) => Err(Refusal::Missing("Must specify either Statistics or ExtendedStatistics.".into())),
        (Some(_), Some(_)) => Err(Refusal::Combination(
            "Must specify either Statistics or ExtendedStatistics, but not both.".into(),
        )),
    }
}

fn datapoint(at: i64, aggregate: &Aggregate, unit: &str, wanted: &[(String, Statistic)]) -> Datapoint {
    let mut datapoint = Datapoint {
        timestamp: Some(Timestamp::from_millis(at * 1000)),
        unit: Some(StandardUnit::from(unit)),
        ..Datapoint::default()
    };
    let mut extended = BTreeMap::new();
    for (name, statistic) in wanted {
        let value = statistic.of(aggregate);
        match statistic {
            Statistic::SampleCount => datapoint.sample_count = value,
            Statistic::Average => datapoint.average = value,
            Statistic::Sum => datapoint.sum = value,
            Statistic::Minimum => datapoint.minimum = value,
            Statistic::Maximum => datapoint.maximum = value,
            Statistic::Percentile(_) | Statistic::Trimmed(..) => {
                extended.extend(value.map(|value| (name.clone(), value)));
            }
        }
    }
    datapoint.extended_statistics = (!extended.is_empty()).then_some(extended);
    datapoint
}
