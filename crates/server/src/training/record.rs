//! What is kept of a training job beside its request: transitions, results, and why it failed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::run_facts::RunFacts;
use crate::capacity::Grant;

/// The status document of a training job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingRecord {
    /// Id of the workload of the current attempt.
    pub workload: Option<String>,
    /// Name of its log stream.
    pub log_stream: Option<String>,
    /// Queue by the tag `modelyard:queue` of the request.
    pub queue: String,
    /// Priority by the tag `modelyard:priority` of the request; higher goes first.
    pub priority: i32,
    /// What each host may use, once the job was admitted.
    pub grant: Grant,
    /// Secondary statuses, oldest first; the last one is the current.
    pub transitions: Vec<Transition>,
    /// When user code began to run, milliseconds since 1970.
    pub training_started_at: Option<i64>,
    /// When the job ended, milliseconds since 1970.
    pub training_ended_at: Option<i64>,
    /// URI of model.tar.gz, once it is there.
    pub model_artifacts: Option<String>,
    /// Last value of each metric.
    pub final_metrics: Vec<FinalMetric>,
    /// Why it failed.
    pub failure: Option<FailureCard>,
    /// The checkpoint that could not be stored, for which the job is being ended.
    pub checkpoint_failure: Option<String>,
    /// How its workload was kept in, and what it used; open while it runs.
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
    /// What failed: `capacity`, `environment`, `input`, `launch`, `exit`, `signal`, `out_of_memory`, `disk_full`, `limit`,
    /// `checkpoint`, `time_limit`, `supervisor`, `output` or `request`.
    pub cause: String,
    /// One sentence, at most 1,024 characters, as `FailureReason` shows it.
    pub reason: String,
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
        FailureCard {
            cause: cause.into(),
            reason: shorten(reason.into()),
            exit_code: None,
            signal: None,
            traceback: None,
            log_tail: Vec::new(),
            logs: None,
        }
    }
}

/// Cuts to the 1,024 characters that `FailureReason` may have.
pub fn shorten(text: String) -> String {
    if text.chars().count() <= 1024 { text } else { text.chars().take(1023).chain(['…']).collect() }
}

impl TrainingRecord {
    /// Reads a stored document.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(document: &Value) -> store::Result<TrainingRecord> {
        Ok(TrainingRecord::deserialize(document)?)
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

    /// The current secondary status.
    pub fn secondary_status(&self) -> &str {
        self.transitions.last().map_or("Starting", |transition| &transition.status)
    }
}
