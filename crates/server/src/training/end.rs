//! The end of an attempt: what the exits mean, what is stored, how the end is written down.

use failpoint::Point;
use runner::workload::ExitReport;
use serde_json::Value;

use super::attempt::{Attempt, End};
use super::record::{FailureCard, HostRecord, TrainingRecord};
use super::room::Room;
use super::run_facts::RunFacts;
use super::verdict::{self, Verdict};
use super::{
    deadlines, failure, hang, hosts, kind, metrics, outputs, processing, restart, sync, usage, warm_pool,
    warm_start,
};
use crate::sagemaker::lineage;

impl Attempt<'_> {
    /// Judges the exits, uploads what the job leaves.
    pub(super) async fn settle(&self, hosts: &[HostRecord], reports: &[ExitReport]) -> store::Result<End> {
        let stop_wanted = self.app.database.look(|session| session.stop_wanted(&self.work.key))?;
        let started_at = reports.iter().map(|report| report.started_at_ms as i64).min().unwrap_or_default();
        let ended_at = reports.iter().map(|report| report.ended_at_ms as i64).max().unwrap_or_default();
        let record = self.record()?;
        let limit_seconds = restart::time_left_seconds(self, &record.attempts);
        let verdict = verdict::verdict(reports, limit_seconds, stop_wanted);
        if let Some(cause) = self.reason_to_restart(&record, verdict, stop_wanted, hosts, reports).await {
            let run = match cause {
                restart::Cause::SandboxLost => None,
                _ => Some(restart::Run::of(self, hosts, reports).await),
            };
            return restart::begin_anew(self, cause, run, hosts).await;
        }
        let first_failed = match verdict {
            Verdict::Failed(index) if hosts.len() > 1 => Some(hosts[index].name.clone()),
            _ => None,
        };
        let metrics = metrics::final_metrics(self, hosts).await;
        let (exit_message, not_a_message) = match processing::exit_message(self, hosts) {
            Ok(message) => (message, None),
            Err(card) => (None, Some(card)),
        };
        let uploading = self.kind.uploading();
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
                record.exit_message = exit_message;
                record.enter("Uploading", uploading, ended_at);
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
        let end = match unstored.or(not_a_message) {
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
                // Processing jobs leave no model, and each transaction waits for the disk.
                if self.kind.processing().is_none() {
                    self.update(move |record, _| record.model_artifacts = uploaded).await?;
                }
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
        if warm_start::was_lost(self.app, &hosts[index], &reports[index]) {
            return Some(restart::Cause::SandboxLost);
        }
        let card = failure::card(self, &hosts[index], hosts.len(), &reports[index]).await;
        restart::is_retried(self, record, &card).then_some(restart::Cause::Retry(card.reason))
    }

    /// Writes the end of the job down, and removes what is left of it.
    pub(super) async fn finish(&self, end: End) -> store::Result<()> {
        let job = self.kind.title();
        let (status, secondary, message, card) = match end {
            End::Superseded | End::Restarted { .. } => {
                return warm_pool::ended(self.app, &self.work.key).await;
            }
            End::Completed => ("Completed", "Completed", format!("{job} completed"), None),
            End::Stopped => ("Stopped", "Stopped", format!("{job} stopped"), None),
            End::TimeLimit => {
                let text = format!("{job} runtime exceeded MaxRuntimeInSeconds provided");
                ("Stopped", "MaxRuntimeExceeded", text, None)
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
                let mut queries: Vec<String> = Vec::new();
                let changed = session.update_resource(&work.key, now_ms, |resource| {
                    let mut record = TrainingRecord::read(&resource.document)?;
                    record.enter(secondary, &message, now_ms);
                    if let Some(last) = record.transitions.last_mut() {
                        last.ended_at = Some(now_ms);
                    }
                    record.training_ended_at.get_or_insert(now_ms);
                    record.failure.clone_from(&card);
                    hosts.clone_from(&record.hosts);
                    queries = record.queries.iter().map(|query| query.workload.clone()).collect();
                    resource.document = record.to_document();
                    resource.status = status.into();
                    Ok(())
                })?;
                let detail =
                    card.as_ref().map_or(Value::Null, |card| serde_json::json!({"cause": card.cause}));
                session.append_event(&work.key, status, &detail, now_ms)?;
                crate::events::append_state(session, &changed, now_ms)?;
                lineage::jobs::ended(session, &changed, now_ms)?;
                if let Some(card) = card {
                    session.record_failure(&card.noted(&work.key, now_ms))?;
                }
                session.forget_metric_places(&kind::followed(&work.key), usage::PLACE)?;
                warm_pool::end(session, &changed, leaves_pool, now_ms)?;
                session.finish_work(&work, &owner)?;
                Ok((hosts, queries))
            })
            .await;
        match hosts {
            Err(store::Error::LeaseLost { .. } | store::Error::Missing { .. }) => {}
            hosts => {
                let (hosts, queries) = hosts?;
                failpoint::pass(Point::JobCleanUp);
                let pattern = warm_start::pattern(self.app, &self.work.key, &hosts);
                hosts::clean_up(self.app, &hosts).await;
                hosts::clean_up_workloads(self.app, &queries).await;
                warm_pool::ended(self.app, &self.work.key).await?;
                if leaves_pool && let Some(pattern) = pattern {
                    warm_pool::prepare(self.app, &self.work.key, pattern).await;
                }
                return Ok(());
            }
        }
        warm_pool::ended(self.app, &self.work.key).await
    }
}
