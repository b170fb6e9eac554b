//! The life of one replica: launch or take up, connect to its workers, check them, restart it, drain and stop it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::composition::Composition;
use crate::connection::{Connection, ReplicaLink};
use crate::engine::NativeModel;
use crate::http::HttpReplica;
use crate::launcher::{ExitText, Launcher, Protocol, ReplicaSpec};
use crate::metrics::Counters;
use crate::plan::VariantPlan;
use crate::pool::Pool;
use crate::replica_id;
use crate::settings::DataPlaneSettings;
use crate::standby::{IMPORTS, Imports};

/// What a replica tells its endpoint.
#[derive(Debug)]
pub(crate) enum ReplicaEvent {
    /// All its workers answer.
    Healthy {
        /// How many requests it has at once.
        places: usize,
        /// How long it took to come up, when it was started.
        setup: Option<Duration>,
    },
    /// It did not come up; it is tried again.
    NotStarted(String),
    /// It stopped answering, or did not come up; it is being restarted.
    Restarting(String),
    /// It did not come up the first time, and its fleet wanted to know rather than to try again.
    Failed(String),
}

/// Says which replica an event is about.
#[derive(Debug)]
pub(crate) struct ReplicaReport {
    /// The serial number of its fleet; generations can come again.
    pub(crate) fleet: u64,
    pub(crate) variant: usize,
    pub(crate) index: u32,
    pub(crate) event: ReplicaEvent,
}

/// Everything a replica's task works with.
pub(crate) struct Replica {
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) settings: Arc<DataPlaneSettings>,
    pub(crate) socket_directory: PathBuf,
    pub(crate) endpoint: Arc<str>,
    pub(crate) generation: u64,
    pub(crate) fleet: u64,
    pub(crate) variant_position: usize,
    pub(crate) index: u32,
    /// Which of several containers it runs, where it is one of them.
    pub(crate) part: Option<u32>,
    pub(crate) plan: Arc<VariantPlan>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) reports: mpsc::UnboundedSender<ReplicaReport>,
    /// Running processes of an earlier server to take up, one for each part.
    pub(crate) adopt: Vec<Option<String>>,
    /// What stood by while it slept, and is to be the replica.
    pub(crate) woken: Option<String>,
    /// What the variant's replicas have imported.
    pub(crate) imports: Arc<Imports>,
    /// Whether a first start that fails ends the task instead of being tried again.
    pub(crate) first_start_must_succeed: bool,
}

/// What befell a worker that the kernel ended.
const OUT_OF_MEMORY: &str =
    "The memory limit of the replica was used up, and the kernel ended the worker for it.";

/// What an attempt to run the replica begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// A process that is launched for it.
    Launch,
    /// One that stands by.
    Wake,
    /// One that an earlier server left.
    TakeUp,
}

/// How one attempt to run the replica ended.
enum Ended {
    StopAsked,
    NeverHealthy(String),
    Died(String),
}

impl Replica {
    /// Runs the replica until `stop` is told (or dropped); then it is drained and stopped.
    pub(crate) async fn run(self, stop: oneshot::Receiver<()>) {
        match self.plan.composition.clone() {
            Composition::Containers(plan) => self.run_chain(plan, stop).await,
            Composition::Single | Composition::Models(_) => self.run_single(stop).await,
        }
    }

    /// The same for one that is a single process or engine.
    pub(crate) async fn run_single(mut self, mut stop: oneshot::Receiver<()>) {
        let mut failures_in_a_row = 0_u32;
        let mut was_healthy = false;
        loop {
            let adopted = self.adopt.first_mut().and_then(Option::take);
            let (beginning, id) = match (self.woken.take(), adopted) {
                (Some(id), _) => (Beginning::Wake, id),
                (None, Some(id)) => (Beginning::TakeUp, id),
                (None, None) => (Beginning::Launch, self.new_id()),
            };
            let socket = self.socket(&id);
            let ended = self.attempt(&id, &socket, beginning, &mut stop, &mut failures_in_a_row).await;
            remove_socket_directory(&socket);
            let reason = match ended {
                Ended::StopAsked => return,
                Ended::NeverHealthy(reason) if beginning != Beginning::Launch => {
                    tracing::warn!(replica = %id, %reason, "a process cannot be taken up; another one is started");
                    continue;
                }
                Ended::NeverHealthy(reason) if self.first_start_must_succeed && !was_healthy => {
                    tracing::warn!(replica = %id, %reason, "a model replica did not start");
                    self.report(ReplicaEvent::Failed(reason));
                    return;
                }
                Ended::NeverHealthy(reason) => {
                    self.report(ReplicaEvent::NotStarted(reason.clone()));
                    reason
                }
                Ended::Died(reason) => {
                    was_healthy = true;
                    reason
                }
            };
            tracing::warn!(replica = %id, %reason, "a model replica is restarted");
            self.report(ReplicaEvent::Restarting(reason));
            let wait = self.backoff(failures_in_a_row);
            failures_in_a_row = failures_in_a_row.saturating_add(1);
            tokio::select! {
                _ = &mut stop => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// What the ids of all attempts at its place begin with.
    pub(crate) fn place_prefix(&self) -> String {
        replica_id::place_prefix(
            self.settings.replica_prefix,
            &self.endpoint,
            &self.plan.name,
            self.generation,
            self.index,
        )
    }

    /// An id for another attempt.
    pub(crate) fn new_id(&self) -> String {
        let prefix = self.place_prefix();
        replica_id::new_attempt(&match self.part {
            Some(part) => replica_id::part_prefix(&prefix, part),
            None => prefix,
        })
    }

    pub(crate) fn socket(&self, id: &str) -> PathBuf {
        self.socket_directory.join(id).join("host.sock")
    }

    fn backoff(&self, failures_in_a_row: u32) -> Duration {
        let doubled = self.settings.restart_backoff.saturating_mul(1 << failures_in_a_row.min(20));
        doubled.min(self.settings.restart_backoff_limit)
    }

    pub(crate) fn report(&self, event: ReplicaEvent) {
        let report =
            ReplicaReport { fleet: self.fleet, variant: self.variant_position, index: self.index, event };
        // An endpoint that is gone needs no reports.
        let _ = self.reports.send(report);
    }

    async fn attempt(
        &self,
        id: &str,
        socket: &Path,
        beginning: Beginning,
        stop: &mut oneshot::Receiver<()>,
        failures_in_a_row: &mut u32,
    ) -> Ended {
        let (lost_sender, mut lost) = mpsc::unbounded_channel();
        let link = ReplicaLink::new(id.to_owned(), lost_sender);
        let started_at = Instant::now();
        if beginning == Beginning::Launch
            && let Err(reason) = self.launch(id, socket, None).await
        {
            // It may have been furnished in part.
            self.launcher.stop(id).await;
            return Ended::NeverHealthy(reason);
        }
        let limit = Duration::from_secs_f64(self.plan.startup_timeout_seconds);
        let protocol = self.launcher.protocol(id);
        let (host, http) = match protocol {
            Protocol::Frames => ("model host", None),
            Protocol::Http { port } => {
                let prefix = self.settings.header_prefix;
                ("container", Some(Arc::new(HttpReplica::new(socket.to_owned(), port, prefix))))
            }
            Protocol::Native => ("native engine", None),
        };
        let native = self.launcher.native_model(id).filter(|_| protocol == Protocol::Native);
        let models = self.models(self.spec(id, socket), protocol, http.as_ref());
        let connected = async {
            if let Some(models) = &models {
                return self.model_places(models, http.as_ref(), socket, &link, limit).await;
            }
            match (&http, &native) {
                (_, Some(model)) => Ok(self.native_places(model, &link)),
                (None, None) => self.connect_all(socket, &link, limit).await,
                (Some(replica), None) => {
                    self.healthy(replica, limit).await.map(|()| self.places(replica, &link))
                }
            }
        };
        let started = tokio::select! {
            biased;
            started = connected => started,
            exit = self.launcher.exited(id) => Err(format!("The {host} ended before it was ready: {}", describe(&exit))),
            _ = &mut *stop => {
                self.launcher.stop(id).await;
                return Ended::StopAsked;
            }
        };
        let connections = match started {
            Ok(connections) => connections,
            Err(reason) => return Ended::NeverHealthy(self.with_log_tail(id, reason).await),
        };
        let places = connections.len();
        for connection in connections {
            self.pool.offer(connection);
        }
        self.note_imports(id, socket);
        let setup = (beginning != Beginning::TakeUp).then(|| started_at.elapsed());
        self.report(ReplicaEvent::Healthy { places, setup });
        *failures_in_a_row = 0;
        let mut link = link;
        let kept = async {
            match (&http, &native) {
                _ if models.is_some() => {
                    self.keep_models(models.as_ref(), http.as_ref(), socket, &mut link, &mut lost).await
                }
                // It lives as long as this process.
                (_, Some(_)) => std::future::pending().await,
                (None, None) => self.keep_connected(socket, &link, &mut lost).await,
                (Some(replica), None) => {
                    let places = |link: &Arc<ReplicaLink>| self.places(replica, link);
                    self.keep_healthy(replica, &mut link, &mut lost, &places).await
                }
            }
        };
        let died = tokio::select! {
            exit = self.launcher.exited(id) => {
                // Those whose request it had want to know.
                link.ending.send_replace(Some(exit.summary.clone()));
                Some(format!("The {host} ended: {}", describe(&exit)))
            }
            reason = kept => Some(reason),
            _ = &mut *stop => None,
        };
        self.retire(&link, died.is_none()).await;
        self.launcher.stop(id).await;
        died.map_or(Ended::StopAsked, Ended::Died)
    }

    /// Starts its process; one that is given names of modules stands by.
    pub(crate) async fn launch(&self, id: &str, socket: &Path, ahead: Option<&str>) -> Result<(), String> {
        let directory = socket.parent().expect("the socket lies in a folder of its own");
        std::fs::create_dir_all(directory)
            .map_err(|error| format!("The folder {} cannot be made: {error}.", directory.display()))?;
        if let Some(names) = ahead {
            std::fs::write(directory.join(IMPORTS), names)
                .map_err(|error| format!("The modules to import ahead cannot be written: {error}."))?;
        }
        let spec = ReplicaSpec { standby: ahead.is_some(), ..self.spec(id, socket) };
        self.launcher.launch(&spec).await.map_err(|error| error.to_string())
    }

    fn spec(&self, id: &str, socket: &Path) -> ReplicaSpec {
        ReplicaSpec {
            id: id.to_owned(),
            endpoint: self.endpoint.to_string(),
            variant: self.plan.name.clone(),
            index: self.index,
            part: self.part,
            socket: socket.to_owned(),
            workers: self.plan.workers,
            model_timeout_seconds: self.plan.model_timeout_seconds,
            standby: false,
            launch: self.plan.launch.clone(),
        }
    }

    /// The places for requests of a model that this process answers for: it is ready once it is loaded.
    fn native_places(&self, model: &Arc<NativeModel>, link: &Arc<ReplicaLink>) -> Vec<Connection> {
        let place = |_| Connection::native_place(Arc::clone(model), Arc::clone(link));
        let places = match &self.plan.on_demand {
            Some(on_demand) => on_demand.max_concurrency.max(self.settings.http_requests_at_once),
            None => self.settings.http_requests_at_once,
        };
        (0..places).map(place).collect()
    }

    /// Connects to every worker; each has answered a ping when this is done.
    async fn connect_all(
        &self,
        socket: &Path,
        link: &Arc<ReplicaLink>,
        limit: Duration,
    ) -> Result<Vec<Connection>, String> {
        let mut dials = JoinSet::new();
        for _ in 0..self.plan.workers {
            dials.spawn(dial(socket.to_owned(), Arc::clone(link), limit));
        }
        let mut connections = Vec::new();
        while let Some(dialled) = dials.join_next().await {
            connections.push(dialled.map_err(|error| error.to_string())??);
        }
        Ok(connections)
    }

    /// Replaces lost connections and pings idle ones; returns, with the reason, once a worker cannot be reached.
    async fn keep_connected(
        &self,
        socket: &Path,
        link: &Arc<ReplicaLink>,
        lost: &mut mpsc::UnboundedReceiver<()>,
    ) -> String {
        let startup_limit = Duration::from_secs_f64(self.plan.startup_timeout_seconds);
        // Dials end with a connection or the reason why there is none; pings with the connection, if it answered.
        let mut tasks: JoinSet<Result<Option<Connection>, String>> = JoinSet::new();
        let mut kills = self.launcher.out_of_memory_kills(&link.id);
        let mut look = tokio::time::interval(self.settings.check_interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(()) = lost.recv() => {
                    let kills_now = self.launcher.out_of_memory_kills(&link.id);
                    let trouble = (kills_now > kills).then(|| OUT_OF_MEMORY.to_owned());
                    kills = kills_now;
                    link.loss.send_replace(trouble);
                    let dial = dial(socket.to_owned(), Arc::clone(link), startup_limit);
                    tasks.spawn(async { dial.await.map(Some) });
                }
                Some(finished) = tasks.join_next() => match finished {
                    Ok(Ok(Some(connection))) => self.pool.offer(connection),
                    Ok(Ok(None)) => {}
                    Ok(Err(reason)) => return reason,
                    Err(error) => return error.to_string(),
                },
                _ = look.tick() => {
                    drop(self.pool.take_idle(|connection| self.is_mine(connection, link) && connection.is_broken()));
                    for connection in self.take_stale(link) {
                        tasks.spawn(ping(connection, self.settings.ping_timeout));
                    }
                }
            }
        }
    }

    pub(crate) fn is_mine(&self, connection: &Connection, link: &Arc<ReplicaLink>) -> bool {
        Arc::ptr_eq(&connection.link, link)
    }

    /// The connections that have been idle for so long that they should be pinged.
    fn take_stale(&self, link: &Arc<ReplicaLink>) -> Vec<Connection> {
        let now = Instant::now();
        self.pool.take_idle(|connection| {
            self.is_mine(connection, link) && now - connection.last_answer_at >= self.settings.ping_interval
        })
    }

    /// Takes the replica out of service; with `drain`, running invocations are waited for.
    pub(crate) async fn retire(&self, link: &Arc<ReplicaLink>, drain: bool) {
        link.retired.store(true, Ordering::Release);
        drop(self.pool.take_idle(|connection| self.is_mine(connection, link)));
        let deadline = Instant::now() + self.settings.drain_timeout;
        while drain && link.outstanding() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A connection that was offered between the mark and the first look would be left behind.
        self.pool.forget(link);
    }

    /// Stops a replica that did not come up, and adds its last words to the reason.
    async fn with_log_tail(&self, id: &str, reason: String) -> String {
        self.launcher.stop(id).await;
        let exit = tokio::time::timeout(Duration::from_secs(5), self.launcher.exited(id)).await;
        let last_words = exit.map(|exit| exit.log_tail.join("\n")).unwrap_or_default();
        if last_words.is_empty() || reason.contains(&last_words) {
            reason
        } else {
            format!("{reason}\nLast log lines:\n{last_words}")
        }
    }
}

pub(crate) fn describe(exit: &ExitText) -> String {
    if exit.log_tail.is_empty() {
        exit.summary.clone()
    } else {
        format!("{}\nLast log lines:\n{}", exit.summary, exit.log_tail.join("\n"))
    }
}

pub(crate) fn remove_socket_directory(socket: &Path) {
    let directory = socket.parent().expect("the socket lies in a folder of its own");
    if let Err(error) = std::fs::remove_dir_all(directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(directory = %directory.display(), %error, "a socket folder is left behind");
    }
}

/// Gives the connection back if its worker answers in time; otherwise it is closed.
async fn ping(mut connection: Connection, limit: Duration) -> Result<Option<Connection>, String> {
    let answered = tokio::time::timeout(limit, connection.ping()).await;
    Ok(matches!(answered, Ok(Ok(Ok(())))).then_some(connection))
}

/// Connects to one worker and waits until it answers a ping. Until the host listens, it tries again.
pub(crate) async fn dial(
    socket: PathBuf,
    link: Arc<ReplicaLink>,
    limit: Duration,
) -> Result<Connection, String> {
    const FIRST_WAIT: Duration = Duration::from_millis(2);
    const LONGEST_WAIT: Duration = Duration::from_millis(50);
    let mut last_problem = "the model host does not listen".to_owned();
    let attempts = async {
        let mut wait = FIRST_WAIT;
        loop {
            match Connection::open(&socket, Arc::clone(&link)).await {
                Ok(mut connection) => match connection.ping().await {
                    Ok(Ok(())) => {
                        connection.proven = true;
                        return Ok(connection);
                    }
                    Ok(Err(reason)) => return Err(reason),
                    Err(error) => last_problem = format!("the model host closed the connection ({error:?})"),
                },
                Err(error) => last_problem = format!("connecting to the model host failed ({error})"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    };
    match tokio::time::timeout(limit, attempts).await {
        Ok(result) => result,
        Err(_) => Err(format!(
            "A model worker was not ready within {} seconds: {last_problem}.",
            limit.as_secs_f64()
        )),
    }
}
