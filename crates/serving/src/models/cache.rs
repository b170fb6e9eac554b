//! The models of one replica: found without a lock, loaded once however many ask, and forgotten in the order of their use.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::counts::{LoadedModel, ModelCounters};
use super::host::{Host, Hosted, HostedAnswer};
use crate::composition::ModelsPlan;
use crate::connection::{AnswerBody, ChunkFuture, ExchangeError};
use crate::engine::NativeModel;
use crate::frame::ResponseHeader;
use crate::invocation::InvokeRequest;
use crate::launcher::{Launcher, ReplicaSpec};
use crate::metrics::Counters;
use crate::refused::Refused;
use crate::settings::DataPlaneSettings;

/// Models that are fetched and unpacked at the same time.
const FETCHES_AT_ONCE: usize = 4;
/// How long a loaded model is used without a look whether its archive was replaced.
const CHECKED_FOR: Duration = Duration::from_secs(1);
/// How often a request meets a model that has just gone before it gives up.
const MOST_TURNS: usize = 4;

/// The models of one replica.
pub(crate) struct ModelCache {
    pub(super) spec: ReplicaSpec,
    pub(super) launcher: Arc<dyn Launcher>,
    pub(super) plan: ModelsPlan,
    pub(super) host: Host,
    pub(super) load_limit: Duration,
    counters: Arc<Counters>,
    /// Replaced whole when a model comes or goes.
    models: ArcSwap<HashMap<Arc<str>, Arc<Model>>>,
    change: Mutex<()>,
    /// Held while room is made, so that two loads do not count the same bytes.
    pub(super) room: tokio::sync::Mutex<()>,
    pub(super) fetches: Semaphore,
    started_at: Instant,
    /// Requests that wait for a model to be loaded.
    waiting: AtomicUsize,
    waiting_limit: usize,
    waiting_time: Duration,
}

impl std::fmt::Debug for ModelCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ModelCache({}, {} models)", self.spec.id, self.models.load().len())
    }
}

/// A model that is loaded, or being loaded.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: Arc<str>,
    /// What its archive was when it was fetched.
    pub(super) version: OnceLock<String>,
    pub(super) outcome: OnceLock<Result<Loaded, Refused>>,
    done: watch::Sender<bool>,
    pub(super) bytes: AtomicU64,
    /// Microseconds since the cache began.
    used_at: AtomicU64,
    checked_at: AtomicU64,
    hits: AtomicU64,
    users: AtomicUsize,
    is_gone: AtomicBool,
}

/// What answers for a model.
#[derive(Clone, Debug)]
pub(super) enum Loaded {
    /// This process.
    Native(Arc<NativeModel>),
    /// A process of the replica.
    Hosted(Arc<Hosted>),
}

/// A request that has a model; while one does, the model goes last.
#[derive(Debug)]
pub(crate) struct Use {
    model: Arc<Model>,
    /// Set where models do not stay loaded.
    forgetful: Option<Arc<ModelCache>>,
}

impl Drop for Use {
    fn drop(&mut self) {
        let is_last = self.model.users.fetch_sub(1, Ordering::AcqRel) == 1;
        if let Some(cache) = self.forgetful.take().filter(|_| is_last && self.model.outcome.get().is_some()) {
            cache.forget(&self.model);
        }
    }
}

/// The rest of a streamed answer.
#[derive(Debug)]
pub(crate) struct ModelRest {
    answer: HostedAnswer,
    _used: Use,
}

impl ModelRest {
    /// Reads the next piece.
    pub(crate) fn next_chunk(&mut self, max_chunk_bytes: u64) -> ChunkFuture<'_> {
        Box::pin(self.answer.next_chunk(max_chunk_bytes))
    }
}

/// Head, body, and what is to be read of it later.
pub(crate) type ModelAnswered = (ResponseHeader, AnswerBody, Option<Box<ModelRest>>);

impl ModelCache {
    /// A replica's models, of which none is loaded yet.
    pub(crate) fn new(
        (spec, launcher): (ReplicaSpec, Arc<dyn Launcher>),
        plan: ModelsPlan,
        host: Host,
        counters: Arc<Counters>,
        load_limit: Duration,
        settings: &DataPlaneSettings,
    ) -> Arc<ModelCache> {
        let cache = Arc::new(ModelCache {
            spec,
            launcher,
            plan,
            host,
            load_limit,
            counters,
            models: ArcSwap::default(),
            change: Mutex::default(),
            room: tokio::sync::Mutex::default(),
            fetches: Semaphore::new(FETCHES_AT_ONCE),
            started_at: Instant::now(),
            waiting: AtomicUsize::new(0),
            waiting_limit: settings.queue_limit,
            waiting_time: settings.queue_wait,
        });
        cache.counters.models.follow(&cache);
        cache
    }

    pub(super) fn counts(&self) -> &ModelCounters {
        &self.counters.models
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that are loaded or being loaded.
    pub(super) fn all(&self) -> Arc<HashMap<Arc<str>, Arc<Model>>> {
        self.models.load_full()
    }

    /// Answers a request with the model that it names.
    pub(crate) async fn invoke(
        self: &Arc<Self>,
        request: &InvokeRequest,
        max_body_bytes: u64,
        limit: Duration,
    ) -> Result<ModelAnswered, ExchangeError> {
        let name = request.target_model.as_deref().unwrap_or_default();
        for _ in 0..MOST_TURNS {
            let (used, loaded) = self.ready(name).await.map_err(ExchangeError::Refused)?;
            if !self.is_current(&used.model).await {
                self.forget(&used.model);
                continue;
            }
            let late = || ExchangeError::Refused(Refused::TimedOut);
            match loaded {
                Loaded::Native(model) => {
                    let answered = tokio::time::timeout(limit, model.answer(request)).await;
                    let (header, body) = answered.map_err(|_| late())?;
                    if body.len() as u64 > max_body_bytes {
                        return Err(ExchangeError::TooLarge(body.len() as u64));
                    }
                    return Ok((header, AnswerBody::Whole(body), None));
                }
                Loaded::Hosted(hosted) => {
                    match self.host.invoke(&hosted, request, max_body_bytes, limit).await? {
                        Some((header, body, answer)) => {
                            let rest = answer.map(|answer| Box::new(ModelRest { answer, _used: used }));
                            return Ok((header, body, rest));
                        }
                        // Its process ended meanwhile, or has forgotten it.
                        None => self.forget(&used.model),
                    }
                }
            }
        }
        let reason = format!("The model {name} was unloaded again and again before it could answer.");
        Err(ExchangeError::Refused(Refused::NotLoaded { status: 503, reason }))
    }

    /// The model of this name, loaded if need be.
    async fn ready(self: &Arc<Self>, name: &str) -> Result<(Use, Loaded), Refused> {
        let used = self.find_or_begin(name);
        let model = Arc::clone(&used.model);
        if let Some(outcome) = model.outcome.get() {
            self.counts().hits.fetch_add(1, Relaxed);
            model.hits.fetch_add(1, Relaxed);
            return outcome.clone().map(|loaded| (used, loaded));
        }
        self.counts().misses.fetch_add(1, Relaxed);
        let began = Instant::now();
        // So many may wait that those whose models are loaded still find a place.
        let waiting = Waiting::begin(&self.waiting);
        if waiting.count > self.waiting_limit {
            return Err(Refused::Overloaded);
        }
        let mut done = model.done.subscribe();
        let waited = tokio::time::timeout(self.waiting_time, done.wait_for(|done| *done)).await;
        drop(waiting);
        self.counts().loading_waits.record(began.elapsed());
        match (waited, model.outcome.get()) {
            (_, Some(outcome)) => outcome.clone().map(|loaded| (used, loaded)),
            (_, None) => Err(Refused::NotReady),
        }
    }

    fn find_or_begin(self: &Arc<Self>, name: &str) -> Use {
        if let Some(model) = self.models.load().get(name) {
            return self.used(model);
        }
        let changing = self.changing();
        if let Some(model) = self.models.load().get(name) {
            return self.used(model);
        }
        let name: Arc<str> = Arc::from(name);
        let model = Arc::new(Model {
            name: Arc::clone(&name),
            version: OnceLock::new(),
            outcome: OnceLock::new(),
            done: watch::Sender::new(false),
            bytes: AtomicU64::new(0),
            used_at: AtomicU64::new(0),
            checked_at: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            users: AtomicUsize::new(0),
            is_gone: AtomicBool::new(false),
        });
        let used = self.used(&model);
        let mut models = HashMap::clone(&self.models.load());
        models.insert(name, Arc::clone(&model));
        self.models.store(Arc::new(models));
        drop(changing);
        // In a task of its own: whoever asked first may go away, and the others go on waiting.
        let cache = Arc::clone(self);
        tokio::spawn(async move { cache.load_to_the_end(model).await });
        used
    }

    fn used(self: &Arc<Self>, model: &Arc<Model>) -> Use {
        model.users.fetch_add(1, Ordering::AcqRel);
        model.used_at.store(self.now(), Relaxed);
        Use { model: Arc::clone(model), forgetful: (!self.plan.keeps).then(|| Arc::clone(self)) }
    }

    async fn load_to_the_end(self: Arc<Self>, model: Arc<Model>) {
        let loading = {
            let (cache, model) = (Arc::clone(&self), Arc::clone(&model));
            tokio::spawn(async move { cache.load(&model).await })
        };
        let outcome = loading.await.unwrap_or_else(|error| {
            tracing::error!(%error, model = %model.name, "loading a model broke off");
            let reason = format!("The model {} could not be loaded; the server's log says why.", model.name);
            Err(Refused::NotLoaded { status: 500, reason })
        });
        if let Err(refused) = &outcome {
            tracing::debug!(model = %model.name, ?refused, "a model was not loaded");
            // The next request tries again.
            self.take_out(&model);
            model.bytes.store(0, Relaxed);
        }
        model.checked_at.store(self.now(), Relaxed);
        if model.outcome.set(outcome).is_err() {
            tracing::error!(model = %model.name, "a model was loaded twice");
        }
        model.done.send_replace(true);
    }

    /// Whether the archive of a loaded model is still the one that was loaded; looked at now and then, by one request each time.
    async fn is_current(&self, model: &Model) -> bool {
        let (now, checked_at) = (self.now(), model.checked_at.load(Relaxed));
        if u128::from(now.saturating_sub(checked_at)) < CHECKED_FOR.as_micros() {
            return true;
        }
        if model.checked_at.compare_exchange(checked_at, now, Relaxed, Relaxed).is_err() {
            return true;
        }
        match self.launcher.model_version(&self.spec, &model.name).await {
            Ok(version) => model.version.get() == Some(&version),
            // As in the service, a model whose archive was deleted serves until it goes.
            Err(_) => true,
        }
    }

    /// Takes a model out of the table; `false` when it was not there any more.
    fn take_out(&self, model: &Arc<Model>) -> bool {
        let _changing = self.changing();
        let table = self.models.load();
        if !table.get(&model.name).is_some_and(|known| Arc::ptr_eq(known, model)) {
            return false;
        }
        let mut models = HashMap::clone(&table);
        models.remove(&model.name);
        self.models.store(Arc::new(models));
        true
    }

    /// Unloads a model in the background.
    pub(super) fn forget(self: &Arc<Self>, model: &Arc<Model>) {
        let (cache, model) = (Arc::clone(self), Arc::clone(model));
        // Without a runtime the process ends, and its models with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && cache.take_out(&model)
        {
            runtime.spawn(async move { cache.unload(&model).await });
        }
    }

    /// Unloads a model and returns when its memory is given back, as far as no request has it.
    pub(super) async fn evict(&self, model: &Arc<Model>) {
        if self.take_out(model) {
            self.unload(model).await;
        }
    }

    async fn unload(&self, model: &Arc<Model>) {
        if model.is_gone.swap(true, Ordering::AcqRel) {
            return;
        }
        let began = Instant::now();
        if let Some(Ok(Loaded::Hosted(hosted))) = model.outcome.get() {
            self.host.unload(hosted, self.load_limit).await;
        }
        self.counts().unloads.record(began.elapsed());
        tracing::debug!(replica = self.spec.id, model = %model.name, "a model was unloaded");
    }

    /// How many models are loaded, and what they take.
    pub(super) fn loaded(&self) -> (u64, u64) {
        let ready = |model: &&Arc<Model>| matches!(model.outcome.get(), Some(Ok(_)));
        let models = self.all();
        let bytes = models.values().filter(ready).map(|model| model.bytes.load(Relaxed)).sum();
        (models.values().filter(ready).count() as u64, bytes)
    }

    /// What is told of the models.
    pub(super) fn models(&self, variant: &str) -> Vec<LoadedModel> {
        let now = self.now();
        let told = |model: &Arc<Model>| LoadedModel {
            variant: variant.to_owned(),
            replica: self.spec.id.clone(),
            model: model.name.to_string(),
            engine: match model.outcome.get() {
                Some(Ok(Loaded::Native(_))) => "native",
                Some(Ok(Loaded::Hosted(_))) => self.host.engine(),
                _ => "",
            },
            is_ready: matches!(model.outcome.get(), Some(Ok(_))),
            bytes: model.bytes.load(Relaxed),
            hits: model.hits.load(Relaxed),
            idle_for: Duration::from_micros(now.saturating_sub(model.used_at.load(Relaxed))),
        };
        self.all().values().map(told).collect()
    }
}

impl Model {
    pub(super) fn used_at(&self) -> u64 {
        self.used_at.load(Relaxed)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.users.load(Relaxed) > 0
    }

    /// Whether it has a place already, and is not loaded yet.
    pub(super) fn reserves(&self) -> bool {
        self.outcome.get().is_none() && self.bytes.load(Relaxed) > 0
    }

    pub(super) async fn loaded_or_failed(&self) {
        // The sender is the model's own.
        let _ = self.done.subscribe().wait_for(|done| *done).await;
    }
}

/// One of those that wait for a model.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    /// How many they are with it.
    count: usize,
}

impl Waiting<'_> {
    fn begin(all: &AtomicUsize) -> Waiting<'_> {
        Waiting { all, count: all.fetch_add(1, Relaxed) + 1 }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
    }
}
