//! From a claimed job to the running workloads of its hosts: inputs, source, environment, container contract, launch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::sagemaker::CreateTrainingJobInput;
use runner::catalogue::{ImageProfile, Source};
use runner::contract::{Channel, InstanceGroup, Rendezvous, TrainingContract};
use runner::environment::Environment;
use runner::feed::Feed;
use runner::workload::{Access, Confinement, JobUser, Mount, Network, WorkloadSpec};

use super::addresses::AddressRange;
use super::attempt::Attempt;
use super::attempts::Attempts;
use super::hosts::{self, OwnChannel};
use super::record::{FailureCard, HostRecord, TrainingRecord};
use super::warm_start::{self, Prepared};
use super::{channels, container, infra_check, restart, sync};
use crate::app::App;
use crate::capacity::{Grant, HostGrant};
use crate::job_log::JobLog;
use crate::workloads::{self, JobIdentity};

/// Log group of all training jobs.
pub const LOG_GROUP: &str = "/aws/sagemaker/TrainingJobs";

/// What a job is told whose script would start an SSH daemon.
const MPI_DRIVER_REFUSAL: &str = "ClientError: the MPI driver of version 3 of the SDK starts an SSH daemon as root, which jobs here \
     cannot do: use Torchrun, or version 2 of the SDK with distribution={'mpi': {'enabled': True}}.";

/// Time between SIGTERM and SIGKILL, as in the service.
const STOP_GRACE_SECONDS: u64 = 120;

/// Credentials outlive the time limit by this much: stop, grace and clean-up.
const CREDENTIALS_MARGIN_SECONDS: i64 = 3_600;

/// Result of a step that may fail the job.
pub type Step<T> = Result<T, Box<FailureCard>>;

/// Folder of a job's files while it runs.
pub fn job_directory(app: &App, id: &str) -> PathBuf {
    workloads::job_directory(&app.config, id)
}

/// The host folder that the job sees as `/opt/ml`.
pub fn opt_ml(app: &App, id: &str) -> PathBuf {
    job_directory(app, id).join("opt-ml")
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
            program.map_or_else(|| "train".into(), |program| format!("python {program}"))
        }
    }
}

/// A job that is ready to start.
pub struct Ready {
    /// Its hosts, as they stand in the record.
    pub hosts: Vec<HostRecord>,
    /// What each of them runs.
    specs: Vec<WorkloadSpec>,
    /// The sandbox that was made for the only host.
    prepared: Option<Prepared>,
}

/// What all hosts of a job share.
struct Shared<'a> {
    attempt: &'a Attempt<'a>,
    attempts: Attempts,
    groups: Vec<InstanceGroup>,
    range: AddressRange,
    /// What the hosts know each other by.
    secret: String,
    /// Whether the folders of the only host are there, and shown in a sandbox.
    is_prepared: bool,
}

/// What was put in place for one host.
pub struct Furnished {
    /// What it is told.
    pub contract: TrainingContract,
    /// Channels and checkpoints.
    pub mounts: Vec<Mount>,
    feeds: Vec<Feed>,
}

/// What all hosts of a job run in.
enum Runtime {
    Sandbox(Environment),
    Container(container::Image),
}

/// What a host runs.
pub struct Program {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables, without those of the connection.
    pub environment: BTreeMap<String, String>,
    /// Where it starts.
    pub working_directory: PathBuf,
    /// All of its mounts.
    pub mounts: Vec<Mount>,
    /// How it is kept apart.
    pub confinement: Confinement,
}

/// Prepares all hosts of the job; or gives the card of the step that failed.
///
/// # Errors
/// When the database fails or the lease is lost; the caller repeats or gives up.
pub async fn ready(attempt: &Attempt<'_>, range: AddressRange, grant: &Grant) -> store::Result<Step<Ready>> {
    let app = attempt.app;
    let key = attempt.work.key.clone();
    let read = app.database.read(move |session| session.resource(&key)).await?;
    // Of an attempt that was cut off before all its hosts had started.
    let earlier = TrainingRecord::read(&read.document)?;
    hosts::clean_up(app, &earlier.hosts).await;

    let groups = hosts::groups(&attempt.request);
    let prepared = app.training.warm_starts().take(&attempt.work.key);
    let key = &attempt.work.key;
    let mut records = Vec::new();
    let mut log_paths = Vec::new();
    for index in 0..hosts::count(&groups) {
        let name = hosts::host_name(index);
        let log_stream = format!("{}/{name}-{}", key.name, app.clock.now_ms() / 1000);
        log_paths.push(app.logs.ensure_stream(&key.account, &key.region, LOG_GROUP, &log_stream).await?);
        let workload = prepared
            .as_ref()
            .map_or_else(|| format!("job-{}", uuid::Uuid::new_v4()), |prepared| prepared.id().to_owned());
        records.push(HostRecord { name, workload, log_stream, exit: None, ended_at: None, run: None });
    }
    let (written, granted) = (records.clone(), grant.clone());
    attempt
        .update(move |record, now_ms| {
            record.hosts = written;
            record.grant = granted;
            record.addresses = Some(range);
            record.attempts.is_between = false;
            record.prepare_again();
            record.enter("Starting", "Preparing the instances for training", now_ms);
        })
        .await?;
    attempt.update(|record, now_ms| record.enter("Downloading", "Downloading input data", now_ms)).await?;
    let secret = uuid::Uuid::new_v4().simple().to_string();
    let is_prepared = prepared.is_some();
    let shared = Shared { attempt, attempts: earlier.attempts, groups, range, secret, is_prepared };
    match shared.specs(&records, grant, log_paths).await {
        Ok(specs) => Ok(Ok(Ready { hosts: records, specs, prepared })),
        Err((mut card, index)) => {
            let host = &records[index];
            card.log_tail = attempt.log(&host.log_stream).tail(50).await;
            card.logs = Some(format!("{LOG_GROUP} {}", host.log_stream));
            Ok(Err(card))
        }
    }
}

/// Starts all hosts, or none: when one cannot be started, the others are ended.
///
/// # Errors
/// When the database fails or the lease is lost.
pub async fn start(attempt: &Attempt<'_>, ready: &Ready) -> store::Result<Step<()>> {
    attempt
        .update(|record, now_ms| {
            record.training_started_at.get_or_insert(now_ms);
            record.attempts.run_started_at = Some(now_ms);
            record.enter("Training", "Training image download completed. Training in progress.", now_ms);
        })
        .await?;
    let app = attempt.app;
    let started = futures::future::join_all(ready.specs.iter().map(|spec| async {
        match &ready.prepared {
            Some(prepared) => prepared.become_job(app, spec).await,
            None => app.executor.start(spec).await,
        }
    }));
    let started = started.await;
    let failed = ready.hosts.iter().zip(started).find_map(|(host, started)| Some((host, started.err()?)));
    let Some((host, error)) = failed else { return Ok(Ok(())) };
    hosts::clean_up(app, &ready.hosts).await;
    let text = format!("InternalServerError: the workload could not be started: {error}");
    Ok(Err(Box::new(FailureCard {
        first_failed_host: Some(host.name.clone()),
        ..FailureCard::new("launch", text)
    })))
}

/// A step that failed.
pub fn failed<T>(cause: &str, text: String) -> Step<T> {
    Err(Box::new(FailureCard::new(cause, text)))
}

impl Shared<'_> {
    /// What each host runs; the error comes with the index of the host that it is about.
    async fn specs(
        &self,
        records: &[HostRecord],
        grant: &Grant,
        log_paths: Vec<PathBuf>,
    ) -> Result<Vec<WorkloadSpec>, (Box<FailureCard>, usize)> {
        let attempt = self.attempt;
        let app = attempt.app;
        let first = attempt.log(&records[0].log_stream);
        if self.attempts.number() > 1 {
            first.line(&format!("modelyard: attempt {} of the job begins", self.attempts.number())).await;
        }
        let specification = attempt.request.algorithm_specification.as_ref();
        let image =
            specification.and_then(|specification| specification.training_image.clone()).unwrap_or_default();
        let profile = app.containers.profile(&app.catalogue, &image).await.or_else(|error| {
            failed("request", format!("ClientError: Cannot pull algorithm container. {error}"))
        });
        let profile = profile.map_err(|card| (card, 0))?;
        if attempt.request.profiler_rule_configurations.as_ref().is_some_and(|rules| !rules.is_empty()) {
            first
                .line("modelyard: ProfilerRuleConfigurations are recorded; their rules are not evaluated")
                .await;
        }
        let brings_code = matches!(profile.source, Source::Container(_));
        if let Err(text) = infra_check::run(attempt, &self.groups, &first).await {
            return failed("infra_check", text).map_err(|card| (card, 0));
        }
        let furnishing = records.iter().enumerate().map(|(index, host)| async move {
            self.furnish(host, brings_code).await.map_err(|mut card| {
                card.first_failed_host = (records.len() > 1).then(|| host.name.clone());
                (card, index)
            })
        });
        let furnished = futures::future::try_join_all(furnishing).await?;
        let runtime = match &profile.source {
            Source::Container(image) => {
                container::Image::have(app, image, &first).await.map(Runtime::Container)
            }
            // All hosts have the same source, so that one environment does for all.
            _ => {
                let code = opt_ml(app, &records[0].workload).join("code");
                let built = build(app, &profile, &code, &first).await;
                built.map(Runtime::Sandbox).or_else(|text| failed("environment", text))
            }
        };
        let runtime = runtime.map_err(|card| (card, 0))?;
        let mut specs = Vec::new();
        let parts = records.iter().zip(furnished).zip(log_paths).zip(grant);
        for (index, (((host, furnished), log_path), granted)) in parts.enumerate() {
            if let Some(text) = &granted.missing {
                let log = attempt.log(&host.log_stream);
                log.line(&format!("modelyard: {text}; the job runs with what there is")).await;
            }
            let spec = self.spec(host, furnished, log_path, granted, &runtime).await;
            specs.push(spec.map_err(|card| (card, index))?);
        }
        Ok(specs)
    }

    /// Puts channels, checkpoints and source in place for one host; an image that `brings_code` fetches the source itself.
    async fn furnish(&self, host: &HostRecord, brings_code: bool) -> Step<Furnished> {
        let attempt = self.attempt;
        let (app, account) = (attempt.app, &attempt.work.key.account);
        let directory = job_directory(app, &host.workload);
        let opt_ml = opt_ml(app, &host.workload);
        if !self.is_prepared
            && let Err(text) = workloads::make_fresh(&directory, &opt_ml).await
        {
            return failed("input", format!("InternalServerError: {text}"));
        }
        let own = hosts::channels(&attempt.request, &self.groups, &host.name);
        let contract = self.contract(host, &own);
        let mode = input_mode(attempt);
        let (mut mounts, mut feeds) = (Vec::new(), Vec::new());
        for one in &own {
            let place = channels::Place {
                directory: &directory,
                opt_ml: &opt_ml,
                host: one.shard,
                source_channel: contract.source_channel(),
            };
            let channel = std::slice::from_ref(&one.channel);
            match channels::prepare(&app.objects, account, channel, &mode, &place).await {
                Ok(prepared) => {
                    mounts.extend(prepared.mounts);
                    feeds.extend(prepared.feeds);
                }
                Err(text) => return failed("input", text),
            }
        }
        if starts_mpi_driver(&opt_ml).await {
            return failed("request", MPI_DRIVER_REFUSAL.to_owned());
        }
        match sync::restore(attempt, host).await {
            Ok(synchronised) => mounts.extend(synchronised),
            Err(text) => return failed("checkpoint", text),
        }
        if brings_code {
            return Ok(Furnished { contract, mounts, feeds });
        }
        if let Some(uri) = contract.source_archive()
            && let Err(text) = workloads::extract_object(app, account, &uri, &opt_ml.join("code")).await
        {
            return failed("input", format!("ClientError: the source archive {text}"));
        }
        let (placing, folder) = (contract.clone(), opt_ml.clone());
        let placed = tokio::task::spawn_blocking(move || placing.place_source(&folder)).await;
        let placed = placed.map_err(|error| error.to_string());
        match placed.and_then(|placed| placed.map_err(|error| error.to_string())) {
            Ok(()) => Ok(Furnished { contract, mounts, feeds }),
            Err(text) => failed("request", format!("ClientError: {text}")),
        }
    }

    /// The workload of one host.
    async fn spec(
        &self,
        host: &HostRecord,
        furnished: Furnished,
        log_path: PathBuf,
        granted: &HostGrant,
        runtime: &Runtime,
    ) -> Step<WorkloadSpec> {
        let attempt = self.attempt;
        let (app, key) = (attempt.app, &attempt.work.key);
        let opt_ml = opt_ml(app, &host.workload);
        let program = match runtime {
            Runtime::Sandbox(environment) => self.sandboxed(host, &furnished, opt_ml, environment).await?,
            Runtime::Container(image) => image.program(app, &furnished, &opt_ml)?,
        };
        let identity = JobIdentity {
            account: &key.account,
            region: &key.region,
            role_arn: Some(&attempt.request.role_arn),
        };
        let limit_seconds = restart::time_left_seconds(attempt, &self.attempts);
        let lifetime_seconds = limit_seconds as i64 + CREDENTIALS_MARGIN_SECONDS;
        let mut variables = workloads::connection_environment(app, &identity, lifetime_seconds);
        let hook = variables.remove("PYTHONPATH").unwrap_or_default();
        variables.extend(program.environment);
        let python_path =
            variables.get("PYTHONPATH").map_or(hook.clone(), |present| format!("{hook}:{present}"));
        variables.insert("PYTHONPATH".into(), python_path);
        Ok(WorkloadSpec {
            id: host.workload.clone(),
            command: program.command,
            environment: variables,
            working_directory: program.working_directory,
            mounts: program.mounts,
            feeds: furnished.feeds,
            log_path,
            time_limit_seconds: Some(limit_seconds),
            stop_grace_seconds: STOP_GRACE_SECONDS,
            network: if attempt.request.enable_network_isolation == Some(true) {
                Network::None
            } else {
                Network::Host
            },
            user: JobUser::Unprivileged,
            confinement: program.confinement,
            hostname: host.name.clone(),
            hosts: hosts::addresses(&self.groups, self.range),
            limits: runner::Limits {
                memory_bytes: Some(granted.memory_bytes),
                cpus: Some(granted.cpus.ceil() as u32),
                disk_bytes: self.volume_bytes(),
                ..runner::Limits::default()
            },
            required_locks: app.config.required_locks.clone(),
            gpus: granted.gpus.clone(),
        })
    }

    /// The program of a host in a sandbox.
    async fn sandboxed(
        &self,
        host: &HostRecord,
        furnished: &Furnished,
        opt_ml: PathBuf,
        environment: &Environment,
    ) -> Step<Program> {
        let prepared = match furnished.contract.prepare(&opt_ml, environment) {
            Ok(prepared) => prepared,
            Err(error) => return failed("request", format!("ClientError: {error}")),
        };
        if let Err(error) = warm_start::begin(self.attempt, &opt_ml, environment) {
            return failed("input", format!("InternalServerError: {}: {error}", opt_ml.display()));
        }
        for note in &prepared.notes {
            self.attempt.log(&host.log_stream).line(&format!("modelyard: {note}")).await;
        }
        let mut mounts = workloads::shared_mounts(self.attempt.app, environment);
        mounts.push(Mount { source: opt_ml, target: PathBuf::from("/opt/ml"), access: Access::ReadWrite });
        mounts.extend(furnished.mounts.clone());
        Ok(Program {
            command: prepared.command,
            environment: prepared.environment,
            working_directory: prepared.working_directory,
            mounts,
            confinement: Confinement::Bubblewrap,
        })
    }

    /// Space for what a host writes.
    fn volume_bytes(&self) -> Option<u64> {
        let resources = self.attempt.request.resource_config.as_ref()?;
        u64::try_from(resources.volume_size_in_gb?).ok().map(|gib| gib << 30)
    }

    /// The container contract of a host.
    fn contract(&self, host: &HostRecord, own: &[OwnChannel]) -> TrainingContract {
        let attempt = self.attempt;
        let request = &attempt.request;
        let key = &attempt.work.key;
        let specification = request.algorithm_specification.as_ref();
        let mode_of_job = input_mode(attempt);
        let channels = own.iter().map(|one| &one.channel).map(|channel| Channel {
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
        let mut configurations = BTreeMap::new();
        if let Some(hook) = &request.debug_hook_config {
            // What the debugger's library in user code reads.
            let written = serde_json::to_value(hook).unwrap_or_default();
            configurations.insert("debughookconfig.json".to_owned(), written);
        }
        TrainingContract {
            job_name: key.name.clone(),
            job_arn: crate::sagemaker::kinds::arn(&key.region, &key.account, &key.kind, &key.name),
            region: key.region.clone(),
            current_host: host.name.clone(),
            groups: self.groups.clone(),
            rendezvous: Rendezvous { port: self.range.port, secret: self.secret.clone() },
            channels: channels.collect(),
            hyperparameters: request.hyper_parameters.clone().unwrap_or_default(),
            environment: request.environment.clone().unwrap_or_default(),
            entrypoint: specification.and_then(|one| one.container_entrypoint.clone()),
            arguments: specification.and_then(|one| one.container_arguments.clone()).unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            configurations,
        }
    }
}

/// Whether the job's script is the one of version 3 of the SDK that starts its MPI driver.
async fn starts_mpi_driver(opt_ml: &Path) -> bool {
    let script = opt_ml.join("input/data/sm_drivers/sm_train.sh");
    tokio::fs::read_to_string(script).await.is_ok_and(|text| text.contains("/mpi_driver.py"))
}

/// How the job's channels are read, unless they say it themselves.
fn input_mode(attempt: &Attempt<'_>) -> String {
    let specification = attempt.request.algorithm_specification.as_ref();
    specification.map_or_else(|| "File".to_owned(), |one| one.training_input_mode.to_string())
}

/// The longest time that a job may run, in all of its attempts together.
pub fn time_limit_seconds(request: &CreateTrainingJobInput) -> u64 {
    let condition = request.stopping_condition.as_ref();
    // CreateTrainingJob requires it; a day is the service's default.
    condition
        .and_then(|condition| condition.max_runtime_in_seconds)
        .map_or(86_400, |seconds| seconds.max(1) as u64)
}

async fn build(app: &App, profile: &ImageProfile, code: &Path, log: &JobLog) -> Result<Environment, String> {
    let built = workloads::environment(app, profile, code, log).await;
    built.map_err(|text| format!("AlgorithmError: the environment could not be built: {text}"))
}
