//! Walks each cluster: begins its steps in their order as processing jobs, and writes down how they end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use store::resources::ResourceKey;
use store::work::Work;
use tokio::sync::Notify;

use super::plan::{self, Next};
use super::record::{Cluster, ClusterRecord, Ending, StepState};
use super::{CLUSTER, steps};
use crate::app::App;
use crate::internal_call::{self, CallError};
use crate::sagemaker::kinds::PROCESSING_JOB;

/// Pause before the database is asked again after it failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Time after which a cluster is looked at again even if nothing was told of it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Tells the driver of new clusters.
#[derive(Default)]
pub struct Clusters {
    queued: Arc<Notify>,
}

impl Clusters {
    /// Call after a cluster was queued.
    pub fn wake(&self) {
        self.queued.notify_one();
    }
}

/// Starts claiming clusters; those that an earlier server left come first.
pub fn start(app: &Arc<App>) {
    let (weak, queued) = (Arc::downgrade(app), app.clusters.queued.clone());
    let owner = uuid::Uuid::new_v4().to_string();
    tokio::spawn(async move {
        while let Some(app) = weak.upgrade() {
            let claimant = owner.clone();
            match app.database.write(move |session| session.claim_work(CLUSTER, &claimant)).await {
                Ok(Some(work)) => drop(tokio::spawn(drive(weak.clone(), work, owner.clone()))),
                Ok(None) => {
                    drop(app);
                    queued.notified().await;
                }
                Err(error) => {
                    tracing::error!(%error, "the queue could not be read; EMR clusters wait");
                    drop(app);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
}

/// Drives one cluster to its end, whatever the database does meanwhile.
async fn drive(app: std::sync::Weak<App>, work: Work, owner: String) {
    let woken = Arc::new(Notify::new());
    while let Some(app) = app.upgrade() {
        let walk = Walk { app: app.clone(), work: &work, owner: &owner };
        let watches: Vec<_> =
            walk.watched().await.iter().map(|key| app.database.watch(key, woken.clone())).collect();
        match walk.advance().await {
            Ok(Progress::Ended) | Err(store::Error::LeaseLost { .. }) => return,
            Ok(Progress::Acted) => {}
            Ok(Progress::Waits) => {
                // Nothing may hold the process state while a cluster waits.
                drop((walk, app));
                tokio::select! {
                    () = woken.notified() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
            Err(error) => {
                tracing::error!(%error, cluster = work.key.name, "an EMR cluster was interrupted; it goes on soon");
                tokio::time::sleep(PAUSE).await;
            }
        }
        drop(watches);
    }
}

/// How a look at a cluster ended.
enum Progress {
    /// Something was done; look again.
    Acted,
    /// There is nothing to do.
    Waits,
    /// The cluster has ended.
    Ended,
}

struct Walk<'a> {
    app: Arc<App>,
    work: &'a Work,
    owner: &'a str,
}

impl Walk<'_> {
    async fn read(&self) -> store::Result<Cluster> {
        let key = self.work.key.clone();
        Cluster::read(self.app.database.read(move |session| session.resource(&key)).await?)
    }

    /// The cluster and the jobs of its steps.
    async fn watched(&self) -> Vec<ResourceKey> {
        let key = &self.work.key;
        let mut keys = vec![key.clone()];
        if let Ok(cluster) = self.read().await {
            let running = cluster.record.steps.iter().filter(|step| step.state == StepState::Running);
            keys.extend(running.map(|step| {
                let job = steps::job_name(&cluster, step);
                ResourceKey::new(&*key.account, &*key.region, PROCESSING_JOB, &*job)
            }));
        }
        keys
    }

    async fn advance(&self) -> store::Result<Progress> {
        let cluster = self.read().await?;
        let mut acted = false;
        for at in 0..cluster.record.steps.len() {
            if cluster.record.steps[at].state == StepState::Running {
                acted |= self.look_at(&cluster, at).await?;
            }
        }
        if acted {
            return Ok(Progress::Acted);
        }
        let spec = &cluster.resource.spec;
        let stays = spec["Instances"]["KeepJobFlowAliveWhenNoSteps"] == true;
        let most_parallel = spec["StepConcurrencyLevel"].as_u64().unwrap_or(1) as usize;
        match plan::next(&cluster.record, most_parallel, stays) {
            Next::Begin(at) => {
                self.begin(&cluster, at).await?;
                Ok(Progress::Acted)
            }
            Next::Stop(running) => {
                for at in running {
                    self.stop(&cluster, at).await;
                }
                self.show(&cluster).await
            }
            Next::Wait => self.show(&cluster).await,
            Next::End(ending) => {
                self.end(ending).await?;
                Ok(Progress::Ended)
            }
        }
    }

    /// Brings the status up to date, and waits.
    async fn show(&self, cluster: &Cluster) -> store::Result<Progress> {
        let runs = cluster.record.steps.iter().any(|step| step.state == StepState::Running);
        let status = match runs {
            _ if cluster.record.ending.is_some() => "TERMINATING",
            true => "RUNNING",
            false => "WAITING",
        };
        if cluster.resource.status == status {
            return Ok(Progress::Waits);
        }
        self.change("StateChanged", json!({"State": status}), move |_, _| Some(status)).await?;
        Ok(Progress::Acted)
    }

    /// Changes the record in one transaction under the lease; `change` answers a new status where there is one.
    async fn change(
        &self,
        event: &'static str,
        detail: Value,
        change: impl FnOnce(&mut ClusterRecord, i64) -> Option<&'static str> + Send + 'static,
    ) -> store::Result<()> {
        let (work, owner, now_ms) = (self.work.clone(), self.owner.to_owned(), self.app.clock.now_ms());
        let changed = self.app.database.write(move |session| {
            session.check_lease(&work, &owner)?;
            session.update_resource(&work.key, now_ms, |resource| {
                let mut record = ClusterRecord::read(resource)?;
                // Somebody may have asked for the end since the cluster was read.
                let is_ending = record.ending.is_some();
                if let Some(status) = change(&mut record, now_ms).filter(|_| !is_ending) {
                    resource.status = status.into();
                }
                if record.ending.is_some() {
                    resource.status = "TERMINATING".into();
                }
                resource.document = record.to_document();
                Ok(())
            })?;
            session.append_event(&work.key, event, &detail, now_ms)
        });
        changed.await
    }

    /// Writes down that a step runs; its job is made when it is looked at next, as after a kill.
    async fn begin(&self, cluster: &Cluster, at: usize) -> store::Result<()> {
        let detail = json!({"StepId": cluster.record.steps[at].id});
        let begun = self.change("StepStarted", detail, move |record, now_ms| {
            // Cancelled since the cluster was read.
            if record.steps[at].state != StepState::Pending {
                return None;
            }
            record.steps[at].state = StepState::Running;
            record.steps[at].started_at = Some(now_ms);
            Some("RUNNING")
        });
        begun.await
    }

    /// Makes the job of a running step where it is missing, and writes down its end. Answers whether the step has ended.
    async fn look_at(&self, cluster: &Cluster, at: usize) -> store::Result<bool> {
        let step = &cluster.record.steps[at];
        let name = steps::job_name(cluster, step);
        let key = ResourceKey::new(&*self.work.key.account, &*self.work.key.region, PROCESSING_JOB, &*name);
        let found = self.app.database.read(move |session| session.find_resource(&key)).await?;
        let (state, failure) = match found {
            Some(job) => {
                let record = crate::training::record::TrainingRecord::read(&job.document)?;
                match job.status.as_str() {
                    "Completed" => (StepState::Completed, None),
                    "Stopped" => (StepState::Cancelled, None),
                    "Failed" => {
                        let reason = record.failure.map(|card| card.reason);
                        (StepState::Failed, Some(reason.unwrap_or_else(|| "The step failed.".to_owned())))
                    }
                    _ => return Ok(false),
                }
            }
            None if step.is_cancelled || cluster.record.ending.is_some() => (StepState::Cancelled, None),
            None => match self.make_job(cluster, at).await {
                Ok(()) => return Ok(false),
                Err(error) if error.status >= 500 => {
                    tracing::warn!(%error, job = name, "the job of an EMR step could not be made; it will be tried again");
                    tokio::time::sleep(PAUSE).await;
                    return Ok(false);
                }
                Err(error) => (StepState::Failed, Some(error.message)),
            },
        };
        let detail = json!({"StepId": step.id, "State": state.name()});
        let ended = self.change("StepEnded", detail, move |record, now_ms| {
            plan::end_step(record, at, state, failure, now_ms);
            None
        });
        ended.await?;
        Ok(true)
    }

    async fn make_job(&self, cluster: &Cluster, at: usize) -> Result<(), CallError> {
        let (key, types) = (&self.work.key, self.app.capacity.instance_types());
        let built = steps::job(cluster, &cluster.record.steps[at], types, &key.account, &key.region);
        let (role, request) = built.map_err(|message| CallError {
            code: "ValidationException".into(),
            message,
            status: 400,
        })?;
        let caller = internal_call::as_role(&self.app, &key.account, &key.region, &role, "EMR").await?;
        internal_call::call(&self.app, &caller, "sagemaker", "CreateProcessingJob", request).await.map(drop)
    }

    async fn stop(&self, cluster: &Cluster, at: usize) {
        let (key, step) = (&self.work.key, &cluster.record.steps[at]);
        let name = steps::job_name(cluster, step);
        let types = self.app.capacity.instance_types();
        let Ok((role, _)) = steps::job(cluster, step, types, &key.account, &key.region) else { return };
        let caller = internal_call::as_role(&self.app, &key.account, &key.region, &role, "EMR").await;
        let Ok(caller) = caller else { return };
        let input = json!({"ProcessingJobName": name});
        let stopped = internal_call::call(&self.app, &caller, "sagemaker", "StopProcessingJob", input);
        if let Err(error) = stopped.await {
            tracing::debug!(%error, job = name, "the job of an EMR step was not stopped");
        }
    }

    async fn end(&self, ending: Ending) -> store::Result<()> {
        let status = if ending.code == "STEP_FAILURE" { "TERMINATED_WITH_ERRORS" } else { "TERMINATED" };
        let (work, owner, now_ms) = (self.work.clone(), self.owner.to_owned(), self.app.clock.now_ms());
        let ended = self.app.database.write(move |session| {
            session.finish_work(&work, &owner)?;
            session.update_resource(&work.key, now_ms, |resource| {
                let mut record = ClusterRecord::read(resource)?;
                // Steps that were added since the cluster was read.
                plan::end(&mut record, ending, now_ms);
                record.ended_at = Some(now_ms);
                resource.document = record.to_document();
                resource.status = status.into();
                Ok(())
            })?;
            session.append_event(&work.key, "StateChanged", &json!({"State": status}), now_ms)
        });
        ended.await
    }
}
