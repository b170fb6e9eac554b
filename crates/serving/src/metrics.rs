//! Counters of one variant, kept over all its fleets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::batch::{BatchCounters, BatchSnapshot};
use crate::latency::{Latencies, LatencySnapshot};
use crate::models::{ModelCounters, ModelMetrics};

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
    /// Invocations that have come to their end.
    pub ended: u64,
    /// Invocations that wait or are being answered now.
    pub in_flight: u64,
    /// Of those that ended, the ones without a whole answer of 200 to 299: error answers, lost workers, time limits.
    pub model_errors: u64,
    /// Replicas that are wanted now.
    pub wanted_replicas: u64,
    /// Time from sending a request to a worker until the end of its answer.
    pub model_latencies: LatencySnapshot,
    /// Time from an invocation's arrival until it was sent to a worker.
    pub overhead_latencies: LatencySnapshot,
    /// Of a variant on demand: time from the start of a replica until it answered.
    pub setup_latencies: LatencySnapshot,
    /// Of those that were answered together.
    pub batches: BatchSnapshot,
    /// Of its models, where it has many.
    pub models: ModelMetrics,
    /// Of its containers, where it has several.
    pub containers: Vec<ContainerMetrics>,
}

/// What has been counted for one of several containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerMetrics {
    /// Its name.
    pub container: String,
    /// Time from sending a request to it until the end of its answer.
    pub latencies: LatencySnapshot,
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
    pub(crate) ended: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) model_errors: AtomicU64,
    pub(crate) wanted_replicas: AtomicU64,
    /// Whether somebody brings up a replica when there is none and an invocation waits for one.
    pub(crate) wakes: AtomicBool,
    /// Of a variant on demand, else 0: most invocations at once.
    pub(crate) max_concurrency: AtomicU64,
    /// Of those, the ones for which there are always replicas.
    pub(crate) provisioned_concurrency: AtomicU64,
    pub(crate) setup_latencies: Latencies,
    pub(crate) model_latencies: Latencies,
    pub(crate) overhead_latencies: Latencies,
    pub(crate) batches: BatchCounters,
    pub(crate) models: ModelCounters,
    containers: Mutex<BTreeMap<String, Arc<Latencies>>>,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn add_time(counter: &AtomicU64, time: Duration) {
        counter.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Whether an invocation that finds no replica is to be held until one is there.
    pub(crate) fn is_asleep(&self) -> bool {
        self.wanted_replicas.load(Relaxed) == 0 && self.is_woken()
    }

    /// Whether a replica is brought up for an invocation that finds none.
    pub(crate) fn is_woken(&self) -> bool {
        self.max_concurrency.load(Relaxed) > 0 || self.wakes.load(Relaxed)
    }

    /// The latencies of one of several containers.
    pub(crate) fn container(&self, name: &str) -> Arc<Latencies> {
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(containers.entry(name.to_owned()).or_default())
    }

    fn container_metrics(&self) -> Vec<ContainerMetrics> {
        let containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(name, latencies): (&String, &Arc<Latencies>)| ContainerMetrics {
            container: name.clone(),
            latencies: latencies.snapshot(),
        };
        containers.iter().map(of).collect()
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
            ended: self.ended.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            model_errors: self.model_errors.load(Relaxed),
            wanted_replicas: self.wanted_replicas.load(Relaxed),
            model_latencies: self.model_latencies.snapshot(),
            overhead_latencies: self.overhead_latencies.snapshot(),
            setup_latencies: self.setup_latencies.snapshot(),
            batches: self.batches.snapshot(),
            models: self.models.snapshot(),
            containers: self.container_metrics(),
        }
    }
}
