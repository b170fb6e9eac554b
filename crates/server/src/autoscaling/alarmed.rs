//! Step scaling policies: run when an alarm comes into the state that they are an action of, and for each period that it stays there.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::policies::POLICY;
use super::{Breach, execute_step_policy};
use crate::app::App;
use crate::monitoring::{ScalingAlarm, scaling_alarms};

/// How often alarms that stay in their state are looked at; changes are seen at once.
const PAUSE: Duration = Duration::from_secs(5);

/// When a policy was last run for an alarm, in milliseconds since 1970, by the ARNs of both. Running it once too often after a restart
/// does no harm: its cool-down is stored.
type LastRuns = HashMap<(String, String), i64>;

/// Runs policies for as long as the process state lives.
pub fn start(app: &Arc<App>) {
    let changes = app.alarms.watch();
    tokio::spawn(run(Arc::downgrade(app), changes));
}

async fn run(weak: Weak<App>, mut changes: tokio::sync::watch::Receiver<u64>) {
    let mut last_runs = LastRuns::new();
    loop {
        // An error means that the process state is gone, which the upgrade tells.
        let _ = tokio::time::timeout(PAUSE, changes.changed()).await;
        let Some(app) = weak.upgrade() else { return };
        if let Err(error) = step(&app, &mut last_runs).await {
            tracing::error!(%error, "alarms of scaling policies could not be read");
        }
    }
}

async fn step(app: &App, last_runs: &mut LastRuns) -> store::Result<()> {
    let is_step =
        |policy: &store::resources::Resource| policy.spec["StepScalingPolicyConfiguration"].is_object();
    let any = app.database.read(move |session| Ok(session.all_resources(POLICY)?.iter().any(is_step)));
    if !any.await? {
        last_runs.clear();
        return Ok(());
    }
    let alarms = scaling_alarms(app).await?;
    last_runs.retain(|(arn, _), _| alarms.iter().any(|alarm| alarm.arn == *arn));
    for alarm in &alarms {
        for policy in &alarm.policies {
            run_if_due(app, alarm, policy, last_runs).await;
        }
    }
    Ok(())
}

async fn run_if_due(app: &App, alarm: &ScalingAlarm, policy: &str, last_runs: &mut LastRuns) {
    let key = (alarm.arn.clone(), policy.to_owned());
    let now_ms = app.clock.now_ms();
    // One that ran before the alarm came into its state ran for another time.
    let last = last_runs.get(&key).copied().filter(|last| *last >= alarm.transitioned_at);
    if last.is_some_and(|last| now_ms - last < alarm.period_seconds * 1000) {
        return;
    }
    last_runs.insert(key, now_ms);
    let breach = Breach { alarm: alarm.name.clone(), distance: alarm.distance(app, last.is_some()).await };
    // A policy of another sort watches its metric itself, and one that is gone is told by the alarm's history.
    if let Err(error) = execute_step_policy(app, policy, &breach).await {
        tracing::warn!(policy, alarm = alarm.name, %error, "a step scaling policy was not run");
    }
}
