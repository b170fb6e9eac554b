//! The life of a replica that speaks HTTP: its first good ping, its places for requests, and its pings from then on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::connection::{Connection, ExchangeError, ReplicaLink};
use crate::http::{HttpReplica, PING_PATH};
use crate::replica::Replica;

/// First and longest pause between pings of a replica that is starting.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

impl Replica {
    /// Waits for a good answer to a ping.
    pub(crate) async fn healthy(&self, replica: &Arc<HttpReplica>, limit: Duration) -> Result<(), String> {
        let mut problem = "it does not listen yet".to_owned();
        let pings = async {
            let mut pause = PAUSES.0;
            loop {
                match self.ping_http(replica).await {
                    Ok(()) => return,
                    Err(text) => problem = text,
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        };
        match tokio::time::timeout(limit, pings).await {
            Ok(()) => Ok(()),
            Err(_) => Err(format!(
                "The primary container for production variant {} did not pass the ping health check within {} seconds: {problem}.",
                self.plan.name,
                limit.as_secs_f64()
            )),
        }
    }

    pub(crate) fn places(&self, replica: &Arc<HttpReplica>, link: &Arc<ReplicaLink>) -> Vec<Connection> {
        let place = |_| Connection::place(Arc::clone(replica), Arc::clone(link));
        // What comes and goes with the requests has as many of them at once as it is made for.
        let places = match &self.plan.on_demand {
            Some(_) => self.plan.workers,
            None => self.settings.http_requests_at_once,
        };
        (0..places).map(place).collect()
    }

    /// One ping; the error says what came of it.
    async fn ping_http(&self, replica: &HttpReplica) -> Result<(), String> {
        let limit = self.settings.http_ping_timeout;
        match tokio::time::timeout(limit, replica.get(PING_PATH)).await {
            Ok(Ok((200, _))) => Ok(()),
            Ok(Ok((status, _))) => Err(format!("GET {PING_PATH} was answered with status {status}")),
            Ok(Err(ExchangeError::Unreachable(error))) => Err(format!("it cannot be reached ({error})")),
            Ok(Err(ExchangeError::Lost(text))) => Err(format!("GET {PING_PATH} had no answer ({text})")),
            Ok(Err(error)) => Err(format!("GET {PING_PATH} had no answer ({error:?})")),
            Err(_) => Err(format!("GET {PING_PATH} was not answered within {} seconds", limit.as_secs_f64())),
        }
    }

    /// Pings the replica while it has nothing to do, and waits for it when it cannot be reached, after which it has new places; returns, with the reason, once it
    /// has missed too many.
    pub(crate) async fn keep_healthy(
        &self,
        replica: &Arc<HttpReplica>,
        link: &mut Arc<ReplicaLink>,
        lost: &mut mpsc::UnboundedReceiver<()>,
        places: &(dyn Fn(&Arc<ReplicaLink>) -> Vec<Connection> + Sync),
    ) -> String {
        let startup_limit = Duration::from_secs_f64(self.plan.startup_timeout_seconds);
        let mut look = tokio::time::interval(self.settings.check_interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut missed, mut last_ping_at) = (0, Instant::now());
        loop {
            tokio::select! {
                Some(()) = lost.recv() => {
                    self.pool.forget(link);
                    let renewed = ReplicaLink::new(link.id.clone(), link.lost.clone());
                    match self.healthy(replica, startup_limit).await {
                        Ok(()) => {
                            places(&renewed).into_iter().for_each(|place| self.pool.offer(place));
                            *link = renewed;
                        }
                        Err(reason) => return reason,
                    }
                }
                _ = look.tick() => {
                    replica.close_old();
                    // A server that answers one request at a time cannot answer a ping beside it.
                    if link.outstanding() > 0 {
                        continue;
                    }
                    if replica.silent_for() < self.settings.ping_interval {
                        missed = 0;
                        continue;
                    }
                    if last_ping_at.elapsed() < self.settings.ping_interval {
                        continue;
                    }
                    last_ping_at = Instant::now();
                    match self.ping_http(replica).await {
                        Ok(()) => missed = 0,
                        Err(problem) => {
                            missed += 1;
                            tracing::warn!(replica = link.id, problem, missed, "a container did not pass a ping");
                            if missed >= self.settings.http_pings_missed {
                                return format!(
                                    "The container has not passed the ping health check {missed} times in a row: {problem}."
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}
