//! Counts and latencies of requests, by operation and code.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Upper bounds of the latency classes, in seconds.
pub const BOUNDS_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Most operations that are counted apart, and most codes. Both come from models and handlers; the limit is for the unforeseen.
const MOST_SERIES: usize = 20_000;

/// How long the requests of one operation took.
#[derive(Debug, Clone, Default)]
pub struct Latency {
    /// Requests up to each bound, and those beyond the last.
    pub classes: [u64; BOUNDS_SECONDS.len() + 1],
    /// Seconds of all requests together.
    pub sum_seconds: f64,
}

/// Service and operation.
pub type Operation = (&'static str, &'static str);

/// All counts since the server started.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Requests by operation and code.
    pub requests: BTreeMap<(Operation, String), u64>,
    /// Latencies by operation.
    pub latencies: BTreeMap<Operation, Latency>,
}

/// Counts requests. Counting costs a lock that nobody holds for long.
#[derive(Debug, Default)]
pub struct Requests {
    counts: Mutex<Counts>,
}

impl Requests {
    /// Counts one request.
    pub fn count(&self, one: wire::Observed<'_>) {
        let operation = (one.service, one.operation);
        let seconds = one.elapsed.as_secs_f64();
        let mut counts = self.lock();
        let full = counts.requests.len() >= MOST_SERIES;
        match counts.requests.get_mut(&(operation, one.code.to_owned())) {
            Some(count) => *count += 1,
            None if full => {}
            None => drop(counts.requests.insert((operation, one.code.to_owned()), 1)),
        }
        let latency = counts.latencies.entry(operation).or_default();
        latency.classes[BOUNDS_SECONDS.partition_point(|bound| *bound < seconds)] += 1;
        latency.sum_seconds += seconds;
    }

    /// The counts so far.
    pub fn snapshot(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        // A poisoned lock only says that another thread panicked; the counts are still counts.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
