//! Starts the replicas of endpoints as workloads: model archive, Python environment, sandbox, model host.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use runner::catalogue::Source;
use runner::executor::Executor;
use runner::workload::{Access, Confinement, Mount, Network, Observation, WorkloadSpec};
use serde::{Deserialize, Serialize};
use serving::{BoxFuture, ExitText, LaunchError, Launcher, ReplicaSpec};
use store::resources::ResourceKey;

use super::record::DeployedVariant;
use crate::app::App;
use crate::job_log::JobLog;
use crate::workloads::{self, JobIdentity};

/// Lifetime of a replica's credentials: long enough for any reasonable deployment; a restarted replica gets new ones.
const CREDENTIALS_SECONDS: i64 = 365 * 24 * 3600;

/// How long a model host may take to finish its requests after SIGTERM.
const STOP_GRACE_SECONDS: u64 = 30;

/// Lines of the log that an error text carries.
const TAIL_LINES: usize = 40;

/// File in a replica's folder that names its log stream, for a server that takes the replica up.
const STREAM_FILE: &str = "log-stream.json";

/// What the launcher needs to know of a variant; travels through the data plane untouched.
#[derive(Serialize, Deserialize)]
struct Payload {
    account: String,
    region: String,
    endpoint: String,
    variant: DeployedVariant,
}

/// The payload of a variant's replicas.
pub fn payload(key: &ResourceKey, variant: &DeployedVariant) -> serde_json::Value {
    let payload = Payload {
        account: key.account.clone(),
        region: key.region.clone(),
        endpoint: key.name.clone(),
        variant: variant.clone(),
    };
    serde_json::to_value(payload).expect("strings, numbers and lists always serialize")
}

/// Starts replicas through the executor.
pub struct ReplicaLauncher {
    app: Weak<App>,
    executor: Arc<dyn Executor>,
}

impl ReplicaLauncher {
    /// A launcher over the executor of the process.
    pub fn new(app: Weak<App>, executor: Arc<dyn Executor>) -> ReplicaLauncher {
        ReplicaLauncher { app, executor }
    }

    async fn start(&self, replica: &ReplicaSpec) -> Result<(), String> {
        let app = self.app.upgrade().ok_or("the server is stopping")?;
        let payload = Payload::deserialize(&replica.launch).map_err(|error| error.to_string())?;
        let variant = &payload.variant;
        let group = format!("/aws/sagemaker/Endpoints/{}", payload.endpoint);
        let stream = format!("{}/{}", variant.name, replica.id);
        let log_path = app
            .logs
            .ensure_stream(&payload.account, &payload.region, &group, &stream)
            .await
            .map_err(|error| error.to_string())?;
        let log = JobLog::new(&app, &payload.account, &payload.region, &group, &stream);
        let profile = app.containers.profile(&app.catalogue, &variant.image).await?;
        if let Source::Container(image) = &profile.source {
            return Err(format!(
                "the image {:?} is run as a real container, which training jobs can use and endpoints cannot yet: let the image \
                 catalogue say which Python environment it means.",
                image.reference
            ));
        }

        let directory = workloads::replica_directory(&app.config, &replica.id);
        let model = directory.join("opt-ml/model");
        workloads::make_fresh(&directory, &model).await?;
        let names = serde_json::json!([payload.account, payload.region, group, stream]).to_string();
        tokio::fs::write(directory.join(STREAM_FILE), names).await.map_err(|error| error.to_string())?;
        if let Some(uri) = &variant.model_data {
            workloads::extract_object(&app, &payload.account, uri, &model).await?;
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
            None => code_directory(&variant.environment, &model),
        };
        let environment = workloads::environment(&app, &profile, &code, &log).await?;

        let role = variant.role_arn.as_deref();
        let identity = JobIdentity { account: &payload.account, region: &payload.region, role_arn: role };
        let mut variables = workloads::connection_environment(&app, &identity, CREDENTIALS_SECONDS);
        variables.extend(variant.environment.clone());
        variables.insert("PYTHONPATH".into(), format!("{}:/opt/ml/model/code", workloads::MODEL_HOST_TARGET));
        variables.insert("PYTHONUNBUFFERED".into(), "1".into());
        variables.insert("PATH".into(), workloads::path_with(&environment));
        let socket_directory = replica.socket.parent().ok_or("the socket has no folder")?;
        let socket_name =
            replica.socket.file_name().and_then(|name| name.to_str()).ok_or("the socket has no name")?;
        let mut mounts = workloads::shared_mounts(&app, &environment);
        mounts.push(mount(&directory.join("opt-ml"), "/opt/ml", Access::ReadWrite));
        mounts.push(mount(socket_directory, workloads::SOCKET_TARGET, Access::ReadWrite));
        mounts.push(mount(
            &workloads::model_host(&app.config),
            workloads::MODEL_HOST_TARGET,
            Access::ReadOnly,
        ));
        let framework = profile.framework.to_string();
        let mut command = vec![
            environment.python.display().to_string(),
            "-m".into(),
            "model_host".into(),
            "--socket".into(),
            format!("{}/{socket_name}", workloads::SOCKET_TARGET),
            "--workers".into(),
            replica.workers.to_string(),
            "--framework".into(),
            framework,
            "--model-dir".into(),
            "/opt/ml/model".into(),
            "--model-timeout-seconds".into(),
            replica.model_timeout_seconds.to_string(),
        ];
        if submitted.is_some() {
            command.extend(["--code-dir".to_owned(), "/opt/ml/code".to_owned()]);
        }
        let spec = WorkloadSpec {
            id: replica.id.clone(),
            command,
            environment: variables,
            working_directory: PathBuf::from("/opt/ml/model"),
            mounts,
            feeds: Vec::new(),
            log_path,
            time_limit_seconds: None,
            stop_grace_seconds: STOP_GRACE_SECONDS,
            network: if variant.network_isolation { Network::None } else { Network::Host },
            user: runner::workload::JobUser::Unprivileged,
            confinement: Confinement::Bubblewrap,
            hostname: "model".into(),
            limits: runner::Limits::default(),
            required_locks: app.config.required_locks.clone(),
            gpus: Vec::new(),
            hosts: std::collections::BTreeMap::new(),
        };
        self.executor.start(&spec).await.map_err(|error| error.to_string())
    }

    async fn end(&self, id: &str) -> ExitText {
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
fn code_directory(environment: &std::collections::BTreeMap<String, String>, model: &Path) -> PathBuf {
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

    fn exited<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ExitText> {
        Box::pin(self.end(id))
    }

    fn stop<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
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
            id.starts_with(REPLICA_PREFIX)
                && matches!(self.executor.observe(id), Ok(Observation::Running { .. }))
        };
        self.executor.list().unwrap_or_default().into_iter().filter(running).collect()
    }
}

/// What the ids of replicas begin with, to tell them from jobs.
const REPLICA_PREFIX: &str = "ep-";
