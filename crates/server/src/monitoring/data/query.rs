//! The queries of a request, checked.

use std::collections::BTreeSet;

use api::cloudwatch::{MetricDataQuery, MetricStat};
use store::metrics::Metric;

use super::super::dimension_pairs;
use super::super::math::Expression;
use super::super::refusal::{Refusal, Result};
use super::super::statistic::Statistic;
use super::super::window::check_period;
use crate::Error;

/// Most queries of a request.
const MOST_QUERIES: usize = 500;

/// A metric with one statistic of it.
#[derive(Debug, Clone)]
pub(in crate::monitoring) struct MetricQuery {
    pub(in crate::monitoring) id: String,
    pub(in crate::monitoring) metric: Metric,
    pub(in crate::monitoring) period_seconds: i64,
    pub(in crate::monitoring) statistic: Statistic,
    /// The statistic as the request names it.
    pub(in crate::monitoring) statistic_name: String,
    pub(in crate::monitoring) unit: Option<String>,
}

/// An expression over other queries.
pub(in crate::monitoring) struct ExpressionQuery {
    pub(in crate::monitoring) id: String,
    pub(in crate::monitoring) expression: Expression,
    pub(in crate::monitoring) period: Option<i32>,
}

/// A query whose result is shown.
pub(in crate::monitoring) struct Returned {
    pub(in crate::monitoring) id: String,
    pub(in crate::monitoring) label: Option<String>,
}

/// All queries of a request, each kind in the order of the request.
pub(in crate::monitoring) struct Queries {
    pub(in crate::monitoring) metrics: Vec<MetricQuery>,
    pub(in crate::monitoring) expressions: Vec<ExpressionQuery>,
    pub(in crate::monitoring) returned: Vec<Returned>,
}

/// The refusal of an expression, in the form of the service.
pub(super) fn expression_refusal(id: &str, problem: &str) -> Refusal {
    Refusal::Validation(format!("Error in expression '{id}' [{problem}]"))
}

impl Queries {
    pub(in crate::monitoring) fn check(queries: Vec<MetricDataQuery>, account: &str) -> Result<Queries> {
        if queries.is_empty() {
            return Err(Refusal::Validation("The collection MetricDataQueries must not be empty.".into()));
        }
        if queries.len() > MOST_QUERIES {
            let text =
                format!("The collection MetricDataQueries must not have a size greater than {MOST_QUERIES}.");
            return Err(Refusal::Validation(text));
        }
        let mut ids = BTreeSet::new();
        let mut checked = Queries { metrics: Vec::new(), expressions: Vec::new(), returned: Vec::new() };
        for (index, query) in queries.into_iter().enumerate() {
            let at = format!("MetricDataQueries.member.{}", index + 1);
            check_id(&query.id, &at)?;
            if !ids.insert(query.id.clone()) {
                let text =
                    format!("The values for parameter id in MetricDataQueries are not unique: {}.", query.id);
                return Err(Refusal::Validation(text));
            }
            if query.account_id.is_some_and(|other| other != account) {
                return Err(Error::field(&format!("{at}.AccountId of another account")).into());
            }
            if query.return_data != Some(false) {
                checked.returned.push(Returned { id: query.id.clone(), label: query.label });
            }
            match (query.metric_stat, query.expression) {
                (Some(metric), None) if query.period.is_some() => {
                    let (stat, id) = (metric.stat, query.id);
                    return Err(Refusal::Validation(format!(
                        "The query {id} ({stat} of a metric) has its Period in MetricStat; {at}.Period is for expressions."
                    )));
                }
                (Some(metric), None) => checked.metrics.push(metric_query(query.id, metric, &at)?),
                (None, Some(text)) => {
                    let expression = Expression::parse(&text)
                        .map_err(|problem| expression_refusal(&query.id, &problem))?;
                    let period = query.period;
                    checked.expressions.push(ExpressionQuery { id: query.id, expression, period });
                }
                _ => {
                    return Err(Refusal::Validation(format!(
                        "Within one MetricDataQuery, specify either Expression or MetricStat but not both: {at}."
                    )));
                }
            }
        }
        if checked.returned.is_empty() {
            return Err(Refusal::Validation("At least one query must have ReturnData set to true.".into()));
        }
        Ok(checked)
    }
}

fn check_id(id: &str, at: &str) -> Result<()> {
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain && id.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Ok(());
    }
    Err(Refusal::Validation(format!(
        "The value {id} for parameter {at}.Id is not matching the expected pattern ^[a-z][a-zA-Z0-9_]*$."
    )))
}

fn metric_query(id: String, metric: MetricStat, at: &str) -> Result<MetricQuery> {
    let at = format!("{at}.MetricStat");
    let Some(statistic) = Statistic::parse(&metric.stat) else {
        return Err(Refusal::Validation(format!(
            "The value {} for parameter {at}.Stat is not a valid statistic.",
            metric.stat
        )));
    };
    let required = |value: Option<String>, name: &str| {
        value.ok_or_else(|| Refusal::Missing(format!("The parameter {at}.Metric.{name} is required.")))
    };
    Ok(MetricQuery {
        id,
        metric: Metric {
            namespace: required(metric.metric.namespace, "Namespace")?,
            name: required(metric.metric.metric_name, "MetricName")?,
            dimensions: dimension_pairs(metric.metric.dimensions, &format!("{at}.Metric.Dimensions"))?,
        },
        period_seconds: check_period(metric.period)?,
        statistic,
        statistic_name: metric.stat,
        unit: metric.unit.map(|unit| unit.to_string()),
    })
}
