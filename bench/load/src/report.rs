//! What came back: rates, latencies, statuses.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// Longest part of a wrong answer that is reported.
const SHOWN_BYTES: usize = 300;

/// Answers of one connection, or of all together.
#[derive(Default)]
pub struct Outcome {
    /// Time from the first request to the last answer.
    pub elapsed: Duration,
    /// Connections that the server closed between two requests.
    pub reconnects: u64,
    latencies: Vec<Duration>,
    statuses: BTreeMap<u16, u64>,
    first_wrong: Option<String>,
}

impl Outcome {
    /// Takes one answer in.
    pub fn answered(&mut self, latency: Duration, status: u16, body: &[u8]) {
        self.latencies.push(latency);
        *self.statuses.entry(status).or_default() += 1;
        if status != 200 && self.first_wrong.is_none() {
            let shown = &body[..body.len().min(SHOWN_BYTES)];
            self.first_wrong = Some(format!("{status}: {}", String::from_utf8_lossy(shown)));
        }
    }

    /// Takes the answers of another connection in.
    pub fn add(&mut self, other: Outcome) {
        self.reconnects += other.reconnects;
        self.latencies.extend(other.latencies);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.first_wrong = self.first_wrong.take().or(other.first_wrong);
    }

    /// The numbers as one JSON object; latencies in milliseconds.
    pub fn report(mut self) -> Value {
        self.latencies.sort_unstable();
        let percentile = |share: f64| {
            let index = ((self.latencies.len() as f64 * share).ceil() as usize).max(1) - 1;
            self.latencies.get(index).map(|latency| latency.as_secs_f64() * 1000.0)
        };
        let statuses: BTreeMap<String, u64> =
            self.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect();
        json!({
            "requests": self.latencies.len(),
            "seconds": self.elapsed.as_secs_f64(),
            "p50_ms": percentile(0.5),
            "p99_ms": percentile(0.99),
            "reconnects": self.reconnects,
            "statuses": statuses,
            "first_wrong": self.first_wrong,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_ranks() {
        let mut outcome = Outcome::default();
        for milliseconds in (1..=100).rev() {
            outcome.answered(Duration::from_millis(milliseconds), 200, b"");
        }
        let report = outcome.report();
        assert_eq!(report["p50_ms"], 50.0);
        assert_eq!(report["p99_ms"], 99.0);
    }

    #[test]
    fn a_wrong_answer_is_counted_and_shown() {
        let mut outcome = Outcome::default();
        let mut one = Outcome::default();
        one.answered(Duration::from_millis(1), 403, b"denied");
        one.answered(Duration::from_millis(1), 200, b"fine");
        outcome.add(one);
        let report = outcome.report();
        assert_eq!(report["statuses"]["403"], 1);
        assert_eq!(report["first_wrong"], "403: denied");
        assert_eq!(report["requests"], 2);
    }
}
