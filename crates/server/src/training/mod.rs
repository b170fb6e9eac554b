//! Training and processing jobs at work: claimed from the queue, driven from `Starting` to an end, taken up again after a restart.

mod addresses;
pub mod admission;
mod ahead;
mod attempt;
mod attempts;
mod channels;
mod container;
mod curves;
mod deadlines;
mod end;
pub mod explain;
mod failure;
mod function_job;
mod hang;
mod hosts;
mod infra_check;
pub mod input_changes;
pub mod kind;
mod launch;
mod leftovers;
mod limits;
mod metrics;
mod outputs;
mod prepare;
mod processing;
mod put;
pub mod record;
mod restart;
mod room;
pub mod run_facts;
mod services;
mod spot;
mod sync;
mod usage;
mod verdict;
pub mod warm_pool;
mod warm_start;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};

use input_changes::InputChanges;
use record::TrainingRecord;
use store::resources::ResourceKey;
use store::work::Work;
use tokio::sync::Notify;

use crate::app::App;
use crate::sagemaker::kinds::TRAINING_JOB;
use kind::KINDS;

pub use addresses::{Addresses, MOST_HOSTS};
pub use channels::{Listed, list_objects, plain_path, split_uri as bucket_and_key};
pub use spot::routes;

/// Claims queued jobs and runs each in a task of its own.
pub struct TrainingDriver {
    app: Weak<App>,
    owner: String,
    /// One for each of the kinds.
    queued: Arc<[Notify; KINDS.len()]>,
    stops: Arc<Mutex<HashMap<ResourceKey, Arc<Notify>>>>,
    addresses: Arc<Addresses>,
    input_changes: Arc<InputChanges>,
    warm_pools: warm_pool::WarmPools,
    warm_starts: warm_start::WarmStarts,
}

impl TrainingDriver {
    /// A driver of the jobs of `app`.
    pub fn new(app: Weak<App>) -> TrainingDriver {
        TrainingDriver {
            app,
            owner: uuid::Uuid::new_v4().to_string(),
            queued: Arc::default(),
            stops: Arc::default(),
            addresses: Arc::default(),
            input_changes: Arc::default(),
            warm_pools: warm_pool::WarmPools::default(),
            warm_starts: warm_start::WarmStarts::default(),
        }
    }

    /// Addresses of the jobs that run.
    pub fn addresses(&self) -> &Arc<Addresses> {
        &self.addresses
    }

    /// Is to be told of changes in S3.
    pub fn input_changes(&self) -> &Arc<InputChanges> {
        &self.input_changes
    }

    /// What jobs that have ended keep.
    pub fn warm_pools(&self) -> &warm_pool::WarmPools {
        &self.warm_pools
    }

    /// Sandboxes that wait for jobs.
    fn warm_starts(&self) -> &warm_start::WarmStarts {
        &self.warm_starts
    }

    /// Keeps the addresses and the place of the jobs that an earlier server started, and removes what it left of others; call it
    /// before [`TrainingDriver::start`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resume(&self, app: &Arc<App>) -> store::Result<()> {
        let mut jobs = Vec::new();
        for kind in KINDS {
            let under_way = &["InProgress", "Stopping"];
            jobs.extend(app.database.read(move |session| session.resources_in(kind, under_way)).await?);
        }
        let mut kept = HashSet::new();
        for job in jobs {
            let record = TrainingRecord::read(&job.document)?;
            if record.may_run() {
                app.capacity.expect(job.key.clone());
            }
            kept.extend(record.queries.into_iter().map(|query| query.workload));
            kept.extend(record.hosts.into_iter().map(|host| host.workload));
            if let Some(range) = record.addresses {
                self.addresses.reserve(job.key, range);
            }
        }
        let left = leftovers::find(app, &kept);
        tokio::spawn(leftovers::remove(app.clone(), left));
        Ok(())
    }

    /// Starts claiming; work that an earlier server held comes first.
    pub fn start(&self) {
        for (at, kind) in KINDS.into_iter().enumerate() {
            let (app, owner, queued) = (self.app.clone(), self.owner.clone(), self.queued.clone());
            tokio::spawn(async move {
                if let Some(app) = app.upgrade().filter(|_| kind == TRAINING_JOB) {
                    curves::resume(&app).await;
                }
                while let Some(app) = app.upgrade() {
                    let claimant = owner.clone();
                    match app.database.write(move |session| session.claim_work(kind, &claimant)).await {
                        Ok(Some(work)) => app.training.spawn(app.clone(), work),
                        Ok(None) => {
                            drop(app);
                            queued[at].notified().await;
                        }
                        Err(error) => {
                            tracing::error!(%error, kind, "the queue could not be read; jobs wait");
                            drop(app);
                            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                        }
                    }
                }
            });
        }
    }

    /// Call after a job was queued.
    pub fn wake(&self) {
        self.queued.iter().for_each(Notify::notify_one);
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
            let driving = attempt::run(&app, work, &owner, &stop);
            let (curves, ()) = tokio::join!(curves::follow(&app, &key), driving);
            curves.finish().await;
            stops.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&key);
        });
    }

    fn lock_stops(&self) -> std::sync::MutexGuard<'_, HashMap<ResourceKey, Arc<Notify>>> {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        self.stops.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
