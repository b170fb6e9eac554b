//! Endpoints at work: the stored record is what is wanted, the data plane makes it so and reports back.

mod asynchronous;
pub mod capacity;
pub mod compare;
pub mod components;
pub mod composition;
mod container;
mod conversion;
pub mod converted;
pub mod demand;
mod engines;
pub mod launcher;
mod many_models;
pub mod metrics;
pub mod model_data;
mod native;
mod onnx;
mod part_metrics;
pub mod prometheus;
mod readiness;
mod record;
pub mod rollout;
pub mod scaled;
pub mod serverless;
mod sessions;
pub mod settings;
mod shadows;
mod unpacked;
mod usage;
pub mod workers;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use runner::executor::Executor;
use serde_json::Value;
use serving::{
    DataPlane, DataPlaneSettings, EndpointPhase, EndpointPlan, EndpointStatus, InvokeError, InvokeRequest,
    InvokeResponse, InvokeStream, LoadedModel, ModelAnswer, VariantMetrics, VariantPlan, VariantStatus,
};
use store::resources::ResourceKey;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use self::components::Components;
use self::rollout::Side;
use self::settings::EndpointSettings;
use crate::app::App;
use crate::async_inference::{self, AsyncQueues};
use crate::capture::DataCapture;
use crate::sagemaker::kinds::{ENDPOINT, INFERENCE_COMPONENT};
use crate::shadow::Shadows;
use crate::{Error, Result};

pub use composition::{DeployedContainer, DeployedModels};
pub use engines::routes;
pub use many_models::find_archive;
pub use native::{ENGINE_VARIABLE, EngineReport, Wish};
pub use record::{DeployedVariant, EndpointRecord, Routing, WORKERS_VARIABLE, variant_names};
pub use shadows::shadow_share;

/// How long a model may take for one answer, as in the service.
const MODEL_TIMEOUT_SECONDS: f64 = 60.0;

/// What the headers begin with that models get and give, beyond the common ones.
pub const HEADER_PREFIX: &str = "x-amzn-sagemaker-";

/// Drives the data plane from the stored endpoints.
pub struct EndpointController {
    app: Weak<App>,
    plane: Arc<DataPlane>,
    launcher: Arc<launcher::ReplicaLauncher>,
    /// Rung by invocations that wait for a replica where none is wanted.
    pub wake_bell: Arc<Notify>,
    /// What was asked of each variant lately.
    pub demand: demand::Demands,
    known: Mutex<HashMap<String, Known>>,
    /// Opened when endpoints are taken up.
    capture: OnceLock<DataCapture>,
    /// Lines of requests that are answered later.
    pub queues: AsyncQueues,
    /// What serverless variants may do here.
    serverless: serverless::Room,
    /// The sessions that models hold.
    sessions: sessions::Sessions,
    /// What the guards of deployments found.
    findings: rollout::Findings,
    /// What shadow variants answer beside production.
    pub shadows: Shadows,
    /// Which endpoints have inference components, and where those are.
    pub components: Components,
}

/// An endpoint of the data plane.
struct Known {
    key: ResourceKey,
    /// Writes the status of the last change when it has settled.
    follower: AbortHandle,
}

impl EndpointController {
    /// A controller whose replicas listen under `socket_directory`; serverless ones share `memory_bytes`.
    pub fn new(
        app: Weak<App>,
        socket_directory: PathBuf,
        executor: Arc<dyn Executor>,
        settings: &EndpointSettings,
        memory_bytes: u64,
    ) -> EndpointController {
        let serverless = serverless::Room::new(settings, memory_bytes);
        let settings = DataPlaneSettings {
            header_prefix: HEADER_PREFIX,
            queue_limit: settings.queue_limit,
            queue_wait: settings.queue_wait(),
            batch: settings.batch(),
            standby_limit: settings.serverless_standbys,
            ..DataPlaneSettings::default()
        };
        let wake_bell = settings.wake_bell.clone();
        let launcher =
            Arc::new(launcher::ReplicaLauncher::new(app.clone(), executor, settings.replica_prefix));
        let plane = DataPlane::new(launcher.clone(), socket_directory, settings);
        EndpointController {
            app,
            plane: Arc::new(plane),
            launcher,
            wake_bell,
            demand: demand::Demands::default(),
            known: Mutex::default(),
            capture: OnceLock::new(),
            queues: AsyncQueues::default(),
            serverless,
            sessions: sessions::Sessions::default(),
            findings: rollout::Findings::default(),
            shadows: Shadows::default(),
            components: Components::default(),
        }
    }

    /// Takes up the endpoints that the database knows, and stops replicas that belong to none.
    ///
    /// # Errors
    /// When the database fails, or the spools of captured data cannot be opened.
    pub async fn resume(&self) -> Result<()> {
        let Some(app) = self.app.upgrade() else { return Ok(()) };
        self.launcher.remove_leftovers().await;
        unpacked::sweep(&app.config, "", None, &self.plane.running()).await;
        let capture = DataCapture::open(&app).map_err(Error::internal)?;
        self.capture.get_or_init(|| capture);
        self.shadows.load(&app).await?;
        for resource in app.database.read(|session| session.all_resources(ENDPOINT)).await? {
            if resource.status == "Deleting" {
                self.remove(&resource.key);
            } else {
                let record = EndpointRecord::read(&resource.document)?;
                let is_back = record.has_served();
                self.send(&resource.key, &record, is_back)?;
            }
        }
        self.resume_components(&app).await?;
        let plane = self.plane.clone();
        tokio::spawn(async move { plane.stop_strays(&[]).await });
        Ok(())
    }

    /// Makes the data plane follow the record, and writes its status to the database as it settles.
    ///
    /// # Errors
    /// [`Error::Validation`] when the plan is not possible.
    pub fn apply(&self, key: &ResourceKey, record: &EndpointRecord) -> Result<()> {
        self.send(key, record, false)
    }

    fn send(&self, key: &ResourceKey, record: &EndpointRecord, is_back: bool) -> Result<()> {
        self.components.note_host(key, record);
        if let Some(deployment) = &record.deployment {
            return self.roll_out(key, record, deployment, is_back);
        }
        let plan = self.plan(key, &record.side());
        let failure =
            self.plane.watch(&plan.endpoint).and_then(|status| status.borrow().last_failure.clone());
        let sent = if is_back { self.plane.resume(plan) } else { self.plane.apply(plan) };
        let status = sent.map_err(|error| Error::Validation(error.to_string()))?;
        self.follow_invocations(key, record);
        let wanted = (record.generation, capacity::counts(record));
        let follower = tokio::spawn(follow(self.app.clone(), key.clone(), wanted, failure, status));
        self.replace_follower(key, follower.abort_handle());
        self.queues.follow(key, record, &self.app);
        Ok(())
    }

    /// Captures invocations, and copies them to the shadow, as the record says.
    fn follow_invocations(&self, key: &ResourceKey, record: &EndpointRecord) {
        let plane_key = plane_key(key);
        let captured = record.data_capture.as_ref();
        let capture = self.capture().and_then(|capture| capture.follow(key, &plane_key, captured));
        self.plane.set_capture(&plane_key, capture);
        let shadow = self.app.upgrade().and_then(|app| self.shadows.follow(key, record, &app.clock));
        self.plane.set_shadow(&plane_key, shadow);
    }

    /// Has another task tell what has become of the endpoint.
    fn replace_follower(&self, key: &ResourceKey, follower: AbortHandle) {
        let known = Known { key: key.clone(), follower };
        if let Some(before) = self.known().insert(plane_key(key), known) {
            before.follower.abort();
        }
    }

    /// The fleet of a deployment, as the data plane is to have it.
    fn plan(&self, key: &ResourceKey, side: &Side) -> EndpointPlan {
        let planned = side.planned();
        let variants = planned.iter().map(|variant| VariantPlan {
            name: variant.name.clone(),
            // Nothing of a variant for components answers by itself.
            weight: if variant.host.is_some() { 0.0 } else { variant.weight },
            replicas: if variant.host.is_some() { 0 } else { variant.replicas },
            routing: variant.routing.into(),
            workers: variant.workers(),
            composition: variant.composition(variant.usual_workers),
            startup_timeout_seconds: variant.startup_timeout_seconds as f64,
            model_timeout_seconds: match side.asynchronous {
                None => MODEL_TIMEOUT_SECONDS,
                Some(_) => asynchronous::MODEL_TIMEOUT_SECONDS,
            },
            launch: launcher::payload(key, variant),
            on_demand: variant.serverless.as_ref().map(|serverless| self.on_demand(variant, serverless)),
        });
        EndpointPlan { endpoint: plane_key(key), generation: side.generation, variants: variants.collect() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Name, account and region of an endpoint of the data plane.
    fn key_of(&self, plane_key: &str) -> Option<ResourceKey> {
        self.known().get(plane_key).map(|known| known.key.clone())
    }

    /// How an endpoint stands; `None` when the data plane does not know it.
    pub fn status(&self, key: &ResourceKey) -> Option<EndpointStatus> {
        self.plane.watch(&plane_key(key)).map(|status| status.borrow().clone())
    }

    /// Says whether a replica is brought up when an invocation of the variant meets none.
    pub fn set_wakes(&self, key: &ResourceKey, variant: &str, wakes: bool) {
        self.plane.set_wakes(&plane_key(key), variant, wakes);
        if key.kind == INFERENCE_COMPONENT {
            self.components.set_woken(key, wakes);
        }
    }

    /// Takes the endpoint out of service, and its record away once the replicas are gone.
    pub fn remove(&self, key: &ResourceKey) {
        if let Some(known) = self.known().remove(&plane_key(key)) {
            known.follower.abort();
        }
        let (plane, app, key) = (self.plane.clone(), self.app.clone(), key.clone());
        let capture = self.capture().cloned();
        self.findings.forget(&key);
        self.queues.close(&key);
        self.sessions.forget(&plane_key(&key));
        self.shadows.end(&key);
        self.components.forget_host(&key);
        tokio::spawn(async move {
            plane.remove(&plane_key(&key)).await;
            if let Some(capture) = capture {
                capture.end(&plane_key(&key));
            }
            let Some(app) = app.upgrade() else { return };
            unpacked::sweep(&app.config, &plane.replica_prefix(&plane_key(&key)), None, &[]).await;
            async_inference::end_all(&app, &key).await;
            let now_ms = app.clock.now_ms();
            let gone = app.database.write(move |session| {
                session.delete_resource(&key)?;
                crate::shadow::forget(session, &key)?;
                session.append_event(&key, "Deleted", &Value::Null, now_ms)
            });
            match gone.await {
                Ok(()) | Err(store::Error::Missing { .. }) => {}
                Err(error) => tracing::error!(%error, "a deleted endpoint could not be taken off the books"),
            }
        });
    }

    /// The captures of all endpoints, once those are taken up.
    pub fn capture(&self) -> Option<&DataCapture> {
        self.capture.get()
    }

    /// The variants as they serve now; empty when the endpoint does not.
    pub fn variants(&self, key: &ResourceKey) -> Vec<VariantStatus> {
        self.plane.watch(&plane_key(key)).map(|status| status.borrow().variants.clone()).unwrap_or_default()
    }

    /// Invocations of a variant that are under way now.
    pub fn in_flight(&self, key: &ResourceKey, variant: &str) -> u64 {
        self.plane.variant_activity(&plane_key(key), variant).map_or(0, |activity| activity.in_flight)
    }

    /// For how many invocations at once a serverless variant keeps replicas, as the data plane has it.
    pub fn provisioned(&self, key: &ResourceKey, variant: &str) -> u32 {
        let activity = self.plane.variant_activity(&plane_key(key), variant);
        activity.map_or(0, |activity| activity.provisioned_concurrency)
    }

    /// What was asked of a variant in the last seconds, as far as it is known.
    pub fn asked(&self, key: &ResourceKey, variant: &str, seconds: i64) -> demand::Asked {
        self.demand.of(&plane_key(key), variant, seconds)
    }

    /// The models that a multi-model endpoint has loaded, those first that were asked for last.
    pub fn loaded_models(&self, key: &ResourceKey) -> Vec<LoadedModel> {
        let mut models = self.plane.loaded_models(&plane_key(key));
        models.sort_by_key(|model| model.idle_for);
        models
    }

    /// What has been counted for each variant.
    pub fn variant_metrics(&self, key: &ResourceKey) -> Vec<VariantMetrics> {
        self.plane.metrics(&plane_key(key)).unwrap_or_default()
    }

    /// Which engine each running replica got, and why.
    pub async fn engines(&self, key: &ResourceKey) -> Vec<EngineReport> {
        let mut reports = Vec::new();
        for own in [vec![key.clone()], self.components.of(key)].concat() {
            for id in self.plane.replicas(&plane_key(&own)) {
                reports.extend(self.launcher.engine(&id).await);
            }
        }
        reports.sort_by(|one, other| one.variant_name.cmp(&other.variant_name));
        reports
    }

    fn now_ms(&self) -> i64 {
        self.app.upgrade().map_or(0, |app| app.clock.now_ms())
    }

    /// Takes down the sessions that an answer says were opened or closed.
    ///
    /// # Errors
    /// A sentence for people, when that cannot be read.
    pub fn note_sessions(&self, key: &ResourceKey, answer: &ModelAnswer) -> std::result::Result<(), String> {
        if answer.new_session_id.is_none() && answer.closed_session_id.is_none() {
            return Ok(());
        }
        self.sessions.note(&plane_key(key), answer, || self.now_ms())
    }

    /// Invokes a model and gives its whole answer.
    ///
    /// # Errors
    /// As the data plane says.
    pub async fn invoke(
        &self,
        key: &ResourceKey,
        mut request: InvokeRequest,
    ) -> Result<InvokeResponse, InvokeError> {
        self.check_answers(key)?;
        let plane_key = plane_key(key);
        self.sessions.place(&plane_key, &mut request, || self.now_ms())?;
        self.plane.invoke(&plane_key, request).await
    }

    /// Invokes a model and gives its answer piece by piece.
    ///
    /// # Errors
    /// As the data plane says.
    pub async fn invoke_stream(
        &self,
        key: &ResourceKey,
        mut request: InvokeRequest,
    ) -> Result<InvokeStream, InvokeError> {
        self.check_answers(key)?;
        let plane_key = plane_key(key);
        self.sessions.place(&plane_key, &mut request, || self.now_ms())?;
        self.plane.invoke_stream(&plane_key, request).await
    }
}

fn plane_key(key: &ResourceKey) -> String {
    // Endpoint names differ by more than case, as in the service. Components are endpoints of their own there.
    let (account, region, name) = (&*key.account, &*key.region, &*key.name);
    let mut plane_key = match key.kind == INFERENCE_COMPONENT {
        true => [account, region, &key.kind, name].join("/"),
        false => [account, region, name].join("/"),
    };
    // In place: each request asks for it.
    let start = plane_key.len() - name.len();
    plane_key[start..].make_ascii_lowercase();
    plane_key
}

/// Writes the settled status of one generation to the database, once its replicas answer. `failure` is what failed before.
async fn follow(
    app: Weak<App>,
    key: ResourceKey,
    (generation, counts): (u64, capacity::Counts),
    failure: Option<String>,
    mut status: watch::Receiver<EndpointStatus>,
) {
    let settled = status
        .wait_for(|status| {
            status.wanted_generation > generation
                || status.has_settled(generation) && capacity::is_reached(status, &counts, failure.as_ref())
        })
        .await;
    let Ok(settled) = settled.map(|status| status.clone()) else { return };
    let Some(app) = app.upgrade() else { return };
    if settled.wanted_generation != generation {
        return;
    }
    let (status, reason) = match settled.phase {
        EndpointPhase::InService => ("InService", None),
        // The old fleet still serves: the endpoint is in service with the reason shown.
        EndpointPhase::UpdateFailed { reason } => ("InService", Some(reason)),
        EndpointPhase::Failed { reason } => ("Failed", Some(reason)),
        _ => return,
    };
    if status == "InService" {
        // Models of deployments before this one.
        let (prefix, kept) = (app.endpoints.plane.replica_prefix(&plane_key(&key)), format!("g{generation}"));
        unpacked::sweep(&app.config, &prefix, Some(&kept), &app.endpoints.plane.running()).await;
    }
    let now_ms = app.clock.now_ms();
    let written = app.database.write(move |session| {
        let mut is_same = false;
        let updated = session.update_resource(&key, now_ms, |resource| {
            let mut record = EndpointRecord::read(&resource.document)?;
            is_same = record.generation == generation && capacity::counts(&record) == counts;
            if is_same && resource.status != "Deleting" {
                if status == "InService" && reason.is_none() {
                    record.served_generation = Some(generation);
                }
                if status == "Failed" {
                    record.served_generation = None;
                }
                record.failure_reason = reason.map(crate::training::record::shorten);
                resource.document = record.to_document();
                resource.status = status.into();
            }
            Ok(())
        })?;
        if !is_same {
            return Ok(());
        }
        session.append_event(&key, status, &Value::Null, now_ms)?;
        crate::events::append_state(session, &updated, now_ms)
    });
    match written.await {
        Ok(()) | Err(store::Error::Missing { .. }) => {}
        Err(error) => tracing::error!(%error, "the status of an endpoint could not be written"),
    }
}
