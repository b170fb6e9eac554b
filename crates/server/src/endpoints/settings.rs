//! Settings of endpoints.

use std::time::Duration;

use serde::Deserialize;
use serving::BatchSettings;

use super::rollout::GuardSettings;
use super::serverless;

/// More memory than any machine has.
const MOST_MODEL_MEGABYTES: u64 = 1 << 30;

/// More processes that only wait than any machine has memory for.
const MOST_STANDBYS: usize = 10_000;

/// The `[endpoints]` table of the settings file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointSettings {
    /// Most requests of one variant that wait for a worker; more are refused with `ThrottlingException`.
    pub queue_limit: usize,
    /// Seconds that a request waits for a worker before it is refused with `ServiceUnavailable`.
    pub queue_wait_seconds: u64,
    /// Most requests that a worker answers together when they wait for it and its model allows it; 1 for one at a time.
    pub batch_limit: u32,
    /// Milliseconds that a worker which comes free waits for more requests, when some wait.
    pub batch_delay_milliseconds: u64,
    /// Milliseconds of work that a worker which answers one request after the other is handed at once; 0 for one at a time.
    pub backlog_milliseconds: u64,
    /// Seconds after which a replica of a serverless variant that nobody needs is stopped.
    pub serverless_idle_seconds: u64,
    /// Seconds that a request beyond `MaxConcurrency` waits before it is refused with `ThrottlingException`.
    pub serverless_wait_seconds: f64,
    /// Most processes that stand by for serverless variants which sleep, over all endpoints; 0 for none.
    pub serverless_standbys: usize,
    /// What watches a new fleet during an update.
    pub guards: GuardSettings,
    /// Megabytes of memory that the loaded models of one instance of a multi-model endpoint may take; where nothing is said, four fifths
    /// of the instance type's memory or of the machine's, whichever is less.
    pub multi_model_memory_mb: Option<u64>,
}

impl Default for EndpointSettings {
    fn default() -> EndpointSettings {
        // Clients give up after 60 seconds by themselves; by then they are to have an answer that says why.
        EndpointSettings {
            queue_limit: 1024,
            queue_wait_seconds: 50,
            batch_limit: BatchSettings::default().requests,
            batch_delay_milliseconds: 0,
            backlog_milliseconds: BatchSettings::default().backlog.as_millis() as u64,
            serverless_idle_seconds: 300,
            serverless_wait_seconds: 0.1,
            serverless_standbys: 4,
            guards: GuardSettings::default(),
            multi_model_memory_mb: None,
        }
    }
}

impl EndpointSettings {
    /// How long a request waits for a worker.
    pub fn queue_wait(&self) -> Duration {
        Duration::from_secs(self.queue_wait_seconds)
    }

    /// How requests that wait are answered together.
    pub fn batch(&self) -> BatchSettings {
        BatchSettings {
            requests: self.batch_limit,
            delay: Duration::from_millis(self.batch_delay_milliseconds),
            backlog: Duration::from_millis(self.backlog_milliseconds),
            ..BatchSettings::default()
        }
    }

    /// The memory that the models of one instance may take, when it is said.
    pub fn multi_model_memory_bytes(&self) -> Option<u64> {
        self.multi_model_memory_mb.map(|megabytes| megabytes * 1024 * 1024)
    }

    /// Checks the rules that the field descriptions state.
    ///
    /// # Errors
    /// A text that names the setting.
    pub fn check(&self) -> Result<(), String> {
        if self.queue_limit == 0 {
            return Err("endpoints.queue_limit must be at least 1".into());
        }
        if !(1..=3600).contains(&self.queue_wait_seconds) {
            return Err("endpoints.queue_wait_seconds must be from 1 to 3600".into());
        }
        if !(1..=1024).contains(&self.batch_limit) {
            return Err("endpoints.batch_limit must be from 1 to 1024".into());
        }
        if self.batch_delay_milliseconds > 1000 {
            return Err("endpoints.batch_delay_milliseconds must be from 0 to 1000".into());
        }
        if self.backlog_milliseconds > 1000 {
            return Err("endpoints.backlog_milliseconds must be from 0 to 1000".into());
        }
        if !serverless::IDLE_SECONDS.contains(&self.serverless_idle_seconds) {
            return Err("endpoints.serverless_idle_seconds must be from 1 to 604800".into());
        }
        if !(0.0..=60.0).contains(&self.serverless_wait_seconds) {
            return Err("endpoints.serverless_wait_seconds must be from 0 to 60".into());
        }
        if self.serverless_standbys > MOST_STANDBYS {
            return Err(format!("endpoints.serverless_standbys must be from 0 to {MOST_STANDBYS}"));
        }
        if !(1..=MOST_MODEL_MEGABYTES).contains(&self.multi_model_memory_mb.unwrap_or(1)) {
            return Err(format!(
                "endpoints.multi_model_memory_mb must be from 1 to {MOST_MODEL_MEGABYTES}, or left out"
            ));
        }
        self.guards.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let read = |text: &str| toml::from_str::<EndpointSettings>(text).unwrap();
        assert_eq!(read("").check(), Ok(()));
        assert_eq!(read("queue_limit = 5").queue_wait(), Duration::from_secs(50));
        let batch = read("batch_limit = 8\nbatch_delay_milliseconds = 2\nbacklog_milliseconds = 0").batch();
        assert_eq!(
            (batch.requests, batch.delay, batch.backlog),
            (8, Duration::from_millis(2), Duration::ZERO)
        );
        assert_eq!(read("serverless_standbys = 0").check(), Ok(()));
        assert!(read("queue_limit = 0").check().unwrap_err().contains("queue_limit"));
        assert_eq!(read("multi_model_memory_mb = 3").multi_model_memory_bytes(), Some(3 << 20));
        for wrong in [
            "multi_model_memory_mb = 0",
            "queue_wait_seconds = 0",
            "batch_limit = 0",
            "batch_delay_milliseconds = 1001",
            "backlog_milliseconds = 1001",
            "serverless_idle_seconds = 0",
            "serverless_wait_seconds = nan",
            "serverless_standbys = 10001",
        ] {
            assert!(read(wrong).check().unwrap_err().contains(wrong.split(' ').next().unwrap()), "{wrong}");
        }
    }
}
