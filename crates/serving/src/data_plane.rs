//! The public face: endpoints are applied, changed, watched, invoked and removed here.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::capture::{Capture, Draft};
use crate::endpoint::{Command, Endpoint, EndpointHandle};
use crate::fleet::Surroundings;
use crate::invocation::{self, InvokeError, InvokeRequest, InvokeResponse, InvokeStream};
use crate::launcher::Launcher;
use crate::metrics::VariantMetrics;
use crate::plan::{EndpointPlan, PlanError};
use crate::replica_id;
use crate::settings::DataPlaneSettings;
use crate::shadow::{Reflection, Shadow, ShadowPlan, StreamedReflection};
use crate::standby::Standbys;
use crate::status::{EndpointPhase, EndpointStatus, VariantStatus};

pub(crate) type Endpoints = HashMap<String, Arc<EndpointHandle>>;

/// All endpoints of a server. Dropping it leaves the replicas running, for the next server to take up.
pub struct DataPlane {
    launcher: Arc<dyn Launcher>,
    settings: Arc<DataPlaneSettings>,
    socket_directory: PathBuf,
    standbys: Arc<Standbys>,
    endpoints: ArcSwap<Endpoints>,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    tasks: Vec<AbortHandle>,
    /// Endpoints whose replicas are being stopped.
    leaving: HashMap<String, watch::Receiver<EndpointStatus>>,
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        if let Ok(registry) = self.registry.get_mut() {
            registry.tasks.iter().for_each(AbortHandle::abort);
        }
    }
}

impl DataPlane {
    /// A data plane without endpoints. Each replica gets a folder of its own in `socket_directory`, which nothing else
    /// may use: folders there of replicas that no longer run are removed.
    pub fn new(launcher: Arc<dyn Launcher>, socket_directory: PathBuf, settings: DataPlaneSettings) -> Self {
        remove_dead_folders(&socket_directory, &launcher.running());
        Self {
            launcher,
            standbys: Standbys::new(settings.standby_limit),
            settings: Arc::new(settings),
            socket_directory,
            endpoints: ArcSwap::default(),
            registry: Mutex::default(),
        }
    }

    pub(crate) fn handles(&self) -> arc_swap::Guard<Arc<Endpoints>> {
        self.endpoints.load()
    }

    pub(crate) fn settings(&self) -> &DataPlaneSettings {
        &self.settings
    }

    /// What the ids of an endpoint's replicas begin with.
    pub fn replica_prefix(&self, endpoint: &str) -> String {
        replica_id::endpoint_prefix(self.settings.replica_prefix, endpoint)
    }

    /// The ids of all replicas that run now, and of what stands by to be one.
    pub fn running(&self) -> Vec<String> {
        self.launcher.running()
    }

    fn endpoint(&self, endpoint: &str) -> Option<Arc<EndpointHandle>> {
        self.endpoints.load().get(endpoint).map(Arc::clone)
    }

    /// Makes an endpoint like this: creates it, updates it (a new generation is brought up before the old one is
    /// ended), or changes counts and weights in place (the same generation). Replicas that an earlier server left
    /// running are taken up by the first plan of an endpoint. Must be called within a Tokio runtime.
    pub fn apply(&self, plan: EndpointPlan) -> Result<watch::Receiver<EndpointStatus>, PlanError> {
        self.send(plan, false)
    }

    /// As [`DataPlane::apply`], for an endpoint that was in service when an earlier server ended: it is in service again as soon as
    /// one replica of each variant answers, and replicas that do not start are tried again.
    pub fn resume(&self, plan: EndpointPlan) -> Result<watch::Receiver<EndpointStatus>, PlanError> {
        self.send(plan, true)
    }

    fn send(
        &self,
        plan: EndpointPlan,
        has_served: bool,
    ) -> Result<watch::Receiver<EndpointStatus>, PlanError> {
        plan.check()?;
        let mut registry = self.registry.lock().expect("no code that holds this lock can panic");
        let endpoint = match self.endpoint(&plan.endpoint) {
            Some(endpoint) => {
                // Seen by the caller at once; the endpoint's task says more when it has begun.
                endpoint.status.send_modify(|status| announce(status, &plan));
                endpoint
            }
            None => self.start_endpoint(&plan, has_served, &mut registry),
        };
        let status = endpoint.status.subscribe();
        // The task only ends after a removal, which takes the endpoint out of the table first.
        let _ = endpoint.commands.send(Command::Apply(plan, has_served));
        Ok(status)
    }

    /// The endpoint of a plan, which is made when it is not there. Nothing is applied to it.
    pub(crate) fn endpoint_for(&self, plan: &EndpointPlan, has_served: bool) -> Arc<EndpointHandle> {
        let mut registry = self.registry.lock().expect("no code that holds this lock can panic");
        self.endpoint(&plan.endpoint).unwrap_or_else(|| self.start_endpoint(plan, has_served, &mut registry))
    }

    fn start_endpoint(
        &self,
        plan: &EndpointPlan,
        has_served: bool,
        registry: &mut Registry,
    ) -> Arc<EndpointHandle> {
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (reports, report_receiver) = mpsc::unbounded_channel();
        let prefix = replica_id::endpoint_prefix(self.settings.replica_prefix, &plan.endpoint);
        let bell = Arc::default();
        let predecessor = registry.leaving.remove(&plan.endpoint);
        let is_asleep = has_served && plan.variants.iter().all(|variant| variant.on_demand.is_some());
        let is_taken_up = predecessor.is_none()
            && (is_asleep || self.launcher.running().iter().any(|id| id.starts_with(&prefix)));
        let endpoint = Arc::new(EndpointHandle {
            route: ArcSwapOption::empty(),
            is_taken_up,
            status: watch::Sender::new(first_status(plan)),
            commands,
            counters: Arc::default(),
            capture: ArcSwapOption::empty(),
            tallies: Mutex::default(),
            shadow: ArcSwapOption::empty(),
        });
        let surroundings = Surroundings {
            launcher: Arc::clone(&self.launcher),
            settings: Arc::clone(&self.settings),
            standbys: Arc::clone(&self.standbys),
            socket_directory: self.socket_directory.clone(),
            endpoint: Arc::from(plan.endpoint.as_str()),
            reports,
            counters: Arc::clone(&endpoint.counters),
            bell,
        };
        let task = Endpoint::new(Arc::clone(&endpoint), surroundings);
        let task = tokio::spawn(task.run(command_receiver, report_receiver, predecessor));
        registry.tasks.retain(|task| !task.is_finished());
        registry.tasks.push(task.abort_handle());
        self.change_table(|table| {
            table.insert(plan.endpoint.clone(), Arc::clone(&endpoint));
        });
        endpoint
    }

    /// Must be called with the registry locked, so that no change is lost.
    fn change_table(&self, change: impl FnOnce(&mut Endpoints)) {
        let mut table = Endpoints::clone(&self.endpoints.load());
        change(&mut table);
        self.endpoints.store(Arc::new(table));
    }

    /// Takes an endpoint out of service at once, answers the invocations it has accepted, stops its replicas, and
    /// returns when they are gone. An unknown endpoint is no error. The endpoint goes away even if the caller does.
    pub async fn remove(&self, endpoint: &str) {
        let Some(mut status) = self.begin_remove(endpoint) else { return };
        let _ = status.wait_for(|status| status.phase == EndpointPhase::Removed).await;
    }

    fn begin_remove(&self, endpoint: &str) -> Option<watch::Receiver<EndpointStatus>> {
        let mut registry = self.registry.lock().expect("no code that holds this lock can panic");
        registry.leaving.retain(|_, status| status.borrow().phase != EndpointPhase::Removed);
        let Some(removed) = self.endpoint(endpoint) else { return registry.leaving.get(endpoint).cloned() };
        self.change_table(|table| {
            table.remove(endpoint);
        });
        end_shadow(&removed);
        let status = removed.status.subscribe();
        let _ = removed.commands.send(Command::Remove);
        registry.leaving.insert(endpoint.to_owned(), status.clone());
        Some(status)
    }

    /// Changes weights of an endpoint in place; all of them or, on an error, none.
    pub async fn set_weights(&self, endpoint: &str, weights: Vec<(String, f64)>) -> Result<(), PlanError> {
        self.ask(endpoint, |answer| Command::SetWeights(weights, answer)).await
    }

    /// Changes the number of replicas of one variant in place.
    pub async fn set_replicas(&self, endpoint: &str, variant: &str, replicas: u32) -> Result<(), PlanError> {
        self.ask(endpoint, |answer| Command::SetReplicas(variant.to_owned(), replicas, answer)).await
    }

    async fn ask(
        &self,
        endpoint: &str,
        command: impl FnOnce(oneshot::Sender<Result<(), PlanError>>) -> Command,
    ) -> Result<(), PlanError> {
        let unknown = || PlanError::NoSuchEndpoint(endpoint.to_owned());
        let handle = self.endpoint(endpoint).ok_or_else(unknown)?;
        let (answer, answered) = oneshot::channel();
        handle.commands.send(command(answer)).map_err(|_| unknown())?;
        answered.await.map_err(|_| unknown())?
    }

    /// Captures invocations of an endpoint from now on, or no longer; an endpoint that is not known is left alone.
    pub fn set_capture(&self, endpoint: &str, capture: Option<Arc<Capture>>) {
        if let Some(endpoint) = self.endpoint(endpoint) {
            endpoint.capture.store(capture);
        }
    }

    /// Copies requests of an endpoint to a shadow from now on, or no longer; an endpoint that is not known is left alone.
    pub fn set_shadow(&self, endpoint: &str, plan: Option<ShadowPlan>) {
        if let Some(endpoint) = self.endpoint(endpoint) {
            let before = endpoint.shadow.load_full();
            match plan {
                Some(plan) => {
                    endpoint.shadow.store(Some(Arc::new(Shadow::following(plan, before.as_deref()))));
                }
                None => end_shadow(&endpoint),
            }
        }
    }

    /// The state of an endpoint, to be looked at or waited on.
    pub fn watch(&self, endpoint: &str) -> Option<watch::Receiver<EndpointStatus>> {
        self.endpoint(endpoint).map(|endpoint| endpoint.status.subscribe())
    }

    /// What has been counted for each variant of an endpoint, by name.
    pub fn metrics(&self, endpoint: &str) -> Option<Vec<VariantMetrics>> {
        let endpoint = self.endpoint(endpoint)?;
        let counters: BTreeMap<_, _> =
            endpoint.counters.lock().expect("no code that holds this lock can panic").clone();
        Some(counters.iter().map(|(variant, counters)| counters.snapshot(variant)).collect())
    }

    /// The ids of the replicas of an endpoint that run now.
    pub fn replicas(&self, endpoint: &str) -> Vec<String> {
        let prefix = replica_id::endpoint_prefix(self.settings.replica_prefix, endpoint);
        self.awake().filter(|id| id.starts_with(&prefix)).collect()
    }

    /// The ids of all replicas that run now.
    pub(crate) fn awake(&self) -> impl Iterator<Item = String> {
        self.launcher.running().into_iter().filter(|id| !self.standbys.has(id))
    }

    /// Stops replicas of endpoints this data plane does not know. To be called once after a start of the server, when
    /// all endpoints have been applied but those in `awaited`.
    pub async fn stop_strays(&self, awaited: &[String]) {
        let known: Vec<String> = {
            let registry = self.registry.lock().expect("no code that holds this lock can panic");
            let table = self.endpoints.load();
            let known = table.keys().chain(registry.leaving.keys()).chain(awaited);
            known.map(|key| replica_id::endpoint_prefix(self.settings.replica_prefix, key)).collect()
        };
        for id in self.launcher.running() {
            if !known.iter().any(|prefix| id.starts_with(prefix)) {
                self.launcher.stop(&id).await;
                let folder = self.socket_directory.join(&id);
                let _ = std::fs::remove_dir_all(folder); // if it stays, the next start removes it
            }
        }
    }

    /// Invokes a model and gives its whole answer, even if the model streams it.
    pub async fn invoke(
        &self,
        endpoint: &str,
        request: InvokeRequest,
    ) -> Result<InvokeResponse, InvokeError> {
        let handle = self.handle(endpoint)?;
        let reflection = Reflection::begin(&handle, &request)?;
        let draft = begin_capture(&handle, &request);
        let answered = match invocation::invoke_stream(&handle, &self.settings, &request, true).await {
            Ok(stream) => match stream.whole() {
                Ok(response) => Ok(response),
                Err(stream) => Box::pin(stream.collect()).await,
            },
            Err(error) => Err(error),
        };
        let is_captured = draft.is_some();
        if let (Some(draft), Ok(response)) = (draft, &answered) {
            draft.whole(response);
        }
        if let Some(reflection) = reflection {
            reflection.send(&handle, &self.settings, request, &answered, is_captured);
        }
        answered
    }

    fn handle(&self, endpoint: &str) -> Result<Arc<EndpointHandle>, InvokeError> {
        self.endpoint(endpoint).ok_or_else(|| InvokeError::NoSuchEndpoint { endpoint: endpoint.to_owned() })
    }

    /// As [`DataPlane::invoke`], with bodies of up to `max_bytes` each way.
    pub async fn invoke_large(
        &self,
        endpoint: &str,
        request: InvokeRequest,
        max_bytes: u64,
    ) -> Result<InvokeResponse, InvokeError> {
        let handle = self
            .endpoint(endpoint)
            .ok_or_else(|| InvokeError::NoSuchEndpoint { endpoint: endpoint.to_owned() })?;
        let settings = DataPlaneSettings {
            max_request_bytes: max_bytes,
            max_response_bytes: max_bytes,
            ..DataPlaneSettings::clone(&self.settings)
        };
        invocation::invoke_stream(&handle, &settings, &request, true).await?.collect().await
    }

    /// Asks a replica that speaks HTTP for what a path has, and gives status and body; `None` when the endpoint's replicas speak
    /// another protocol.
    pub async fn get(&self, endpoint: &str, path: &'static str) -> Result<Option<(u16, Bytes)>, InvokeError> {
        let handle = self
            .endpoint(endpoint)
            .ok_or_else(|| InvokeError::NoSuchEndpoint { endpoint: endpoint.to_owned() })?;
        invocation::get(&handle, &self.settings, path).await
    }

    /// Invokes a model and gives its answer piece by piece. If the stream is dropped before its end, the worker is told
    /// to give up.
    pub async fn invoke_stream(
        &self,
        endpoint: &str,
        request: InvokeRequest,
    ) -> Result<InvokeStream, InvokeError> {
        let handle = self.handle(endpoint)?;
        let reflection = Reflection::begin(&handle, &request)?;
        let draft = begin_capture(&handle, &request);
        let answered = invocation::invoke_stream(&handle, &self.settings, &request, false).await;
        let Some(reflection) = reflection else {
            let mut stream = answered?;
            stream.draft = draft;
            return Ok(stream);
        };
        let is_captured = draft.is_some();
        match answered {
            Ok(mut stream) => {
                stream.draft = draft;
                let streamed =
                    StreamedReflection::new(reflection, &handle, &self.settings, request, is_captured);
                stream.reflection = Some(Box::new(streamed));
                Ok(stream)
            }
            Err(error) => {
                let answered = Err(error.clone());
                reflection.send(&handle, &self.settings, request, &answered, is_captured);
                Err(error)
            }
        }
    }
}

fn end_shadow(endpoint: &EndpointHandle) {
    if let Some(shadow) = endpoint.shadow.swap(None) {
        shadow.end();
    }
}

fn begin_capture(endpoint: &EndpointHandle, request: &InvokeRequest) -> Option<Box<Draft>> {
    let begun = endpoint.capture.load().as_ref().and_then(|capture| Draft::begin(capture, request));
    begun.map(Box::new)
}

/// Replicas that ended while no server was running could not clean up after themselves.
fn remove_dead_folders(socket_directory: &Path, running: &[String]) {
    let Ok(folders) = std::fs::read_dir(socket_directory) else { return };
    for folder in folders.flatten() {
        let dead = !running.iter().any(|id| folder.file_name() == **id);
        if dead && let Err(error) = std::fs::remove_dir_all(folder.path()) {
            tracing::warn!(folder = %folder.path().display(), %error, "a socket folder is left behind");
        }
    }
}

fn first_status(plan: &EndpointPlan) -> EndpointStatus {
    let variant = |variant: &crate::plan::VariantPlan| VariantStatus {
        name: variant.name.clone(),
        weight: variant.weight,
        desired_replicas: variant.replicas,
        healthy_replicas: 0,
    };
    EndpointStatus {
        phase: EndpointPhase::Creating,
        generation: plan.generation,
        wanted_generation: plan.generation,
        variants: plan.variants.iter().map(variant).collect(),
        last_failure: None,
        beside: None,
    }
}

/// Whoever waits for the end of an update must not see the settled state from before it.
fn announce(status: &mut EndpointStatus, plan: &EndpointPlan) {
    let same_fleet_serves = status.generation == plan.generation
        && matches!(status.phase, EndpointPhase::InService | EndpointPhase::UpdateFailed { .. });
    status.wanted_generation = plan.generation;
    status.phase = match status.phase {
        _ if same_fleet_serves => return,
        EndpointPhase::Creating | EndpointPhase::Failed { .. } | EndpointPhase::Removed => {
            EndpointPhase::Creating
        }
        _ => EndpointPhase::Updating,
    };
}
