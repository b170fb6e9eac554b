//! Claims executions from the queue and walks each in a task of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use store::resources::ResourceKey;
use store::work::Work;
use tokio::sync::Notify;

use super::walk;
use crate::app::App;
use crate::sagemaker::kinds::PIPELINE_EXECUTION;

/// Pause before the database is asked again after it failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Drives the executions of pipelines.
pub struct PipelineDriver {
    app: Weak<App>,
    owner: String,
    queued: Arc<Notify>,
    walks: Arc<Mutex<HashMap<ResourceKey, Arc<Notify>>>>,
}

impl PipelineDriver {
    /// A driver of the executions of `app`.
    pub fn new(app: Weak<App>) -> PipelineDriver {
        PipelineDriver {
            app,
            owner: uuid::Uuid::new_v4().to_string(),
            queued: Arc::default(),
            walks: Arc::default(),
        }
    }

    /// Starts claiming; executions that an earlier server left come first.
    pub fn start(&self) {
        let (app, owner, queued) = (self.app.clone(), self.owner.clone(), self.queued.clone());
        tokio::spawn(async move {
            while let Some(app) = app.upgrade() {
                let claimant = owner.clone();
                let claimed = app
                    .database
                    .write(move |session| session.claim_work(PIPELINE_EXECUTION, &claimant))
                    .await;
                match claimed {
                    Ok(Some(work)) => app.pipelines.spawn(&app, work),
                    Ok(None) => {
                        drop(app);
                        queued.notified().await;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the queue could not be read; pipeline executions wait");
                        drop(app);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
    }

    /// Call after an execution was queued.
    pub fn wake(&self) {
        self.queued.notify_one();
    }

    /// Call after something of an execution was changed in the database: a stop, another parallelism.
    pub fn poke(&self, execution: &ResourceKey) {
        if let Some(walk) = self.walks().get(execution) {
            walk.notify_one();
        }
    }

    fn spawn(&self, app: &Arc<App>, work: Work) {
        let poke = Arc::new(Notify::new());
        self.walks().insert(work.key.clone(), poke.clone());
        let (app, owner, walks) = (Arc::downgrade(app), self.owner.clone(), self.walks.clone());
        tokio::spawn(async move {
            while let Some(app) = app.upgrade() {
                match walk::walk(app, &work, &owner, &poke).await {
                    Ok(()) | Err(store::Error::LeaseLost { .. }) => break,
                    Err(error) => {
                        let execution = &work.key.name;
                        tracing::error!(%error, execution, "a pipeline execution was interrupted; it goes on soon");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            let mut walks = walks.lock().unwrap_or_else(PoisonError::into_inner);
            // A retry may have put another walk in this place.
            if walks.get(&work.key).is_some_and(|present| Arc::ptr_eq(present, &poke)) {
                walks.remove(&work.key);
            }
        });
    }

    fn walks(&self) -> MutexGuard<'_, HashMap<ResourceKey, Arc<Notify>>> {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        self.walks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
