//! Jobs that are prepared while they wait for their turn: furnished, and held in a finished sandbox, so that on their turn
//! their program only has to be let go.
//!
//! What is prepared is used only if it is what would be made then: the same grant, and inputs that have not changed. Until it is
//! let go, nothing of the job runs, and its status says that it waits.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::sagemaker::CreateTrainingJobInput;
use futures::future::BoxFuture;
use runner::executor::can_be_held;
use runner::workload::Observation;

use super::addresses::Lease;
use super::attempt::Attempt;
use super::attempts::Attempts;
use super::input_changes::Inputs;
use super::prepare::{self, Moment, Ready};
use super::record::TrainingRecord;
use super::{hosts, processing, warm_pool};
use crate::capacity::{Grant, Outlook};

/// The job's credentials are counted from its preparation; a sandbox that is older is made anew, so that they outlive the job.
const LONGEST_HOLD_MS: i64 = prepare::CREDENTIALS_MARGIN_SECONDS * 1_000 / 2;

/// How long a job is one of the next before it is prepared: the one whose start has brought it there needs the processor more.
const PAUSE: Duration = Duration::from_millis(100);

/// The preparation of a job that waits.
pub struct Ahead<'a> {
    attempt: &'a Attempt<'a>,
    outlook: Outlook,
    stage: Stage<'a>,
}

/// A job that only has to be let go.
pub struct Held {
    /// Its host, and what it runs.
    pub ready: Ready,
    /// Its addresses.
    pub lease: Lease,
    grant: Grant,
    inputs: Arc<Inputs>,
    prepared_at: i64,
    /// As the record has them while the job is held.
    attempts: Attempts,
}

/// How far it is. Futures are kept here so that whoever waits can turn to something else in between.
enum Stage<'a> {
    /// The job is not one of the next.
    Waiting,
    /// Inputs, source and environment are put in place. Can be cut off at any time.
    Furnishing(BoxFuture<'a, Option<Held>>),
    /// The supervisor is started. Must not be cut off: nobody would know whether it runs.
    Starting(BoxFuture<'a, Option<Held>>),
    Held(Box<Held>),
    /// What was prepared is ended and removed.
    Discarding(BoxFuture<'a, ()>),
    /// It cannot be prepared, or could not: that is found out, and told, on its turn.
    GivenUp,
}

impl<'a> Ahead<'a> {
    /// Of a job that is about to wait in line.
    pub fn of(attempt: &'a Attempt<'a>) -> Ahead<'a> {
        // A job that keeps a pool notes what it runs in; the check of the machine is for the moment of the start; queries take
        // a part of the machine.
        let is_plain = warm_pool::keep_alive_seconds(&attempt.request) == 0
            && attempt.request.infra_check_config.is_none()
            && !attempt.kind.processing().is_some_and(processing::has_queries);
        Ahead {
            attempt,
            outlook: attempt.app.capacity.outlook(&attempt.work.key),
            stage: if is_plain { Stage::Waiting } else { Stage::GivenUp },
        }
    }

    /// Prepares the job when it becomes one of the next, and takes that back when others overtake it. Never returns, and may be
    /// dropped at any time.
    pub async fn keep_ready(&mut self) -> Infallible {
        loop {
            self.stage = match &mut self.stage {
                Stage::Waiting => {
                    self.outlook.is_next().await;
                    tokio::time::sleep(PAUSE).await;
                    let grant = self.outlook.is_next().await;
                    Stage::Furnishing(Box::pin(furnish(self.attempt, grant)))
                }
                Stage::Furnishing(furnishing) => tokio::select! {
                    furnished = furnishing => next_stage(self.attempt, furnished),
                    () = self.outlook.is_overtaken() => {
                        Stage::Discarding(Box::pin(discard_recorded(self.attempt)))
                    }
                },
                Stage::Starting(starting) => held_stage(starting.await),
                Stage::Held(held) => {
                    self.outlook.is_overtaken().await;
                    discarding(self.attempt, held)
                }
                Stage::Discarding(discarding) => {
                    discarding.await;
                    Stage::Waiting
                }
                Stage::GivenUp => std::future::pending().await,
            };
        }
    }

    /// Whether the job is being prepared and not ready yet.
    pub fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Furnishing(_) | Stage::Starting(_))
    }

    /// What was prepared, finished first if need be, for a job that was granted this. `None` when it has to be prepared afresh.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(&mut self, grant: &Grant) -> store::Result<Option<Held>> {
        loop {
            self.stage = match &mut self.stage {
                Stage::Waiting | Stage::GivenUp => return Ok(None),
                Stage::Furnishing(furnishing) => next_stage(self.attempt, furnishing.await),
                Stage::Starting(starting) => held_stage(starting.await),
                Stage::Held(held) => {
                    let recorded = self.attempt.record()?;
                    if held.serves(self.attempt, grant, &recorded) {
                        break;
                    }
                    discarding(self.attempt, held)
                }
                Stage::Discarding(discarding) => {
                    discarding.await;
                    Stage::GivenUp
                }
            };
        }
        match std::mem::replace(&mut self.stage, Stage::GivenUp) {
            Stage::Held(held) => Ok(Some(*held)),
            _ => Ok(None),
        }
    }

    /// To be called when the job does not come to its turn: returns when nothing new can begin. What is there is
    /// cleaned up with the job.
    pub async fn give_up(self) {
        match self.stage {
            Stage::Starting(starting) => drop(starting.await),
            Stage::Discarding(discarding) => discarding.await,
            Stage::Waiting | Stage::Furnishing(_) | Stage::Held(_) | Stage::GivenUp => {}
        }
    }
}

fn next_stage<'a>(attempt: &'a Attempt<'a>, furnished: Option<Held>) -> Stage<'a> {
    furnished.map_or(Stage::GivenUp, |held| Stage::Starting(Box::pin(start(attempt, held))))
}

fn held_stage<'a>(held: Option<Held>) -> Stage<'a> {
    held.map_or(Stage::GivenUp, |held| Stage::Held(Box::new(held)))
}

fn discarding<'a>(attempt: &'a Attempt<'a>, held: &Held) -> Stage<'a> {
    let hosts = held.ready.hosts.clone();
    Stage::Discarding(Box::pin(async move { hosts::clean_up(attempt.app, &hosts).await }))
}

impl Held {
    /// Whether it is what would be made now, and still there.
    fn serves(&self, attempt: &Attempt<'_>, grant: &Grant, recorded: &TrainingRecord) -> bool {
        let app = attempt.app;
        let is_there = self.ready.hosts.iter().all(|host| {
            matches!(app.executor.observe(&host.workload), Ok(Observation::Running { .. }))
                && app.executor.is_held(&host.workload).unwrap_or(false)
        });
        // The sandbox of a warm pool has more in it.
        let has_warm_start = app.training.warm_starts().addresses(&attempt.work.key).is_some();
        is_there
            && !has_warm_start
            && self.grant == *grant
            && self.ready.hosts == recorded.hosts
            && self.attempts == recorded.attempts
            && !self.inputs.have_changed()
            && app.clock.now_ms() - self.prepared_at < LONGEST_HOLD_MS
    }
}

/// Whether a job's program is an interpreter that starts without anything of the job: neither options nor variables of the job
/// say how.
pub fn starts_alone(command: &[String], request: &CreateTrainingJobInput) -> bool {
    let [program, script, ..] = command else { return false };
    let is_interpreter = matches!(program.rsplit('/').next(), Some("python" | "python3"));
    let own = request.environment.iter().flatten().map(|(name, _)| name);
    let steers_its_start = |name: &String| {
        ["PYTHON", "LD_", "GLIBC_", "GCONV_", "LOCPATH", "MALLOC_"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    let is_option = script.starts_with('-') && !["-c", "-m", "-u"].contains(&script.as_str());
    is_interpreter && !is_option && !own.into_iter().any(steers_its_start)
}

/// Puts everything in place; `None` when the job cannot be prepared before its turn.
async fn furnish(attempt: &Attempt<'_>, grant: Grant) -> Option<Held> {
    let note = |error: &store::Error| {
        let job = &attempt.work.key.name;
        tracing::warn!(job, %error, "a job that waits could not be prepared; it is on its turn");
    };
    // What an attempt before left to be done, or an interruption, is seen to on its turn.
    let attempts = attempt.record().inspect_err(note).ok()?.attempts;
    if attempts.number() > 1 || attempts.interruption.is_some() {
        return None;
    }
    let attempts = Attempts { is_between: false, run_started_at: None, ..attempts };
    let inputs = Inputs::of(attempt).await.inspect_err(note).ok()??;
    if prepare::is_in_container(attempt).await {
        return None;
    }
    let prepared_at = attempt.app.clock.now_ms();
    let addresses = attempt.app.training.addresses();
    let [high, low, ..] = uuid::Uuid::new_v4().into_bytes();
    let lease = addresses.take(&attempt.work.key, u16::from_be_bytes([high, low]));
    let moment = Moment::Ahead(inputs.clone());
    let ready = prepare::ready(attempt, lease.range(), &grant, moment).await.inspect_err(note).ok()?;
    match ready {
        Ok(ready) if ready.specs.iter().all(can_be_held) => {
            Some(Held { ready, lease, grant, inputs, prepared_at, attempts })
        }
        // What is wrong with it is found again, and told, on its turn.
        _ => None,
    }
}

async fn start(attempt: &Attempt<'_>, held: Held) -> Option<Held> {
    for spec in &held.ready.specs {
        if let Err(error) = attempt.app.executor.hold(spec).await {
            let job = &attempt.work.key.name;
            tracing::warn!(job, %error, "a job that waits could not be held; it is started on its turn");
            hosts::clean_up(attempt.app, &held.ready.hosts).await;
            return None;
        }
    }
    Some(held)
}

/// Removes what was put in place before it was cut off.
async fn discard_recorded(attempt: &Attempt<'_>) {
    match attempt.record() {
        Ok(record) => hosts::clean_up(attempt.app, &record.hosts).await,
        // The next preparation does it, or the end of the job.
        Err(error) => tracing::warn!(%error, "what was prepared of a job that waits is left for now"),
    }
}
