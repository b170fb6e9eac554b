//! What a fleet does for its variants on demand: replicas come when invocations wait for them and go when nobody has needed them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use crate::composition::Composition;
use crate::fleet::{Fleet, Surroundings, VariantFleet};
use crate::on_demand::OnDemandPlan;
use crate::plan::VariantPlan;
use crate::replica::ReplicaEvent;
use crate::replica_id;
use crate::standby::Sleeper;

/// The part of the idle time after which somebody looks again: a replica is kept for at most so much longer.
const LOOK_PART: u32 = 10;

/// The shortest and the longest time between two looks.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

impl Fleet {
    /// How many replicas a variant begins with. One on demand has to prove that its model starts, unless it has done so before.
    pub(crate) fn first_replicas(
        &self,
        position: usize,
        running: &[String],
        surroundings: &Surroundings,
    ) -> u32 {
        let variant = &self.variants[position];
        variant.note_limits();
        let Some(on_demand) = &variant.plan.on_demand else { return variant.plan.replicas };
        let least = on_demand.least_replicas(variant.places());
        if !variant.is_resumed {
            return least.max(1);
        }
        let runs = |index: &u32| {
            let prefix = replica_id::place_prefix(
                surroundings.settings.replica_prefix,
                &surroundings.endpoint,
                &variant.plan.name,
                self.generation,
                *index,
            );
            running.iter().any(|id| id.starts_with(&prefix))
        };
        let last = (0..on_demand.max_replicas).rev().find(runs);
        least.max(last.map_or(0, |index| index + 1))
    }

    /// Takes over what another plan of a variant on demand allows; `false` for any other variant.
    pub(crate) fn adjust_on_demand(
        &mut self,
        position: usize,
        wanted: &VariantPlan,
        surroundings: &Surroundings,
    ) -> bool {
        let variant = &mut self.variants[position];
        let (Some(gate), Some(on_demand)) = (&variant.gate, &wanted.on_demand) else { return false };
        gate.set_limit(on_demand.max_concurrency);
        if *variant.plan != *wanted {
            // What stands by was started as the plan before said.
            variant.sleeper = None;
        }
        variant.plan = Arc::new(wanted.clone());
        variant.note_limits();
        self.stand_by(position, surroundings);
        true
    }

    /// Has a process stand by for a variant on demand without a replica, where it is known what that imports.
    pub(crate) fn stand_by(&mut self, position: usize, surroundings: &Surroundings) {
        let variant = &self.variants[position];
        let sleeps = variant.gate.is_some() && variant.replicas.is_empty() && variant.sleeper.is_none();
        let is_single = matches!(variant.plan.composition, Composition::Single);
        if !sleeps || !is_single || !self.in_service || !surroundings.standbys.are_wanted() {
            return;
        }
        let Some(names) = variant.imports.get() else { return };
        let (sleeper, sleep) = Sleeper::new();
        let replica = self.replica(position, 0, surroundings);
        self.tasks.spawn(replica.sleep(names, Arc::clone(&surroundings.standbys), sleep));
        self.variants[position].sleeper = Some(sleeper);
    }

    /// From now on the replicas follow the invocations; those that there are count as needed just now.
    pub(crate) fn begin_to_follow(&mut self, now: Instant) {
        for variant in &mut self.variants {
            let count = variant.count();
            variant.needs.note(now, count);
        }
    }

    /// Brings up what is needed now, and stops what has not been needed for the idle time. Says when to look again.
    pub(crate) fn follow_demand(&mut self, now: Instant, surroundings: &Surroundings) -> Option<Instant> {
        let mut next_look_at: Option<Instant> = None;
        for position in 0..self.variants.len() {
            let variant = &mut self.variants[position];
            let plan = Arc::clone(&variant.plan);
            let Some(on_demand) = plan.on_demand.as_ref().filter(|_| self.in_service) else { continue };
            let wanted = variant.wanted(on_demand, now);
            let (count, least) = (variant.count(), on_demand.least_replicas(variant.places()));
            if wanted != count {
                tracing::debug!(
                    variant = plan.name,
                    from = count,
                    to = wanted,
                    "replicas follow the invocations"
                );
                self.scale(position, wanted, &[], surroundings);
            }
            if wanted > least {
                let look = (on_demand.idle() / LOOK_PART).clamp(LOOKS.0, LOOKS.1);
                let look_at = now + look;
                next_look_at = Some(next_look_at.map_or(look_at, |other| other.min(look_at)));
            }
        }
        next_look_at
    }

    /// Takes down what a replica of a variant on demand has to tell.
    pub(crate) fn note_on_demand(&mut self, position: usize, event: &ReplicaEvent) {
        let Some(variant) = self.variants.get_mut(position) else { return };
        let Some(gate) = &variant.gate else { return };
        match event {
            ReplicaEvent::Healthy { places, setup } => {
                gate.set_problem(None);
                variant.places = u32::try_from(*places).ok();
                if let Some(setup) = setup {
                    variant.counters.setup_latencies.record(*setup);
                }
            }
            // Whoever waits hears why, instead of waiting for the next attempts.
            ReplicaEvent::NotStarted(reason) if variant.replicas.values().all(|replica| !replica.healthy) => {
                gate.set_problem(Some(reason.clone()));
                variant.pool.dismiss();
            }
            _ => {}
        }
    }
}

impl VariantFleet {
    fn count(&self) -> u32 {
        u32::try_from(self.replicas.len()).unwrap_or(u32::MAX)
    }

    /// Invocations that one replica answers at once; until one has said so, what it is told to.
    fn places(&self) -> u32 {
        self.places.unwrap_or(self.plan.workers)
    }

    fn note_limits(&self) {
        let (most, provisioned) = match &self.plan.on_demand {
            Some(on_demand) => (on_demand.max_concurrency, on_demand.provisioned_concurrency),
            None => (0, 0),
        };
        self.counters.max_concurrency.store(u64::from(most), Relaxed);
        self.counters.provisioned_concurrency.store(u64::from(provisioned), Relaxed);
    }

    fn wanted(&mut self, on_demand: &OnDemandPlan, now: Instant) -> u32 {
        let inside = self.gate.as_ref().map_or(0, |gate| gate.take_peak());
        let asked = u32::try_from(inside.max(self.pool.waiting())).unwrap_or(u32::MAX);
        let mut needed = on_demand.replicas_for(asked, self.places());
        if self.places.is_none() {
            // The first one says how many invocations it answers at once.
            needed = needed.min(self.count().max(1));
        }
        self.needs.note(now, needed);
        let most = self.needs.most(now, on_demand.idle()).min(on_demand.max_replicas);
        most.max(on_demand.least_replicas(self.places()))
    }
}
