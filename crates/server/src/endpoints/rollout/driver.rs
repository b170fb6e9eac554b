//! The deployment of an endpoint: what is seen of its fleets by guards and alarms, and each step as one transaction.

use std::sync::Arc;

use serde_json::Value;
use serving::EndpointStatus;
use store::resources::ResourceKey;

use super::deployment::{self, Deployment, Ended};
use super::driving::{self, Driven, Look, Then};
use super::guards::{self, Finding, Watched};
use super::machine::{Policy, Progress, Stage};
use crate::app::App;
use crate::endpoints::record::EndpointRecord;
use crate::{Result, events};

/// A deployment at work.
pub struct Driver {
    key: ResourceKey,
    record: EndpointRecord,
    deployment: Deployment,
    watch: Watch,
}

/// What was seen of the fleets in the step that goes on.
#[derive(Default)]
struct Watch {
    /// Of the fleet before, all that was seen.
    before: Watched,
    /// Of the new fleet, since the step began.
    after: Watched,
    /// The counts of the new fleet when it began.
    base: serving::FleetReading,
    /// What the variants had counted when the deployment began, for a fleet before that gets no more requests.
    earlier: Option<serving::FleetReading>,
}

impl Driven for Driver {
    fn key(&self) -> &ResourceKey {
        &self.key
    }

    async fn look(&mut self, app: &Arc<App>, status: &EndpointStatus) -> Result<Option<Look>> {
        let policy = self.policy(app)?;
        let findings = self.judge(app);
        let progress = self.deployment.progress;
        let breach = match guards::breach(&findings) {
            Some(text) => Some(text),
            None => driving::alarm(app, &self.key, self.deployment.config.as_ref(), &progress).await?,
        };
        // What the guards found last stays to be seen while nothing is judged.
        if !findings.is_empty() {
            app.endpoints.findings.put(&self.key, findings);
        }
        let (old_ready, new_ready) = self.readiness(status);
        let beside = status.beside.as_ref().filter(|_| !self.deployment.is_kept());
        Ok(Some(Look {
            policy,
            progress,
            started_at: self.deployment.started_at,
            old_ready,
            new_ready,
            new_failure: beside.and_then(|beside| beside.failure.clone()),
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
        let (mut record, mut deployment) = (self.record.clone(), self.deployment.clone());
        let was_kept = deployment.is_kept();
        deployment.go(next);
        if reason.is_some() {
            deployment.reason = reason;
        }
        if deployment.is_kept() != was_kept {
            let shown = record.show(deployment.other);
            deployment.other = shown;
        }
        record.deployment = Some(deployment.clone());
        let moved = app.endpoints.shift(&self.key, &record, &deployment, false)?;
        if moved.await.is_err() {
            return Ok(Then::End);
        }
        failpoint::pass(failpoint::Point::DeploymentMoved);
        let status = match deployment.progress.stage {
            Stage::RollingBack => "RollingBack",
            // The traffic has moved, and nobody asked for more.
            Stage::Keeping if deployment.is_plain() => "InService",
            _ => "Updating",
        };
        let becomes_shown = deployment.is_kept() && !was_kept;
        let written = record.clone();
        let by = deployment.by.clone();
        let key = self.key.clone();
        let then = self
            .write_with(
                app,
                now_ms,
                move |stored| {
                    *stored = EndpointRecord { failure_reason: stored.failure_reason.take(), ..written };
                    Some(status)
                },
                move |session, resource| {
                    if becomes_shown {
                        crate::sagemaker::lineage::deployed(session, resource, &by, now_ms)?;
                    }
                    session.append_event(&key, status, &driving::detail(&next), now_ms)
                },
            )
            .await?;
        if deployment.is_kept() != was_kept {
            app.endpoints.follow_invocations(&self.key, &record);
            app.endpoints.queues.follow(&self.key, &record, &Arc::downgrade(app));
        }
        self.begin_step(app, &deployment);
        (self.record, self.deployment) = (record, deployment);
        Ok(then)
    }

    async fn end(&mut self, app: &Arc<App>, is_deployed: bool, now_ms: i64) -> Result<Then> {
        let deployment = &self.deployment;
        let config = if is_deployed { &self.record.config } else { &deployment.other.config };
        let ended = Ended {
            config: config.clone(),
            is_deployed,
            reason: deployment.reason.clone(),
            started_at: deployment.started_at,
            ended_at: now_ms,
            steps: deployment.steps.clone(),
            findings: app.endpoints.findings.of(&self.key).to_vec(),
        };
        let reason = deployment.reason.clone().filter(|_| !is_deployed);
        let was_shown = is_deployed && deployment.is_plain();
        let mut record = self.record.clone();
        record.deployment = None;
        record.last_deployment = Some(ended);
        record.failure_reason = reason.map(crate::training::record::shorten);
        record.last_generation = record.last_generation.max(deployment.other.generation);
        let written = record.clone();
        let key = self.key.clone();
        let then = self
            .write_with(
                app,
                now_ms,
                move |stored| {
                    *stored = written;
                    Some("InService")
                },
                // A plain update has been in service since its traffic moved.
                move |session, _| match was_shown {
                    true => Ok(()),
                    false => session.append_event(&key, "InService", &Value::Null, now_ms),
                },
            )
            .await?;
        if matches!(then, Then::GoOn) {
            app.endpoints.settle(&self.key, &record)?;
            app.endpoints.findings.forget(&self.key);
        }
        Ok(Then::End)
    }

    async fn fail(&mut self, app: &Arc<App>, reason: String, now_ms: i64) -> Result<Then> {
        self.write(app, now_ms, move |record| {
            record.deployment = None;
            record.failure_reason = Some(crate::training::record::shorten(reason));
            Some("Failed")
        })
        .await?;
        app.endpoints.findings.forget(&self.key);
        Ok(Then::End)
    }

    async fn stuck(&mut self, app: &Arc<App>, now_ms: i64) -> Result<Then> {
        self.write(app, now_ms, |_| Some("UpdateRollbackFailed")).await
    }
}

impl Driver {
    /// A driver of a deployment that is in the record.
    pub fn new(key: ResourceKey, record: EndpointRecord, deployment: Deployment) -> Driver {
        Driver { key, record, deployment, watch: Watch::default() }
    }

    fn policy(&self, app: &App) -> Result<Policy> {
        let new =
            if self.deployment.is_kept() { &self.record.variants } else { &self.deployment.other.variants };
        self.deployment.policy(deployment::instances(new), &app.config.endpoints.guards)
    }

    /// Generations of the fleet before and of the new one.
    fn generations(&self) -> (u64, u64) {
        let (shown, other) = (self.record.generation, self.deployment.other.generation);
        if self.deployment.is_kept() { (other, shown) } else { (shown, other) }
    }

    /// Whether all wanted instances answer, of the fleet before and of the new one.
    fn readiness(&self, status: &EndpointStatus) -> (bool, bool) {
        let shown = driving::is_whole(status, self.record.generation);
        let beside = status.beside.as_ref();
        let other = beside
            .is_some_and(|beside| beside.generation == self.deployment.other.generation && beside.is_ready);
        if self.deployment.is_kept() { (other, shown) } else { (shown, other) }
    }

    /// Reads what the fleets did, and asks the guards. Before the new fleet gets requests, and when it gets no more, there is nothing to
    /// ask.
    fn judge(&mut self, app: &App) -> Vec<Finding> {
        let plane = &app.endpoints.plane;
        let name = super::plane_key(&self.key);
        let (old, new) = self.generations();
        let settings = &app.config.endpoints.guards;
        let earlier = self.watch.earlier.get_or_insert_with(|| earlier_counts(app, &name, &self.record));
        if let Some(reading) = plane.fleet_reading(&name, old) {
            // One that got too few requests beside the new fleet is known by what it did before.
            let enough = u64::from(settings.min_answers.max(settings.min_requests));
            self.watch.before.reading = if reading.ended >= enough { reading } else { earlier.clone() };
        }
        self.watch.before.outputs.add(&plane.take_outputs(&name, old));
        if let Some(reading) = plane.fleet_reading(&name, new) {
            self.watch.after.reading = since(&reading, &self.watch.base);
        }
        self.watch.after.outputs.add(&plane.take_outputs(&name, new));
        if !matches!(self.deployment.progress.stage, Stage::Baking | Stage::Keeping) {
            return Vec::new();
        }
        guards::judge(settings, &self.watch.before, &self.watch.after, self.deployment.is_plain())
    }

    /// What is counted of the new fleet begins anew with each step, so that a good beginning does not hide a bad end.
    fn begin_step(&mut self, app: &App, deployment: &Deployment) {
        if deployment.progress.stage == Stage::Starting {
            return;
        }
        let (_, new) = self.generations();
        let name = super::plane_key(&self.key);
        self.watch.base = app.endpoints.plane.fleet_reading(&name, new).unwrap_or_default();
        self.watch.after.reading = serving::FleetReading::default();
    }

    async fn write(
        &self,
        app: &Arc<App>,
        now_ms: i64,
        edit: impl FnOnce(&mut EndpointRecord) -> Option<&'static str> + Send + 'static,
    ) -> Result<Then> {
        self.write_with(app, now_ms, edit, |_, _| Ok(())).await
    }

    /// Changes the stored record with its event, when the deployment is still the one that is driven here.
    async fn write_with(
        &self,
        app: &Arc<App>,
        now_ms: i64,
        edit: impl FnOnce(&mut EndpointRecord) -> Option<&'static str> + Send + 'static,
        more: impl FnOnce(&store::Session<'_>, &store::resources::Resource) -> store::Result<()> + Send + 'static,
    ) -> Result<Then> {
        let key = self.key.clone();
        let mark = |deployment: &Deployment| (deployment.started_at, deployment.progress.place());
        let before = mark(&self.deployment);
        let is_same = move |record: &EndpointRecord| {
            record.deployment.as_ref().is_some_and(|stored| mark(stored) == before)
        };
        let written = app.database.write(move |session| {
            let Some(resource) = session.find_resource(&key)? else { return Ok(false) };
            let mut record = EndpointRecord::read(&resource.document)?;
            if resource.status == "Deleting" || !is_same(&record) {
                return Ok(false);
            }
            let before = resource.status.clone();
            let status = edit(&mut record).unwrap_or(before.as_str());
            let updated = session.update_resource(&key, now_ms, |resource| {
                resource.document = record.to_document();
                resource.status = status.to_owned();
                Ok(())
            })?;
            more(session, &updated)?;
            if updated.status != before {
                events::append_state(session, &updated, now_ms)?;
            }
            Ok(true)
        });
        Ok(if written.await? { Then::GoOn } else { Then::End })
    }
}

/// What came since an earlier reading of the same fleet.
fn since(now: &serving::FleetReading, base: &serving::FleetReading) -> serving::FleetReading {
    serving::FleetReading {
        ended: now.ended.saturating_sub(base.ended),
        errors_5xx: now.errors_5xx.saturating_sub(base.errors_5xx),
        latencies: now.latencies.since(&base.latencies),
    }
}

/// What the variants of an endpoint have counted so far, in one.
fn earlier_counts(app: &App, name: &str, record: &EndpointRecord) -> serving::FleetReading {
    let mut sum = serving::FleetReading::default();
    for variant in &record.variants {
        let Some(metrics) = app.endpoints.plane.variant_metrics(name, &variant.name) else { continue };
        sum.ended += metrics.ended;
        sum.errors_5xx += metrics.errors_5xx;
        sum.latencies.classes.extend(metrics.model_latencies.classes);
    }
    sum.latencies.classes.sort_by_key(|class| class.class);
    sum
}
