//! What is kept of the attempts of a job that is begun anew: after an interruption of spot capacity, or after a fault of the
//! server's own.

use serde::{Deserialize, Serialize};

use super::record::TrainingRecord;

/// The part of a job's status document that is about its attempts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempts {
    /// Interruptions of spot capacity that were carried out.
    pub interruptions: u32,
    /// Retries after faults of the server's own.
    pub retries: u32,
    /// How long the program ran in the attempts that are over, in milliseconds.
    pub ran_before_ms: i64,
    /// When the program of the current attempt began to run, milliseconds since 1970.
    pub run_started_at: Option<i64>,
    /// Whether the last attempt is over and the next one has not begun: the hosts of the record are no longer watched.
    pub is_between: bool,
    /// An interruption that was decided and is being carried out.
    pub interruption: Option<Interruption>,
    /// Whether the running job is being ended for `MaxWaitTimeInSeconds`.
    pub is_wait_time_over: bool,
}

/// The interruption of a spot job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interruption {
    /// When it was decided, milliseconds since 1970.
    pub asked_at: i64,
    /// Why, for people.
    pub reason: String,
}

impl Attempts {
    /// The number of the current attempt, from 1.
    pub fn number(&self) -> u32 {
        1 + self.interruptions + self.retries
    }
}

impl TrainingRecord {
    /// Notes that the job is to be interrupted; what was decided before stays.
    pub fn interrupt(&mut self, reason: &str, now_ms: i64) {
        // A stop that somebody wanted is on its way and ends the same processes.
        if self.attempts.interruption.is_some() || self.secondary_status() == "Stopping" {
            return;
        }
        self.attempts.interruption = Some(Interruption { asked_at: now_ms, reason: reason.to_owned() });
        let message = format!("The spot instances of the training job were interrupted: {reason}");
        self.enter("Interrupted", &message, now_ms);
    }

    /// How long the program has run in all attempts, once the job has ended; `None` when it never ran.
    pub fn trained_ms(&self) -> Option<i64> {
        let ended_at = self.training_ended_at?;
        let attempts = &self.attempts;
        // Records of earlier releases know the one start only.
        let started_at = match attempts.number() {
            1 => attempts.run_started_at.or(self.training_started_at),
            _ => attempts.run_started_at,
        };
        match started_at {
            Some(started_at) => Some(attempts.ran_before_ms + (ended_at - started_at).max(0)),
            None => (attempts.ran_before_ms > 0).then_some(attempts.ran_before_ms),
        }
    }

    /// How long the job has waited for capacity so far, in milliseconds.
    pub fn waited_ms(&self, now_ms: i64) -> i64 {
        let waits = self.transitions.iter().filter(|transition| transition.status == "Pending");
        waits.map(|wait| (wait.ended_at.unwrap_or(now_ms) - wait.started_at).max(0)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_all_attempts() {
        let mut record = TrainingRecord::default();
        record.training_started_at = Some(1_000);
        assert_eq!(record.trained_ms(), None, "it still runs");
        record.training_ended_at = Some(4_000);
        assert_eq!(record.trained_ms(), Some(3_000), "a record of an earlier release");
        record.attempts = Attempts { interruptions: 1, ran_before_ms: 2_000, ..Attempts::default() };
        assert_eq!(record.trained_ms(), Some(2_000), "stopped before it ran again");
        record.attempts.run_started_at = Some(3_500);
        assert_eq!(record.trained_ms(), Some(2_500));
    }

    #[test]
    fn all_waits_count_and_the_open_one_up_to_now() {
        let mut record = TrainingRecord::default();
        for (status, at) in [("Starting", 0), ("Pending", 10), ("Training", 30), ("Pending", 100)] {
            record.enter(status, "", at);
        }
        assert_eq!(record.waited_ms(105), 25);
    }

    #[test]
    fn an_interruption_is_decided_once_and_never_of_a_job_that_stops() {
        let mut record = TrainingRecord::default();
        record.enter("Training", "", 1);
        record.interrupt("first", 2);
        record.interrupt("second", 3);
        assert_eq!(record.attempts.interruption, Some(Interruption { asked_at: 2, reason: "first".into() }));
        assert_eq!(record.secondary_status(), "Interrupted");
        let mut record = TrainingRecord::default();
        record.enter("Stopping", "", 1);
        record.interrupt("late", 2);
        assert_eq!((record.attempts.interruption.as_ref(), record.secondary_status()), (None, "Stopping"));
    }
}
