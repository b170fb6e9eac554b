//! Why a job is where it is: for one that failed its card, for one that waits or runs what it waits for or does.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::failures::{Occurrence, Occurrences};
use store::resources::Resource;

use super::deadlines;
use super::kind;
use super::record::{FailureCard, TrainingRecord};
use crate::app::App;
use crate::job_log::JobLog;
use crate::transform::record::TransformState;

/// The answer, with times in seconds since 1970.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Explanation {
    /// Name of the job.
    pub training_job_name: String,
    /// Its status.
    pub status: String,
    /// What it does within that status.
    pub secondary_status: String,
    /// The answer in one sentence.
    pub sentence: String,
    /// What to do about it; empty when there is nothing to do.
    pub hint: String,
    /// Since when the secondary status holds.
    pub since: Option<f64>,
    /// Lines that belong to the answer.
    pub details: Vec<String>,
    /// The card of a job that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub card: Option<FailureCard>,
    /// Failures of the same cause before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Same>,
    /// Failures of the same cause since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub later: Option<Same>,
    /// Log group and stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<String>,
}

/// Failures of the same cause.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Same {
    /// How many.
    pub count: i64,
    /// The first job.
    pub first_job: String,
    /// When it failed.
    pub first_at: f64,
    /// The last job.
    pub last_job: String,
    /// When it failed.
    pub last_at: f64,
}

impl Same {
    fn of(found: &Occurrences) -> Option<Same> {
        let place = |one: &Option<Occurrence>| {
            one.as_ref().map(|one| (one.name.clone(), one.at as f64 / 1000.0)).unwrap_or_default()
        };
        let ((first_job, first_at), (last_job, last_at)) = (place(&found.first), place(&found.last));
        (found.count > 0).then_some(Same { count: found.count, first_job, first_at, last_job, last_at })
    }
}

/// Explains a job.
///
/// # Errors
/// When the database fails.
pub async fn explain(app: &App, resource: &Resource) -> store::Result<Explanation> {
    let record = TrainingRecord::read(&resource.document)?;
    let mut answer = Explanation {
        training_job_name: resource.key.name.clone(),
        status: resource.status.clone(),
        secondary_status: record.secondary_status().to_owned(),
        since: record.transitions.last().map(|transition| transition.started_at as f64 / 1000.0),
        ..Explanation::default()
    };
    let message = record.transitions.last().map(|transition| transition.message.clone()).unwrap_or_default();
    if let Some(host) = record.hosts.first() {
        answer.logs = Some(format!("{} {}", kind::log_group(&resource.key.kind), host.log_stream));
    }
    if let Some(card) = record.failure.clone() {
        failed(app, resource, &record, card, &mut answer).await?;
        return Ok(answer);
    }
    match (resource.status.as_str(), answer.secondary_status.as_str()) {
        ("Completed", _) => {
            let engines = record.transform.as_ref().map(TransformState::engines_sentence);
            answer.sentence =
                format!("It completed; there is nothing to explain.{}", engines.unwrap_or_default());
        }
        ("Stopped", "MaxRuntimeExceeded") => {
            let seconds = &resource.spec["StoppingCondition"]["MaxRuntimeInSeconds"];
            answer.sentence = format!("It was ended when its time limit of {seconds} seconds was over.");
            answer.hint = "Give it a larger StoppingCondition.MaxRuntimeInSeconds.".into();
        }
        ("Stopped", "MaxWaitTimeExceeded") => {
            let seconds = &resource.spec["StoppingCondition"]["MaxWaitTimeInSeconds"];
            answer.sentence = format!(
                "It had not ended {seconds} seconds after it was created, waiting and interruptions included."
            );
            answer.hint = "Give it a larger StoppingCondition.MaxWaitTimeInSeconds.".into();
        }
        ("Stopped", _) if message == deadlines::PENDING_TIME_MESSAGE => {
            let seconds = &resource.spec["StoppingCondition"]["MaxPendingTimeInSeconds"];
            answer.sentence = format!("It waited for capacity for {seconds} seconds, longer than it may.");
            answer.hint = "Give it a larger StoppingCondition.MaxPendingTimeInSeconds; docs/capacity.md says who goes first.".into();
        }
        ("Stopped", _) => {
            answer.sentence =
                "It was stopped on request (by StopTrainingJob, StopProcessingJob, StopTransformJob or `modelyard jobs stop`)."
                    .into()
        }
        ("Stopping", _) => {
            answer.sentence =
                "It is stopping: its program was sent SIGTERM and has up to 120 seconds to save its work."
                    .into();
        }
        (_, "Pending") => waiting(app, resource, &message, &mut answer),
        (_, "Starting" | "Restarting") if record.hosts.is_empty() || record.attempts.is_between => {
            waiting(app, resource, &message, &mut answer);
        }
        _ => running(app, resource, &record, &message, &mut answer).await,
    }
    Ok(answer)
}

async fn failed(
    app: &App,
    resource: &Resource,
    record: &TrainingRecord,
    card: FailureCard,
    answer: &mut Explanation,
) -> store::Result<()> {
    // Cards of earlier releases have a reason only.
    answer.sentence = if card.sentence.is_empty() { card.reason.clone() } else { card.sentence.clone() };
    answer.hint.clone_from(&card.hint);
    answer.details.clone_from(&card.evidence);
    answer.logs = card.logs.clone().or(answer.logs.take());
    if !card.fingerprint.is_empty()
        && let Some(ended) = record.transitions.last()
    {
        let failure = card.noted(&resource.key, ended.started_at);
        let (earlier, later) = app.database.read(move |session| session.failures_around(&failure)).await?;
        (answer.earlier, answer.later) = (Same::of(&earlier), Same::of(&later));
    }
    answer.card = Some(card);
    Ok(())
}

fn waiting(app: &App, resource: &Resource, message: &str, answer: &mut Explanation) {
    match app.capacity.waits_for(&resource.key) {
        Some(text) => {
            answer.sentence = format!("{text}.");
            answer.hint = "`modelyard jobs --status InProgress` lists who runs; docs/capacity.md says how the machine is shared."
                .into();
        }
        None => answer.sentence = format!("It is about to start ({message})."),
    }
}

async fn running(
    app: &App,
    resource: &Resource,
    record: &TrainingRecord,
    message: &str,
    answer: &mut Explanation,
) {
    let now_ms = app.clock.now_ms();
    let for_long = |since: i64| in_words((now_ms - since).max(0) / 1000);
    let since = record.transitions.last().map_or(now_ms, |transition| transition.started_at);
    answer.sentence = match answer.secondary_status.as_str() {
        "Starting" => format!("It is being prepared, for {}.", for_long(since)),
        "Downloading" => {
            format!(
                "Its input is being brought in and its environment is being built, for {}.",
                for_long(since)
            )
        }
        "Training" | "Processing" => {
            format!("Its program runs, for {}.", for_long(record.attempts.run_started_at.unwrap_or(since)))
        }
        "Transforming" => {
            let state = record.transform.as_ref();
            let progress = state.map(|state| state.progress.sentence(now_ms)).unwrap_or_default();
            let engines = state.map(TransformState::engines_sentence).unwrap_or_default();
            format!("It transforms its objects: {progress}.{engines}")
        }
        "Interrupted" => {
            "Its spot instances were interrupted: its program was sent SIGTERM and has up to 120 seconds to end; then it starts again."
                .into()
        }
        "Uploading" => {
            format!("Its program has ended; what it left is being stored, for {}.", for_long(since))
        }
        other => format!("It is in {other}, for {}.", for_long(since)),
    };
    if let Some(hang) = &record.hang {
        answer.sentence.clone_from(&hang.sentence);
        answer.hint = "Look inside: `modelyard jobs shell` opens a shell in a job with RemoteDebugConfig.EnableRemoteDebug; docs/failures.md says how to get stacks.".into();
        answer.details.extend(hang.processes.clone());
    } else {
        answer.details.push(message.to_owned());
    }
    let attempts = &record.attempts;
    if attempts.number() > 1 {
        answer.details.push(format!(
            "attempt {}: {} interruptions, {} retries",
            attempts.number(),
            attempts.interruptions,
            attempts.retries
        ));
    }
    let key = &resource.key;
    for host in &record.hosts {
        let log = JobLog::new(app, &key.account, &key.region, kind::log_group(&key.kind), &host.log_stream);
        let line = match log.timed_tail(1).await.pop() {
            Some((at, text)) => format!("{}, last log line {} ago: {text}", host.name, for_long(at)),
            None => format!("{}: no log line yet", host.name),
        };
        answer.details.push(line);
    }
}

fn in_words(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{:.1} h", seconds as f64 / 3_600.0),
    }
}

/// As JSON for the wire.
pub fn to_value(answer: &Explanation) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(
            [5, 119, 120, 7_199, 7_200, 90_000].map(in_words),
            ["5 s", "119 s", "2 min", "119 min", "2.0 h", "25.0 h"]
        );
    }

    #[test]
    fn no_failure_of_the_same_cause_is_nothing() {
        assert!(Same::of(&Occurrences::default()).is_none());
        let once = Occurrence { name: "a".into(), at: 1_500 };
        let same = Same::of(&Occurrences { count: 1, first: Some(once.clone()), last: Some(once) }).unwrap();
        assert_eq!((same.first_job.as_str(), same.last_at), ("a", 1.5));
    }
}
