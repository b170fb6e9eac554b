//! Bringing one model into a replica: fetched, room made by what it takes, loaded.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::cache::{Loaded, Model, ModelCache};
use super::host::{Hosted, LoadProblem};
use super::{FetchError, ModelContent, room};
use crate::refused::Refused;

/// How long a model that fits waits for others that are being loaded, too, and may leave it no room.
const ROOM_WAIT: Duration = Duration::from_secs(20);

impl ModelCache {
    /// Fetches and loads a model.
    pub(super) async fn load(&self, model: &Arc<Model>) -> Result<Loaded, Refused> {
        let (fetched, began) = {
            // The semaphore is never closed. Given back before loading, which may take long and has lines of its own.
            let _permit = self.fetches.acquire().await;
            let began = Instant::now();
            (self.launcher.fetch_model(&self.spec, &model.name).await, began)
        };
        let fetched = fetched.map_err(|error| match error {
            FetchError::Missing(text) => Refused::NoSuchModel(text),
            FetchError::Unusable(text) => Refused::NotLoaded { status: 500, reason: text },
        })?;
        self.counts().downloads.record(began.elapsed());
        let began = Instant::now();
        // Set once: this is the one task that loads it.
        let _ = model.version.set(fetched.version);
        let loaded = match fetched.content {
            ModelContent::Native(native) => {
                self.make_room(model, native.memory_bytes()).await?;
                Loaded::Native(native)
            }
            ModelContent::Folder { name, inside, folder } => {
                let hosted = Hosted::new(name, inside, folder);
                match self.load_hosted(model, &hosted).await {
                    Ok(()) => Loaded::Hosted(Arc::new(hosted)),
                    Err(refused) => {
                        hosted.remove_folder().await;
                        return Err(refused);
                    }
                }
            }
        };
        self.counts().loads.record(began.elapsed());
        Ok(loaded)
    }

    async fn load_hosted(&self, model: &Arc<Model>, hosted: &Hosted) -> Result<(), Refused> {
        // What it takes in memory is not known before it is loaded; what it takes on the disk says something of it.
        self.make_room(model, hosted.folder_bytes().await.min(self.plan.memory_bytes)).await?;
        loop {
            match self.host.load(hosted, self.load_limit).await {
                Ok(None) => return Ok(()),
                Ok(Some(bytes)) => {
                    let fits = self.make_room(model, bytes).await;
                    if fits.is_err() {
                        self.host.unload(hosted, self.load_limit).await;
                    }
                    return fits;
                }
                Err(LoadProblem::Full(text)) => {
                    if !self.evict_oldest(model).await {
                        return Err(Refused::NotLoaded { status: 507, reason: text });
                    }
                }
                Err(LoadProblem::Failed(reason)) => return Err(Refused::NotLoaded { status: 500, reason }),
            }
        }
    }

    /// Unloads other models until this one, which takes so many bytes, has a place, and notes what it takes.
    async fn make_room(&self, model: &Arc<Model>, bytes: u64) -> Result<(), Refused> {
        let limit = self.plan.memory_bytes;
        let mut others_are_loading = bytes <= limit;
        loop {
            let all = {
                let _room = self.room.lock().await;
                let all = self.all();
                let is_other = |other: &&Arc<Model>| !Arc::ptr_eq(other, model);
                // One that is being loaded cannot be unloaded yet.
                let (loaded, loading): (Vec<_>, Vec<_>) =
                    all.values().filter(is_other).partition(|other| other.outcome.get().is_some());
                let reserved: u64 = loading.iter().map(|other| other.bytes.load(Relaxed)).sum();
                let sizes: Vec<_> = loaded
                    .iter()
                    .map(|other| room::Loaded {
                        bytes: other.bytes.load(Relaxed),
                        used_at: other.used_at(),
                        is_busy: other.is_busy(),
                    })
                    .collect();
                if let Some(leaving) = room::leaving(&sizes, bytes.saturating_add(reserved), limit) {
                    for at in leaving {
                        self.evict(loaded[at]).await;
                    }
                    model.bytes.store(bytes, Relaxed);
                    return Ok(());
                }
                all
            };
            let loading =
                all.values().filter(|other| !Arc::ptr_eq(other, model)).find(|other| other.reserves());
            let Some(loading) = loading.filter(|_| others_are_loading) else {
                let reason = format!(
                    "The model {} takes {bytes} bytes of memory, and the models of an instance have {limit}; choose a \
                     larger instance type, or raise endpoints.multi_model_memory_mb in the settings.",
                    model.name
                );
                return Err(Refused::NotLoaded { status: 507, reason });
            };
            others_are_loading = tokio::time::timeout(ROOM_WAIT, loading.loaded_or_failed()).await.is_ok();
        }
    }

    /// Unloads the model that nobody has asked for for the longest time; `false` when there is none but those that answer now.
    async fn evict_oldest(&self, model: &Arc<Model>) -> bool {
        let _room = self.room.lock().await;
        let all = self.all();
        let idle = all.values().filter(|other| {
            !Arc::ptr_eq(other, model) && !other.is_busy() && matches!(other.outcome.get(), Some(Ok(_)))
        });
        match idle.min_by_key(|other| other.used_at()) {
            Some(oldest) => {
                self.evict(oldest).await;
                true
            }
            None => false,
        }
    }
}
