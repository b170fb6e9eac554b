//! One endpoint: brings up the fleet that is wanted, puts it into service, and ends the one before.

mod transition;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::capture::Capture;
use crate::fleet::{CountersByVariant, Fleet, Surroundings};
use crate::plan::{EndpointPlan, PlanError};
use crate::replica::{ReplicaEvent, ReplicaReport};
use crate::replica_id;
use crate::route::Route;
use crate::shadow::Shadow;
use crate::shift::Shift;
use crate::status::{EndpointPhase, EndpointStatus};
use crate::tally::Tally;
use transition::Beside;

/// The side of an endpoint that invocations and callers see.
#[derive(Debug)]
pub(crate) struct EndpointHandle {
    /// The fleet in service, if there is one.
    pub(crate) route: ArcSwapOption<Route>,
    /// Whether it was in service under an earlier server, and will be in a moment: its replicas run, or come on demand.
    pub(crate) is_taken_up: bool,
    pub(crate) status: watch::Sender<EndpointStatus>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) counters: CountersByVariant,
    /// Where invocations are captured, if they are.
    pub(crate) capture: ArcSwapOption<Capture>,
    /// What each fleet did, while two stand side by side, by generation.
    pub(crate) tallies: Mutex<BTreeMap<u64, Arc<Tally>>>,
    /// Who gets copies of requests, if anybody does.
    pub(crate) shadow: ArcSwapOption<Shadow>,
}

/// What callers ask of an endpoint.
#[derive(Debug)]
pub(crate) enum Command {
    /// The plan, and whether its generation served under an earlier server.
    Apply(EndpointPlan, bool),
    /// Two fleets side by side; told when requests go where they should.
    Shift(Box<Shift>, oneshot::Sender<()>),
    SetWeights(Vec<(String, f64)>, oneshot::Sender<Result<(), PlanError>>),
    SetReplicas(String, u32, oneshot::Sender<Result<(), PlanError>>),
    Remove,
}

/// The task behind an endpoint.
pub(crate) struct Endpoint {
    handle: Arc<EndpointHandle>,
    surroundings: Surroundings,
    serving: Option<Fleet>,
    starting: Option<Fleet>,
    /// Another fleet that gets a share of the requests, or is kept warm.
    beside: Option<Beside>,
    /// Fleets on their way out, and strays being stopped.
    leaving: JoinSet<()>,
    wanted_generation: u64,
    phase: EndpointPhase,
    last_failure: Option<String>,
    fleets_started: u64,
    /// When somebody has to look which replicas nobody needs any more.
    next_look_at: Option<Instant>,
}

impl Endpoint {
    pub(crate) fn new(handle: Arc<EndpointHandle>, surroundings: Surroundings) -> Self {
        Self {
            handle,
            surroundings,
            serving: None,
            starting: None,
            beside: None,
            leaving: JoinSet::new(),
            wanted_generation: 0,
            phase: EndpointPhase::Creating,
            last_failure: None,
            fleets_started: 0,
            next_look_at: None,
        }
    }

    /// Runs until the endpoint is removed and the last of its replicas is gone.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut reports: mpsc::UnboundedReceiver<ReplicaReport>,
        predecessor: Option<watch::Receiver<EndpointStatus>>,
    ) {
        if let Some(mut predecessor) = predecessor {
            // Its replicas bear the same names; they must be gone before this endpoint looks for its own.
            let _ = predecessor.wait_for(|status| status.phase == EndpointPhase::Removed).await;
        }
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Apply(plan, has_served)) => self.apply(&plan, has_served),
                    Some(Command::Shift(shift, done)) => {
                        self.shift(&shift);
                        self.publish();
                        let _ = done.send(());
                    }
                    Some(Command::SetWeights(weights, answer)) => { let _ = answer.send(self.set_weights(&weights)); }
                    Some(Command::SetReplicas(variant, count, answer)) => {
                        let _ = answer.send(self.set_replicas(&variant, count));
                    }
                    Some(Command::Remove) | None => break,
                },
                Some(report) = reports.recv() => self.take_report(report),
                () = self.surroundings.bell.notified() => {}
                () = at(self.next_look_at) => {}
                Some(_) = self.leaving.join_next() => continue,
            }
            self.follow_demand();
            self.publish();
        }
        self.handle.route.store(None);
        let beside = self.take_beside();
        for fleet in [self.starting.take(), self.serving.take(), beside].into_iter().flatten() {
            self.retire(fleet);
        }
        while self.leaving.join_next().await.is_some() {}
        self.phase = EndpointPhase::Removed;
        self.publish();
    }

    fn apply(&mut self, plan: &EndpointPlan, has_served: bool) {
        self.wanted_generation = plan.generation;
        self.settle(plan.generation);
        if let Some(starting) = self.starting.as_mut().filter(|fleet| fleet.generation == plan.generation) {
            starting.adjust(plan, &self.surroundings);
            return self.promote_if_healthy();
        }
        if let Some(abandoned) = self.starting.take() {
            self.retire(abandoned);
        }
        if let Some(serving) = self.serving.as_mut().filter(|fleet| fleet.generation == plan.generation) {
            serving.adjust(plan, &self.surroundings);
            self.phase = EndpointPhase::InService;
            return self.renew_route();
        }
        let running = self.running_of_an_earlier_server();
        self.fleets_started += 1;
        let fleet = Fleet::start(plan, self.fleets_started, &running, has_served, &self.surroundings);
        let strays = running.into_iter().filter(|id| !fleet.adopted.contains(id)).collect();
        self.stop_all(strays);
        self.starting = Some(fleet);
        self.phase = if self.serving.is_some() { EndpointPhase::Updating } else { EndpointPhase::Creating };
        self.promote_if_healthy(); // a plan may ask for no replica at all
    }

    /// Only the first fleets can meet replicas that this data plane did not launch itself.
    fn running_of_an_earlier_server(&self) -> Vec<String> {
        if self.fleets_started > 0 {
            return Vec::new();
        }
        let prefix = replica_id::endpoint_prefix(
            self.surroundings.settings.replica_prefix,
            &self.surroundings.endpoint,
        );
        self.surroundings.launcher.running().into_iter().filter(|id| id.starts_with(&prefix)).collect()
    }

    /// Replicas of this endpoint that nobody will use any more.
    fn stop_all(&mut self, strays: Vec<String>) {
        for id in strays {
            let launcher = Arc::clone(&self.surroundings.launcher);
            self.leaving.spawn(async move { launcher.stop(&id).await });
        }
    }

    /// Brings replicas up that invocations wait for, and stops those that nobody has needed for a while.
    fn follow_demand(&mut self) {
        let surroundings = &self.surroundings;
        self.next_look_at =
            self.serving.as_mut().and_then(|fleet| fleet.follow_demand(Instant::now(), surroundings));
    }

    fn set_weights(&mut self, weights: &[(String, f64)]) -> Result<(), PlanError> {
        for (variant, weight) in weights {
            crate::plan::check_weight(variant, *weight)?;
            self.check_variant(variant)?;
        }
        for fleet in [self.starting.as_mut(), self.serving.as_mut()].into_iter().flatten() {
            for (variant, weight) in weights {
                if let Some(position) = fleet.position(variant) {
                    fleet.set_weight(position, *weight);
                }
            }
        }
        self.renew_route();
        Ok(())
    }

    fn set_replicas(&mut self, variant: &str, replicas: u32) -> Result<(), PlanError> {
        self.check_variant(variant)?;
        for fleet in [self.starting.as_mut(), self.serving.as_mut()].into_iter().flatten() {
            if let Some(position) = fleet.position(variant) {
                fleet.set_replicas(position, replicas, &self.surroundings);
            }
        }
        self.promote_if_healthy();
        Ok(())
    }

    fn check_variant(&self, variant: &str) -> Result<(), PlanError> {
        let known = [&self.starting, &self.serving]
            .into_iter()
            .flatten()
            .any(|fleet| fleet.position(variant).is_some());
        if known { Ok(()) } else { Err(PlanError::NoSuchVariant(variant.to_owned())) }
    }

    fn take_report(&mut self, report: ReplicaReport) {
        let healthy = matches!(report.event, ReplicaEvent::Healthy { .. });
        let of = |fleet: &mut Fleet| {
            if fleet.serial == report.fleet {
                fleet.note_health(report.variant, report.index, healthy);
                fleet.note_on_demand(report.variant, &report.event);
            }
        };
        [self.starting.as_mut(), self.serving.as_mut()].into_iter().flatten().for_each(of);
        self.beside_fleet().into_iter().for_each(of);
        match report.event {
            ReplicaEvent::Healthy { .. } => {
                self.admit_beside();
                self.promote_if_healthy();
            }
            ReplicaEvent::NotStarted(_) => {}
            ReplicaEvent::Restarting(reason) => self.last_failure = Some(reason),
            ReplicaEvent::Failed(reason) if self.note_beside_failure(report.fleet, &reason) => {}
            ReplicaEvent::Failed(reason) => self.give_up_starting(report.fleet, reason),
        }
    }

    fn give_up_starting(&mut self, serial: u64, reason: String) {
        let Some(failed) = self.starting.take_if(|fleet| fleet.serial == serial) else {
            return; // the report of a fleet that was abandoned meanwhile
        };
        self.phase = if self.serving.is_some() {
            EndpointPhase::UpdateFailed { reason }
        } else {
            // What has failed answers nothing: a fleet beside it goes, too.
            self.handle.route.store(None);
            if let Some(beside) = self.take_beside() {
                self.retire(beside);
            }
            EndpointPhase::Failed { reason }
        };
        self.retire(failed);
    }

    /// The moment of the change: from here on new invocations go to the new fleet.
    fn promote_if_healthy(&mut self) {
        let Some(mut promoted) = self.starting.take_if(|fleet| fleet.is_healthy()) else { return };
        promoted.put_in_service();
        let replaced = self.serving.replace(promoted);
        self.renew_route();
        if let Some(replaced) = replaced {
            self.retire(replaced);
        }
        self.phase = EndpointPhase::InService;
    }

    fn retire(&mut self, fleet: Fleet) {
        self.leaving.spawn(fleet.retire(self.surroundings.settings.drain_timeout));
    }

    fn publish(&self) {
        let fleet = self.serving.as_ref().or(self.starting.as_ref());
        let previous = self.handle.status.borrow().clone();
        let status = EndpointStatus {
            phase: self.phase.clone(),
            generation: fleet.map_or(previous.generation, |fleet| fleet.generation),
            wanted_generation: self.wanted_generation,
            variants: fleet.map_or_else(
                || {
                    // What failed or was removed is still described, with nothing that answers.
                    let mut variants = previous.variants.clone();
                    variants.iter_mut().for_each(|variant| variant.healthy_replicas = 0);
                    variants
                },
                Fleet::status,
            ),
            last_failure: self.last_failure.clone(),
            beside: self.beside_status(),
        };
        self.handle.status.send_if_modified(|published| {
            let changed = *published != status;
            if changed {
                *published = status;
            }
            changed
        });
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
