//! All replicas of one generation of an endpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::gate::Gate;
use crate::launcher::Launcher;
use crate::metrics::Counters;
use crate::on_demand::Needs;
use crate::plan::{EndpointPlan, VariantPlan};
use crate::pool::Pool;
use crate::replica::{Replica, ReplicaReport};
use crate::replica_id;
use crate::route::{Route, RouteVariant};
use crate::settings::DataPlaneSettings;
use crate::standby::{Imports, Sleeper, Standbys};
use crate::status::VariantStatus;
use crate::tally::Tally;

/// What all replicas of an endpoint share.
pub(crate) struct Surroundings {
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) settings: Arc<DataPlaneSettings>,
    pub(crate) standbys: Arc<Standbys>,
    pub(crate) socket_directory: PathBuf,
    pub(crate) endpoint: Arc<str>,
    pub(crate) reports: mpsc::UnboundedSender<ReplicaReport>,
    pub(crate) counters: CountersByVariant,
    /// Rung by invocations of variants on demand that wait for a worker.
    pub(crate) bell: Arc<Notify>,
}

/// The counters of every variant the endpoint has ever had, by name.
pub(crate) type CountersByVariant = Arc<Mutex<BTreeMap<String, Arc<Counters>>>>;

/// The replicas of one generation.
pub(crate) struct Fleet {
    pub(crate) generation: u64,
    /// Tells this fleet from every other one of the endpoint.
    pub(crate) serial: u64,
    /// Until it is in service, a replica that does not start is the fleet's failure; later it is tried again.
    pub(crate) in_service: bool,
    /// Whether it served under an earlier server and some of it still runs: then one replica of each variant is enough to serve again.
    has_served: bool,
    /// The replicas of an earlier server that it took up.
    pub(crate) adopted: Vec<String>,
    pub(crate) variants: Vec<VariantFleet>,
    /// What it does, while it is compared with another.
    tally: Option<Arc<Tally>>,
    pub(crate) tasks: JoinSet<()>,
}

pub(crate) struct VariantFleet {
    pub(crate) plan: Arc<VariantPlan>,
    weight: f64,
    pub(crate) pool: Arc<Pool>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) replicas: BTreeMap<u32, ReplicaHandle>,
    /// Of a variant on demand: who is let in, how many replicas that took lately, and how many invocations one of them answers at once.
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) needs: Needs,
    pub(crate) places: Option<u32>,
    /// Whether it was in service on demand under an earlier server, which proved that its model starts.
    pub(crate) is_resumed: bool,
    /// What its replicas have imported, and its replica while that sleeps with a process that stands by.
    pub(crate) imports: Arc<Imports>,
    pub(crate) sleeper: Option<Sleeper>,
}

pub(crate) struct ReplicaHandle {
    // Dropping it asks the replica to drain and stop.
    _stop: oneshot::Sender<()>,
    pub(crate) healthy: bool,
}

impl Fleet {
    /// Starts every replica of the plan; those of `running` that belong to it are taken up.
    pub(crate) fn start(
        plan: &EndpointPlan,
        serial: u64,
        running: &[String],
        has_served: bool,
        surroundings: &Surroundings,
    ) -> Self {
        let mut fleet = Self {
            generation: plan.generation,
            serial,
            in_service: false,
            // Where nothing runs any more, it is brought up like a new one.
            has_served: has_served && !running.is_empty(),
            adopted: Vec::new(),
            variants: Vec::new(),
            tally: None,
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
                pool: Pool::with_batches(
                    surroundings.settings.queue_limit,
                    variant.routing,
                    surroundings.settings.batch,
                    &counters,
                ),
                counters,
                replicas: BTreeMap::new(),
                gate: variant.on_demand.as_ref().map(|plan| Gate::new(plan, Arc::clone(&surroundings.bell))),
                needs: Needs::default(),
                places: None,
                is_resumed: has_served && variant.on_demand.is_some(),
                imports: Arc::default(),
                sleeper: None,
            });
            let replicas = fleet.first_replicas(position, running, surroundings);
            fleet.scale(position, replicas, running, surroundings);
        }
        fleet
    }

    /// Starts or stops replicas until the variant has that many.
    pub(crate) fn scale(
        &mut self,
        position: usize,
        replicas: u32,
        running: &[String],
        surroundings: &Surroundings,
    ) {
        // Those that were stopped earlier are gone by now.
        while self.tasks.try_join_next().is_some() {}
        let variant = &mut self.variants[position];
        variant.counters.wanted_replicas.store(u64::from(replicas), Relaxed);
        if replicas == 0 {
            variant.imports.look_again();
        }
        variant.replicas.retain(|index, _| *index < replicas);
        for index in 0..replicas {
            let variant = &mut self.variants[position];
            if variant.replicas.contains_key(&index) {
                continue;
            }
            let stop = match variant.sleeper.take() {
                Some(sleeper) => sleeper.wake(),
                None => self.start_replica(position, index, running, surroundings),
            };
            let handle = ReplicaHandle { _stop: stop, healthy: false };
            self.variants[position].replicas.insert(index, handle);
        }
        self.stand_by(position, surroundings);
    }

    /// Starts or takes up a replica; what is given back stops it.
    fn start_replica(
        &mut self,
        position: usize,
        index: u32,
        running: &[String],
        surroundings: &Surroundings,
    ) -> oneshot::Sender<()> {
        let mut replica = self.replica(position, index, surroundings);
        let parts = replica.plan.composition.parts();
        replica.adopt = replica_id::running_parts(running, &replica.place_prefix(), parts);
        self.adopted.extend(replica.adopt.iter().flatten().cloned());
        let (stop, stopped) = oneshot::channel();
        self.tasks.spawn(replica.run(stopped));
        stop
    }

    /// What runs a replica, with nothing to take up.
    pub(crate) fn replica(&self, position: usize, index: u32, surroundings: &Surroundings) -> Replica {
        let variant = &self.variants[position];
        Replica {
            launcher: Arc::clone(&surroundings.launcher),
            settings: Arc::clone(&surroundings.settings),
            socket_directory: surroundings.socket_directory.clone(),
            endpoint: Arc::clone(&surroundings.endpoint),
            generation: self.generation,
            fleet: self.serial,
            variant_position: position,
            index,
            part: None,
            plan: Arc::clone(&variant.plan),
            pool: Arc::clone(&variant.pool),
            counters: Arc::clone(&variant.counters),
            reports: surroundings.reports.clone(),
            adopt: Vec::new(),
            woken: None,
            imports: Arc::clone(&variant.imports),
            first_start_must_succeed: !self.in_service && !self.has_served && !variant.is_resumed,
        }
    }

    /// Changes weights and counts to those of a plan of the same generation. Variants it does not name stay as they are.
    pub(crate) fn adjust(&mut self, plan: &EndpointPlan, surroundings: &Surroundings) {
        for wanted in &plan.variants {
            if let Some(position) = self.position(&wanted.name) {
                self.variants[position].weight = wanted.weight;
                if !self.adjust_on_demand(position, wanted, surroundings) {
                    self.scale(position, wanted.replicas, &[], surroundings);
                }
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
        // What follows its invocations is left to them.
        if self.variants[position].gate.is_some() {
            return;
        }
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
        self.begin_to_follow(Instant::now());
    }

    pub(crate) fn is_in_service(&self) -> bool {
        self.in_service
    }

    /// Counts on its own what the fleet does from the next route on.
    pub(crate) fn watch(&mut self) -> Arc<Tally> {
        Arc::clone(self.tally.get_or_insert_default())
    }

    /// Ends that.
    pub(crate) fn unwatch(&mut self) {
        self.tally = None;
    }

    pub(crate) fn is_healthy(&self) -> bool {
        let serves = |variant: &VariantFleet| match self.has_served {
            // It comes with its first invocation.
            _ if variant.is_resumed => true,
            true => variant.replicas.is_empty() || variant.replicas.values().any(|replica| replica.healthy),
            false => variant.replicas.values().all(|replica| replica.healthy),
        };
        self.variants.iter().all(serves)
    }

    /// Whether every wanted replica answers, also of a fleet that is healthy with fewer since it has served before.
    pub(crate) fn is_whole(&self) -> bool {
        let answers = |variant: &VariantFleet| {
            variant.is_resumed || variant.replicas.values().all(|replica| replica.healthy)
        };
        self.variants.iter().all(answers)
    }

    pub(crate) fn route(&self) -> Route {
        let variant = |variant: &VariantFleet| RouteVariant {
            name: Arc::from(variant.plan.name.as_str()),
            weight: variant.weight,
            model_timeout: Duration::from_secs_f64(variant.plan.model_timeout_seconds),
            targets: variant.plan.composition.targets(),
            pool: Arc::clone(&variant.pool),
            counters: Arc::clone(&variant.counters),
            gate: variant.gate.clone(),
            tally: self.tally.clone(),
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
