//! An endpoint between two fleets: both are kept up, and the route shares the requests between them.

use std::sync::Arc;

use super::Endpoint;
use crate::fleet::Fleet;
use crate::plan::EndpointPlan;
use crate::route::Route;
use crate::shift::{BesideStatus, Shift};
use crate::status::EndpointPhase;

/// The fleet beside the one that serves.
pub(super) struct Beside {
    fleet: Fleet,
    share: f64,
    /// Once all its replicas have answered it gets its share, also when one of them is being replaced.
    has_been_ready: bool,
    failure: Option<String>,
}

impl Endpoint {
    /// Has the two fleets of a shift side by side, whatever was there before.
    pub(super) fn shift(&mut self, shift: &Shift) {
        self.wanted_generation = shift.main.generation;
        let running = self.running_of_an_earlier_server();
        let before = self.beside.take();
        let was_main_beside = before
            .as_ref()
            .is_some_and(|beside| beside.has_been_ready && beside.fleet.generation == shift.main.generation);
        let (was_ready, failure) = match &before {
            Some(beside) if beside.fleet.generation == shift.beside.generation => {
                (beside.has_been_ready, beside.failure.clone())
            }
            _ => (false, None),
        };
        let beside_before = before.map(|beside| beside.fleet);
        let mut known: Vec<Fleet> =
            [self.serving.take(), self.starting.take(), beside_before].into_iter().flatten().collect();
        let mut main = self.arrange(&shift.main, shift.main_has_served, &mut known, &running);
        let mut beside = self.arrange(&shift.beside, shift.beside_has_served, &mut known, &running);
        let adopted: Vec<&String> = main.adopted.iter().chain(&beside.adopted).collect();
        let strays: Vec<String> = running.iter().filter(|id| !adopted.contains(id)).cloned().collect();
        self.stop_all(strays);
        let tallies = [&mut main, &mut beside].map(|fleet| (fleet.generation, fleet.watch()));
        *self.handle.tallies.lock().expect("no code that holds this lock can panic") =
            tallies.into_iter().collect();
        // One that was beside and in use goes on in the other place.
        if was_main_beside {
            main.put_in_service();
        }
        let was_in_service = beside.is_in_service();
        self.beside = Some(Beside {
            has_been_ready: was_ready || was_in_service || beside.is_healthy(),
            fleet: beside,
            share: shift.share,
            failure,
        });
        if main.is_in_service() || main.is_healthy() {
            main.put_in_service();
            self.serving = Some(main);
            self.phase = EndpointPhase::InService;
        } else {
            self.starting = Some(main);
            self.phase = EndpointPhase::Creating;
        }
        self.renew_route();
        // Last: who finds a pool that takes no more asks the route again.
        for fleet in known {
            self.retire(fleet);
        }
    }

    /// The fleet of this generation as the plan wants it: one of the known, or a new one.
    fn arrange(
        &mut self,
        plan: &EndpointPlan,
        has_served: bool,
        known: &mut Vec<Fleet>,
        running: &[String],
    ) -> Fleet {
        if let Some(at) = known.iter().position(|fleet| fleet.generation == plan.generation) {
            let mut fleet = known.swap_remove(at);
            fleet.adjust(plan, &self.surroundings);
            return fleet;
        }
        self.fleets_started += 1;
        Fleet::start(plan, self.fleets_started, running, has_served, &self.surroundings)
    }

    /// Ends the time of two fleets: the one of this generation serves alone.
    pub(super) fn settle(&mut self, generation: u64) {
        let Some(Beside { fleet: mut beside, .. }) = self.beside.take() else { return };
        self.handle.tallies.lock().expect("no code that holds this lock can panic").clear();
        let ended = if beside.generation == generation {
            beside.put_in_service();
            beside.unwatch();
            self.serving.replace(beside)
        } else {
            if let Some(serving) = &mut self.serving {
                serving.unwatch();
            }
            Some(beside)
        };
        self.renew_route();
        if let Some(ended) = ended {
            self.retire(ended);
        }
    }

    /// Takes down that a replica of the fleet beside did not start; `false` when it is not its.
    pub(super) fn note_beside_failure(&mut self, serial: u64, reason: &str) -> bool {
        match self.beside.as_mut().filter(|beside| beside.fleet.serial == serial) {
            Some(beside) => {
                beside.failure.get_or_insert_with(|| reason.to_owned());
                true
            }
            None => false,
        }
    }

    pub(super) fn beside_fleet(&mut self) -> Option<&mut Fleet> {
        self.beside.as_mut().map(|beside| &mut beside.fleet)
    }

    /// Gives the fleet beside its share as soon as all of it answers.
    pub(super) fn admit_beside(&mut self) {
        let Some(beside) = &mut self.beside else { return };
        if !beside.has_been_ready && beside.fleet.is_healthy() {
            beside.has_been_ready = true;
            self.renew_route();
        }
    }

    pub(super) fn take_beside(&mut self) -> Option<Fleet> {
        self.beside.take().map(|beside| beside.fleet)
    }

    pub(super) fn renew_route(&self) {
        let beside = self.beside.as_ref().filter(|beside| beside.has_been_ready && beside.share > 0.0);
        let route = match (&self.serving, beside) {
            (Some(serving), None) => serving.route(),
            (Some(serving), Some(beside)) if beside.share < 1.0 => {
                Route::shared(serving.route(), beside.fleet.route(), beside.share)
            }
            (_, Some(beside)) => beside.fleet.route(),
            (None, None) => return,
        };
        self.handle.route.store(Some(Arc::new(route)));
    }

    pub(super) fn beside_status(&self) -> Option<BesideStatus> {
        self.beside.as_ref().map(|beside| BesideStatus {
            generation: beside.fleet.generation,
            share: if beside.has_been_ready { beside.share } else { 0.0 },
            is_ready: beside.fleet.is_whole(),
            failure: beside.failure.clone(),
            variants: beside.fleet.status(),
        })
    }
}
