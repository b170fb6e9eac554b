//! What is kept of a training job beside its request: transitions, results, and why it failed.

use runner::workload::Exit;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::failures::Failure;
use store::resources::ResourceKey;

use super::addresses::AddressRange;
use super::attempts::Attempts;
use super::hosts::host_name;
use super::run_facts::RunFacts;
use crate::capacity::Grant;

/// The status document of a training job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingRecord {
    /// Queue by the tag `modelyard:queue` of the request.
    pub queue: String,
    /// Priority by the tag `modelyard:priority` of the request; higher goes first.
    pub priority: i32,
    /// What each host may use, once the job was admitted; in the order of the hosts.
    pub grant: Grant,
    /// The hosts of the current attempt, `algo-1` first.
    pub hosts: Vec<HostRecord>,
    /// Where they are reached.
    pub addresses: Option<AddressRange>,
    /// The host whose failure ended the others.
    pub first_failed_host: Option<String>,
    /// How releases before 0.2 wrote the one host down; read, and never written.
    #[serde(skip_serializing)]
    workload: Option<String>,
    #[serde(skip_serializing)]
    log_stream: Option<String>,
    /// Secondary statuses, oldest first; the last one is the current.
    pub transitions: Vec<Transition>,
    /// When user code began to run, milliseconds since 1970.
    pub training_started_at: Option<i64>,
    /// When the job ended, milliseconds since 1970.
    pub training_ended_at: Option<i64>,
    /// URI of model.tar.gz, once it is there.
    pub model_artifacts: Option<String>,
    /// What a processing job wrote as its message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_message: Option<String>,
    /// Last value of each metric.
    pub final_metrics: Vec<FinalMetric>,
    /// The queries whose results a processing job reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<super::processing::QueryRecord>,
    /// Why it failed.
    pub failure: Option<FailureCard>,
    /// The checkpoint that could not be stored, for which the job is being ended.
    pub checkpoint_failure: Option<String>,
    /// That it seems to hang, as long as it does.
    pub hang: Option<HangNotice>,
    /// Its attempts.
    pub attempts: Attempts,
    /// What only transform jobs have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transform: Option<crate::transform::record::TransformState>,
    /// Tags of the session that created it, where the job's own session is to carry them.
    #[serde(skip_serializing_if = "wire::SessionTags::is_empty")]
    pub session_tags: wire::SessionTags,
}

/// That a running job neither logs nor computes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HangNotice {
    /// When it was found, milliseconds since 1970.
    pub found_at: i64,
    /// What is known, in one sentence.
    pub sentence: String,
    /// What its processes wait in, one each.
    pub processes: Vec<String>,
    /// The status message before.
    pub message_before: String,
    /// Whether the job is ended for it.
    pub ends_job: bool,
}

/// One host of a job: a workload of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostRecord {
    /// For example `algo-1`.
    pub name: String,
    /// Id of its workload.
    pub workload: String,
    /// Name of its log stream.
    pub log_stream: String,
    /// How it ended.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// When it ended, milliseconds since 1970.
    #[serde(default)]
    pub ended_at: Option<i64>,
    /// How it was kept in, and what it used; open while it runs.
    #[serde(default)]
    pub run: Option<RunFacts>,
}

/// One secondary status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transition {
    /// For example `Downloading`.
    pub status: String,
    /// What it means, for people.
    pub message: String,
    /// Milliseconds since 1970.
    pub started_at: i64,
    /// Milliseconds since 1970; open for the current one.
    pub ended_at: Option<i64>,
}

/// Last value of a metric that was read from the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FinalMetric {
    /// Name in the metric definition.
    pub name: String,
    /// Value.
    pub value: f64,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// Why a job failed, whole; `FailureReason` is its short form.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailureCard {
    /// A word of [`runner::diagnosis::Cause`]; of a card that is not complete, the phase that failed.
    pub cause: String,
    /// At most 1,024 characters, as `FailureReason` shows it.
    pub reason: String,
    /// The host that failed first, of a job of several hosts; the rest of the card is about it.
    #[serde(default)]
    pub first_failed_host: Option<String>,
    /// What happened, in one sentence.
    #[serde(default)]
    pub sentence: String,
    /// What to do about it.
    #[serde(default)]
    pub hint: String,
    /// The lines that show it.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// The same for failures of the same cause.
    #[serde(default)]
    pub fingerprint: String,
    /// The reason before it was cut; for judging it, not kept.
    #[serde(skip)]
    pub whole_text: String,
    /// Exit code of the user's program.
    pub exit_code: Option<i32>,
    /// Signal that ended it, by name.
    pub signal: Option<String>,
    /// The last Python traceback of the log.
    pub traceback: Option<String>,
    /// The last lines of the log.
    pub log_tail: Vec<String>,
    /// Log group and stream.
    pub logs: Option<String>,
}

impl FailureCard {
    /// A card without a program's exit.
    pub fn new(cause: &str, reason: impl Into<String>) -> FailureCard {
        let whole_text = reason.into();
        FailureCard {
            cause: cause.into(),
            first_failed_host: None,
            reason: shorten(whole_text.clone()),
            sentence: String::new(),
            hint: String::new(),
            evidence: Vec::new(),
            fingerprint: String::new(),
            whole_text,
            exit_code: None,
            signal: None,
            traceback: None,
            log_tail: Vec::new(),
            logs: None,
        }
    }
}

impl FailureCard {
    /// What is kept of it to find failures of the same cause.
    pub fn noted(&self, key: &ResourceKey, at: i64) -> Failure {
        let (fingerprint, cause) = (self.fingerprint.clone(), self.cause.clone());
        Failure { key: key.clone(), fingerprint, cause, at }
    }
}

/// Cuts to the 1,024 characters that `FailureReason` may have.
pub fn shorten(text: String) -> String {
    if text.chars().count() <= 1024 { text } else { text.chars().take(1023).chain(['…']).collect() }
}

impl TrainingRecord {
    /// Whether its hosts may run, or have run: only a look at them tells.
    pub fn may_run(&self) -> bool {
        !self.hosts.is_empty() && !self.attempts.is_between
    }

    /// Reads a stored document.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(document: &Value) -> store::Result<TrainingRecord> {
        let mut record = TrainingRecord::deserialize(document)?;
        if let (Some(workload), true) = (record.workload.take(), record.hosts.is_empty()) {
            let log_stream = record.log_stream.take().unwrap_or_default();
            record.hosts.push(HostRecord {
                name: host_name(0),
                workload,
                log_stream,
                exit: None,
                ended_at: None,
                run: None,
            });
        }
        Ok(record)
    }

    /// The document to store.
    pub fn to_document(&self) -> Value {
        serde_json::to_value(self).expect("strings, numbers and lists always serialize")
    }

    /// Closes the current secondary status and opens the next; the same status only changes its message.
    pub fn enter(&mut self, status: &str, message: &str, now_ms: i64) {
        if let Some(current) = self.transitions.last_mut() {
            if current.status == status {
                message.clone_into(&mut current.message);
                return;
            }
            current.ended_at = Some(now_ms);
        }
        self.transitions.push(Transition {
            status: status.into(),
            message: message.into(),
            started_at: now_ms,
            ended_at: None,
        });
    }

    /// The job has what it asked for, and its preparation begins, unless it has. Takes status and message.
    pub fn begin(&mut self, (status, message): (&str, &str), now_ms: i64) {
        self.prepare_again();
        self.enter(status, message, now_ms);
        self.enter("Downloading", "Downloading input data", now_ms);
    }

    /// The preparation is complete; from here on the program may run. Takes status and message.
    pub fn run(&mut self, (status, message): (&str, &str), now_ms: i64) {
        self.training_started_at.get_or_insert(now_ms);
        self.attempts.run_started_at = Some(now_ms);
        self.enter(status, message, now_ms);
    }

    /// At which lengths the list of statuses has got a new one since it was `before`.
    pub fn entered_since(&self, before: &[Transition]) -> Vec<usize> {
        if self.transitions.len() < before.len() {
            return vec![self.transitions.len()];
        }
        let is_new = |index: &usize| {
            before.get(*index).is_none_or(|before| before.status != self.transitions[*index].status)
        };
        (0..self.transitions.len()).filter(is_new).map(|index| index + 1).collect()
    }

    /// Goes back to the preparation that a restart of the server cut off: what seemed to follow has not come about.
    pub fn prepare_again(&mut self) {
        let is_follower =
            |one: &&Transition| matches!(&*one.status, "Downloading" | "Training" | "Processing");
        let followers = self.transitions.iter().rev().take_while(is_follower).count();
        let kept = self.transitions.len() - followers;
        if let Some(before) = kept.checked_sub(1).map(|at| &mut self.transitions[at])
            && before.status == "Starting"
        {
            before.ended_at = None;
            self.transitions.truncate(kept);
        }
    }

    /// The current secondary status.
    pub fn secondary_status(&self) -> &str {
        self.transitions.last().map_or("Starting", |transition| &transition.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preparation_that_was_cut_off_begins_again_without_a_trace() {
        let mut record = TrainingRecord::default();
        let statuses = |record: &TrainingRecord| {
            record.transitions.iter().map(|one| one.status.clone()).collect::<Vec<_>>()
        };
        record.prepare_again();
        for status in ["Starting", "Pending", "Starting", "Downloading", "Training"] {
            record.enter(status, "", 1);
        }
        record.prepare_again();
        record.enter("Starting", "", 2);
        assert_eq!(statuses(&record), ["Starting", "Pending", "Starting"]);
        assert_eq!(record.transitions.last().and_then(|last| last.ended_at), None);
        record.enter("Interrupted", "", 3);
        record.enter("Training", "", 4);
        record.prepare_again();
        assert_eq!(statuses(&record).len(), 5, "what another status came before has happened");
    }

    #[test]
    fn a_record_of_an_earlier_release_has_one_host() {
        let document =
            serde_json::json!({"workload": "job-1", "log_stream": "job/algo-1-1", "transitions": []});
        let record = TrainingRecord::read(&document).unwrap();
        let host = &record.hosts[0];
        assert_eq!(
            (host.name.as_str(), host.workload.as_str(), host.log_stream.as_str()),
            ("algo-1", "job-1", "job/algo-1-1")
        );
        assert_eq!(TrainingRecord::read(&record.to_document()).unwrap().hosts, record.hosts);
    }
}
