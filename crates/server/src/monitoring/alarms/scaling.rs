//! Alarms that scaling policies follow for as long as they stay in the state of the action.

use std::collections::BTreeMap;

use serde_json::Value;
use store::Session;

use super::super::TrackedMetric;
use super::actions::{policies, policies_of_state};
use super::record::Record;
use super::{ALARM, all, is_composite};
use crate::app::App;

/// An alarm in a state for which it runs scaling policies.
pub struct ScalingAlarm {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    account: String,
    region: String,
    /// ARNs of the policies.
    pub policies: Vec<String>,
    /// When it came into its state, in milliseconds since 1970.
    pub transitioned_at: i64,
    /// Its period; a minute for one over other alarms.
    pub period_seconds: i64,
    spec: Value,
    reason_data: Value,
}

/// The alarms whose actions for their state have been run and name a scaling policy.
///
/// # Errors
/// When the database fails.
pub async fn scaling_alarms(app: &App) -> store::Result<Vec<ScalingAlarm>> {
    let read = app.database.read(|session| {
        let mut found = Vec::new();
        for alarm in session.all_resources(ALARM)? {
            let policies = policies_of_state(&alarm);
            if policies.is_empty() {
                continue;
            }
            let record = Record::read(&alarm)?;
            if !record.actions_enabled || record.suppressed.is_some() || record.told != alarm.status {
                continue;
            }
            let reason_data = record.reason_data.as_deref().unwrap_or_default();
            found.push(ScalingAlarm {
                policies,
                transitioned_at: record.transitioned_at,
                period_seconds: if is_composite(&alarm) { 60 } else { period_seconds(&alarm.spec) },
                reason_data: serde_json::from_str(reason_data).unwrap_or_default(),
                arn: alarm.arn,
                name: alarm.key.name,
                account: alarm.key.account,
                region: alarm.key.region,
                spec: alarm.spec,
            });
        }
        Ok(found)
    });
    read.await
}

/// Names and ARNs of the alarms of an account and region that have scaling policies among their actions, by the policies' ARNs.
///
/// # Errors
/// When the database fails.
pub fn alarms_by_policy(
    session: &Session<'_>,
    account: &str,
    region: &str,
) -> store::Result<BTreeMap<String, Vec<(String, String)>>> {
    let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for alarm in all(session, account, region)? {
        for policy in policies(&alarm) {
            found.entry(policy.to_owned()).or_default().push((alarm.key.name.to_string(), alarm.arn.clone()));
        }
    }
    Ok(found)
}

fn period_seconds(spec: &Value) -> i64 {
    let of_queries = spec["Metrics"].as_array().into_iter().flatten();
    let periods = of_queries.filter_map(|query| query["MetricStat"]["Period"].as_i64()).max();
    spec["Period"].as_i64().or(periods).unwrap_or(60).max(1)
}

impl ScalingAlarm {
    /// The metric's value less the threshold: what it was when the alarm went off, or with `is_later` what it is now, where that
    /// can be read. 0 for an alarm over other alarms, or over none of its data.
    pub async fn distance(&self, app: &App, is_later: bool) -> f64 {
        let threshold = self.reason_data["threshold"].as_f64().or_else(|| self.spec["Threshold"].as_f64());
        let Some(threshold) = threshold else { return 0.0 };
        let at_transition = self.reason_data["recentDatapoints"].as_array();
        let at_transition = at_transition.and_then(|points| points.iter().rev().find_map(Value::as_f64));
        let now = if is_later { self.value_now(app).await } else { None };
        now.or(at_transition).map_or(0.0, |value| value - threshold)
    }

    async fn value_now(&self, app: &App) -> Option<f64> {
        let metric = match self.spec["Metrics"].as_array() {
            Some(queries) => TrackedMetric::queries(queries, &self.account),
            None => TrackedMetric::metric(&self.spec, &self.account),
        };
        let now_seconds = app.clock.now_ms().div_euclid(1000);
        metric.ok()?.value(app, (&self.account, &self.region), now_seconds).await.ok().flatten()
    }
}
