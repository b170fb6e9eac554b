//! One attempt to bring a training job to its end. Every step can be repeated: a restarted server begins again at the
//! last step that left no trace.

use std::sync::Arc;

use api::sagemaker::CreateTrainingJobInput;
use failpoint::Point;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use runner::workload::ExitReport;
use serde_json::Value;
use store::DiskProblem;
use store::metrics::FollowedJob;
use store::resources::Resource;
use store::work::Work;
use tokio::sync::Notify;

use super::addresses::Lease;
use super::record::{FailureCard, HostRecord, TrainingRecord};
use super::room::Room;
use super::run_facts::RunFacts;
use super::verdict::{self, Verdict};
use super::{
    admission, deadlines, failure, hang, hosts, metrics, outputs, prepare, restart, spot, sync, usage,
    warm_pool, warm_start,
};
use crate::app::App;
use crate::capacity::Allocation;
use crate::job_log::JobLog;

/// Pause before a step is repeated that failed for no fault of the job.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// How an attempt ends.
#[expect(clippy::large_enum_variant, reason = "there is one for each job, at its end")]
pub enum End {
    /// The program ended well.
    Completed,
    /// Somebody wanted it stopped.
    Stopped,
    /// It ran for longer than it may.
    TimeLimit,
    /// It waited and ran for longer than it may.
    WaitTime,
    /// It waited for capacity for longer than it may.
    PendingTime,
    /// It did not end well.
    Failed(FailureCard),
    /// The job is back in line, for another attempt after a pause.
    Restarted {
        /// The pause.
        pause: std::time::Duration,
    },
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
            Ok(Driven::Ended) => return,
            Ok(Driven::Restarted) => {}
            Err(error) => {
                tracing::error!(job = work.key.name, %error, "a training job is repeated from its last step");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// What came of driving a job.
enum Driven {
    Ended,
    Restarted,
}

async fn drive(app: &Arc<App>, work: &Work, owner: &str, stop: &Notify) -> store::Result<Driven> {
    let key = work.key.clone();
    let found = app.database.read(move |session| session.find_resource(&key)).await?;
    let Some(resource) = found else {
        return forget(app, work, owner).await.map(|()| Driven::Ended);
    };
    let request = serde_json::from_value(resource.spec.clone())?;
    let record = TrainingRecord::read(&resource.document)?;
    let attempt = Attempt { app, work, owner, request };
    let end = attempt.to_the_end(record, stop).await?;
    let End::Restarted { pause } = end else { return attempt.finish(end).await.map(|()| Driven::Ended) };
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        // What this means is seen by the next attempt.
        () = attempt.stopped(stop) => {}
        () = deadlines::wait_time_over(&attempt) => {}
    }
    Ok(Driven::Restarted)
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
        let addresses = self.app.training.addresses();
        let key = &self.work.key;
        let claim = match admission::claim(self, &record) {
            Ok(claim) => claim,
            Err(text) => return Ok(End::Failed(FailureCard::new("capacity", text))),
        };
        if !record.attempts.is_between && hosts::are_all_started(self.app, &record.hosts)? {
            tracing::info!(job = key.name, "a training job is taken up again");
            let lease = record.addresses.map(|range| addresses.hold(key, range));
            let allocation = self.app.capacity.enter(claim, record.grant);
            return self.watch(&record.hosts, stop, allocation, lease).await;
        }
        if restart::is_time_over(self, &record) {
            return Ok(End::TimeLimit);
        }
        if let Some(reason) = self.app.capacity.never_fits(&claim) {
            return Ok(End::Failed(FailureCard::new("capacity", format!("CapacityError: {reason}"))));
        }
        let allocation = tokio::select! {
            allocation = warm_pool::admit(self, claim) => allocation?,
            () = self.stopped(stop) => return Ok(End::Stopped),
            () = deadlines::wait_time_over(self) => return Ok(End::WaitTime),
            () = deadlines::pending_time_over(self, &record) => return Ok(End::PendingTime),
        };
        let [high, low, ..] = uuid::Uuid::new_v4().into_bytes();
        let lease = match self.app.training.warm_starts().addresses(key) {
            Some(range) => addresses.hold(key, range),
            None => addresses.take(key, u16::from_be_bytes([high, low])),
        };
        let ready = tokio::select! {
            ready = prepare::ready(self, lease.range(), &allocation.grant) => match ready? {
                Ok(ready) => Ok(ready),
                Err(card) => Err(restart::or_fail(self, *card).await?),
            },
            () = self.stopped(stop) => Err(End::Stopped),
            () = deadlines::wait_time_over(self) => Err(End::WaitTime),
            interrupted = spot::interrupted(self, &allocation) => {
                interrupted?;
                let hosts = self.record().await?.hosts;
                Err(restart::begin_anew(self, restart::Cause::Interrupted, None, &hosts).await?)
            }
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(end) => {
                warm_pool::retain(self, allocation);
                return Ok(end);
            }
        };
        // Not cut short by a stop, which would not know what runs already; the watch sees it.
        match prepare::start(self, &ready).await? {
            Ok(()) => self.watch(&ready.hosts, stop, allocation, Some(lease)).await,
            Err(card) => restart::or_fail(self, *card).await,
        }
    }

    /// The record as it is now.
    ///
    /// # Errors
    /// When the database fails, or the job was deleted.
    pub async fn record(&self) -> store::Result<TrainingRecord> {
        let key = self.work.key.clone();
        let read = self.app.database.read(move |session| session.resource(&key)).await?;
        TrainingRecord::read(&read.document)
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

    async fn watch(
        &self,
        hosts: &[HostRecord],
        stop: &Notify,
        allocation: Allocation,
        lease: Option<Lease>,
    ) -> store::Result<End> {
        let ended = self.all_ended(hosts);
        let unstored = sync::keep(self, hosts);
        tokio::pin!(ended, unstored);
        let reports = tokio::select! {
            reports = &mut ended => reports,
            never = hang::watch(self) => match never {},
            never = usage::forward(self, hosts) => match never {},
            () = self.stopped(stop) => {
                hosts::stop(self.app, hosts, None);
                ended.await
            }
            interrupted = spot::interrupted(self, &allocation) => {
                interrupted?;
                hosts::stop(self.app, hosts, None);
                ended.await
            }
            () = deadlines::wait_time_over(self) => {
                deadlines::note_wait_time_over(self).await?;
                hosts::stop(self.app, hosts, None);
                ended.await
            }
            text = &mut unstored => {
                // Written first: a server that takes over must not read the end as a stop that somebody wanted.
                self.update(move |record, _| record.checkpoint_failure = Some(text)).await?;
                hosts::stop(self.app, hosts, None);
                ended.await
            }
        };
        // Others may run while the results are uploaded, unless the job keeps its part.
        warm_pool::retain(self, allocation);
        drop(lease);
        usage::put_rest(self, hosts).await;
        match reports? {
            Ok(reports) => self.settle(hosts, &reports).await,
            // It passes, and says nothing about the job.
            Err(runner::Error::Io { action, source }) if DiskProblem::of(&source).is_some() => {
                Err(store::Error::file(action)(source))
            }
            Err(error) => {
                let text = format!("InternalServerError: the workload cannot be observed: {error}");
                restart::or_fail(self, FailureCard::new("supervisor", text)).await
            }
        }
    }

    /// Waits until all hosts have ended; when one fails, the others are asked to end.
    async fn all_ended(&self, hosts: &[HostRecord]) -> store::Result<runner::Result<Vec<ExitReport>>> {
        let executor = &self.app.executor;
        let wait = |(index, host): (usize, &'_ HostRecord)| {
            let id = host.workload.clone();
            async move { (index, executor.wait(&id).await) }
        };
        let mut waiting: FuturesUnordered<_> = hosts.iter().enumerate().map(wait).collect();
        let mut reports: Vec<Option<ExitReport>> = vec![None; hosts.len()];
        let mut unobserved = None;
        let mut is_failing = false;
        while let Some((index, report)) = waiting.next().await {
            let has_failed = report.as_ref().map_or(true, verdict::is_failure);
            match report {
                Ok(report) => reports[index] = Some(report),
                Err(error) => unobserved = Some(error),
            }
            if has_failed && !waiting.is_empty() && !std::mem::replace(&mut is_failing, true) {
                self.stop_the_others(hosts, index).await?;
            }
        }
        Ok(unobserved.map_or_else(|| Ok(reports.into_iter().flatten().collect()), Err))
    }

    async fn stop_the_others(&self, hosts: &[HostRecord], failed: usize) -> store::Result<()> {
        hosts::stop(self.app, hosts, Some(failed));
        let name = hosts[failed].name.clone();
        let line = format!("modelyard: {name} failed; the other hosts of the job are stopped");
        for host in hosts {
            self.log(&host.log_stream).line(&line).await;
        }
        let written = self.update(move |record, _| record.first_failed_host = Some(name)).await;
        match written {
            // Whoever has the job now finds the same end.
            Ok(_) | Err(store::Error::LeaseLost { .. } | store::Error::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Judges the exits, uploads what the job leaves.
    async fn settle(&self, hosts: &[HostRecord], reports: &[ExitReport]) -> store::Result<End> {
        let stop_wanted = {
            let key = self.work.key.clone();
            self.app.database.read(move |session| session.stop_wanted(&key)).await?
        };
        let started_at = reports.iter().map(|report| report.started_at_ms as i64).min().unwrap_or_default();
        let ended_at = reports.iter().map(|report| report.ended_at_ms as i64).max().unwrap_or_default();
        let record = self.record().await?;
        let limit_seconds = restart::time_left_seconds(self, &record.attempts);
        let verdict = verdict::verdict(reports, limit_seconds, stop_wanted);
        if let Some(cause) = self.reason_to_restart(&record, verdict, stop_wanted, hosts, reports).await {
            let run = restart::Run::of(self, hosts, reports).await;
            return restart::begin_anew(self, cause, Some(run), hosts).await;
        }
        let first_failed = match verdict {
            Verdict::Failed(index) if hosts.len() > 1 => Some(hosts[index].name.clone()),
            _ => None,
        };
        let metrics = metrics::final_metrics(self, hosts).await;
        let exits: Vec<_> = reports
            .iter()
            .map(|report| (report.exit.clone(), report.ended_at_ms as i64, RunFacts::of(report)))
            .collect();
        let committed = self
            .update(move |record, _| {
                for (host, (exit, ended_at, run)) in record.hosts.iter_mut().zip(exits) {
                    host.exit = Some(exit);
                    host.ended_at = Some(ended_at);
                    host.run = Some(run);
                }
                record.first_failed_host = first_failed;
                if record.attempts.number() == 1 {
                    record.training_started_at = Some(started_at);
                }
                record.attempts.run_started_at = Some(started_at);
                record.training_ended_at = Some(ended_at);
                metrics::merge(&mut record.final_metrics, metrics);
                record.enter("Uploading", "Uploading generated training model", ended_at);
            })
            .await;
        if matches!(committed, Err(store::Error::LeaseLost { .. } | store::Error::Missing { .. })) {
            return Ok(End::Superseded);
        }
        let record = TrainingRecord::read(&committed?.document)?;
        let (unstored, hang) = (record.checkpoint_failure, record.hang.filter(|hang| hang.ends_job));
        let end = match verdict {
            _ if hang.is_some() && !stop_wanted => End::Failed(hang::card(self, &hosts[0], hang).await),
            _ if unstored.is_some() => {
                End::Failed(FailureCard::new("checkpoint", unstored.unwrap_or_default()))
            }
            Verdict::Stopped if record.attempts.is_wait_time_over && !stop_wanted => End::WaitTime,
            Verdict::Stopped => End::Stopped,
            Verdict::Completed => End::Completed,
            Verdict::TimeLimit => End::TimeLimit,
            Verdict::Failed(index) => {
                End::Failed(failure::card(self, &hosts[index], hosts.len(), &reports[index]).await)
            }
        };
        let mut room = Room::default();
        let unstored = loop {
            match sync::finish(self, hosts).await {
                Some(card) if failure::is_of_full_disk(&card.whole_text) && room.wait(self).await => {}
                unstored => break unstored,
            }
        };
        let end = match unstored {
            Some(card) if !matches!(end, End::Failed(_)) => End::Failed(card),
            _ => end,
        };
        let with_model = !matches!(end, End::Failed(_));
        let uploaded = loop {
            match outputs::upload(self, hosts, with_model).await {
                Err(text) if with_model && failure::is_of_full_disk(&text) && room.wait(self).await => {}
                uploaded => break uploaded,
            }
        };
        match uploaded {
            Ok(uploaded) => {
                failpoint::pass(Point::OutputStored);
                self.update(move |record, _| record.model_artifacts = uploaded).await?;
                Ok(end)
            }
            // What failed first is what the user has to know.
            Err(_) if matches!(end, End::Failed(_)) => Ok(end),
            Err(text) => Ok(End::Failed(FailureCard::new("output", text))),
        }
    }

    /// Whether the attempt that has ended is to be followed by another one, and why.
    async fn reason_to_restart(
        &self,
        record: &TrainingRecord,
        verdict: Verdict,
        stop_wanted: bool,
        hosts: &[HostRecord],
        reports: &[ExitReport],
    ) -> Option<restart::Cause> {
        let is_ended_by_us = record.checkpoint_failure.is_some()
            || record.hang.as_ref().is_some_and(|hang| hang.ends_job)
            || record.attempts.is_wait_time_over;
        if stop_wanted || is_ended_by_us {
            return None;
        }
        if restart::is_interrupted(record, verdict, reports) {
            return Some(restart::Cause::Interrupted);
        }
        let Verdict::Failed(index) = verdict else { return None };
        let card = failure::card(self, &hosts[index], hosts.len(), &reports[index]).await;
        restart::is_retried(self, record, &card).then_some(restart::Cause::Retry(card.reason))
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
                    crate::events::append_state(session, &changed, now_ms)?;
                }
                Ok(changed)
            })
            .await
    }

    async fn finish(&self, end: End) -> store::Result<()> {
        let (status, secondary, message, card) = match end {
            End::Superseded | End::Restarted { .. } => {
                return warm_pool::ended(self.app, &self.work.key).await;
            }
            End::Completed => ("Completed", "Completed", "Training job completed".to_owned(), None),
            End::Stopped => ("Stopped", "Stopped", "Training job stopped".to_owned(), None),
            End::TimeLimit => {
                let text = "Training job runtime exceeded MaxRuntimeInSeconds provided";
                ("Stopped", "MaxRuntimeExceeded", text.to_owned(), None)
            }
            End::WaitTime => {
                ("Stopped", "MaxWaitTimeExceeded", deadlines::WAIT_TIME_MESSAGE.to_owned(), None)
            }
            End::PendingTime => ("Stopped", "Stopped", deadlines::PENDING_TIME_MESSAGE.to_owned(), None),
            End::Failed(card) => {
                let card = failure::complete(card);
                ("Failed", "Failed", card.reason.clone(), Some(card))
            }
        };
        failpoint::at(Point::JobFinish).map_err(store::Error::file("record the end of a job"))?;
        let leaves_pool = warm_pool::is_left(self, card.as_ref().map(|card| card.reason.as_str()));
        let (work, owner, now_ms) = (self.work.clone(), self.owner.to_owned(), self.app.clock.now_ms());
        let hosts = self
            .app
            .database
            .write(move |session| {
                let mut hosts = Vec::new();
                let changed = session.update_resource(&work.key, now_ms, |resource| {
                    let mut record = TrainingRecord::read(&resource.document)?;
                    record.enter(secondary, &message, now_ms);
                    if let Some(last) = record.transitions.last_mut() {
                        last.ended_at = Some(now_ms);
                    }
                    record.training_ended_at.get_or_insert(now_ms);
                    record.failure.clone_from(&card);
                    hosts.clone_from(&record.hosts);
                    resource.document = record.to_document();
                    resource.status = status.into();
                    Ok(())
                })?;
                let detail =
                    card.as_ref().map_or(Value::Null, |card| serde_json::json!({"cause": card.cause}));
                session.append_event(&work.key, status, &detail, now_ms)?;
                crate::events::append_state(session, &changed, now_ms)?;
                if let Some(card) = card {
                    session.record_failure(&card.noted(&work.key, now_ms))?;
                }
                session.forget_metric_places(&FollowedJob::of(&work.key), usage::PLACE)?;
                warm_pool::end(session, &changed, leaves_pool, now_ms)?;
                session.finish_work(&work, &owner)?;
                Ok(hosts)
            })
            .await;
        match hosts {
            Err(store::Error::LeaseLost { .. } | store::Error::Missing { .. }) => {}
            hosts => {
                let hosts = hosts?;
                failpoint::pass(Point::JobCleanUp);
                let pattern = warm_start::pattern(self.app, &self.work.key, &hosts);
                hosts::clean_up(self.app, &hosts).await;
                warm_pool::ended(self.app, &self.work.key).await?;
                if leaves_pool && let Some(pattern) = pattern {
                    warm_pool::prepare(self.app, &self.work.key, pattern).await;
                }
                return Ok(());
            }
        }
        warm_pool::ended(self.app, &self.work.key).await
    }

    /// The log of this job, for the server's own lines.
    pub fn log(&self, stream: &str) -> JobLog {
        let key = &self.work.key;
        JobLog::new(self.app, &key.account, &key.region, prepare::LOG_GROUP, stream)
    }
}
