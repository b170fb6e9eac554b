//! Jobs that hang: no line in the log and no CPU use for a settable time.

use std::convert::Infallible;
use std::time::Duration;

use runner::activity::Activity;
use runner::workload::Observation;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::attempt::Attempt;
use super::failure;
use super::prepare::shown_command;
use super::record::{FailureCard, HangNotice, HostRecord, TrainingRecord};
use crate::config::HangAction;

/// Part of one CPU that counts as computing: what waiting programs use for looking at the time is far below.
const BUSY_SHARE: f64 = 0.005;

/// What can be seen of a job's life from outside.
#[derive(Clone, Debug, Default, PartialEq)]
struct Signs {
    cpu_seconds: f64,
    /// Time and text of each log's last line.
    last_lines: Vec<Option<(i64, String)>>,
    processes: Vec<String>,
}

/// Since when there was no sign of life.
struct Silence {
    since: Instant,
    looked_at: Instant,
    signs: Signs,
}

impl Silence {
    fn new(now: Instant, signs: Signs) -> Silence {
        Silence { since: now, looked_at: now, signs }
    }

    /// Compares with the look before; returns how long it has been silent.
    fn look(&mut self, now: Instant, signs: Signs) -> Duration {
        let elapsed = now.duration_since(self.looked_at).as_secs_f64();
        // The sum also falls when a process ends, which is a sign of life too.
        let computed = (signs.cpu_seconds - self.signs.cpu_seconds).abs() > BUSY_SHARE * elapsed;
        if computed || signs.last_lines != self.signs.last_lines {
            self.since = now;
        }
        self.looked_at = now;
        self.signs = signs;
        now.duration_since(self.since)
    }
}

/// Watches a running job for as long as it is polled.
pub async fn watch(attempt: &Attempt<'_>) -> Infallible {
    let limit = Duration::from_secs(attempt.app.config.hang_after_seconds);
    if limit.is_zero() {
        return std::future::pending().await;
    }
    let pause = (limit / 8).clamp(Duration::from_millis(200), Duration::from_secs(30));
    let mut silence: Option<Silence> = None;
    loop {
        tokio::time::sleep(pause).await;
        let Some((record, signs)) = look(attempt).await else { continue };
        let now = Instant::now();
        let silent_for = match &mut silence {
            Some(silence) => silence.look(now, signs.clone()),
            None => {
                silence = Some(Silence::new(now, signs));
                continue;
            }
        };
        let told = match (&record.hang, silent_for >= limit) {
            (None, true) => report(attempt, &record, &signs, silent_for).await,
            // The server may have been restarted meanwhile: a new silence is not yet a sign of life.
            (Some(hang), false) if silent_for < pause && !hang.ends_job => withdraw(attempt, hang).await,
            _ => Ok(false),
        };
        match told {
            // Our own line in the log is no sign of life.
            Ok(true) => {
                if let (Some(silence), Some((_, signs))) = (&mut silence, look(attempt).await) {
                    silence.signs = signs;
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(job = attempt.work.key.name, %error, "a hang could not be recorded"),
        }
    }
}

/// `None` while it cannot be seen whether the job does anything.
async fn look(attempt: &Attempt<'_>) -> Option<(TrainingRecord, Signs)> {
    let key = attempt.work.key.clone();
    let resource = attempt.app.database.read(move |session| session.resource(&key)).await.ok()?;
    let record = TrainingRecord::read(&resource.document).ok()?;
    let mut signs = Signs::default();
    for host in &record.hosts {
        signs.last_lines.push(attempt.log(&host.log_stream).timed_tail(1).await.pop());
        match attempt.app.executor.observe(&host.workload) {
            Ok(Observation::Running { pid: Some(pid), .. }) => {
                let activity = tokio::task::spawn_blocking(move || Activity::below(pid)).await.ok()?;
                signs.cpu_seconds += activity.cpu_seconds;
                // The first process of a sandbox only waits for the job's.
                let notes = activity.processes.iter().filter(|note| note.pid != pid);
                signs.processes.extend(notes.map(runner::activity::ProcessNote::sentence));
            }
            Ok(Observation::Exited(_)) => {}
            _ => return None,
        }
    }
    Some((record, signs))
}

async fn report(
    attempt: &Attempt<'_>,
    record: &TrainingRecord,
    signs: &Signs,
    silent_for: Duration,
) -> store::Result<bool> {
    let ends_job = attempt.app.config.hang_action == HangAction::Fail;
    let sentence =
        format!("The job may hang: no line in its log and no CPU use for {}.", in_words(silent_for));
    let processes = signs.processes.clone();
    let doing = if processes.is_empty() {
        String::new()
    } else {
        format!(" Its processes: {}.", processes.join("; "))
    };
    let now_ms = attempt.app.clock.now_ms();
    let detail = json!({"message": sentence, "processes": processes, "ends_job": ends_job});
    let noted = sentence.clone();
    let change = move |record: &mut TrainingRecord| {
        let mut message_before = String::new();
        if let Some(current) = record.transitions.last_mut() {
            message_before = std::mem::replace(&mut current.message, noted.clone());
        }
        let sentence = noted.clone();
        record.hang = Some(HangNotice {
            found_at: now_ms,
            sentence,
            processes: processes.clone(),
            message_before,
            ends_job,
        });
    };
    record_change(attempt, "HangSuspected", detail, change).await?;
    tracing::warn!(job = attempt.work.key.name, ends_job, "a job may hang");
    let consequence =
        if ends_job { " It is ended for that (hang_action = \"fail\" in the settings)." } else { "" };
    for host in &record.hosts {
        attempt.log(&host.log_stream).line(&format!("modelyard: {sentence}{doing}{consequence}")).await;
        // Recorded before: a server that takes over must not read the end as a stop that somebody wanted.
        if ends_job && let Err(error) = attempt.app.executor.stop(&host.workload) {
            tracing::error!(job = attempt.work.key.name, %error, "a job that hangs could not be stopped");
        }
    }
    Ok(true)
}

/// Changes the record and tells of it, in one transaction.
async fn record_change(
    attempt: &Attempt<'_>,
    event: &'static str,
    detail: Value,
    change: impl FnOnce(&mut TrainingRecord) + Send + 'static,
) -> store::Result<()> {
    let (work, owner, now_ms) = (attempt.work.clone(), attempt.owner.to_owned(), attempt.app.clock.now_ms());
    let written = attempt.app.database.write(move |session| {
        session.check_lease(&work, &owner)?;
        session.update_resource(&work.key, now_ms, |resource| {
            let mut record = TrainingRecord::read(&resource.document)?;
            change(&mut record);
            resource.document = record.to_document();
            Ok(())
        })?;
        session.append_event(&work.key, event, &detail, now_ms)
    });
    written.await
}

/// The job moves again.
async fn withdraw(attempt: &Attempt<'_>, hang: &HangNotice) -> store::Result<bool> {
    let hang = hang.clone();
    let detail = json!({"found_at": hang.found_at});
    let change = move |record: &mut TrainingRecord| {
        if let Some(current) =
            record.transitions.last_mut().filter(|current| current.message == hang.sentence)
        {
            current.message.clone_from(&hang.message_before);
        }
        record.hang = None;
    };
    record_change(attempt, "HangEnded", detail, change).await?;
    Ok(false)
}

/// The card of a job that was ended because it hung.
pub async fn card(attempt: &Attempt<'_>, host: &HostRecord, hang: Option<HangNotice>) -> FailureCard {
    let Some(hang) = hang else { return FailureCard::new("hang", "AlgorithmError: the job hung.") };
    let reason = format!("AlgorithmError: {} It was ended for that.", hang.sentence);
    let card = failure::hung(FailureCard::new("hang", reason), &hang, &shown_command(attempt));
    let log_tail = attempt.log(&host.log_stream).tail(50).await;
    FailureCard { log_tail, logs: Some(format!("{} {}", attempt.log_group(), host.log_stream)), ..card }
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(cpu_seconds: f64, line: &str) -> Signs {
        Signs { cpu_seconds, last_lines: vec![Some((1, line.into()))], processes: Vec::new() }
    }

    #[test]
    fn only_lines_and_cpu_time_are_signs_of_life() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(start, signs(1.0, "a"));
        assert_eq!(silence.look(at(10), signs(1.0, "a")).as_secs(), 10);
        assert_eq!(silence.look(at(20), signs(1.04, "a")).as_secs(), 20, "0.4 % of a CPU is waiting");
        assert_eq!(silence.look(at(30), signs(1.2, "a")).as_secs(), 0, "2 % is not");
        assert_eq!(silence.look(at(40), signs(1.2, "b")).as_secs(), 0, "nor is a line");
        assert_eq!(silence.look(at(50), signs(1.2, "b")).as_secs(), 10);
        assert_eq!(silence.look(at(60), signs(0.5, "b")).as_secs(), 0, "nor a process that ended");
        assert_eq!(in_words(Duration::from_secs(1800)), "30 minutes");
        assert_eq!(in_words(Duration::from_secs(2)), "2 seconds");
    }
}
