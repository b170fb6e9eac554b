//! One endpoint: brings up the fleet that is wanted, puts it into service, and ends the one before.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::fleet::{CountersByVariant, Fleet, Surroundings};
use crate::plan::{EndpointPlan, PlanError};
use crate::replica::{ReplicaEvent, ReplicaReport};
use crate::replica_id;
use crate::route::Route;
use crate::status::{EndpointPhase, EndpointStatus};

/// The side of an endpoint that invocations and callers see.
#[derive(Debug)]
pub(crate) struct EndpointHandle {
    /// The fleet in service, if there is one.
    pub(crate) route: ArcSwapOption<Route>,
    pub(crate) status: watch::Sender<EndpointStatus>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) counters: CountersByVariant,
}

/// What callers ask of an endpoint.
#[derive(Debug)]
pub(crate) enum Command {
    Apply(EndpointPlan),
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
    /// Fleets on their way out, and strays being stopped.
    leaving: JoinSet<()>,
    wanted_generation: u64,
    phase: EndpointPhase,
    last_failure: Option<String>,
    fleets_started: u64,
}

impl Endpoint {
    pub(crate) fn new(handle: Arc<EndpointHandle>, surroundings: Surroundings) -> Self {
        Self {
            handle,
            surroundings,
            serving: None,
            starting: None,
            leaving: JoinSet::new(),
            wanted_generation: 0,
            phase: EndpointPhase::Creating,
            last_failure: None,
            fleets_started: 0,
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
                    Some(Command::Apply(plan)) => self.apply(&plan),
                    Some(Command::SetWeights(weights, answer)) => { let _ = answer.send(self.set_weights(&weights)); }
                    Some(Command::SetReplicas(variant, count, answer)) => {
                        let _ = answer.send(self.set_replicas(&variant, count));
                    }
                    Some(Command::Remove) | None => break,
                },
                Some(report) = reports.recv() => self.take_report(report),
                Some(_) = self.leaving.join_next() => continue,
            }
            self.publish();
        }
        self.handle.route.store(None);
        for fleet in [self.starting.take(), self.serving.take()].into_iter().flatten() {
            self.retire(fleet);
        }
        while self.leaving.join_next().await.is_some() {}
        self.phase = EndpointPhase::Removed;
        self.publish();
    }

    fn apply(&mut self, plan: &EndpointPlan) {
        self.wanted_generation = plan.generation;
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
        self.fleets_started += 1;
        let running = self.running_of_an_earlier_server();
        let fleet = Fleet::start(plan, self.fleets_started, &running, &self.surroundings);
        self.stop_strays(running, &fleet);
        self.starting = Some(fleet);
        self.phase = if self.serving.is_some() { EndpointPhase::Updating } else { EndpointPhase::Creating };
        self.promote_if_healthy(); // a plan may ask for no replica at all
    }

    /// Only the first fleet can meet replicas that this data plane did not launch itself.
    fn running_of_an_earlier_server(&self) -> Vec<String> {
        if self.fleets_started > 1 {
            return Vec::new();
        }
        let prefix = replica_id::endpoint_prefix(&self.surroundings.endpoint);
        self.surroundings.launcher.running().into_iter().filter(|id| id.starts_with(&prefix)).collect()
    }

    /// Replicas of this endpoint that nobody will use any more.
    fn stop_strays(&mut self, running: Vec<String>, fleet: &Fleet) {
        for id in running.into_iter().filter(|id| !fleet.adopted.contains(id)) {
            let launcher = Arc::clone(&self.surroundings.launcher);
            self.leaving.spawn(async move { launcher.stop(&id).await });
        }
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
        let healthy = matches!(report.event, ReplicaEvent::Healthy);
        for fleet in [self.starting.as_mut(), self.serving.as_mut()].into_iter().flatten() {
            if fleet.serial == report.fleet {
                fleet.note_health(report.variant, report.index, healthy);
            }
        }
        match report.event {
            ReplicaEvent::Healthy => self.promote_if_healthy(),
            ReplicaEvent::Restarting(reason) => self.last_failure = Some(reason),
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
            EndpointPhase::Failed { reason }
        };
        self.retire(failed);
    }

    /// The moment of the change: from here on new invocations go to the new fleet.
    fn promote_if_healthy(&mut self) {
        let Some(mut promoted) = self.starting.take_if(|fleet| fleet.is_healthy()) else { return };
        promoted.put_in_service();
        self.handle.route.store(Some(Arc::new(promoted.route())));
        if let Some(replaced) = self.serving.replace(promoted) {
            self.retire(replaced);
        }
        self.phase = EndpointPhase::InService;
    }

    fn renew_route(&self) {
        if let Some(serving) = &self.serving {
            self.handle.route.store(Some(Arc::new(serving.route())));
        }
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
