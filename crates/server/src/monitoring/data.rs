//! GetMetricData.

mod page;
mod query;
mod tracked;

use std::collections::BTreeMap;

use api::cloudwatch::{GetMetricData, GetMetricDataInput, GetMetricDataOutput, ScanBy};
use store::metrics::{Metric, Window};

use super::label::{self, Properties};
use super::math::{self, Points, Series, Value};
use super::refusal::{Refusal, Result};
use super::window::{check_period, periods, window};
use crate::{Cx, Registry};
use page::{Page, Shown};
pub(super) use query::{MetricQuery, Queries};
pub use tracked::TrackedMetric;

/// Periods that the metrics of a request may have together; a longer period or a shorter time needs fewer.
const MOST_PERIODS: i64 = 1_000_000;

/// Period of series that come from numbers, where the request has no metric and says none.
const DEFAULT_PERIOD_SECONDS: i64 = 300;

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<GetMetricData, _, _, _>(get_metric_data);
}

async fn get_metric_data(cx: Cx, input: GetMetricDataInput) -> Result<GetMetricDataOutput> {
    let page = Page::of(&cx.input, input.next_token.as_deref(), input.max_datapoints)?;
    let timezone = input.label_options.and_then(|options| options.timezone);
    let offset_minutes = timezone.as_deref().map_or(Ok(0), label::offset_minutes)?;
    let queries = Queries::check(input.metric_data_queries, &cx.caller.account)?;
    let now_seconds = cx.state.clock.now_ms().div_euclid(1000);
    let of = |period_seconds| window(input.start_time, input.end_time, period_seconds, now_seconds);
    let windows =
        queries.metrics.iter().map(|metric| of(metric.period_seconds)).collect::<Result<Vec<_>>>()?;
    let count: i64 = windows.iter().map(periods).sum();
    if count > MOST_PERIODS {
        return Err(too_many(count));
    }
    let mut values = BTreeMap::new();
    for (metric, window) in queries.metrics.iter().zip(windows) {
        let points = points(&cx, metric, window).await?;
        let label = metric.metric.name.clone();
        let series = Series { label, period_seconds: metric.period_seconds, points };
        values.insert(metric.id.clone(), Value::Series(series));
    }
    let stated = queries.expressions.iter().find_map(|expression| expression.period);
    let period_seconds = match queries.metrics.iter().map(|metric| metric.period_seconds).min() {
        Some(least) => least,
        None => stated.map_or(Ok(DEFAULT_PERIOD_SECONDS), check_period)?,
    };
    let window = of(period_seconds)?;
    if periods(&window) > MOST_PERIODS {
        return Err(too_many(periods(&window)));
    }
    let expressions: Vec<_> =
        queries.expressions.iter().map(|one| (one.id.clone(), one.expression.clone())).collect();
    let metrics: Vec<String> = queries.metrics.iter().map(|metric| metric.id.clone()).collect();
    math::evaluate(&expressions, &metrics, window, &mut values)
        .map_err(|(id, problem)| query::expression_refusal(&id, &problem))?;
    let (mut shown, mut points) = (Vec::new(), 0);
    for returned in queries.returned {
        let Some(value) = values.get(&returned.id) else { continue };
        let metric = queries.metrics.iter().find(|metric| metric.id == returned.id);
        let several = matches!(value, Value::Array(_));
        let all = math::shown(value.clone(), window, &mut points);
        for series in all.map_err(|problem| query::expression_refusal(&returned.id, &problem))? {
            let properties = Properties { metric, caller: &cx.caller, offset_minutes };
            let default = if metric.is_some() { &series.label } else { &returned.id };
            let mut text = match &returned.label {
                Some(template) => label::fill(template, default, &series.points, &properties)?,
                None => default.clone(),
            };
            if several {
                text = format!("{text} {}", series.label).trim_end().to_owned();
            }
            shown.push(Shown { id: returned.id.clone(), label: text, points: series.points });
        }
    }
    if input.scan_by.is_none_or(|order| order == ScanBy::TimestampDescending) {
        shown.iter_mut().for_each(|shown| shown.points.reverse());
    }
    let (results, next_token) = page.cut(shown);
    // Nothing happens that concerns the whole request and is no error.
    Ok(GetMetricDataOutput { metric_data_results: Some(results), next_token, messages: Some(Vec::new()) })
}

fn too_many(periods: i64) -> Refusal {
    Refusal::Validation(format!(
        "The request has {periods} periods, which exceeds the limit of {MOST_PERIODS} for all of its metrics together; \
         ask for fewer metrics, a longer Period or a shorter time."
    ))
}

/// The statistic of a metric in each period.
async fn points(cx: &Cx, query: &MetricQuery, window: Window) -> Result<Points> {
    let owner = (&*cx.caller.account, &*cx.caller.region);
    let metric: Metric = query.metric.clone();
    let with_distribution = query.statistic.needs_distribution();
    let found = cx
        .state
        .metrics
        .aggregate_units(owner, metric, query.unit.clone(), window, with_distribution)
        .await?;
    Ok(found.iter().filter_map(|(at, aggregate)| Some((*at, query.statistic.of(aggregate)?))).collect())
}
