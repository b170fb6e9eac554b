//! Jobs that begin anew: after an interruption of spot capacity, and after a fault of the server's own (`RetryStrategy`).

use std::time::Duration;

use runner::workload::{Exit, ExitReport};

use super::attempt::{Attempt, End};
use super::attempts::Attempts;
use super::record::{FailureCard, HostRecord, TrainingRecord};
use super::verdict::Verdict;
use super::{hosts, metrics, prepare, sync};

/// First pause before a retry; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a retry.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How failures begin that are no fault of the job.
const SERVER_FAULT: &str = "InternalServerError";

/// Why a job begins anew.
pub enum Cause {
    /// Its spot instances were interrupted.
    Interrupted,
    /// A fault of the server's own ended it, with this reason.
    Retry(String),
    /// The sandbox that a warm pool had prepared for it was lost before it began: it begins in a fresh one.
    SandboxLost,
}

/// When the program of an attempt ran, milliseconds since 1970.
#[derive(Clone, Copy)]
pub struct Run {
    /// The first host's start.
    pub started_at: i64,
    /// The last host's end.
    pub ended_at: i64,
}

/// Whether the ends of the hosts are those of an interruption: a program that ended by itself before is not run again.
pub fn is_interrupted(record: &TrainingRecord, verdict: Verdict, reports: &[ExitReport]) -> bool {
    let Some(interruption) = &record.attempts.interruption else { return false };
    match verdict {
        Verdict::Stopped => true,
        // A host that misses a peer which was ended before it.
        Verdict::Failed(host) => {
            reports.iter().any(|report| report.stop_requested)
                && reports[host].ended_at_ms as i64 >= interruption.asked_at
        }
        Verdict::Completed | Verdict::TimeLimit => false,
    }
}

/// Whether a job that failed is tried again.
pub fn is_retried(attempt: &Attempt<'_>, record: &TrainingRecord, card: &FailureCard) -> bool {
    let retries = u64::from(record.attempts.retries);
    card.reason.starts_with(SERVER_FAULT) && retries < most_retries(attempt)
}

/// The end of a job that failed before its program ran, or whose program cannot be seen; unless it is tried again.
///
/// # Errors
/// When the database fails.
pub async fn or_fail(attempt: &Attempt<'_>, card: FailureCard) -> store::Result<End> {
    let record = attempt.record()?;
    // A query before the program may have taken all of its time.
    if is_time_over(attempt, &record) {
        return Ok(End::TimeLimit);
    }
    if !is_retried(attempt, &record, &card) {
        return Ok(End::Failed(card));
    }
    begin_anew(attempt, Cause::Retry(card.reason), None, &record.hosts).await
}

/// How long the program may run in the current attempt.
pub fn time_left_seconds(attempt: &Attempt<'_>, attempts: &Attempts) -> u64 {
    let ran_seconds = u64::try_from(attempts.ran_before_ms / 1_000).unwrap_or(0);
    prepare::time_limit_seconds(&attempt.request).saturating_sub(ran_seconds).max(1)
}

/// Whether the program has had all of its time in the attempts that are over.
pub fn is_time_over(attempt: &Attempt<'_>, record: &TrainingRecord) -> bool {
    let limit_ms = prepare::time_limit_seconds(&attempt.request).saturating_mul(1_000);
    u64::try_from(record.attempts.ran_before_ms).is_ok_and(|ran_ms| ran_ms >= limit_ms)
}

/// Closes an attempt whose hosts have ended and puts the job back in line. `run` is of a program that has run: its checkpoints are
/// stored a last time.
///
/// # Errors
/// When the database fails.
pub async fn begin_anew(
    attempt: &Attempt<'_>,
    cause: Cause,
    run: Option<Run>,
    hosts: &[HostRecord],
) -> store::Result<End> {
    let mut metrics = Vec::new();
    if run.is_some() {
        if let Some(card) = sync::finish(attempt, hosts).await {
            return Ok(End::Failed(card));
        }
        metrics = metrics::final_metrics(attempt, hosts).await;
    }
    let most = most_retries(attempt);
    let written = attempt
        .update(move |record, now_ms| {
            let attempts = &mut record.attempts;
            let message = match cause {
                Cause::Interrupted => {
                    attempts.interruptions += 1;
                    "Restarting the training job after an interruption of its spot instances".to_owned()
                }
                Cause::SandboxLost => {
                    "Starting the training job afresh: the sandbox that its warm pool had prepared was lost"
                        .to_owned()
                }
                Cause::Retry(reason) => {
                    attempts.retries += 1;
                    format!(
                        "Restarting the training job (retry {} of {most}) after {reason}",
                        attempts.retries
                    )
                }
            };
            attempts.ran_before_ms += run.map_or(0, |run| (run.ended_at - run.started_at).max(0));
            (attempts.run_started_at, attempts.interruption, attempts.is_between) = (None, None, true);
            record.training_started_at = record.training_started_at.or(run.map(|run| run.started_at));
            (record.hang, record.first_failed_host, record.addresses) = (None, None, None);
            metrics::merge(&mut record.final_metrics, metrics);
            if record.secondary_status() != "Stopping" {
                record.enter("Restarting", &super::record::shorten(message), now_ms);
            }
        })
        .await;
    let record = match written {
        Err(store::Error::LeaseLost { .. } | store::Error::Missing { .. }) => return Ok(End::Superseded),
        written => TrainingRecord::read(&written?.document)?,
    };
    // Also done by the next attempt, should this server not come to it.
    hosts::clean_up(attempt.app, hosts).await;
    let pause = match record.attempts.retries {
        0 => Duration::ZERO,
        retries => FIRST_PAUSE.saturating_mul(1 << (retries - 1).min(10)).min(LONGEST_PAUSE),
    };
    let message = record.transitions.last().map(|last| last.message.as_str()).unwrap_or_default();
    tracing::info!(job = attempt.work.key.name, message, "a training job begins anew");
    Ok(End::Restarted { pause })
}

fn most_retries(attempt: &Attempt<'_>) -> u64 {
    let strategy = attempt.request.retry_strategy.as_ref();
    strategy.map_or(0, |strategy| u64::try_from(strategy.maximum_retry_attempts).unwrap_or(0))
}

impl Run {
    /// When the program of an ended attempt ran.
    pub async fn of(attempt: &Attempt<'_>, hosts: &[HostRecord], reports: &[ExitReport]) -> Run {
        let started_at = reports.iter().map(|report| report.started_at_ms as i64).min().unwrap_or_default();
        let mut ended_at = started_at;
        for (host, report) in hosts.iter().zip(reports) {
            let host_ended_at = match report.exit {
                // When it was found is no measure: the machine may have been off meanwhile.
                Exit::SupervisorLost => {
                    attempt.log(&host.log_stream).timed_tail(1).await.pop().map_or(started_at, |(at, _)| at)
                }
                _ => report.ended_at_ms as i64,
            };
            ended_at = ended_at.max(host_ended_at);
        }
        Run { started_at, ended_at }
    }
}
