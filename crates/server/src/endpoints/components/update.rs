//! Updates of components: copies of the new specification come up and take the requests batch by batch, while those before go; and back, when
//! new ones do not come up or an alarm goes off. Each step is one transaction.

use std::sync::Arc;

use serde_json::{Value, json};
use serving::EndpointStatus;
use store::resources::ResourceKey;

use super::record::ComponentRecord;
use super::scene::endpoint_key;
use crate::app::App;
use crate::endpoints::rollout::driving::{self, Driven, Look, Then};
use crate::endpoints::rollout::{Kind, Policy, Progress, Stage};
use crate::training::record::shorten;
use crate::{Error, Result};

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
    key: ResourceKey,
    record: ComponentRecord,
}

impl Driven for Driver {
    fn key(&self) -> &ResourceKey {
        &self.key
    }

    async fn look(&mut self, app: &Arc<App>, status: &EndpointStatus) -> Result<Option<Look>> {
        let Some(update) = &self.record.update else { return Ok(None) };
        let progress = update.progress;
        let breach = driving::alarm(app, &self.key, update.config.as_ref(), &progress).await?;
        let beside = status.beside.as_ref().filter(|one| one.generation == update.other.generation);
        Ok(Some(Look {
            policy: update.policy(),
            progress,
            started_at: update.started_at,
            old_ready: driving::is_whole(status, self.record.side.generation),
            new_ready: beside.is_some_and(|one| one.is_ready),
            new_failure: beside.and_then(|one| one.failure.clone()),
            breach,
        }))
    }

    async fn go(
        &mut self,
        app: &Arc<App>,
        next: Progress,
        reason: Option<String>,
        now_ms: i64,
    ) -> Result<Then> {
        // The copies before are not kept.
        if next.stage == Stage::Keeping {
            return self.end(app, true, now_ms).await;
        }
        let mut record = self.record.clone();
        let Some(update) = &mut record.update else { return Ok(Then::End) };
        update.progress = next;
        if reason.is_some() {
            update.reason = reason;
        }
        let moved = app.endpoints.shift_component(&self.key, &self.record, update, false)?;
        if moved.await.is_err() {
            return Ok(Then::End);
        }
        failpoint::pass(failpoint::Point::DeploymentMoved);
        self.write(app, record, "Updating", now_ms).await
    }

    async fn end(&mut self, app: &Arc<App>, is_deployed: bool, now_ms: i64) -> Result<Then> {
        let mut record = self.record.clone();
        let Some(update) = record.update.take() else { return Ok(Then::End) };
        if is_deployed {
            record.served_generation = Some(update.other.generation);
            record.side = update.other;
            record.failure_reason = None;
        } else {
            let reason = update.reason.unwrap_or_default();
            record.failure_reason = Some(shorten(format!("The update was rolled back. {reason}")));
            record.copies = update.copies_before;
        }
        if self.write(app, record, "InService", now_ms).await? == Then::GoOn {
            // Other copies take other room. From here on this task may be ended by what comes of it.
            self.arrange_others(app);
            app.endpoints.apply_components(std::slice::from_ref(&self.key))?;
        }
        Ok(Then::End)
    }

    async fn fail(&mut self, app: &Arc<App>, reason: String, now_ms: i64) -> Result<Then> {
        let mut record = self.record.clone();
        record.update = None;
        record.served_generation = None;
        record.side.deployed.replicas = 0;
        record.failure_reason = Some(shorten(reason));
        if self.write(app, record, "Failed", now_ms).await? == Then::GoOn {
            app.endpoints.components.note(&self.key, &self.record, true);
            self.arrange_others(app);
        }
        Ok(Then::End)
    }

    async fn stuck(&mut self, _app: &Arc<App>, _now_ms: i64) -> Result<Then> {
        tracing::error!(component = self.key.name, "the copies before an update do not come back");
        Ok(Then::GoOn)
    }
}

impl Driver {
    /// A driver of the update that is in the record.
    pub fn new(key: ResourceKey, record: ComponentRecord) -> Driver {
        Driver { key, record }
    }

    /// Gives the room that the component does not take any more to others.
    fn arrange_others(&self, app: &Arc<App>) {
        let (app, endpoint) = (app.clone(), endpoint_key(&self.key, &self.record.endpoint));
        tokio::spawn(async move {
            if let Err(error) = app.endpoints.settle_components(&app, &endpoint).await {
                tracing::error!(%error, "inference components could not be arranged after an update");
            }
        });
    }

    /// Writes the record with its event; [`Then::End`] when the update is no more the one that is driven here.
    async fn write(
        &mut self,
        app: &Arc<App>,
        record: ComponentRecord,
        status: &'static str,
        now_ms: i64,
    ) -> Result<Then> {
        let mark = |record: &ComponentRecord| {
            record.update.as_ref().map(|update| (update.started_at, update.progress.place()))
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
        if !done.await? {
            return Ok(Then::End);
        }
        self.record = record;
        Ok(Then::GoOn)
    }
}

/// What the event of a step says.
fn detail(record: &ComponentRecord) -> Value {
    match &record.update {
        Some(update) => driving::detail(&update.progress),
        None => json!({"FailureReason": record.failure_reason}),
    }
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
