//! One attempt to bring a training job to its end. Every step can be repeated: a restarted server begins again at the
//! last step that left no trace.

use std::sync::Arc;

use api::sagemaker::CreateTrainingJobInput;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use runner::workload::ExitReport;
use store::DiskProblem;
use store::resources::Resource;
use store::work::Work;
use tokio::sync::Notify;

use super::addresses::Lease;
use super::ahead::{Ahead, Held};
use super::kind::{self, JobKind};
use super::prepare::Moment;
use super::record::{FailureCard, HostRecord, TrainingRecord};
use super::{
    admission, deadlines, hang, hosts, launch, prepare, restart, spot, sync, usage, verdict, warm_pool,
};
use crate::app::App;
use crate::capacity::Allocation;
use crate::job_log::JobLog;
use crate::sagemaker::lineage;

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
    /// The kind of the job, with the request of one that is no training job.
    pub kind: JobKind,
    /// What is asked of whoever runs the job, in the words of CreateTrainingJob whatever its kind.
    pub request: CreateTrainingJobInput,
}

/// Drives the job until it ends, repeating after faults of the database.
pub async fn run(app: &Arc<App>, work: Work, owner: &str, stop: &Notify) {
    loop {
        let driven = drive(app, &work, owner, stop).await;
        // Whatever came in the way of finding out.
        app.capacity.does_not_run(&work.key);
        match driven {
            Ok(Driven::Ended) => return,
            Ok(Driven::Restarted) => {}
            Err(error) => {
                tracing::error!(job = work.key.name, %error, "a job is repeated from its last step");
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
    let found = app.database.look(|session| session.find_resource(&work.key))?;
    let Some(resource) = found else {
        return forget(app, work, owner).await.map(|()| Driven::Ended);
    };
    let (kind, request) = JobKind::read(&resource)?;
    let record = TrainingRecord::read(&resource.document)?;
    let attempt = Attempt { app, work, owner, kind, request };
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
        if record.may_run() && hosts::are_all_started(self.app, &record)? {
            tracing::info!(job = key.name, "a job is taken up again");
            let lease = record.addresses.map(|range| addresses.hold(key, range));
            let allocation = self.app.capacity.enter(claim, record.grant);
            return self.watch(&record.hosts, stop, allocation, lease).await;
        }
        self.app.capacity.does_not_run(key);
        if restart::is_time_over(self, &record) {
            return Ok(End::TimeLimit);
        }
        if let Some(reason) = self.app.capacity.never_fits(&claim) {
            return Ok(End::Failed(FailureCard::new("capacity", format!("CapacityError: {reason}"))));
        }
        let mut ahead = Ahead::of(self);
        let admitted = tokio::select! {
            allocation = warm_pool::admit(self, claim) => allocation.map(Ok),
            () = self.stopped(stop) => Ok(Err(End::Stopped)),
            () = deadlines::wait_time_over(self) => Ok(Err(End::WaitTime)),
            () = deadlines::pending_time_over(self, &record) => Ok(Err(End::PendingTime)),
            never = ahead.keep_ready() => match never {},
        };
        let allocation = match admitted {
            Ok(Ok(allocation)) => allocation,
            ended => {
                ahead.give_up().await;
                return ended.map(|ended| ended.err().unwrap_or(End::Superseded));
            }
        };
        let held = tokio::select! {
            held = self.prepared_ahead(&mut ahead, &allocation) => held.map(Ok),
            () = self.stopped(stop) => Ok(Err(Some(End::Stopped))),
            () = deadlines::wait_time_over(self) => Ok(Err(Some(End::WaitTime))),
            interrupted = spot::interrupted(self, &allocation) => interrupted.map(|()| Err(None)),
        };
        ahead.give_up().await;
        match held? {
            Ok(None) => {}
            Ok(Some(held)) => {
                return match launch::let_go(self, &held.ready).await? {
                    Ok(()) => self.watch(&held.ready.hosts, stop, allocation, Some(held.lease)).await,
                    Err(card) => restart::or_fail(self, *card).await,
                };
            }
            Err(Some(end)) => {
                warm_pool::retain(self, allocation);
                return Ok(end);
            }
            Err(None) => {
                let hosts = self.record()?.hosts;
                return restart::begin_anew(self, restart::Cause::Interrupted, None, &hosts).await;
            }
        }
        let [high, low, ..] = uuid::Uuid::new_v4().into_bytes();
        let lease = match self.app.training.warm_starts().addresses(key) {
            Some(range) => addresses.hold(key, range),
            None => addresses.take(key, u16::from_be_bytes([high, low])),
        };
        let ready = tokio::select! {
            ready = prepare::ready(self, lease.range(), &allocation.grant, Moment::Turn) => match ready? {
                Ok(ready) => Ok(ready),
                Err(card) => Err(restart::or_fail(self, *card).await?),
            },
            () = self.stopped(stop) => Err(End::Stopped),
            () = deadlines::wait_time_over(self) => Err(End::WaitTime),
            interrupted = spot::interrupted(self, &allocation) => {
                interrupted?;
                let hosts = self.record()?.hosts;
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
        match launch::start(self, &ready).await? {
            Ok(()) => self.watch(&ready.hosts, stop, allocation, Some(lease)).await,
            Err(card) => restart::or_fail(self, *card).await,
        }
    }

    /// What was prepared while the job waited, if it can be used; finished first, if that is under way.
    async fn prepared_ahead(
        &self,
        ahead: &mut Ahead<'_>,
        allocation: &Allocation,
    ) -> store::Result<Option<Held>> {
        if ahead.is_under_way() {
            let starting = self.kind.starting();
            self.update(move |record, now_ms| record.begin(starting, now_ms)).await?;
        }
        ahead.take(&allocation.grant).await
    }

    /// The record as it is now.
    ///
    /// # Errors
    /// When the database fails, or the job was deleted.
    pub fn record(&self) -> store::Result<TrainingRecord> {
        let read = self.app.database.look(|session| session.resource(&self.work.key))?;
        TrainingRecord::read(&read.document)
    }

    /// Returns once a stop is wanted.
    async fn stopped(&self, stop: &Notify) {
        loop {
            match self.app.database.look(|session| session.stop_wanted(&self.work.key)) {
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
        tokio::spawn(lineage::jobs::record_inputs(self.app.clone(), self.work.key.clone()));
        let ended = self.all_ended(hosts);
        let unstored = sync::keep(self, hosts);
        tokio::pin!(ended, unstored);
        let reports = tokio::select! {
            reports = &mut ended => reports,
            never = hang::watch(self) => match never {},
            never = usage::forward(self, hosts) => match never {},
            never = self.give_back_early(hosts, &allocation) => match never {},
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

    /// Lets others have the job's part of the machine as soon as its processes have ended, unless it keeps that: its supervisors
    /// still write down what they were.
    async fn give_back_early(
        &self,
        hosts: &[HostRecord],
        allocation: &Allocation,
    ) -> std::convert::Infallible {
        if warm_pool::keep_alive_seconds(&self.request) == 0 {
            let waits = hosts.iter().map(|host| self.app.executor.wait_for_processes(&host.workload));
            // Where that cannot be told, it is given back with the reports.
            if futures::future::try_join_all(waits).await.is_ok() {
                allocation.give_back();
            }
        }
        std::future::pending().await
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

    /// Changes the record while the lease is held; `change` also gets the time.
    pub async fn update(
        &self,
        change: impl FnOnce(&mut TrainingRecord, i64) + Send + 'static,
    ) -> store::Result<Resource> {
        let (work, owner, now_ms) = (self.work.clone(), self.owner.to_owned(), self.app.clock.now_ms());
        let tells_steps = self.kind.has_secondary_status();
        self.app
            .database
            .write(move |session| {
                session.check_lease(&work, &owner)?;
                let mut entered = Vec::new();
                let changed = session.update_resource(&work.key, now_ms, |resource| {
                    let mut record = TrainingRecord::read(&resource.document)?;
                    let before = record.transitions.clone();
                    change(&mut record, now_ms);
                    entered = record.entered_since(&before);
                    resource.document = record.to_document();
                    Ok(())
                })?;
                for count in entered {
                    let mut record = TrainingRecord::read(&changed.document)?;
                    record.transitions.truncate(count);
                    let Some(transition) = record.transitions.last_mut() else { continue };
                    transition.ended_at = None;
                    let detail = serde_json::json!({"message": transition.message});
                    session.append_event(&work.key, &transition.status, &detail, now_ms)?;
                    if tells_steps {
                        let then = Resource { document: record.to_document(), ..changed.clone() };
                        crate::events::append_state(session, &then, now_ms)?;
                    }
                }
                Ok(changed)
            })
            .await
    }

    /// The log group of the job.
    pub fn log_group(&self) -> &'static str {
        kind::log_group(&self.work.key.kind)
    }

    /// The log of this job, for the server's own lines.
    pub fn log(&self, stream: &str) -> JobLog {
        let key = &self.work.key;
        JobLog::new(self.app, &key.account, &key.region, self.log_group(), stream)
    }
}
