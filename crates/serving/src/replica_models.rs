//! The life of a replica of many models: its places for requests, and the workers that load what this process does not answer for.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::composition::Composition;
use crate::connection::{Connection, ReplicaLink};
use crate::http::HttpReplica;
use crate::launcher::{Protocol, ReplicaSpec};
use crate::models::{Host, ModelCache, Workers};
use crate::replica::{Replica, dial};

/// The models of a replica, and the workers behind them where there are any.
pub(crate) struct Models {
    cache: Arc<ModelCache>,
    workers: Option<Arc<Workers>>,
}

/// Connections of each worker: one for requests, one for what is loaded.
const CONNECTIONS_EACH: u32 = 2;

impl Replica {
    /// The models of an attempt to run the replica; `None` where it has one.
    pub(crate) fn models(
        &self,
        spec: ReplicaSpec,
        protocol: Protocol,
        http: Option<&Arc<HttpReplica>>,
    ) -> Option<Models> {
        let Composition::Models(plan) = &self.plan.composition else { return None };
        let workers = (protocol == Protocol::Frames).then(Arc::<Workers>::default);
        let host = match (&workers, http) {
            (Some(workers), _) => Host::Workers(Arc::clone(workers)),
            (None, Some(container)) => Host::Container(Arc::clone(container), AtomicBool::new(true)),
            (None, None) => Host::Nothing,
        };
        let cache = ModelCache::new(
            (spec, Arc::clone(&self.launcher)),
            plan.clone(),
            host,
            Arc::clone(&self.counters),
            Duration::from_secs_f64(self.plan.startup_timeout_seconds),
            &self.settings,
        );
        Some(Models { cache, workers })
    }

    /// Waits until what loads the models is there, and gives the places for requests: enough that those who wait for a model to be loaded
    /// do not take the places of the others.
    pub(crate) async fn model_places(
        &self,
        models: &Models,
        http: Option<&Arc<HttpReplica>>,
        socket: &Path,
        link: &Arc<ReplicaLink>,
        limit: Duration,
    ) -> Result<Vec<Connection>, String> {
        if let Some(container) = http {
            self.healthy(container, limit).await?;
        }
        if let Some(workers) = &models.workers {
            let mut dials = JoinSet::new();
            for _ in 0..self.plan.workers * CONNECTIONS_EACH {
                dials.spawn(dial(socket.to_owned(), Arc::clone(link), limit));
            }
            while let Some(dialled) = dials.join_next().await {
                put(workers, dialled.map_err(|error| error.to_string())??)?;
            }
        }
        Ok(self.places_of(&models.cache, link))
    }

    fn places_of(&self, cache: &Arc<ModelCache>, link: &Arc<ReplicaLink>) -> Vec<Connection> {
        let count = self.settings.http_requests_at_once as usize + self.settings.queue_limit;
        (0..count).map(|_| Connection::models_place(Arc::clone(cache), Arc::clone(link))).collect()
    }

    /// Watches what loads the models; returns, with the reason, once it cannot be reached.
    pub(crate) async fn keep_models(
        &self,
        models: Option<&Models>,
        http: Option<&Arc<HttpReplica>>,
        socket: &Path,
        link: &mut Arc<ReplicaLink>,
        lost: &mut mpsc::UnboundedReceiver<()>,
    ) -> String {
        let Some(models) = models else { return "The replica has one model.".into() };
        if let Some(container) = http {
            let places = |link: &Arc<ReplicaLink>| self.places_of(&models.cache, link);
            return self.keep_healthy(container, link, lost, &places).await;
        }
        let Some(workers) = &models.workers else {
            // It lives as long as this process.
            return std::future::pending().await;
        };
        let limit = Duration::from_secs_f64(self.plan.startup_timeout_seconds);
        let mut dials: JoinSet<Result<Connection, String>> = JoinSet::new();
        let mut look = tokio::time::interval(self.settings.check_interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(()) = lost.recv() => {
                    dials.spawn(dial(socket.to_owned(), Arc::clone(link), limit));
                }
                Some(dialled) = dials.join_next() => {
                    let placed = match dialled {
                        Ok(Ok(connection)) => put(workers, connection),
                        Ok(Err(reason)) => Err(reason),
                        Err(error) => Err(error.to_string()),
                    };
                    if let Err(reason) = placed {
                        return reason;
                    }
                }
                _ = look.tick() => workers.look(),
            }
        }
    }
}

fn put(workers: &Workers, connection: Connection) -> Result<(), String> {
    match workers.put(connection) {
        true => Ok(()),
        false => Err("The model host does not say which worker a connection leads to.".into()),
    }
}
