//! From a claimed job to a running workload: inputs, source, environment, container contract, launch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runner::catalogue::ImageProfile;
use runner::contract::{Channel, TrainingContract};
use runner::environment::Environment;
use runner::feed::Shard;
use runner::workload::{Access, Confinement, JobUser, Mount, Network, WorkloadSpec};

use super::attempt::Attempt;
use super::record::FailureCard;
use super::{channels, sync};
use crate::app::App;
use crate::capacity::{Grant, HostGrant};
use crate::job_log::JobLog;
use crate::workloads::{self, JobIdentity};

/// Log group of all training jobs.
pub const LOG_GROUP: &str = "/aws/sagemaker/TrainingJobs";

/// Name of the one host of a job.
const HOST: &str = "algo-1";

/// Time between SIGTERM and SIGKILL, as in the service.
const STOP_GRACE_SECONDS: u64 = 120;

/// Credentials outlive the time limit by this much: stop, grace and clean-up.
const CREDENTIALS_MARGIN_SECONDS: i64 = 3_600;

/// Result of a step that may fail the job.
type Step<T> = Result<T, Box<FailureCard>>;

/// Folder of a job's files while it runs.
pub fn job_directory(app: &App, id: &str) -> PathBuf {
    workloads::job_directory(&app.config, id)
}

/// The host folder that the job sees as `/opt/ml`.
pub fn opt_ml(app: &App, id: &str) -> PathBuf {
    job_directory(app, id).join("opt-ml")
}

/// Removes what a finished job leaves on the machine.
pub async fn clean_up(app: &Arc<App>, id: &str) {
    if let Err(error) = app.executor.remove(id) {
        tracing::warn!(workload = id, %error, "an ended workload could not be removed");
    }
    workloads::remove_directory(&job_directory(app, id)).await;
}

/// The command of the user's program, for failure texts.
pub fn shown_command(attempt: &Attempt<'_>) -> String {
    let specification = attempt.request.algorithm_specification.as_ref();
    let entry = specification.and_then(|specification| specification.container_entrypoint.clone());
    let arguments = specification.and_then(|specification| specification.container_arguments.clone());
    match entry {
        Some(mut words) => {
            words.extend(arguments.unwrap_or_default());
            words.join(" ")
        }
        None => {
            let parameters = attempt.request.hyper_parameters.clone().unwrap_or_default();
            let program = parameters.get("sagemaker_program").map(|text| text.trim_matches('"').to_owned());
            format!("python {}", program.unwrap_or_else(|| "train".into()))
        }
    }
}

/// Prepares the job and starts its workload; returns the workload's id, or the card of the step that failed.
///
/// # Errors
/// When the database fails or the lease is lost; the caller repeats or gives up.
pub async fn launch(attempt: &Attempt<'_>, grant: &Grant) -> store::Result<Step<String>> {
    let app = attempt.app;
    let id = format!("job-{}", uuid::Uuid::new_v4());
    let key = &attempt.work.key;
    let stream = format!("{}/{HOST}-{}", key.name, app.clock.now_ms() / 1000);
    let log_path = app.logs.ensure_stream(&key.account, &key.region, LOG_GROUP, &stream).await?;
    let stale = {
        let (id, stream, grant) = (id.clone(), stream.clone(), grant.clone());
        let mut stale = None;
        let key = key.clone();
        let read = app.database.read(move |session| session.resource(&key)).await?;
        if let Some(old) = super::record::TrainingRecord::read(&read.document)?.workload {
            stale = Some(old);
        }
        attempt
            .update(move |record, now_ms| {
                record.workload = Some(id);
                record.log_stream = Some(stream);
                record.grant = grant;
                record.enter("Starting", "Preparing the instances for training", now_ms);
            })
            .await?;
        stale
    };
    let Some(host) = grant.first() else {
        return Ok(Err(Box::new(FailureCard::new("request", "ClientError: the job has no host"))));
    };
    if let Some(old) = stale {
        // An attempt that was cut off before its workload started.
        clean_up(app, &old).await;
    }
    let prepared = prepare(attempt, &id, &stream, log_path, host).await?;
    let spec = match prepared {
        Ok(spec) => spec,
        Err(mut card) => {
            card.log_tail = attempt.log(&stream).tail(20).await;
            card.logs = Some(format!("{LOG_GROUP} {stream}"));
            return Ok(Err(card));
        }
    };
    attempt
        .update(|record, now_ms| {
            record.training_started_at = Some(now_ms);
            record.enter("Training", "Training image download completed. Training in progress.", now_ms);
        })
        .await?;
    match app.executor.start(&spec).await {
        Ok(()) => Ok(Ok(id)),
        Err(error) => {
            let text = format!("InternalServerError: the workload could not be started: {error}");
            Ok(Err(Box::new(FailureCard::new("launch", text))))
        }
    }
}

/// How the job's channels are read, unless they say it themselves.
fn input_mode(attempt: &Attempt<'_>) -> String {
    let specification = attempt.request.algorithm_specification.as_ref();
    specification.map_or_else(|| "File".to_owned(), |one| one.training_input_mode.to_string())
}

/// The container contract of a job.
fn contract(attempt: &Attempt<'_>) -> TrainingContract {
    let request = &attempt.request;
    let key = &attempt.work.key;
    let specification = request.algorithm_specification.as_ref();
    let mode_of_job = input_mode(attempt);
    let channels = request.input_data_config.iter().flatten().map(|channel| Channel {
        name: channel.channel_name.clone(),
        content_type: channel.content_type.clone(),
        input_mode: channels::input_mode(channel, &mode_of_job),
        distribution: channel
            .data_source
            .s3_data_source
            .as_ref()
            .and_then(|source| source.s3_data_distribution_type.as_ref())
            .map_or_else(|| "FullyReplicated".to_owned(), ToString::to_string),
        record_wrapper: channel
            .record_wrapper_type
            .as_ref()
            .map_or_else(|| "None".to_owned(), ToString::to_string),
    });
    let mut configurations = std::collections::BTreeMap::new();
    if let Some(hook) = &request.debug_hook_config {
        // What the debugger's library in user code reads.
        let written = serde_json::to_value(hook).unwrap_or_default();
        configurations.insert("debughookconfig.json".to_owned(), written);
    }
    TrainingContract {
        job_name: key.name.clone(),
        job_arn: crate::sagemaker::kinds::arn(&key.region, &key.account, &key.kind, &key.name),
        region: key.region.clone(),
        current_host: HOST.to_owned(),
        hosts: vec![HOST.to_owned()],
        instance_type: request
            .resource_config
            .as_ref()
            .and_then(|resources| resources.instance_type.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        channels: channels.collect(),
        hyperparameters: request.hyper_parameters.clone().unwrap_or_default(),
        environment: request.environment.clone().unwrap_or_default(),
        entrypoint: specification.and_then(|one| one.container_entrypoint.clone()),
        arguments: specification.and_then(|one| one.container_arguments.clone()).unwrap_or_default(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        configurations,
    }
}

async fn prepare(
    attempt: &Attempt<'_>,
    id: &str,
    stream: &str,
    log_path: PathBuf,
    host: &HostGrant,
) -> store::Result<Step<WorkloadSpec>> {
    let app = attempt.app;
    let key = &attempt.work.key;
    let log = attempt.log(stream);
    let fail = |cause: &str, text: String| Ok(Err(Box::new(FailureCard::new(cause, text))));

    let specification = attempt.request.algorithm_specification.as_ref();
    let image =
        specification.and_then(|specification| specification.training_image.clone()).unwrap_or_default();
    let profile = match app.catalogue.resolve(&image) {
        Ok(profile) => profile,
        Err(error) => {
            return fail("request", format!("ClientError: Cannot pull algorithm container. {error}"));
        }
    };
    if attempt.request.profiler_rule_configurations.as_ref().is_some_and(|rules| !rules.is_empty()) {
        log.line("modelyard: ProfilerRuleConfigurations are recorded; their rules are not evaluated").await;
    }

    attempt.update(|record, now_ms| record.enter("Downloading", "Downloading input data", now_ms)).await?;
    let directory = job_directory(app, id);
    let opt_ml = opt_ml(app, id);
    if let Err(text) = workloads::make_fresh(&directory, &opt_ml).await {
        return fail("input", format!("InternalServerError: {text}"));
    }
    let contract = contract(attempt);
    let place = channels::Place {
        directory: &directory,
        opt_ml: &opt_ml,
        host: Shard { host: 0, hosts: 1 },
        source_channel: contract.source_channel(),
    };
    let wanted = attempt.request.input_data_config.as_deref().unwrap_or_default();
    let mode = input_mode(attempt);
    let channels = match channels::prepare(&app.objects, &key.account, wanted, &mode, &place).await {
        Ok(channels) => channels,
        Err(text) => return fail("input", text),
    };
    let synchronised = match sync::restore(attempt, id).await {
        Ok(mounts) => mounts,
        Err(text) => return fail("checkpoint", text),
    };
    let code = opt_ml.join("code");
    if let Some(uri) = contract.source_archive()
        && let Err(text) = workloads::extract_object(app, &key.account, &uri, &code).await
    {
        return fail("input", format!("ClientError: the source archive {text}"));
    }
    let (placing, folder) = (contract.clone(), opt_ml.clone());
    let placed = tokio::task::spawn_blocking(move || placing.place_source(&folder)).await;
    if let Err(text) =
        placed.map_err(|error| error.to_string()).and_then(|placed| placed.map_err(|error| error.to_string()))
    {
        return fail("request", format!("ClientError: {text}"));
    }
    let environment = match build(app, &profile, &code, &log).await {
        Ok(environment) => environment,
        Err(text) => return fail("environment", text),
    };
    if let Some(text) = &host.missing {
        log.line(&format!("modelyard: {text}; the job runs with what there is")).await;
    }
    let prepared = match contract.prepare(&opt_ml, &environment) {
        Ok(prepared) => prepared,
        Err(error) => return fail("request", format!("ClientError: {error}")),
    };
    let identity =
        JobIdentity { account: &key.account, region: &key.region, role_arn: Some(&attempt.request.role_arn) };
    let limit_seconds = time_limit_seconds(attempt);
    let lifetime_seconds = limit_seconds as i64 + CREDENTIALS_MARGIN_SECONDS;
    let mut variables = workloads::connection_environment(app, &identity, lifetime_seconds);
    let hook = variables.remove("PYTHONPATH").unwrap_or_default();
    for (name, value) in prepared.environment {
        variables.insert(name, value);
    }
    let python_path = variables.get("PYTHONPATH").map_or(hook.clone(), |present| format!("{hook}:{present}"));
    variables.insert("PYTHONPATH".into(), python_path);
    let mut mounts = workloads::shared_mounts(app, &environment);
    mounts.push(Mount { source: opt_ml, target: PathBuf::from("/opt/ml"), access: Access::ReadWrite });
    mounts.extend(channels.mounts);
    mounts.extend(synchronised);
    Ok(Ok(WorkloadSpec {
        id: id.to_owned(),
        command: prepared.command,
        environment: variables,
        working_directory: prepared.working_directory,
        mounts,
        feeds: channels.feeds,
        log_path,
        time_limit_seconds: Some(limit_seconds),
        stop_grace_seconds: STOP_GRACE_SECONDS,
        network: if attempt.request.enable_network_isolation == Some(true) {
            Network::None
        } else {
            Network::Host
        },
        user: JobUser::Unprivileged,
        confinement: Confinement::Bubblewrap,
        hostname: HOST.into(),
        limits: runner::Limits {
            memory_bytes: Some(host.memory_bytes),
            cpus: Some(host.cpus.ceil() as u32),
            disk_bytes: volume_bytes(attempt),
            ..runner::Limits::default()
        },
        required_locks: app.config.required_locks.clone(),
        gpus: host.gpus.clone(),
    }))
}

/// Space for what the job writes.
fn volume_bytes(attempt: &Attempt<'_>) -> Option<u64> {
    let resources = attempt.request.resource_config.as_ref()?;
    u64::try_from(resources.volume_size_in_gb?).ok().map(|gib| gib << 30)
}

fn time_limit_seconds(attempt: &Attempt<'_>) -> u64 {
    let condition = attempt.request.stopping_condition.as_ref();
    // CreateTrainingJob requires it; a day is the service's default.
    condition
        .and_then(|condition| condition.max_runtime_in_seconds)
        .map_or(86_400, |seconds| seconds.max(1) as u64)
}

async fn build(app: &App, profile: &ImageProfile, code: &Path, log: &JobLog) -> Result<Environment, String> {
    let built = workloads::environment(app, profile, code, log).await;
    built.map_err(|text| format!("AlgorithmError: the environment could not be built: {text}"))
}
