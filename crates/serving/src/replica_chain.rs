//! The life of a replica of several containers: each is started, watched and restarted on its own, and the replica serves while all do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::chain::{Chain, ChainLink};
use crate::composition::{Composition, ContainersPlan};
use crate::connection::{Connection, ReplicaLink};
use crate::plan::{RoutingStrategy, VariantPlan};
use crate::pool::Pool;
use crate::replica::{Replica, ReplicaEvent, ReplicaReport};

/// The containers of a replica at work.
struct Parts {
    chain: Arc<Chain>,
    tasks: JoinSet<()>,
    /// Dropping one asks its container to drain and stop.
    stops: Vec<oneshot::Sender<()>>,
    reports: mpsc::UnboundedReceiver<ReplicaReport>,
    healthy: Vec<bool>,
}

impl Replica {
    /// Runs a replica of several containers until `stop` is told (or dropped); then it is drained and stopped.
    pub(crate) async fn run_chain(mut self, plan: ContainersPlan, mut stop: oneshot::Receiver<()>) {
        let mut parts = self.start_parts(&plan);
        let mut link: Option<Arc<ReplicaLink>> = None;
        loop {
            let report = tokio::select! {
                biased;
                _ = &mut stop => break,
                Some(report) = parts.reports.recv() => report,
            };
            let at = report.variant;
            let named = |reason: String| format!("Container {}: {reason}", plan.containers[at].name);
            match report.event {
                ReplicaEvent::Healthy { places, setup } => {
                    parts.healthy[at] = true;
                    if link.is_none() && parts.healthy.iter().all(|healthy| *healthy) {
                        link = Some(self.offer_chain(&parts.chain));
                        self.report(ReplicaEvent::Healthy { places, setup });
                    }
                }
                ReplicaEvent::NotStarted(reason) => self.report(ReplicaEvent::NotStarted(named(reason))),
                ReplicaEvent::Restarting(reason) => {
                    parts.healthy[at] = false;
                    if let Some(link) = link.take() {
                        self.withdraw(&link);
                    }
                    self.report(ReplicaEvent::Restarting(named(reason)));
                }
                ReplicaEvent::Failed(reason) => {
                    parts.stop().await;
                    self.report(ReplicaEvent::Failed(named(reason)));
                    return;
                }
            }
        }
        if let Some(link) = link {
            self.retire(&link, true).await;
        }
        parts.stop().await;
    }

    fn start_parts(&mut self, plan: &ContainersPlan) -> Parts {
        let (sender, reports) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let (mut stops, mut links) = (Vec::new(), Vec::new());
        for (at, container) in plan.containers.iter().enumerate() {
            let pool = Pool::new(self.settings.queue_limit, RoutingStrategy::Random);
            let latencies = self.counters.container(&container.name);
            links.push(ChainLink { name: container.name.clone(), pool: Arc::clone(&pool), latencies });
            let plan = VariantPlan {
                workers: container.workers,
                composition: Composition::Single,
                ..VariantPlan::clone(&self.plan)
            };
            let part = Replica {
                launcher: Arc::clone(&self.launcher),
                settings: Arc::clone(&self.settings),
                socket_directory: self.socket_directory.clone(),
                endpoint: Arc::clone(&self.endpoint),
                generation: self.generation,
                fleet: self.fleet,
                // Tells the containers apart; nobody but this replica sees their reports.
                variant_position: at,
                index: self.index,
                part: Some(at as u32),
                plan: Arc::new(plan),
                pool,
                counters: Arc::clone(&self.counters),
                reports: sender.clone(),
                adopt: vec![self.adopt.get_mut(at).and_then(Option::take)],
                woken: None,
                imports: Arc::clone(&self.imports),
                first_start_must_succeed: self.first_start_must_succeed,
            };
            let (stop, stopped) = oneshot::channel();
            stops.push(stop);
            tasks.spawn(part.run_single(stopped));
        }
        let chain = Chain { links, is_direct: plan.is_direct, queue_wait: self.settings.queue_wait };
        let healthy = vec![false; plan.containers.len()];
        Parts { chain: Arc::new(chain), tasks, stops, reports, healthy }
    }

    /// Puts the replica into service.
    fn offer_chain(&self, chain: &Arc<Chain>) -> Arc<ReplicaLink> {
        let id = self.place_prefix().trim_end_matches('-').to_owned();
        // Its places are no connections whose loss would be news.
        let link = ReplicaLink::new(id, mpsc::unbounded_channel().0);
        for _ in 0..self.settings.http_requests_at_once {
            self.pool.offer(Connection::chain_place(Arc::clone(chain), Arc::clone(&link)));
        }
        link
    }

    fn withdraw(&self, link: &Arc<ReplicaLink>) {
        link.retired.store(true, Ordering::Release);
        self.pool.forget(link);
    }
}

impl Parts {
    async fn stop(&mut self) {
        self.stops.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}
