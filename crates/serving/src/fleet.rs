//! All replicas of one generation of an endpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::launcher::Launcher;
use crate::metrics::Counters;
use crate::plan::{EndpointPlan, VariantPlan};
use crate::pool::Pool;
use crate::replica::{Replica, ReplicaReport};
use crate::replica_id;
use crate::route::{Route, RouteVariant};
use crate::settings::DataPlaneSettings;
use crate::status::VariantStatus;

/// What all replicas of an endpoint share.
pub(crate) struct Surroundings {
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) settings: Arc<DataPlaneSettings>,
    pub(crate) socket_directory: PathBuf,
    pub(crate) endpoint: Arc<str>,
    pub(crate) reports: mpsc::UnboundedSender<ReplicaReport>,
    pub(crate) counters: CountersByVariant,
}

/// The counters of every variant the endpoint has ever had, by name.
pub(crate) type CountersByVariant = Arc<Mutex<BTreeMap<String, Arc<Counters>>>>;

/// The replicas of one generation.
pub(crate) struct Fleet {
    pub(crate) generation: u64,
    /// Tells this fleet from every other one of the endpoint.
    pub(crate) serial: u64,
    /// Until it is in service, a replica that does not start is the fleet's failure; later it is tried again.
    in_service: bool,
    /// The replicas of an earlier server that it took up.
    pub(crate) adopted: Vec<String>,
    variants: Vec<VariantFleet>,
    tasks: JoinSet<()>,
}

struct VariantFleet {
    plan: Arc<VariantPlan>,
    weight: f64,
    pool: Arc<Pool>,
    counters: Arc<Counters>,
    replicas: BTreeMap<u32, ReplicaHandle>,
}

struct ReplicaHandle {
    // Dropping it asks the replica to drain and stop.
    _stop: oneshot::Sender<()>,
    healthy: bool,
}

impl Fleet {
    /// Starts every replica of the plan; those of `running` that belong to it are taken up.
    pub(crate) fn start(
        plan: &EndpointPlan,
        serial: u64,
        running: &[String],
        surroundings: &Surroundings,
    ) -> Self {
        let mut fleet = Self {
            generation: plan.generation,
            serial,
            in_service: false,
            adopted: Vec::new(),
            variants: Vec::new(),
            tasks: JoinSet::new(),
        };
        for (position, variant) in plan.variants.iter().enumerate() {
            let counters = Arc::clone(
                surroundings
                    .counters
                    .lock()
                    .expect("no code that holds this lock can panic")
                    .entry(variant.name.clone())
                    .or_default(),
            );
            fleet.variants.push(VariantFleet {
                plan: Arc::new(variant.clone()),
                weight: variant.weight,
                pool: Pool::new(surroundings.settings.queue_limit),
                counters,
                replicas: BTreeMap::new(),
            });
            fleet.scale(position, variant.replicas, running, surroundings);
        }
        fleet
    }

    /// Starts or stops replicas until the variant has that many.
    fn scale(&mut self, position: usize, replicas: u32, running: &[String], surroundings: &Surroundings) {
        let variant = &mut self.variants[position];
        variant.replicas.retain(|index, _| *index < replicas);
        for index in 0..replicas {
            if variant.replicas.contains_key(&index) {
                continue;
            }
            let prefix =
                replica_id::place_prefix(&surroundings.endpoint, &variant.plan.name, self.generation, index);
            let adopt = running.iter().find(|id| id.starts_with(&prefix)).cloned();
            self.adopted.extend(adopt.clone());
            let replica = Replica {
                launcher: Arc::clone(&surroundings.launcher),
                settings: Arc::clone(&surroundings.settings),
                socket_directory: surroundings.socket_directory.clone(),
                endpoint: Arc::clone(&surroundings.endpoint),
                generation: self.generation,
                fleet: self.serial,
                variant_position: position,
                index,
                plan: Arc::clone(&variant.plan),
                pool: Arc::clone(&variant.pool),
                reports: surroundings.reports.clone(),
                adopt,
                first_start_must_succeed: !self.in_service,
            };
            let (stop, stopped) = oneshot::channel();
            self.tasks.spawn(replica.run(stopped));
            variant.replicas.insert(index, ReplicaHandle { _stop: stop, healthy: false });
        }
    }

    /// Changes weights and counts to those of a plan of the same generation. Variants it does not name stay as they are.
    pub(crate) fn adjust(&mut self, plan: &EndpointPlan, surroundings: &Surroundings) {
        for wanted in &plan.variants {
            if let Some(position) = self.position(&wanted.name) {
                self.variants[position].weight = wanted.weight;
                self.scale(position, wanted.replicas, &[], surroundings);
            }
        }
    }

    pub(crate) fn position(&self, variant: &str) -> Option<usize> {
        self.variants.iter().position(|candidate| candidate.plan.name == variant)
    }

    pub(crate) fn set_weight(&mut self, position: usize, weight: f64) {
        self.variants[position].weight = weight;
    }

    pub(crate) fn set_replicas(&mut self, position: usize, replicas: u32, surroundings: &Surroundings) {
        self.scale(position, replicas, &[], surroundings);
    }

    /// Notes whether a replica answers; reports of replicas that were scaled away are ignored.
    pub(crate) fn note_health(&mut self, variant: usize, index: u32, healthy: bool) {
        if let Some(replica) =
            self.variants.get_mut(variant).and_then(|variant| variant.replicas.get_mut(&index))
        {
            replica.healthy = healthy;
        }
    }

    pub(crate) fn put_in_service(&mut self) {
        self.in_service = true;
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.variants.iter().all(|variant| variant.replicas.values().all(|replica| replica.healthy))
    }

    pub(crate) fn route(&self) -> Route {
        let variant = |variant: &VariantFleet| RouteVariant {
            name: Arc::from(variant.plan.name.as_str()),
            weight: variant.weight,
            model_timeout: Duration::from_secs_f64(variant.plan.model_timeout_seconds),
            pool: Arc::clone(&variant.pool),
            counters: Arc::clone(&variant.counters),
        };
        Route::new(self.variants.iter().map(variant).collect())
    }

    pub(crate) fn status(&self) -> Vec<VariantStatus> {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let status = |variant: &VariantFleet| VariantStatus {
            name: variant.plan.name.clone(),
            weight: variant.weight,
            desired_replicas: count(variant.replicas.len()),
            healthy_replicas: count(variant.replicas.values().filter(|replica| replica.healthy).count()),
        };
        self.variants.iter().map(status).collect()
    }

    /// Ends the fleet: accepted invocations are answered, then the replicas are stopped.
    pub(crate) async fn retire(mut self, drain_timeout: Duration) {
        let drains: Vec<_> = self.variants.iter().map(|variant| Arc::clone(&variant.pool)).collect();
        let mut draining = JoinSet::new();
        for pool in drains {
            draining.spawn(async move { pool.drain(drain_timeout).await });
        }
        while draining.join_next().await.is_some() {}
        self.variants.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}
