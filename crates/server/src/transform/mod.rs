//! Transform jobs at work: claimed from the queue, their model served by a fleet of its own, their objects sent through it.

mod attempt;
mod batches;
mod capture;
mod data;
mod execution_parameters;
mod failure;
mod fleet;
mod ledger;
mod listing;
mod object;
mod path;
pub mod plan;
mod progress;
pub mod record;
mod split;
mod spool;
mod stamp;
mod usage;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use runner::executor::Executor;
use serving::{DataPlane, DataPlaneSettings};
use store::resources::ResourceKey;
use store::work::Work;
use tokio::sync::Notify;

use crate::app::App;
use crate::config::Config;
use crate::endpoints::EngineReport;
use crate::endpoints::launcher::ReplicaLauncher;
use crate::sagemaker::kinds::TRANSFORM_JOB;
use crate::training::record::TrainingRecord;

pub use data::Format;

/// How long a request waits for a worker; longer than a replica takes to start anew.
const QUEUE_WAIT: std::time::Duration = std::time::Duration::from_secs(15 * 60);

/// Claims queued transform jobs and runs each in a task of its own.
pub struct TransformDriver {
    app: Weak<App>,
    owner: String,
    queued: Arc<Notify>,
    stops: Arc<Mutex<HashMap<ResourceKey, Arc<Notify>>>>,
    plane: Arc<DataPlane>,
    launcher: Arc<ReplicaLauncher>,
}

impl TransformDriver {
    /// A driver of the jobs of `app`, whose replicas listen under `socket_directory`.
    pub fn new(app: Weak<App>, socket_directory: PathBuf, executor: Arc<dyn Executor>) -> TransformDriver {
        let launcher = Arc::new(ReplicaLauncher::new(app.clone(), executor, REPLICA_PREFIX));
        let settings = DataPlaneSettings {
            replica_prefix: REPLICA_PREFIX,
            header_prefix: crate::endpoints::HEADER_PREFIX,
            queue_wait: QUEUE_WAIT,
            max_request_bytes: plan::UNLIMITED_BYTES as u64,
            max_response_bytes: plan::UNLIMITED_BYTES as u64,
            ..DataPlaneSettings::default()
        };
        TransformDriver {
            app,
            owner: uuid::Uuid::new_v4().to_string(),
            queued: Arc::default(),
            stops: Arc::default(),
            plane: Arc::new(DataPlane::new(launcher.clone(), socket_directory, settings)),
            launcher,
        }
    }

    /// Which engines the replicas got, and why; each once.
    async fn engines(&self, replicas: &[String]) -> Vec<EngineReport> {
        let mut engines: Vec<EngineReport> = Vec::new();
        for replica in replicas {
            let report = self.launcher.engine(replica).await;
            engines.extend(report.filter(|report| !engines.contains(report)));
        }
        engines
    }

    /// Keeps the place of the jobs that an earlier server started, and removes what it left of those that have ended; call it before
    /// [`TransformDriver::start`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resume(&self, app: &App) -> store::Result<()> {
        let under_way = &["InProgress", "Stopping"];
        let jobs = app.database.read(move |session| session.resources_in(TRANSFORM_JOB, under_way)).await?;
        let (mut fleets, mut folders) = (Vec::new(), HashSet::new());
        for job in jobs {
            fleets.push(fleet::name(&job.key));
            let record = TrainingRecord::read(&job.document)?;
            if !record.grant.is_empty() {
                app.capacity.expect(job.key);
            }
            folders.extend(record.transform.map(|state| state.folder));
        }
        let left = std::fs::read_dir(folders_directory(&app.config)).into_iter().flatten().flatten();
        let left: Vec<PathBuf> = left
            .filter(|entry| !entry.file_name().to_str().is_some_and(|name| folders.contains(name)))
            .map(|entry| entry.path())
            .collect();
        let plane = self.plane.clone();
        tokio::spawn(async move {
            plane.stop_strays(&fleets).await;
            for folder in left {
                crate::workloads::remove_directory(&folder).await;
            }
        });
        Ok(())
    }

    /// Starts claiming; work that an earlier server held comes first.
    pub fn start(&self) {
        let (app, owner, queued) = (self.app.clone(), self.owner.clone(), self.queued.clone());
        tokio::spawn(async move {
            while let Some(app) = app.upgrade() {
                let claimant = owner.clone();
                match app.database.write(move |session| session.claim_work(TRANSFORM_JOB, &claimant)).await {
                    Ok(Some(work)) => app.transform.spawn(app.clone(), work),
                    Ok(None) => {
                        drop(app);
                        queued.notified().await;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the queue could not be read; transform jobs wait");
                        drop(app);
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                }
            }
        });
    }

    /// Call after a job was queued.
    pub fn wake(&self) {
        self.queued.notify_one();
    }

    /// Call after a stop was asked for in the database.
    pub fn stop(&self, key: &ResourceKey) {
        if let Some(stop) = self.lock_stops().get(key) {
            stop.notify_one();
        }
    }

    fn spawn(&self, app: Arc<App>, work: Work) {
        let stop = Arc::new(Notify::new());
        self.lock_stops().insert(work.key.clone(), stop.clone());
        let (stops, owner) = (self.stops.clone(), self.owner.clone());
        tokio::spawn(async move {
            let key = work.key.clone();
            attempt::run(&app, work, &owner, &stop).await;
            stops.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        });
    }

    fn lock_stops(&self) -> std::sync::MutexGuard<'_, HashMap<ResourceKey, Arc<Notify>>> {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the ids of replicas begin with, to tell them from those of endpoints.
const REPLICA_PREFIX: &str = "tr";

/// Where the lists and growing outputs of jobs lie.
fn folders_directory(config: &Config) -> PathBuf {
    config.data_dir.join("transforms")
}
