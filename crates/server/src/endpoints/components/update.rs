//! Updates of components: copies of the new specification come up and take the requests batch by batch, while those before go; and back, when
//! new ones do not come up or an alarm goes off. Each step is one transaction.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use serving::{EndpointPhase, EndpointStatus};
use store::resources::ResourceKey;
use tokio::sync::{oneshot, watch};

use super::record::{ComponentRecord, ComponentUpdate};
use super::scene::endpoint_key;
use crate::app::App;
use crate::endpoints::rollout::config;
use crate::endpoints::rollout::machine::{self, Action, Kind, Policy, Progress, Seen, Stage};
use crate::monitoring::{AlarmState, alarm_states};
use crate::training::record::shorten;
use crate::{Error, Result};

/// Time between two looks when nothing tells of a change.
const PAUSE: Duration = Duration::from_millis(250);

/// Refuses a `DeploymentConfig` that makes no sense.
///
/// # Errors
/// [`Error::Validation`] that names the field.
pub fn check_config(config: &Value) -> Result<()> {
    let refuse =
        |text: String| Err(Error::Validation(format!("DeploymentConfig.RollingUpdatePolicy: {text}.")));
    let rolling = &config["RollingUpdatePolicy"];
    for name in ["MaximumBatchSize", "RollbackMaximumBatchSize"] {
        let size = &rolling[name];
        if size["Type"] == "CAPACITY_PERCENT" && size["Value"].as_u64().is_some_and(|percent| percent > 100) {
            return refuse(format!("{name} must be at most 100 percent; it is {}", size["Value"]));
        }
    }
    let seconds = |name: &str| rolling[name].as_i64();
    match (seconds("MaximumExecutionTimeoutInSeconds"), seconds("WaitIntervalInSeconds")) {
        (Some(limit), Some(wait)) if limit <= wait => {
            refuse("MaximumExecutionTimeoutInSeconds must be larger than WaitIntervalInSeconds".into())
        }
        _ => Ok(()),
    }
}

/// How an update with this `DeploymentConfig` replaces so many copies; without one, all at once when the new ones are up.
pub fn policy(config: Option<&Value>, copies: u32) -> Policy {
    let Some(config) = config else { return Policy::plain(0) };
    let rolling = &config["RollingUpdatePolicy"];
    let part = |name: &str| {
        let value = rolling[name]["Value"].as_f64()?;
        let of = if rolling[name]["Type"] == "CAPACITY_PERCENT" { 100.0 } else { f64::from(copies.max(1)) };
        Some((value / of).clamp(1.0 / f64::from(copies.max(1)), 1.0))
    };
    let milliseconds = |name: &str| rolling[name].as_i64().map(|seconds| seconds * 1000);
    Policy {
        kind: Kind::Rolling {
            batch: part("MaximumBatchSize").unwrap_or(1.0),
            rollback_batch: part("RollbackMaximumBatchSize").unwrap_or(1.0),
        },
        wait_ms: milliseconds("WaitIntervalInSeconds").unwrap_or(0),
        keep_ms: 0,
        limit_ms: milliseconds("MaximumExecutionTimeoutInSeconds"),
    }
}

/// An update at work.
pub struct Driver {
    app: Weak<App>,
    key: ResourceKey,
    record: ComponentRecord,
    /// Whether it was told that the copies before do not come back.
    is_stuck: bool,
}

impl Driver {
    /// A driver of the update that is in the record.
    pub fn new(app: Weak<App>, key: ResourceKey, record: ComponentRecord) -> Driver {
        Driver { app, key, record, is_stuck: false }
    }

    /// Goes on until the update has ended, or somebody else has taken the component over. `moved` is told when the data plane stands where
    /// the update does.
    pub async fn run(mut self, moved: oneshot::Receiver<()>) {
        // The component is gone when nobody answers.
        if moved.await.is_err() {
            return;
        }
        let watched = self.app.upgrade();
        let watched = watched.and_then(|app| Some((app.endpoints.watch(&self.key)?, app.alarms.watch())));
        let Some((mut status, mut alarms)) = watched else { return };
        loop {
            let Some(app) = self.app.upgrade() else { return };
            match self.step(&app, &mut status).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(component = self.key.name, %error, "a step of an update failed and is tried again");
                }
            }
            drop(app);
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return },
                _ = alarms.changed() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Takes the step that is due; `false` when there is no more to do.
    async fn step(&mut self, app: &Arc<App>, status: &mut watch::Receiver<EndpointStatus>) -> Result<bool> {
        let Some(update) = self.record.update.clone() else { return Ok(false) };
        let now_ms = app.clock.now_ms();
        let seen_status = status.borrow_and_update().clone();
        if let EndpointPhase::Failed { reason } = &seen_status.phase {
            // Only after a restart: what served does not come up again.
            return self.fail(app, reason.clone(), now_ms).await;
        }
        let old_ready = seen_status.phase == EndpointPhase::InService
            && seen_status.generation == self.record.side.generation
            && seen_status.variants.iter().all(|one| one.healthy_replicas >= one.desired_replicas);
        let beside = seen_status.beside.as_ref().filter(|one| one.generation == update.other.generation);
        let breach = self.alarm(app, &update).await?;
        let seen = Seen {
            now_ms,
            new_ready: beside.is_some_and(|one| one.is_ready),
            new_failure: beside.and_then(|one| one.failure.as_deref()),
            old_ready,
            breach: breach.as_deref(),
        };
        match machine::next(&update.policy(), &update.progress, update.started_at, &seen) {
            Action::Stay => Ok(true),
            Action::Go(next) if next.stage == Stage::Keeping => self.end(app, true, now_ms).await,
            Action::Go(next) => self.go(app, next, None, now_ms).await,
            Action::RollBack(next, reason) => {
                tracing::warn!(component = self.key.name, reason, "an update is rolled back");
                self.go(app, next, Some(reason), now_ms).await
            }
            Action::Done => self.end(app, true, now_ms).await,
            Action::RolledBack => self.end(app, false, now_ms).await,
            Action::Stuck => {
                if !self.is_stuck {
                    self.is_stuck = true;
                    tracing::error!(
                        component = self.key.name,
                        "the copies before an update do not come back"
                    );
                }
                Ok(true)
            }
        }
    }

    /// Says which alarm is against the update, if one is.
    async fn alarm(&self, app: &App, update: &ComponentUpdate) -> Result<Option<String>> {
        let names = update.config.as_ref().map(config::alarms).unwrap_or_default();
        if names.is_empty() || update.progress.stage == Stage::RollingBack {
            return Ok(None);
        }
        let states = alarm_states(app, (&self.key.account, &self.key.region), &names).await?;
        let alarmed = names.iter().find(|name| states.get(*name) == Some(&AlarmState::Alarm));
        Ok(alarmed.map(|name| format!("The alarm {name} went into the state ALARM.")))
    }

    /// Moves the requests, then writes the step down: after a crash between the two the step is taken again.
    async fn go(
        &mut self,
        app: &Arc<App>,
        next: Progress,
        reason: Option<String>,
        now_ms: i64,
    ) -> Result<bool> {
        let mut record = self.record.clone();
        let Some(update) = &mut record.update else { return Ok(false) };
        update.progress = next;
        if reason.is_some() {
            update.reason = reason;
        }
        let moved = app.endpoints.shift_component(&self.key, &self.record, update, false)?;
        if moved.await.is_err() {
            return Ok(false);
        }
        failpoint::pass(failpoint::Point::DeploymentMoved);
        self.write(app, record, "Updating", now_ms).await
    }

    async fn end(&mut self, app: &Arc<App>, is_deployed: bool, now_ms: i64) -> Result<bool> {
        let mut record = self.record.clone();
        let Some(update) = record.update.take() else { return Ok(false) };
        if is_deployed {
            record.served_generation = Some(update.other.generation);
            record.side = update.other;
            record.failure_reason = None;
        } else {
            let reason = update.reason.unwrap_or_default();
            record.failure_reason = Some(shorten(format!("The update was rolled back. {reason}")));
            record.copies = update.copies_before;
        }
        if !self.write(app, record, "InService", now_ms).await? {
            return Ok(false);
        }
        // From here on this task may be ended by what comes of it.
        app.endpoints.apply_components(std::slice::from_ref(&self.key))?;
        // Other copies take other room.
        let (app, endpoint) = (app.clone(), endpoint_key(&self.key, &self.record.endpoint));
        tokio::spawn(async move {
            if let Err(error) = app.endpoints.settle_components(&app, &endpoint).await {
                tracing::error!(%error, "inference components could not be arranged after an update");
            }
        });
        Ok(false)
    }

    async fn fail(&mut self, app: &Arc<App>, reason: String, now_ms: i64) -> Result<bool> {
        let mut record = self.record.clone();
        record.update = None;
        record.served_generation = None;
        record.side.deployed.replicas = 0;
        record.failure_reason = Some(shorten(reason));
        self.write(app, record, "Failed", now_ms).await?;
        app.endpoints.components.note(&self.key, &self.record, true);
        Ok(false)
    }

    /// Writes the record with its event; `false` when the update is no more the one that is driven here.
    async fn write(
        &mut self,
        app: &Arc<App>,
        record: ComponentRecord,
        status: &'static str,
        now_ms: i64,
    ) -> Result<bool> {
        let mark = |record: &ComponentRecord| {
            record.update.as_ref().map(|update| {
                let Progress { stage, step, since, .. } = update.progress;
                (update.started_at, stage, step, since)
            })
        };
        let (key, before, written) = (self.key.clone(), mark(&self.record), record.clone());
        let done = app.database.write(move |session| {
            let Some(resource) = session.find_resource(&key)? else { return Ok(false) };
            let stored = ComponentRecord::read(&resource.document)?;
            if resource.status == "Deleting" || mark(&stored) != before {
                return Ok(false);
            }
            session.update_resource(&key, now_ms, |resource| {
                resource.document = written.to_document();
                resource.status = status.into();
                Ok(())
            })?;
            session.append_event(&key, status, &detail(&written), now_ms)?;
            Ok(true)
        });
        let is_written = done.await?;
        if is_written {
            self.record = record;
        }
        Ok(is_written)
    }
}

/// What the event of a step says.
fn detail(record: &ComponentRecord) -> Value {
    let Some(update) = &record.update else { return json!({"FailureReason": record.failure_reason}) };
    let progress = &update.progress;
    json!({
        "Stage": progress.stage,
        "Step": progress.step,
        "TrafficShare": progress.share,
        "NewCapacity": progress.new_part,
        "OldCapacity": progress.old_part,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rolling_update_goes_in_batches_of_copies() {
        let size = |kind: &str, value: u32| json!({"Type": kind, "Value": value});
        let rolling = |batch: Value| json!({"RollingUpdatePolicy": {"MaximumBatchSize": batch, "WaitIntervalInSeconds": 3}});
        let steps = |batch: Value, copies| policy(Some(&rolling(batch)), copies).kind.steps();
        assert_eq!(steps(size("COPY_COUNT", 1), 3), 3);
        assert_eq!(steps(size("COPY_COUNT", 5), 3), 1);
        assert_eq!(steps(size("CAPACITY_PERCENT", 50), 4), 2);
        assert_eq!(steps(size("CAPACITY_PERCENT", 1), 2), 2, "a batch is at least one copy");
        assert_eq!(policy(Some(&rolling(size("COPY_COUNT", 1))), 1).wait_ms, 3_000);
        assert_eq!(policy(None, 4).kind, Kind::AllAtOnce);
    }

    #[test]
    fn a_configuration_that_makes_no_sense_is_refused() {
        let with = |name: &str, value: Value| {
            let mut rolling = json!({"WaitIntervalInSeconds": 600});
            rolling[name] = value;
            check_config(&json!({"RollingUpdatePolicy": rolling}))
        };
        let refusal = |name: &str, value: Value| with(name, value).unwrap_err().to_string();
        assert!(with("MaximumBatchSize", json!({"Type": "CAPACITY_PERCENT", "Value": 100})).is_ok());
        let large = json!({"Type": "CAPACITY_PERCENT", "Value": 101});
        assert!(
            refusal("RollbackMaximumBatchSize", large)
                .contains("RollbackMaximumBatchSize must be at most 100")
        );
        assert!(refusal("MaximumExecutionTimeoutInSeconds", json!(600)).contains("must be larger"));
    }
}
