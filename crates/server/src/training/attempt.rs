//! One attempt to bring a training job to its end. Every step can be repeated: a restarted server begins again at the
//! last step that left no trace.

use std::sync::Arc;

use api::sagemaker::CreateTrainingJobInput;
use runner::workload::{Exit, ExitReport, Observation};
use serde_json::Value;
use store::resources::Resource;
use store::work::Work;
use tokio::sync::Notify;

use super::record::{FailureCard, TrainingRecord};
use super::run_facts::RunFacts;
use super::{admission, failure, outputs, prepare, sync};
use crate::app::App;
use crate::capacity::Allocation;
use crate::job_log::JobLog;

/// Pause before a step is repeated that failed for no fault of the job.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// How an attempt ends.
enum End {
    Completed,
    Stopped,
    TimeLimit,
    Failed(FailureCard),
    /// Another attempt or a deletion took the job away.
    Superseded,
}

/// What the steps of an attempt share.
pub struct Attempt<'a> {
    /// The process state.
    pub app: &'a Arc<App>,
    /// The claimed work.
    pub work: &'a Work,
    /// Who holds it.
    pub owner: &'a str,
    /// The request.
    pub request: CreateTrainingJobInput,
}

/// Drives the job until it ends, repeating after faults of the database.
pub async fn run(app: &Arc<App>, work: Work, owner: &str, stop: &Notify) {
    loop {
        match drive(app, &work, owner, stop).await {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(job = work.key.name, %error, "a training job is repeated from its last step");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn drive(app: &Arc<App>, work: &Work, owner: &str, stop: &Notify) -> store::Result<()> {
    let key = work.key.clone();
    let found = app.database.read(move |session| session.find_resource(&key)).await?;
    let Some(resource) = found else { return forget(app, work, owner).await };
    let request = serde_json::from_value(resource.spec.clone())?;
    let attempt = Attempt { app, work, owner, request };
    let record = TrainingRecord::read(&resource.document)?;
    let end = attempt.to_the_end(record, stop).await?;
    attempt.finish(end).await
}

/// Drops work whose job was deleted.
async fn forget(app: &Arc<App>, work: &Work, owner: &str) -> store::Result<()> {
    let (work, owner) = (work.clone(), owner.to_owned());
    match app.database.write(move |session| session.finish_work(&work, &owner)).await {
        Err(store::Error::LeaseLost { .. }) => Ok(()),
        done => done,
    }
}

impl Attempt<'_> {
    async fn to_the_end(&self, record: TrainingRecord, stop: &Notify) -> store::Result<End> {
        let claim = match admission::claim(self, &record) {
            Ok(claim) => claim,
            Err(text) => return Ok(End::Failed(FailureCard::new("capacity", text))),
        };
        let launched = record.workload.as_deref().map(|id| (id, self.app.executor.observe(id)));
        if let Some((id, Ok(Observation::Running { .. } | Observation::Exited(_)))) = launched {
            tracing::info!(job = self.work.key.name, "a training job is taken up again");
            let allocation = self.app.capacity.enter(claim, record.grant);
            return self.watch(id, stop, allocation).await;
        }
        if let Some(reason) = self.app.capacity.never_fits(&claim) {
            return Ok(End::Failed(FailureCard::new("capacity", format!("CapacityError: {reason}"))));
        }
        let allocation = tokio::select! {
            allocation = admission::admit(self, claim) => allocation?,
            () = self.stopped(stop) => return Ok(End::Stopped),
        };
        let prepared = tokio::select! {
            prepared = prepare::launch(self, &allocation.grant) => prepared?,
            () = self.stopped(stop) => return Ok(End::Stopped),
        };
        match prepared {
            Ok(id) => self.watch(&id, stop, allocation).await,
            Err(card) => Ok(End::Failed(*card)),
        }
    }

    /// Returns once a stop is wanted.
    async fn stopped(&self, stop: &Notify) {
        loop {
            let key = self.work.key.clone();
            match self.app.database.read(move |session| session.stop_wanted(&key)).await {
                Ok(true) => return,
                Ok(false) => stop.notified().await,
                Err(error) => {
                    tracing::error!(%error, "a stop request could not be read");
                    stop.notified().await;
                }
            }
        }
    }

    async fn watch(&self, id: &str, stop: &Notify, allocation: Allocation) -> store::Result<End> {
        let executor = &self.app.executor;
        let ended = executor.wait(id);
        let unstored = sync::keep(self, id);
        tokio::pin!(ended, unstored);
        let report = tokio::select! {
            report = &mut ended => report,
            () = self.stopped(stop) => {
                if let Err(error) = executor.stop(id) {
                    tracing::error!(job = self.work.key.name, %error, "a training job could not be stopped");
                }
                ended.await
            }
            text = &mut unstored => {
                // Written first: a server that takes over must not read the end as a stop that somebody wanted.
                self.update(move |record, _| record.checkpoint_failure = Some(text)).await?;
                if let Err(error) = executor.stop(id) {
                    tracing::error!(job = self.work.key.name, %error, "a training job could not be stopped");
                }
                ended.await
            }
        };
        // Others may run while the results are uploaded.
        drop(allocation);
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                let text = format!("InternalServerError: the workload cannot be observed: {error}");
                return Ok(End::Failed(FailureCard::new("supervisor", text)));
            }
        };
        self.settle(id, &report).await
    }

    /// Judges the exit, uploads what the job leaves.
    async fn settle(&self, id: &str, report: &ExitReport) -> store::Result<End> {
        let stop_wanted = {
            let key = self.work.key.clone();
            self.app.database.read(move |session| session.stop_wanted(&key)).await?
        };
        let (started_at, ended_at) = (report.started_at_ms as i64, report.ended_at_ms as i64);
        let metrics = outputs::final_metrics(self).await;
        let run = RunFacts::of(report);
        let committed = self
            .update(move |record, _| {
                record.training_started_at = Some(started_at);
                record.training_ended_at = Some(ended_at);
                record.final_metrics = metrics;
                record.run = Some(run);
                record.enter("Uploading", "Uploading generated training model", ended_at);
            })
            .await;
        if matches!(committed, Err(store::Error::LeaseLost { .. } | store::Error::Missing { .. })) {
            return Ok(End::Superseded);
        }
        let unstored = TrainingRecord::read(&committed?.document)?.checkpoint_failure;
        let end = match &report.exit {
            _ if unstored.is_some() => {
                End::Failed(FailureCard::new("checkpoint", unstored.unwrap_or_default()))
            }
            _ if stop_wanted || report.stop_requested => End::Stopped,
            Exit::Code(0) => End::Completed,
            Exit::TimeLimit => End::TimeLimit,
            _ => End::Failed(failure::card(self, id, report).await),
        };
        let end = match sync::finish(self, id).await {
            Some(card) if !matches!(end, End::Failed(_)) => End::Failed(card),
            _ => end,
        };
        let with_model = !matches!(end, End::Failed(_));
        match outputs::upload(self, id, with_model).await {
            Ok(uploaded) => {
                self.update(move |record, _| record.model_artifacts = uploaded).await?;
                Ok(end)
            }
            // What failed first is what the user has to know.
            Err(_) if matches!(end, End::Failed(_)) => Ok(end),
            Err(text) => Ok(End::Failed(FailureCard::new("output", text))),
        }
    }

    /// Changes the record while the lease is held; `change` also gets the time.
    pub async fn update(
        &self,
        change: impl FnOnce(&mut TrainingRecord, i64) + Send + 'static,
    ) -> store::Result<Resource> {
        let (work, owner, now_ms) = (self.work.clone(), self.owner.to_owned(), self.app.clock.now_ms());
        self.app
            .database
            .write(move |session| {
                session.check_lease(&work, &owner)?;
                let mut entered = None;
                let changed = session.update_resource(&work.key, now_ms, |resource| {
                    let mut record = TrainingRecord::read(&resource.document)?;
                    let before = record.secondary_status().to_owned();
                    change(&mut record, now_ms);
                    if record.secondary_status() != before {
                        entered = record.transitions.last().cloned();
                    }
                    resource.document = record.to_document();
                    Ok(())
                })?;
                if let Some(transition) = entered {
                    let detail = serde_json::json!({"message": transition.message});
                    session.append_event(&work.key, &transition.status, &detail, now_ms)?;
                }
                Ok(changed)
            })
            .await
    }

    async fn finish(&self, end: End) -> store::Result<()> {
        let (status, secondary, message, card) = match end {
            End::Superseded => return Ok(()),
            End::Completed => ("Completed", "Completed", "Training job completed".to_owned(), None),
            End::Stopped => ("Stopped", "Stopped", "Training job stopped".to_owned(), None),
            End::TimeLimit => {
                let text = "Training job runtime exceeded MaxRuntimeInSeconds provided";
                ("Stopped", "MaxRuntimeExceeded", text.to_owned(), None)
            }
            End::Failed(card) => ("Failed", "Failed", card.reason.clone(), Some(card)),
        };
        let (work, owner, now_ms) = (self.work.clone(), self.owner.to_owned(), self.app.clock.now_ms());
        let workload = self
            .app
            .database
            .write(move |session| {
                let mut workload = None;
                session.update_resource(&work.key, now_ms, |resource| {
                    let mut record = TrainingRecord::read(&resource.document)?;
                    record.enter(secondary, &message, now_ms);
                    if let Some(last) = record.transitions.last_mut() {
                        last.ended_at = Some(now_ms);
                    }
                    record.training_ended_at.get_or_insert(now_ms);
                    record.failure = card;
                    workload = record.workload.clone();
                    resource.document = record.to_document();
                    resource.status = status.into();
                    Ok(())
                })?;
                session.append_event(&work.key, status, &Value::Null, now_ms)?;
                session.finish_work(&work, &owner)?;
                Ok(workload)
            })
            .await;
        let workload = match workload {
            Err(store::Error::LeaseLost { .. } | store::Error::Missing { .. }) => return Ok(()),
            other => other?,
        };
        if let Some(id) = workload {
            prepare::clean_up(self.app, &id).await;
        }
        Ok(())
    }

    /// The log of this job, for the server's own lines.
    pub fn log(&self, stream: &str) -> JobLog {
        let key = &self.work.key;
        JobLog::new(self.app, &key.account, &key.region, prepare::LOG_GROUP, stream)
    }
}
