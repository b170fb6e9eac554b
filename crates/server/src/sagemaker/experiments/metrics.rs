//! The metrics of SageMaker (`sagemaker-metrics`): points of trial components, put and read in batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::sagemaker_metrics::SERVICE;
use serde_json::{Value, json};
use store::Session;
use store::points::Point;

use super::COMPONENT;
use crate::app::App;
use crate::sagemaker::{entities, records};
use crate::{Cx, Error, Registry, Result};

/// Most metrics of one component: a mistake in a loop must not make millions.
const MOST_METRICS: i64 = 10_000;

/// Most values of one answer to a query.
const MOST_VALUES: usize = 100_000;

/// Blocks of points that one transaction removes.
const PURGED_AT_A_TIME: usize = 2_000;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "BatchPutMetrics", batch_put_metrics);
    registry.on_value(&SERVICE, "BatchGetMetrics", batch_get_metrics);
}

/// Removes the points of deleted components, some at a time, so that others write in between.
pub fn purge(app: &Arc<App>) {
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        while let Some(app) = app.upgrade() {
            match app.database.write(|session| session.purge_points(PURGED_AT_A_TIME)).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    // The next deletion, or the next server, goes on.
                    return tracing::error!(%error, "points of deleted trial components could not be removed");
                }
            }
        }
    });
}

async fn batch_put_metrics(cx: Cx) -> Result<Value> {
    let name = entities::required(&cx.input, "TrialComponentName").to_owned();
    let owner = records::arn(&cx, COMPONENT.kind, &name);
    let mut series: BTreeMap<String, Vec<(usize, Point)>> = BTreeMap::new();
    for (index, datum) in cx.input["MetricData"].as_array().into_iter().flatten().enumerate() {
        let point = Point {
            at: entities::milliseconds(&datum["Timestamp"]).unwrap_or_default(),
            step: datum["Step"].as_i64().and_then(|step| i32::try_from(step).ok()),
            value: datum["Value"].as_f64().unwrap_or_default(),
        };
        series.entry(entities::required(datum, "MetricName").to_owned()).or_default().push((index, point));
    }
    let put = cx.state.database.write(move |session| {
        if !session.has_resource(&owner)? {
            return Err(store::Error::Missing { kind: COMPONENT.kind.into(), name });
        }
        put(session, &owner, &series)
    });
    let mut over = put.await.map_err(entities::missing_or)?;
    over.sort_unstable();
    let errors: Vec<Value> = over
        .into_iter()
        .map(|index| json!({"Code": "METRIC_LIMIT_EXCEEDED", "MetricIndex": index}))
        .collect();
    Ok(if errors.is_empty() { json!({}) } else { json!({"Errors": errors}) })
}

/// Puts what may be put; returns the positions in the request of what is too much.
fn put(
    session: &Session<'_>,
    owner: &str,
    series: &BTreeMap<String, Vec<(usize, Point)>>,
) -> store::Result<Vec<usize>> {
    let mut over = Vec::new();
    let mut room = None;
    for (name, points) in series {
        if !session.has_point_series(owner, name)? {
            let left = match room {
                Some(left) => left,
                None => MOST_METRICS - session.count_point_series(owner)?,
            };
            room = Some(left - 1);
            if left <= 0 {
                over.extend(points.iter().map(|(index, _)| *index));
                continue;
            }
        }
        let points: Vec<Point> = points.iter().map(|(_, point)| *point).collect();
        session.put_points(owner, name, &points)?;
    }
    Ok(over)
}

async fn batch_get_metrics(cx: Cx) -> Result<Value> {
    let queries = cx.input["MetricQueries"].as_array().cloned().unwrap_or_default();
    let mut asked = Vec::new();
    for query in &queries {
        asked.push(Query::of(query));
    }
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let answered = cx.state.database.read(move |session| {
        let mut left = MOST_VALUES;
        asked
            .iter()
            .map(|query| {
                Ok(match query {
                    Err(text) => refused(text),
                    Ok(query) => query.answer(session, &account, &region, &mut left)?,
                })
            })
            .collect::<store::Result<Vec<Value>>>()
    });
    Ok(json!({"MetricQueryResults": answered.await.map_err(Error::from)?}))
}

fn refused(text: &str) -> Value {
    json!({"Status": "ValidationError", "Message": text, "XAxisValues": [], "MetricValues": []})
}

/// What one query asks for.
struct Query {
    owner: String,
    name: String,
    statistic: String,
    /// Width of a bucket in milliseconds; of iterations without one.
    period_ms: Option<i64>,
    by_iteration: bool,
    start: Option<i64>,
    end: Option<i64>,
}

impl Query {
    fn of(query: &Value) -> Result<Query, &'static str> {
        let by_iteration = query["XAxisType"] == "IterationNumber";
        let period_ms = match entities::required(query, "Period") {
            "OneMinute" => Some(60_000),
            "FiveMinute" => Some(300_000),
            "OneHour" => Some(3_600_000),
            _ => None,
        };
        if by_iteration != period_ms.is_none() {
            return Err(
                "Period: IterationNumber goes with the XAxisType IterationNumber, and with no other.",
            );
        }
        Ok(Query {
            owner: entities::required(query, "ResourceArn").to_owned(),
            name: entities::required(query, "MetricName").to_owned(),
            statistic: entities::required(query, "MetricStat").to_owned(),
            period_ms,
            by_iteration,
            start: query["Start"].as_i64(),
            end: query["End"].as_i64(),
        })
    }

    /// The iteration, or the beginning of the bucket in seconds since 1970. Points without a step have no iteration.
    fn place(&self, point: &Point) -> Option<i64> {
        match self.period_ms {
            Some(period_ms) => Some(point.at.div_euclid(period_ms) * (period_ms / 1000)),
            None => point.step.map(i64::from),
        }
    }

    fn answer(
        &self,
        session: &Session<'_>,
        account: &str,
        region: &str,
        left: &mut usize,
    ) -> store::Result<Value> {
        let found = session.find_resource_by_arn(&self.owner)?;
        let found = found.filter(|one| one.key.account == account && one.key.region == region);
        let Some(resource) = found else { return Ok(refused("ResourceArn: there is no such resource.")) };
        // A job's metrics are those of its component.
        let owner = match resource.key.kind == COMPONENT.kind {
            true => self.owner.clone(),
            false => super::component_arn(session, &resource)?.unwrap_or_default(),
        };
        let mut buckets: BTreeMap<i64, Bucket> = BTreeMap::new();
        let mut is_truncated = false;
        let is_there = session.each_point(&owner, &self.name, |point| {
            let Some(at) = self.place(&point) else { return };
            let (from, to) = (self.start.unwrap_or(i64::MIN), self.end.unwrap_or(i64::MAX));
            let measured = if self.by_iteration { at } else { point.at.div_euclid(1000) };
            if measured < from || measured > to {
                return;
            }
            buckets.entry(at).or_default().add(&point);
            if buckets.len() > *left {
                is_truncated = true;
                buckets.pop_last();
            }
        })?;
        if !is_there {
            return Ok(refused("MetricName: the resource has no such metric."));
        }
        *left -= buckets.len();
        let places: Vec<i64> = buckets.keys().copied().collect();
        let values: Vec<f64> = buckets.values().map(|bucket| bucket.value(&self.statistic)).collect();
        let mut answer = json!({"Status": "Complete", "XAxisValues": places, "MetricValues": values});
        if is_truncated {
            answer["Status"] = "Truncated".into();
            let text = format!("An answer has at most {MOST_VALUES} values; ask for the rest with Start.");
            answer["Message"] = text.into();
        }
        Ok(answer)
    }
}

/// Statistics of the points of one place on the axis.
#[derive(Default)]
struct Bucket {
    count: f64,
    mean: f64,
    squares: f64,
    minimum: f64,
    maximum: f64,
    last: f64,
    last_at: i64,
}

impl Bucket {
    fn add(&mut self, point: &Point) {
        if self.count == 0.0 {
            (self.minimum, self.maximum, self.last_at) = (point.value, point.value, i64::MIN);
        }
        self.count += 1.0;
        let before = point.value - self.mean;
        self.mean += before / self.count;
        self.squares += before * (point.value - self.mean);
        self.minimum = self.minimum.min(point.value);
        self.maximum = self.maximum.max(point.value);
        if point.at >= self.last_at {
            (self.last, self.last_at) = (point.value, point.at);
        }
    }

    fn value(&self, statistic: &str) -> f64 {
        match statistic {
            "Min" => self.minimum,
            "Max" => self.maximum,
            "Avg" => self.mean,
            "Count" => self.count,
            "StdDev" => (self.squares / self.count).max(0.0).sqrt(),
            _ => self.last,
        }
    }
}
