//! Starts the replicas of endpoints as workloads: model archive, Python environment, sandbox, model host; or a container; or answers for
//! them in this process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use runner::catalogue::Source;
use runner::executor::Executor;
use runner::workload::{Access, Confinement, Mount, Network, Observation, WorkloadSpec};
use serde::{Deserialize, Serialize};
use serving::{
    BoxFuture, ExitText, FetchError, FetchedModel, LaunchError, Launcher, NativeModel, Protocol, ReplicaSpec,
};
use store::resources::ResourceKey;

use super::components::Share;
use super::container::{self, ContainerParts, ModelContainer};
use super::conversion::{self, Conversions};
use super::many_models::{self, Archive, CleanReplicas};
use super::model_data::{self, ModelForm};
use super::native::{self, Deployment, EngineReport, NativeReplicas};
use super::record::DeployedVariant;
use super::serverless::Serverless;
use super::unpacked;
use crate::app::App;
use crate::capacity::{Grant, HostGrant};
use crate::job_log::JobLog;
use crate::sagemaker::kinds::{INFERENCE_COMPONENT, TRANSFORM_JOB};
use crate::training::kind;
use crate::workloads::{self, JobIdentity};

/// Lifetime of a replica's credentials: long enough for any reasonable deployment; a restarted replica gets new ones.
const CREDENTIALS_SECONDS: i64 = 365 * 24 * 3600;

/// How long a model host may take to finish its requests after SIGTERM.
const STOP_GRACE_SECONDS: u64 = 30;

/// Lines of the log that an error text carries.
const TAIL_LINES: usize = 40;

/// File in a replica's folder that names its log stream, for a server that takes the replica up.
const STREAM_FILE: &str = "log-stream.json";

/// The module that answers for Python models, and what names the folder of one when there are not many.
const MODEL_HOST: &str = "model_host";
const ONE_MODEL: &str = "--model-dir";

/// What the launcher needs to know of a variant; travels through the data plane untouched.
#[derive(Serialize, Deserialize)]
struct Payload {
    account: String,
    region: String,
    endpoint: String,
    variant: DeployedVariant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transform: Option<TransformLaunch>,
    /// Whether `endpoint` names an inference component.
    #[serde(default)]
    is_component: bool,
}

/// What is different for a replica that serves a transform job.
#[derive(Serialize, Deserialize)]
pub struct TransformLaunch {
    /// Name of the job.
    pub job: String,
    /// What each replica may use.
    pub grant: Grant,
}

/// The payload of a variant's replicas.
pub fn payload(key: &ResourceKey, variant: &DeployedVariant) -> serde_json::Value {
    let payload = Payload {
        account: key.account.clone(),
        region: key.region.clone(),
        endpoint: key.name.clone(),
        variant: variant.clone(),
        transform: None,
        is_component: key.kind == INFERENCE_COMPONENT,
    };
    serde_json::to_value(payload).expect("strings, numbers and lists always serialize")
}

/// The payload of the replicas of a transform job.
pub fn transform_payload(
    key: &ResourceKey,
    variant: &DeployedVariant,
    transform: TransformLaunch,
) -> serde_json::Value {
    let payload = Payload {
        account: key.account.clone(),
        region: key.region.clone(),
        endpoint: String::new(),
        variant: variant.clone(),
        transform: Some(transform),
        is_component: false,
    };
    serde_json::to_value(payload).expect("strings, numbers and lists always serialize")
}

impl Payload {
    /// Log group and stream of a replica, or of one of its containers.
    fn log(&self, replica: &ReplicaSpec) -> (String, String) {
        let (group, owner) = match &self.transform {
            None if self.is_component => {
                (format!("/aws/sagemaker/InferenceComponents/{}", self.endpoint), &self.variant.name)
            }
            None => (format!("/aws/sagemaker/Endpoints/{}", self.endpoint), &self.variant.name),
            Some(transform) => (kind::log_group(TRANSFORM_JOB).to_owned(), &transform.job),
        };
        let stream = match self.variant.part_name(replica.part) {
            None => format!("{owner}/{}", replica.id),
            Some(container) => format!("{owner}/{}/{container}", replica.id),
        };
        (group, stream)
    }

    fn grant(&self, index: u32) -> Option<&HostGrant> {
        self.transform.as_ref().and_then(|transform| transform.grant.get(index as usize))
    }
}

/// Starts replicas through the executor.
pub struct ReplicaLauncher {
    app: Weak<App>,
    executor: Arc<dyn Executor>,
    natives: NativeReplicas,
    clean_replicas: CleanReplicas,
    conversions: Conversions,
    /// What the ids of its replicas begin with, to tell them from jobs and from those of others.
    prefix: String,
}

impl ReplicaLauncher {
    /// A launcher over the executor of the process, of replicas whose ids begin with `prefix`.
    pub fn new(app: Weak<App>, executor: Arc<dyn Executor>, prefix: &str) -> ReplicaLauncher {
        ReplicaLauncher {
            app,
            executor,
            natives: NativeReplicas::default(),
            clean_replicas: CleanReplicas::default(),
            conversions: Conversions::default(),
            prefix: format!("{prefix}-"),
        }
    }

    async fn start(&self, replica: &ReplicaSpec) -> Result<(), String> {
        let app = self.app.upgrade().ok_or("the server is stopping")?;
        let payload = Payload::deserialize(&replica.launch).map_err(|error| error.to_string())?;
        let variant = &*payload.variant.part(replica.part);
        let (group, stream) = payload.log(replica);
        let grant = payload.grant(replica.index);
        let log_path = app
            .logs
            .ensure_stream(&payload.account, &payload.region, &group, &stream)
            .await
            .map_err(|error| error.to_string())?;
        let log = JobLog::new(&app, &payload.account, &payload.region, &group, &stream);
        let profile = app.containers.profile(&app.catalogue, &variant.image).await?;
        let directory = workloads::replica_directory(&app.config, &replica.id);
        let has_many = variant.models.is_some();
        let model = match has_many {
            true => many_models::models_directory(&directory),
            false => directory.join("opt-ml/model"),
        };
        workloads::make_fresh(&directory, &model).await?;
        let names = serde_json::json!([payload.account, payload.region, group, stream]).to_string();
        tokio::fs::write(directory.join(STREAM_FILE), names).await.map_err(|error| error.to_string())?;
        // What wakes finds its model unpacked.
        let is_unpacked = variant.serverless.is_some() && payload.transform.is_none();
        // Such files are those of the objects themselves, which nobody may write to.
        let is_shown = is_unpacked || variant.model_form != ModelForm::Archive;
        let model = match (is_unpacked, is_shown) {
            (true, _) => unpacked::have(&app, &payload.account, variant, &replica.id).await?,
            (false, true) => directory.join("model"),
            (false, false) => model,
        };
        let deployment = Deployment {
            profile: profile.clone(),
            environment: variant.environment.clone(),
            model: model.clone(),
        };
        let mut choice = if has_many {
            self.clean_replicas.add(&replica.id).await;
            deployment.choose_for_many()?
        } else {
            if !is_unpacked {
                model_data::bring(&app, &payload.account, variant, &model).await?;
            }
            let choice = tokio::task::spawn_blocking(move || deployment.choose());
            choice.await.map_err(|error| error.to_string())??
        };
        let graph = match choice.onnx.take() {
            None => None,
            Some(source) => {
                let place = conversion::Place {
                    directory: &directory,
                    model: &model,
                    log: &log,
                    log_path: &log_path,
                };
                self.conversions.furnish(&app, &profile, variant, source, &mut choice, &place).await?
            }
        };
        let report = choice.report(&variant.name, payload.variant.part_name(replica.part));
        // A container's log is its own.
        if !matches!(profile.source, Source::Container(_)) {
            log.line(&format!("modelyard: engine {}: {}", report.engine, report.reason)).await;
        }
        if replica.standby && report.engine != "python" {
            return Err(format!("The engine {} has nothing to import ahead.", report.engine));
        }
        if choice.needs_no_process() {
            if choice.model.is_some() {
                // It is in memory now, and no process needs the folder.
                workloads::remove_directory(&directory).await;
            }
            self.natives.add(&replica.id, choice.model, report);
            return Ok(());
        }
        native::keep_report(&directory, &report).await?;
        let role = variant.role_arn.as_deref();
        let identity = JobIdentity {
            account: &payload.account,
            region: &payload.region,
            role_arn: role,
            session_tags: wire::SessionTags::default(),
        };
        let share = variant.share.as_ref();
        let limits = runner::Limits {
            memory_bytes: grant
                .map(|grant| grant.memory_bytes)
                .or(variant.serverless.as_ref().map(Serverless::memory_bytes))
                .or(share.and_then(Share::memory_limit_bytes)),
            cpus: grant.map(|grant| grant.cpus.ceil() as u32).or(share.and_then(Share::cpu_limit)),
            ..runner::Limits::default()
        };
        let workload = WorkloadSpec {
            log_path,
            stop_grace_seconds: STOP_GRACE_SECONDS,
            hostname: "model".into(),
            limits,
            required_locks: app.config.required_locks.clone(),
            gpus: grant.map(|grant| grant.gpus.clone()).unwrap_or_default(),
            ..WorkloadSpec::plain(&replica.id, Vec::new())
        };
        if let Some(graph) = graph {
            let spec = graph.spec(replica, &variant.environment, &model, workload)?;
            return self.executor.start(&spec).await.map_err(|error| error.to_string());
        }
        if let Source::Container(image) = &profile.source {
            let container = ModelContainer {
                image,
                variant,
                identity,
                credentials_seconds: CREDENTIALS_SECONDS,
                model: &model,
                socket: &replica.socket,
            };
            let ContainerParts { environment, mounts, confinement } = container.parts(&app, &log).await?;
            let (command, network) = (container::command(), container::NETWORK);
            let spec = WorkloadSpec { command, environment, mounts, network, confinement, ..workload };
            return self.executor.start(&spec).await.map_err(|error| error.to_string());
        }
        // The SDK leaves the scripts of some frameworks in an archive of their own.
        let submitted =
            variant.environment.get("SAGEMAKER_SUBMIT_DIRECTORY").filter(|uri| uri.starts_with("s3://"));
        let code = match submitted {
            Some(uri) => {
                let code = directory.join("opt-ml/code");
                workloads::extract_object(&app, &payload.account, uri, &code).await?;
                code
            }
            // What many models need is in their archives, and comes too late for the one environment that they share.
            None if has_many => directory.join("opt-ml/code"),
            None => code_directory(&variant.environment, &model),
        };
        let environment = workloads::environment(&app, &profile, &code, &log).await?;

        let mut variables = workloads::connection_environment(&app, identity, CREDENTIALS_SECONDS);
        variables.extend(variant.environment.clone());
        let paths = match has_many {
            true => workloads::MODEL_HOST_TARGET.to_owned(),
            false => format!("{}:/opt/ml/model/code", workloads::MODEL_HOST_TARGET),
        };
        variables.insert("PYTHONPATH".into(), paths);
        variables.insert("PYTHONUNBUFFERED".into(), "1".into());
        variables.insert("PATH".into(), workloads::path_with(&environment));
        let socket_directory = replica.socket.parent().ok_or("the socket has no folder")?;
        let socket_name =
            replica.socket.file_name().and_then(|name| name.to_str()).ok_or("the socket has no name")?;
        let mut mounts = workloads::shared_mounts(&app, &environment);
        mounts.push(mount(&directory.join("opt-ml"), "/opt/ml", Access::ReadWrite));
        if is_shown {
            mounts.push(mount(&model, "/opt/ml/model", Access::ReadOnly));
        }
        mounts.push(mount(socket_directory, workloads::SOCKET_TARGET, Access::ReadWrite));
        mounts.push(mount(
            &workloads::model_host(&app.config),
            workloads::MODEL_HOST_TARGET,
            Access::ReadOnly,
        ));
        let framework = profile.framework.to_string();
        let inside = if has_many { many_models::MODELS_TARGET } else { "/opt/ml/model" };
        let mut command = vec![
            environment.python.display().to_string(),
            "-m".into(),
            MODEL_HOST.into(),
            "--socket".into(),
            format!("{}/{socket_name}", workloads::SOCKET_TARGET),
            "--workers".into(),
            replica.workers.to_string(),
            "--framework".into(),
            framework,
            if has_many { "--models-dir".into() } else { ONE_MODEL.into() },
            inside.into(),
            "--model-timeout-seconds".into(),
            replica.model_timeout_seconds.to_string(),
        ];
        if replica.standby {
            command.push("--standby".into());
        }
        if submitted.is_some() {
            command.extend(["--code-dir".to_owned(), "/opt/ml/code".to_owned()]);
        }
        let spec = WorkloadSpec {
            command,
            environment: variables,
            working_directory: PathBuf::from(inside),
            mounts,
            network: if variant.network_isolation { Network::None } else { Network::Host },
            ..workload
        };
        self.executor.start(&spec).await.map_err(|error| error.to_string())
    }

    /// Removes the folders that a killed server left of replicas which it was furnishing. To be called before any is launched.
    pub async fn remove_leftovers(&self) {
        let Some(app) = self.app.upgrade() else { return };
        self.conversions.end_leftovers(&self.executor).await;
        let Ok(known) = self.executor.list() else { return };
        let Ok(mut folders) = tokio::fs::read_dir(workloads::replica_directory(&app.config, "")).await else {
            return; // there has been no replica yet
        };
        while let Ok(Some(folder)) = folders.next_entry().await {
            let name = folder.file_name();
            let is_mine = |id: &&str| id.starts_with(&self.prefix) && !known.iter().any(|known| known == id);
            if name.to_str().filter(is_mine).is_some() {
                workloads::remove_directory(&folder.path()).await;
            }
        }
    }

    /// Which engine a replica got, and why; `None` for one of an earlier release.
    pub async fn engine(&self, id: &str) -> Option<EngineReport> {
        if let Some(report) = self.natives.report(id) {
            return Some(report);
        }
        let app = self.app.upgrade()?;
        native::kept_report(&workloads::replica_directory(&app.config, id)).await
    }

    async fn fetch(&self, replica: &ReplicaSpec, model: &str) -> Result<FetchedModel, FetchError> {
        let unusable = |text: &str| FetchError::Unusable(text.to_owned());
        let app = self.app.upgrade().ok_or_else(|| unusable("the server is stopping"))?;
        let payload = Payload::deserialize(&replica.launch).map_err(|error| unusable(&error.to_string()))?;
        let archive = Archive::named(&app, &payload.account, &payload.variant, model)?;
        let profile = app.containers.profile(&app.catalogue, &payload.variant.image).await;
        let profile = profile.map_err(FetchError::Unusable)?;
        let directory = workloads::replica_directory(&app.config, &replica.id);
        self.clean_replicas.clean(&replica.id, &directory).await;
        archive.fetch(&directory, profile.clone()).await
    }

    async fn version(&self, replica: &ReplicaSpec, model: &str) -> Result<String, FetchError> {
        let unusable = |text: &str| FetchError::Unusable(text.to_owned());
        let app = self.app.upgrade().ok_or_else(|| unusable("the server is stopping"))?;
        let payload = Payload::deserialize(&replica.launch).map_err(|error| unusable(&error.to_string()))?;
        Archive::named(&app, &payload.account, &payload.variant, model)?.version().await
    }

    async fn end(&self, id: &str) -> ExitText {
        if let Some(end) = self.natives.end(id) {
            end.await;
            return ExitText::default();
        }
        let summary = match self.executor.wait(id).await {
            Ok(report) => workloads::exit_sentence(&report),
            Err(error) => error.to_string(),
        };
        let log_tail = match self.app.upgrade() {
            Some(app) => log_tail(&app, id).await,
            None => Vec::new(),
        };
        ExitText { summary, log_tail }
    }
}

/// The last lines that a replica logged.
async fn log_tail(app: &App, id: &str) -> Vec<String> {
    let path = workloads::replica_directory(&app.config, id).join(STREAM_FILE);
    let Ok(text) = tokio::fs::read(&path).await else { return Vec::new() };
    match serde_json::from_slice::<[String; 4]>(&text) {
        Ok([account, region, group, stream]) => {
            JobLog::new(app, &account, &region, &group, &stream).tail(TAIL_LINES).await
        }
        Err(_) => Vec::new(),
    }
}

/// Where the inference script lives: what the environment says, when that is inside the archive.
pub fn code_directory(environment: &std::collections::BTreeMap<String, String>, model: &Path) -> PathBuf {
    let named =
        environment.get("SAGEMAKER_SUBMIT_DIRECTORY").and_then(|path| path.strip_prefix("/opt/ml/model"));
    let relative = named.map_or("code", |path| path.trim_start_matches('/'));
    let plain = relative.split('/').all(|part| part != "..");
    if plain { model.join(relative) } else { model.join("code") }
}

fn mount(source: &Path, target: &str, access: Access) -> Mount {
    Mount { source: source.to_owned(), target: PathBuf::from(target), access }
}

impl Launcher for ReplicaLauncher {
    fn launch<'a>(&'a self, replica: &'a ReplicaSpec) -> BoxFuture<'a, Result<(), LaunchError>> {
        Box::pin(async move { self.start(replica).await.map_err(LaunchError) })
    }

    fn protocol(&self, id: &str) -> Protocol {
        if self.natives.has(id) {
            return Protocol::Native;
        }
        match self.executor.spec(id) {
            Ok(Some(spec)) if matches!(spec.confinement, Confinement::Container(_)) => {
                container::protocol(&spec.environment)
            }
            // One that cannot be read is found out by its silence.
            _ => Protocol::Frames,
        }
    }

    fn out_of_memory_kills(&self, id: &str) -> u64 {
        match self.executor.observe(id) {
            Ok(Observation::Running { pid: Some(pid), .. }) => {
                runner::cgroup::out_of_memory_kills_around(pid)
            }
            _ => 0,
        }
    }

    fn can_stand_by(&self, id: &str) -> bool {
        // Of all that runs here only the model host imports modules; one of many models does so when it is asked for one.
        let is_host_of_one = |command: &[String]| {
            command.get(2).is_some_and(|module| module == MODEL_HOST)
                && command.iter().any(|part| part == ONE_MODEL)
        };
        self.executor.spec(id).is_ok_and(|spec| spec.is_some_and(|spec| is_host_of_one(&spec.command)))
    }

    fn native_model(&self, id: &str) -> Option<Arc<NativeModel>> {
        self.natives.model(id)
    }

    fn fetch_model<'a>(
        &'a self,
        replica: &'a ReplicaSpec,
        model: &'a str,
    ) -> BoxFuture<'a, Result<FetchedModel, FetchError>> {
        Box::pin(self.fetch(replica, model))
    }

    fn model_version<'a>(
        &'a self,
        replica: &'a ReplicaSpec,
        model: &'a str,
    ) -> BoxFuture<'a, Result<String, FetchError>> {
        Box::pin(self.version(replica, model))
    }

    fn exited<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ExitText> {
        Box::pin(self.end(id))
    }

    fn stop<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.clean_replicas.remove(id).await;
            if self.natives.stop(id) {
                // One of many models has a folder in which archives are unpacked.
                if let Some(app) = self.app.upgrade() {
                    workloads::remove_directory(&workloads::replica_directory(&app.config, id)).await;
                }
                return;
            }
            let stopped = async {
                if !matches!(self.executor.observe(id)?, Observation::Unknown) {
                    self.executor.stop(id)?;
                    self.executor.wait(id).await?;
                    self.executor.remove(id)?;
                }
                Ok::<_, runner::executor::Error>(())
            };
            if let Err(error) = stopped.await {
                tracing::error!(replica = id, %error, "a replica could not be stopped");
            }
            if let Some(app) = self.app.upgrade() {
                workloads::remove_directory(&workloads::replica_directory(&app.config, id)).await;
            }
        })
    }

    fn running(&self) -> Vec<String> {
        let running = |id: &String| {
            id.starts_with(&self.prefix)
                && matches!(self.executor.observe(id), Ok(Observation::Running { .. }))
        };
        let processes = self.executor.list().unwrap_or_default().into_iter().filter(running);
        processes.chain(self.natives.ids()).collect()
    }
}
