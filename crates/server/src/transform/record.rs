//! What is kept of a transform job beside what all jobs have: the model as it was, and how far the job is.

use serde::{Deserialize, Serialize};

use crate::endpoints::{DeployedVariant, EngineReport};

/// The part of a job's record that only transform jobs have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TransformState {
    /// Name of its folder, never used twice.
    pub folder: String,
    /// The model as it was when the job was created: a later deletion does not touch it.
    pub model: DeployedVariant,
    /// How far it is.
    #[serde(default)]
    pub progress: Progress,
    /// Which engines answer, and why, as the first replicas got them. Those that follow get the same.
    #[serde(default)]
    pub engines: Vec<EngineReport>,
}

impl TransformState {
    /// The word of the one engine that answers, where it is chosen by a variable.
    pub fn engine(&self) -> Option<&str> {
        let is_chosen = |report: &&EngineReport| report.engine != "container";
        let first = self.engines.first().filter(is_chosen).filter(|_| self.model.containers.is_empty());
        first.map(|report| report.engine.as_str())
    }

    /// What answers and why, in sentences; empty where nobody has noted it.
    pub fn engines_sentence(&self) -> String {
        let name = |engine: &str| match engine {
            "native" => "the native engine".to_owned(),
            "onnx" => "the ONNX Runtime".to_owned(),
            "python" => "Python".to_owned(),
            other => format!("a {other}"),
        };
        let sentences =
            self.engines.iter().map(|one| format!(" Answered by {}: {}.", name(&one.engine), one.reason));
        sentences.collect()
    }
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Objects that were listed.
    pub objects: u64,
    /// Objects whose output is stored.
    pub objects_done: u64,
    /// Objects that failed.
    pub objects_failed: u64,
    /// Records that the model has answered.
    pub records: u64,
    /// Bytes of all objects.
    pub bytes: u64,
    /// Bytes that were read.
    pub bytes_done: u64,
    /// How many of them were read before this server took the job up, for a judgement of its speed.
    pub bytes_before: u64,
    /// When this server began to transform, milliseconds since 1970.
    pub since: i64,
}

impl Progress {
    /// In a sentence, as of `now_ms`.
    pub fn sentence(&self, now_ms: i64) -> String {
        let mut text = format!(
            "{} records done, {} of {} bytes, {} of {} objects",
            self.records, self.bytes_done, self.bytes, self.objects_done, self.objects
        );
        if self.objects_failed > 0 {
            text.push_str(&format!(", {} failed", self.objects_failed));
        }
        if let Some(seconds) = self.left_seconds(now_ms) {
            text.push_str(&format!("; about {seconds} s left"));
        }
        text
    }

    /// How long the rest takes at the speed so far.
    pub fn left_seconds(&self, now_ms: i64) -> Option<u64> {
        let read = self.bytes_done.checked_sub(self.bytes_before).filter(|read| *read > 0)?;
        let took_ms = u64::try_from(now_ms - self.since).ok().filter(|took| *took > 0)?;
        let left = u128::from(self.bytes.saturating_sub(self.bytes_done));
        u64::try_from((left * u128::from(took_ms) / u128::from(read)).div_ceil(1000)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_judged_by_the_speed_of_this_server() {
        let progress = Progress {
            objects: 3,
            objects_done: 1,
            records: 10,
            bytes: 1_000,
            bytes_done: 600,
            bytes_before: 500,
            since: 10_000,
            ..Progress::default()
        };
        assert_eq!(progress.left_seconds(15_000), Some(20));
        assert_eq!(
            progress.sentence(15_000),
            "10 records done, 600 of 1000 bytes, 1 of 3 objects; about 20 s left"
        );
        assert_eq!(Progress::default().left_seconds(1), None);
    }
}
