//! The instances of functions: who runs, who waits for work, and who waited long enough.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use store::resources::{Resource, ResourceKey};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::host::{Host, LONGEST_LIFE, Lost, is_running};
use super::once::Once;
use super::record::Settings;
use crate::app::App;
use crate::config::Config;
use crate::workloads;

/// What the ids of instances begin with, to tell them from jobs.
pub const PREFIX: &str = "fn-";
/// Invocations of one function that run at once; more wait.
const MOST_OF_ONE: usize = 10;
/// Invocations of all functions that run at once; more wait.
const MOST_OF_ALL: usize = 32;
/// Instances without work that are kept for all functions together.
const MOST_IDLE: usize = 16;
/// How long an instance waits for work.
const IDLE_TIME: Duration = Duration::from_secs(5 * 60);
/// How often it is looked for those that waited long enough.
const LOOK_PAUSE: Duration = Duration::from_secs(30);

/// The instances of all functions.
pub struct Functions {
    /// Invocations that happen once.
    pub once: Once,
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    places: HashMap<ResourceKey, Arc<Semaphore>>,
    idle: Vec<Idle>,
}

/// An instance without work.
struct Idle {
    key: ResourceKey,
    revision: String,
    since: Instant,
    host: Host,
}

/// An instance at work; what holds its places goes with it.
pub struct Working {
    /// The instance.
    pub host: Host,
    key: ResourceKey,
    revision: String,
    _places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Default for Functions {
    fn default() -> Functions {
        Functions {
            once: Once::default(),
            places: Arc::new(Semaphore::new(MOST_OF_ALL)),
            state: Mutex::default(),
        }
    }
}

impl Functions {
    /// An instance of a function in this revision: one that waits for work, or a new one. Waits while too many are at work.
    pub async fn take(
        &self,
        app: &Arc<App>,
        function: &Resource,
        revision: &str,
        settings: &Settings,
    ) -> Result<Working, Lost> {
        let own = {
            let mut state = self.lock();
            let places = state.places.entry(function.key.clone());
            places.or_insert_with(|| Arc::new(Semaphore::new(MOST_OF_ONE))).clone()
        };
        let closed = |_| Lost::Broken("the server is stopping".into());
        let own = own.acquire_owned().await.map_err(closed)?;
        let place = self.places.clone().acquire_owned().await.map_err(closed)?;
        let host = match self.waiting(&function.key, revision) {
            Some(host) => host,
            None => Host::start(app, function, settings).await?,
        };
        Ok(Working { host, key: function.key.clone(), revision: revision.to_owned(), _places: (own, place) })
    }

    fn waiting(&self, key: &ResourceKey, revision: &str) -> Option<Host> {
        let mut state = self.lock();
        // The one that was used last is the warmest.
        while let Some(at) = state.idle.iter().rposition(|idle| idle.key == *key && idle.revision == revision)
        {
            let idle = state.idle.remove(at);
            if idle.host.started.elapsed() < LONGEST_LIFE && idle.host.is_alive() {
                return Some(idle.host);
            }
        }
        None
    }

    /// Lets an instance wait for more work.
    pub fn give_back(&self, working: Working) {
        let Working { host, key, revision, _places } = working;
        let mut state = self.lock();
        state.idle.push(Idle { key, revision, since: Instant::now(), host });
        if state.idle.len() > MOST_IDLE {
            state.idle.remove(0);
        }
    }

    /// Ends the instances of a function that was changed or deleted, as far as they have no work; the others are of an old revision
    /// and get no more.
    pub fn retire(&self, key: &ResourceKey) {
        self.lock().idle.retain(|idle| idle.key != *key);
    }

    fn end_idle(&self) {
        self.lock().idle.retain(|idle| idle.since.elapsed() < IDLE_TIME && idle.host.is_alive());
    }

    /// How many instances wait for work.
    pub fn idle_count(&self) -> usize {
        self.lock().idle.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A poisoned lock only says that another thread panicked; the lists are whole between any two calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the files of instances live.
pub fn folder(config: &Config) -> PathBuf {
    config.data_dir.join("functions")
}

/// Ends instances that nobody called for a while, for as long as the process state lives.
pub fn end_idle(app: &Arc<App>) {
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(LOOK_PAUSE);
        loop {
            looks.tick().await;
            let Some(app) = app.upgrade() else { return };
            app.functions.end_idle();
        }
    });
}

/// Ends what an earlier server's instances left: without its server, none is of use but those that are `busy` with what happens
/// once.
///
/// # Errors
/// When their folder cannot be removed.
pub fn end_leftovers(app: &Arc<App>, busy: &[String]) -> std::io::Result<()> {
    let ids = app.executor.list().unwrap_or_default().into_iter();
    for id in ids.filter(|id| id.starts_with(PREFIX) && !busy.contains(id)) {
        let app = app.clone();
        tokio::spawn(async move {
            let directory = folder(&app.config).join(&id);
            remove(&app, &id, &directory).await;
        });
    }
    for entry in std::fs::read_dir(folder(&app.config)).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Ends a process and removes what it leaves.
pub async fn remove(app: &App, id: &str, directory: &Path) {
    if is_running(app, id)
        && let Err(error) = app.executor.kill(id)
    {
        tracing::warn!(id, %error, "an instance of a function could not be ended");
    }
    let removed = match app.executor.wait(id).await {
        Ok(_) => app.executor.remove(id),
        Err(runner::executor::Error::UnknownWorkload(_)) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        tracing::warn!(id, %error, "an instance of a function could not be removed");
    }
    workloads::remove_directory(directory).await;
}
