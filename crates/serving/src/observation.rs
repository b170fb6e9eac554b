//! What is to be seen of all endpoints at once: cheap to look at each second, however many there are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::data_plane::DataPlane;
use crate::metrics::{Counters, VariantMetrics};
use crate::models::LoadedModel;
use crate::replica_id;
use crate::status::{EndpointStatus, VariantStatus};

/// The counts of a variant that show whether anything happens there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariantActivity {
    /// The endpoint's key.
    pub endpoint: Arc<str>,
    /// The variant's name.
    pub variant: Arc<str>,
    /// Invocations since the data plane knows it.
    pub invocations: u64,
    /// Of those, the ones that have come to their end.
    pub ended: u64,
    /// Those that wait or are being answered now.
    pub in_flight: u64,
    /// How many replicas are wanted.
    pub wanted_replicas: u32,
    /// How many replicas answer.
    pub healthy_replicas: u32,
    /// Of a variant on demand, else 0: most invocations at once.
    pub max_concurrency: u32,
    /// Of those, the ones for which there are always replicas.
    pub provisioned_concurrency: u32,
}

/// A replica that runs, and what it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaPlace {
    /// The endpoint's key.
    pub endpoint: String,
    /// The variant's name.
    pub variant: String,
    /// Its id.
    pub id: String,
}

impl DataPlane {
    /// The activity of every variant of the fleets that serve, or start where none serves.
    pub fn activity(&self) -> Vec<VariantActivity> {
        let mut activity = Vec::new();
        for (endpoint, handle) in self.handles().iter() {
            let endpoint: Arc<str> = Arc::from(endpoint.as_str());
            let counters = handle.counters.lock().expect("no code that holds this lock can panic");
            for status in shown(&handle.status.borrow()) {
                let Some(counters) = counters.get(&status.name) else { continue };
                activity.push(activity_of(&endpoint, status, counters));
            }
        }
        activity
    }

    /// The activity of one variant.
    pub fn variant_activity(&self, endpoint: &str, variant: &str) -> Option<VariantActivity> {
        let counters = self.variant_counters(endpoint, variant)?;
        let handles = self.handles();
        let status = handles.get(endpoint)?.status.borrow();
        let status = status.variants.iter().find(|status| status.name == variant)?;
        Some(activity_of(&Arc::from(endpoint), status, &counters))
    }

    /// All counts of one variant.
    pub fn variant_metrics(&self, endpoint: &str, variant: &str) -> Option<VariantMetrics> {
        Some(self.variant_counters(endpoint, variant)?.snapshot(variant))
    }

    /// The models that replicas of an endpoint's many-model variants have loaded, or load.
    pub fn loaded_models(&self, endpoint: &str) -> Vec<LoadedModel> {
        let handles = self.handles();
        let Some(handle) = handles.get(endpoint) else { return Vec::new() };
        let counters = handle.counters.lock().expect("no code that holds this lock can panic").clone();
        counters.iter().flat_map(|(variant, counters)| counters.models.models(variant)).collect()
    }

    /// Says whether somebody brings up a replica when an invocation of the variant finds that none is wanted; then such invocations
    /// are held, and ring the bell of the settings.
    pub fn set_wakes(&self, endpoint: &str, variant: &str, wakes: bool) {
        if let Some(counters) = self.variant_counters(endpoint, variant) {
            counters.wakes.store(wakes, Relaxed);
        }
    }

    /// Sends away the invocations of an endpoint that wait for a worker: none will come. They are told of an overload.
    pub fn dismiss(&self, endpoint: &str) {
        let route = self.handles().get(endpoint).and_then(|handle| handle.route.load_full());
        for variant in route.iter().flat_map(|route| &route.variants) {
            variant.pool.dismiss();
        }
    }

    /// Whether an invocation of the variant that finds no replica is held until one is there.
    pub fn is_woken(&self, endpoint: &str, variant: &str) -> bool {
        self.variant_counters(endpoint, variant).is_some_and(|counters| counters.is_woken())
    }

    fn variant_counters(&self, endpoint: &str, variant: &str) -> Option<Arc<Counters>> {
        let handles = self.handles();
        let counters =
            handles.get(endpoint)?.counters.lock().expect("no code that holds this lock can panic");
        counters.get(variant).map(Arc::clone)
    }

    /// All replicas that run now and what they serve.
    pub fn replica_places(&self) -> Vec<ReplicaPlace> {
        let kind = self.settings().replica_prefix;
        let mut places = HashMap::new();
        for (endpoint, handle) in self.handles().iter() {
            for variant in shown(&handle.status.borrow()) {
                let prefix = replica_id::variant_prefix(kind, endpoint, &variant.name);
                places.insert(prefix, (endpoint.clone(), variant.name.clone()));
            }
        }
        if places.is_empty() {
            return Vec::new();
        }
        let of = |id: String| {
            let (endpoint, variant) = places.get(replica_id::variant_part(&id)?)?.clone();
            Some(ReplicaPlace { endpoint, variant, id })
        };
        self.awake().filter_map(of).collect()
    }
}

/// The variants of the fleet that serves, and those that only the fleet beside it has.
fn shown(status: &EndpointStatus) -> impl Iterator<Item = &VariantStatus> {
    let is_new = |one: &&VariantStatus| status.variants.iter().all(|variant| variant.name != one.name);
    let beside = status.beside.iter().flat_map(|beside| &beside.variants).filter(is_new);
    status.variants.iter().chain(beside)
}

fn number(counter: &AtomicU64) -> u32 {
    u32::try_from(counter.load(Relaxed)).unwrap_or(u32::MAX)
}

fn activity_of(endpoint: &Arc<str>, status: &VariantStatus, counters: &Counters) -> VariantActivity {
    VariantActivity {
        endpoint: Arc::clone(endpoint),
        variant: Arc::from(status.name.as_str()),
        invocations: counters.invocations.load(Relaxed),
        ended: counters.ended.load(Relaxed),
        in_flight: counters.in_flight.load(Relaxed),
        wanted_replicas: number(&counters.wanted_replicas),
        healthy_replicas: status.healthy_replicas,
        max_concurrency: number(&counters.max_concurrency),
        provisioned_concurrency: number(&counters.provisioned_concurrency),
    }
}
