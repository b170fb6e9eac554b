//! The latest value of a metric, or of an expression over metrics, for who watches it.

use std::collections::BTreeMap;

use api::cloudwatch::MetricDataQuery;
use serde_json::{Value as Json, json};
use store::metrics::Window;

use super::super::math::{self, Series, Value};
use super::super::refusal::Refusal;
use super::query::Queries;
use crate::app::App;

/// Length of the time that a value is of.
pub const PERIOD_SECONDS: i64 = 60;

/// What is watched, read and checked.
pub struct TrackedMetric {
    queries: Queries,
}

impl TrackedMetric {
    /// Reads queries in the form of GetMetricData, of which one is returned.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn queries(queries: &[Json], account: &str) -> Result<TrackedMetric, String> {
        let with_period = |query: &Json| {
            let mut query = query.clone();
            if query["MetricStat"].is_object() {
                query["MetricStat"]["Period"] = PERIOD_SECONDS.into();
            }
            serde_json::from_value::<MetricDataQuery>(query).map_err(|error| format!("Metrics: {error}."))
        };
        let queries = queries.iter().map(with_period).collect::<Result<Vec<_>, _>>()?;
        let queries = Queries::check(queries, account).map_err(|refusal| refusal_text(&refusal))?;
        if queries.returned.len() != 1 {
            return Err("Metrics: exactly one of the queries must have ReturnData true.".into());
        }
        Ok(TrackedMetric { queries })
    }

    /// Reads a metric with its statistic.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn metric(specification: &Json, account: &str) -> Result<TrackedMetric, String> {
        let query = json!({
            "Id": "metric",
            "MetricStat": {
                "Metric": {
                    "Namespace": specification["Namespace"],
                    "MetricName": specification["MetricName"],
                    "Dimensions": specification["Dimensions"],
                },
                "Stat": specification["Statistic"],
                "Unit": specification["Unit"],
            },
        });
        TrackedMetric::queries(&[query], account)
    }

    /// The value of the last minute; `None` when nothing was measured.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub async fn value(
        &self,
        app: &App,
        owner: (&str, &str),
        now_seconds: i64,
    ) -> Result<Option<f64>, String> {
        let end_seconds = now_seconds + 1;
        let window = Window {
            start_seconds: end_seconds - PERIOD_SECONDS,
            end_seconds,
            period_seconds: PERIOD_SECONDS,
        };
        let mut values = BTreeMap::new();
        for query in &self.queries.metrics {
            let with_distribution = query.statistic.needs_distribution();
            let unit = query.unit.clone();
            let found =
                app.metrics.aggregate_units(owner, query.metric.clone(), unit, window, with_distribution);
            let found = found.await.map_err(|error| error.to_string())?;
            let points = found.iter().filter_map(|(at, one)| Some((*at, query.statistic.of(one)?))).collect();
            let series = Series { label: query.metric.name.clone(), period_seconds: PERIOD_SECONDS, points };
            values.insert(query.id.clone(), Value::Series(series));
        }
        let expressions: Vec<_> =
            self.queries.expressions.iter().map(|one| (one.id.clone(), one.expression.clone())).collect();
        let metrics: Vec<String> = self.queries.metrics.iter().map(|metric| metric.id.clone()).collect();
        math::evaluate(&expressions, &metrics, window, &mut values)
            .map_err(|(id, problem)| format!("Error in expression '{id}' [{problem}]"))?;
        let returned = self.queries.returned.first().and_then(|returned| values.get(&returned.id));
        let value = match returned {
            None => None,
            Some(Value::Scalar(number)) => Some(*number),
            Some(Value::Series(series)) => series.points.last().map(|(_, value)| *value),
            Some(Value::Array(_)) => {
                return Err("the returned expression has several time series; it must have one".into());
            }
        };
        Ok(value.filter(|value| value.is_finite()))
    }
}

fn refusal_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Missing(text)
        | Refusal::Value(text)
        | Refusal::Combination(text)
        | Refusal::Validation(text)
        | Refusal::Named(_, text) => text.clone(),
        Refusal::Token => "a query cannot be read".into(),
        Refusal::Other(error) => error.to_string(),
    }
}
