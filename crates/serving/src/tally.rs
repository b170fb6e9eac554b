//! What one fleet did while another stands beside it: answers, errors, latencies, and a few of its answers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;

use crate::latency::{Latencies, LatencySnapshot};

/// Answers that are kept until somebody takes them; later ones are not sampled.
const KEPT_OUTPUTS: usize = 256;
/// A larger answer is not sampled.
const OUTPUT_BYTES: usize = 16 * 1024;

/// What was counted of a fleet since another stands beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetReading {
    /// Invocations that came to an end, well or not.
    pub ended: u64,
    /// Of those, the ones that the model answered with 500 or more, or that were lost, late or refused as overload.
    pub errors_5xx: u64,
    /// Time from sending a request to a worker until the end of its answer.
    pub latencies: LatencySnapshot,
}

/// One answer of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampledOutput {
    /// Its media type.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// Counts without a lock; the sample has one, which nobody waits for.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ended: AtomicU64,
    errors_5xx: AtomicU64,
    latencies: Latencies,
    kept: AtomicUsize,
    outputs: Mutex<Vec<SampledOutput>>,
}

impl Tally {
    pub(crate) fn answered(&self, status: u16, latency: Duration) {
        self.ended.fetch_add(1, Relaxed);
        if status >= 500 {
            self.errors_5xx.fetch_add(1, Relaxed);
        }
        self.latencies.record(latency);
    }

    pub(crate) fn failed(&self) {
        self.ended.fetch_add(1, Relaxed);
        self.errors_5xx.fetch_add(1, Relaxed);
    }

    /// Keeps a copy of an answer, when there is room and nobody else is at it.
    pub(crate) fn sample(&self, content_type: Option<&str>, body: &Bytes) {
        if body.len() > OUTPUT_BYTES || self.kept.load(Relaxed) >= KEPT_OUTPUTS {
            return;
        }
        let Ok(mut outputs) = self.outputs.try_lock() else { return };
        if outputs.len() >= KEPT_OUTPUTS {
            return;
        }
        // The answer may be a slice of a larger buffer, which must not stay in memory for it.
        let body = Bytes::copy_from_slice(body);
        outputs.push(SampledOutput { content_type: content_type.map(str::to_owned), body });
        self.kept.store(outputs.len(), Relaxed);
    }

    pub(crate) fn reading(&self) -> FleetReading {
        FleetReading {
            ended: self.ended.load(Relaxed),
            errors_5xx: self.errors_5xx.load(Relaxed),
            latencies: self.latencies.snapshot(),
        }
    }

    /// The answers kept since the last time.
    pub(crate) fn take_outputs(&self) -> Vec<SampledOutput> {
        let mut outputs = self.outputs.lock().expect("no code that holds this lock can panic");
        self.kept.store(0, Relaxed);
        std::mem::take(&mut *outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_and_a_few_are_kept() {
        let tally = Tally::default();
        tally.answered(200, Duration::from_millis(1));
        tally.answered(500, Duration::from_millis(2));
        tally.answered(404, Duration::from_millis(3));
        tally.failed();
        let reading = tally.reading();
        assert_eq!((reading.ended, reading.errors_5xx, reading.latencies.count()), (4, 2, 3));
        tally.sample(Some("text/csv"), &Bytes::from(vec![b'1'; OUTPUT_BYTES + 1]));
        for number in 0..KEPT_OUTPUTS + 10 {
            tally.sample(Some("text/csv"), &Bytes::from(number.to_string()));
        }
        let outputs = tally.take_outputs();
        assert_eq!((outputs.len(), &*outputs[1].body), (KEPT_OUTPUTS, &b"1"[..]));
        tally.sample(None, &Bytes::from_static(b"2"));
        assert_eq!(tally.take_outputs().len(), 1);
    }
}
