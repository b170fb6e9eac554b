//! Counters of one variant, kept over all its fleets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What has been counted for one variant since the data plane knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariantMetrics {
    /// The variant's name.
    pub variant: String,
    /// Invocations that reached a worker or were refused for lack of one.
    pub invocations: u64,
    /// Invocations the model answered with a status from 400 to 499.
    pub errors_4xx: u64,
    /// Invocations that the model answered with 500 or more, or that were lost, late or refused as overload.
    pub errors_5xx: u64,
    /// Of those, the ones refused because no worker was free in time.
    pub overloaded: u64,
    /// Of those, the ones that overran the model's time limit.
    pub timed_out: u64,
    /// Time from sending the request to a worker until the end of its answer, summed over all answers.
    pub model_latency_microseconds: u64,
    /// Time spent waiting for a free worker, summed over all invocations.
    pub queue_microseconds: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) invocations: AtomicU64,
    pub(crate) errors_4xx: AtomicU64,
    pub(crate) errors_5xx: AtomicU64,
    pub(crate) overloaded: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) model_latency_microseconds: AtomicU64,
    pub(crate) queue_microseconds: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn add_time(counter: &AtomicU64, time: Duration) {
        counter.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn snapshot(&self, variant: &str) -> VariantMetrics {
        VariantMetrics {
            variant: variant.to_owned(),
            invocations: self.invocations.load(Relaxed),
            errors_4xx: self.errors_4xx.load(Relaxed),
            errors_5xx: self.errors_5xx.load(Relaxed),
            overloaded: self.overloaded.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            model_latency_microseconds: self.model_latency_microseconds.load(Relaxed),
            queue_microseconds: self.queue_microseconds.load(Relaxed),
        }
    }
}
