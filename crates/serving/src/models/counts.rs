//! What is counted of the many models of a variant.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::cache::ModelCache;
use crate::latency::{Latencies, LatencySnapshot};

/// What has been counted of the models of a variant since the data plane knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelMetrics {
    /// Whether the variant has many models.
    pub has_many: bool,
    /// Invocations whose model was loaded when they came.
    pub hits: u64,
    /// Invocations whose model was not.
    pub misses: u64,
    /// How long those waited for it.
    pub loading_waits: LatencySnapshot,
    /// How long models took to be fetched and unpacked.
    pub downloads: LatencySnapshot,
    /// How long models took to be loaded once they were there.
    pub loads: LatencySnapshot,
    /// How long models took to be unloaded.
    pub unloads: LatencySnapshot,
    /// Models that are loaded now, in all replicas.
    pub loaded: u64,
    /// The memory that they take.
    pub loaded_bytes: u64,
}

/// A model that is loaded, or being loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModel {
    /// The variant.
    pub variant: String,
    /// The replica that has it.
    pub replica: String,
    /// Its name, as requests give it.
    pub model: String,
    /// What answers for it; empty while it is loaded.
    pub engine: &'static str,
    /// Whether it answers already.
    pub is_ready: bool,
    /// The memory that it takes.
    pub bytes: u64,
    /// Invocations that met it loaded.
    pub hits: u64,
    /// How long ago it was asked for last.
    pub idle_for: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct ModelCounters {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) loading_waits: Latencies,
    pub(super) downloads: Latencies,
    pub(super) loads: Latencies,
    pub(super) unloads: Latencies,
    caches: Mutex<Vec<Weak<ModelCache>>>,
}

impl ModelCounters {
    fn caches(&self) -> MutexGuard<'_, Vec<Weak<ModelCache>>> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what the models of a replica take, as long as it lives.
    pub(crate) fn follow(&self, cache: &Arc<ModelCache>) {
        let mut caches = self.caches();
        caches.retain(|known| known.strong_count() > 0);
        caches.push(Arc::downgrade(cache));
    }

    /// The models of all replicas.
    pub(crate) fn models(&self, variant: &str) -> Vec<LoadedModel> {
        let caches: Vec<_> = self.caches().iter().filter_map(Weak::upgrade).collect();
        caches.iter().flat_map(|cache| cache.models(variant)).collect()
    }

    pub(crate) fn snapshot(&self) -> ModelMetrics {
        let caches: Vec<_> = self.caches().iter().filter_map(Weak::upgrade).collect();
        let (mut loaded, mut loaded_bytes) = (0, 0);
        for cache in &caches {
            let (models, bytes) = cache.loaded();
            loaded += models;
            loaded_bytes += bytes;
        }
        ModelMetrics {
            has_many: !caches.is_empty(),
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            loading_waits: self.loading_waits.snapshot(),
            downloads: self.downloads.snapshot(),
            loads: self.loads.snapshot(),
            unloads: self.unloads.snapshot(),
            loaded,
            loaded_bytes,
        }
    }
}
