//! Counts and latencies of requests, by operation and code.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;

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

/// Counts requests. Counting takes no lock: the tables are replaced whole when something is counted for the first time.
#[derive(Debug, Default)]
pub struct Requests {
    operations: ArcSwap<HashMap<Operation, Arc<Counters>>>,
    series: AtomicUsize,
}

/// The counts of one operation.
#[derive(Debug, Default)]
struct Counters {
    /// A handful, so that looking one up is a walk.
    codes: ArcSwap<Vec<(String, Arc<AtomicU64>)>>,
    classes: [AtomicU64; BOUNDS_SECONDS.len() + 1],
    sum_nanoseconds: AtomicU64,
}

impl Requests {
    /// Counts one request.
    pub fn count(&self, one: wire::Observed<'_>) {
        let operation = (one.service, one.operation);
        let operations = self.operations.load();
        let begun;
        let counters = match operations.get(&operation) {
            Some(known) => known,
            None => {
                begun = self.begin(operation);
                &begun
            }
        };
        if let Some((_, count)) = counters.codes.load().iter().find(|(code, _)| code == one.code) {
            count.fetch_add(1, Relaxed);
        } else if self.series.load(Relaxed) < MOST_SERIES {
            self.begin_code(counters, one.code).fetch_add(1, Relaxed);
        }
        let seconds = one.elapsed.as_secs_f64();
        counters.classes[BOUNDS_SECONDS.partition_point(|bound| *bound < seconds)].fetch_add(1, Relaxed);
        let nanoseconds = u64::try_from(one.elapsed.as_nanos()).unwrap_or(u64::MAX);
        counters.sum_nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    fn begin(&self, operation: Operation) -> Arc<Counters> {
        let new = Arc::<Counters>::default();
        self.operations.rcu(|operations| {
            let mut grown = HashMap::clone(operations);
            grown.entry(operation).or_insert_with(|| Arc::clone(&new));
            grown
        });
        // Another thread may have been the first.
        self.operations.load().get(&operation).map_or(new, Arc::clone)
    }

    fn begin_code(&self, counters: &Counters, code: &str) -> Arc<AtomicU64> {
        self.series.fetch_add(1, Relaxed);
        let new = Arc::<AtomicU64>::default();
        counters.codes.rcu(|codes| {
            let mut grown = Vec::clone(codes);
            if !grown.iter().any(|(known, _)| known == code) {
                grown.push((code.to_owned(), Arc::clone(&new)));
            }
            grown
        });
        let codes = counters.codes.load();
        codes.iter().find(|(known, _)| known == code).map_or(new, |(_, count)| Arc::clone(count))
    }

    /// The counts so far.
    pub fn snapshot(&self) -> Counts {
        let mut counts = Counts::default();
        for (operation, counters) in self.operations.load().iter() {
            for (code, count) in counters.codes.load().iter() {
                counts.requests.insert((*operation, code.clone()), count.load(Relaxed));
            }
            let latency = Latency {
                classes: std::array::from_fn(|class| counters.classes[class].load(Relaxed)),
                sum_seconds: counters.sum_nanoseconds.load(Relaxed) as f64 / 1e9,
            };
            counts.latencies.insert(*operation, latency);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_is_lost_when_many_threads_count_what_is_new() {
        let requests = Requests::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..1000 {
                        let operation = ["A", "B", "C"][number % 3];
                        let code = ["OK", "Busy"][number % 2];
                        let elapsed = Duration::from_millis(4);
                        requests.count(wire::Observed { service: "s", operation, code, elapsed });
                    }
                });
            }
        });
        let counts = requests.snapshot();
        assert_eq!(counts.requests.values().sum::<u64>(), 4000);
        assert_eq!(counts.requests.len(), 6);
        let latency = &counts.latencies[&("s", "A")];
        assert_eq!(latency.classes[2], 4 * 334);
        assert!((latency.sum_seconds - 4.0 * 334.0 * 0.004).abs() < 1e-9, "{}", latency.sum_seconds);
    }
}
