//! From a claimed job to the running workloads of its hosts: inputs, source, environment, container contract, launch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::sagemaker::CreateTrainingJobInput;
use runner::catalogue::{ImageProfile, Source};
use runner::contract::{Channel, InstanceGroup, Rendezvous, TrainingContract};
use runner::environment::Environment;
use runner::feed::Feed;
use runner::workload::{Access, Confinement, JobUser, Mount, Network, WorkloadSpec};

use super::addresses::AddressRange;
use super::attempt::Attempt;
use super::attempts::Attempts;
use super::function_job::FunctionJob;
use super::hosts::{self, OwnChannel};
use super::input_changes::Inputs;
use super::kind::Contract;
use super::record::{FailureCard, HostRecord, TrainingRecord};
use super::warm_start::{self, Prepared};
use super::{ahead, channels, container, infra_check, processing, restart, sync};
use crate::app::App;
use crate::capacity::{Grant, HostGrant};
use crate::job_log::JobLog;
use crate::workloads::{self, JobIdentity};

/// What a job is told whose script would start an SSH daemon.
const MPI_DRIVER_REFUSAL: &str = "ClientError: the MPI driver of version 3 of the SDK starts an SSH daemon as root, which jobs here \
     cannot do: use Torchrun, or version 2 of the SDK with distribution={'mpi': {'enabled': True}}.";

/// Time between SIGTERM and SIGKILL, as in the service.
const STOP_GRACE_SECONDS: u64 = 120;

/// Credentials outlive the time limit by this much: stop, grace and clean-up.
pub const CREDENTIALS_MARGIN_SECONDS: i64 = 3_600;

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
    pub specs: Vec<WorkloadSpec>,
    /// The sandbox that was made for the only host.
    pub prepared: Option<Prepared>,
}

/// What all hosts of a job share.
struct Shared<'a> {
    attempt: &'a Attempt<'a>,
    attempts: Attempts,
    session_tags: wire::SessionTags,
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
    pub contract: Contract,
    /// Channels and checkpoints.
    pub mounts: Vec<Mount>,
    /// Channels that are sent.
    pub feeds: Vec<Feed>,
}

/// What all hosts of a job run in.
enum Runtime {
    Sandbox(Environment, Option<FunctionJob>),
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

/// When a job is prepared.
pub enum Moment {
    /// It has what it asked for.
    Turn,
    /// It waits, and its status says so. What it reads is followed from here on.
    Ahead(Arc<Inputs>),
}

/// Whether the job's image is a real container's.
pub async fn is_in_container(attempt: &Attempt<'_>) -> bool {
    let profile = profile(attempt).await;
    profile.is_ok_and(|profile| matches!(profile.source, Source::Container(_)))
}

async fn profile(attempt: &Attempt<'_>) -> Result<ImageProfile, String> {
    let specification = attempt.request.algorithm_specification.as_ref();
    let image =
        specification.and_then(|specification| specification.training_image.clone()).unwrap_or_default();
    attempt.app.containers.profile(&attempt.app.catalogue, &image).await
}

/// Prepares all hosts of the job; or gives the card of the step that failed.
///
/// # Errors
/// When the database fails or the lease is lost; the caller repeats or gives up.
pub async fn ready(
    attempt: &Attempt<'_>,
    range: AddressRange,
    grant: &Grant,
    moment: Moment,
) -> store::Result<Step<Ready>> {
    let app = attempt.app;
    // Of an attempt that was cut off before all its hosts had started.
    let earlier = attempt.record()?;
    hosts::clean_up(app, &earlier.hosts).await;

    let groups = hosts::groups(&attempt.request);
    let prepared = match moment {
        Moment::Turn => app.training.warm_starts().take(&attempt.work.key),
        Moment::Ahead(_) => None,
    };
    let key = &attempt.work.key;
    let log_group = attempt.log_group();
    let mut records = Vec::new();
    for index in 0..hosts::count(&groups) {
        let name = hosts::host_name(index);
        let log_stream = format!("{}/{name}-{}", key.name, app.clock.now_ms() / 1000);
        let workload = prepared
            .as_ref()
            .map_or_else(|| format!("job-{}", uuid::Uuid::new_v4()), |prepared| prepared.id().to_owned());
        records.push(HostRecord { name, workload, log_stream, exit: None, ended_at: None, run: None });
    }
    let (written, granted) = (records.clone(), grant.clone());
    let changes = app.training.input_changes().clone();
    let starting = attempt.kind.starting();
    let recorded = attempt.update(move |record, now_ms| {
        record.hosts = written;
        record.grant = granted;
        record.addresses = Some(range);
        record.attempts.is_between = false;
        record.attempts.run_started_at = None;
        match moment {
            Moment::Turn => record.begin(starting, now_ms),
            Moment::Ahead(inputs) => changes.follow(&inputs),
        }
    });
    let streams = records
        .iter()
        .map(|host| app.logs.ensure_stream(&key.account, &key.region, log_group, &host.log_stream));
    // Together, so that they share a commit.
    let (_, log_paths) = tokio::try_join!(recorded, futures::future::try_join_all(streams))?;
    let queried = processing::run_queries(attempt, &records[0], &log_paths[0], &grant[0]).await?;
    if let Err(mut card) = queried {
        card.log_tail = attempt.log(&records[0].log_stream).tail(50).await;
        card.logs = Some(format!("{log_group} {}", records[0].log_stream));
        return Ok(Err(card));
    }
    // With the time that queries took.
    let earlier = attempt.record()?;
    let secret = uuid::Uuid::new_v4().simple().to_string();
    let is_prepared = prepared.is_some();
    let TrainingRecord { attempts, session_tags, .. } = earlier;
    let shared = Shared { attempt, attempts, session_tags, groups, range, secret, is_prepared };
    match shared.specs(&records, grant, log_paths).await {
        Ok(specs) => Ok(Ok(Ready { hosts: records, specs, prepared })),
        Err((mut card, index)) => {
            let host = &records[index];
            card.log_tail = attempt.log(&host.log_stream).tail(50).await;
            card.logs = Some(format!("{log_group} {}", host.log_stream));
            Ok(Err(card))
        }
    }
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
        let profile = profile(attempt).await.or_else(|error| {
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
                let built = build(attempt, profile.clone(), &opt_ml(app, &records[0].workload), &first).await;
                built.or_else(|text| failed("environment", text))
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
            let spec = self.spec(host, furnished, log_path, granted, &runtime, self.network(records)).await;
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
        if let Some(input) = attempt.kind.processing() {
            return processing::furnish(attempt, input, &self.groups, host).await;
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
                folder: None,
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
            return Ok(Furnished { contract: Contract::Training(Box::new(contract)), mounts, feeds });
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
            Ok(()) => Ok(Furnished { contract: Contract::Training(Box::new(contract)), mounts, feeds }),
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
        network: Network,
    ) -> Step<WorkloadSpec> {
        let attempt = self.attempt;
        let (app, key) = (attempt.app, &attempt.work.key);
        let opt_ml = opt_ml(app, &host.workload);
        // What a job installs could run something when its interpreter starts.
        let has_requirements = opt_ml.join("code/requirements.txt").exists();
        let program = match runtime {
            Runtime::Sandbox(environment, function) => {
                self.sandboxed(host, &furnished, opt_ml, environment, function.as_ref()).await?
            }
            Runtime::Container(image) => image.program(app, &furnished, &opt_ml)?,
        };
        let identity = JobIdentity {
            account: &key.account,
            region: &key.region,
            role_arn: Some(&attempt.request.role_arn),
            session_tags: self.session_tags.clone(),
        };
        let limit_seconds = restart::time_left_seconds(attempt, &self.attempts);
        let lifetime_seconds = limit_seconds as i64 + CREDENTIALS_MARGIN_SECONDS;
        let starts_while_held = match runtime {
            Runtime::Sandbox(_, None) => {
                !has_requirements && ahead::starts_alone(&program.command, &attempt.request)
            }
            Runtime::Sandbox(_, Some(_)) | Runtime::Container(_) => false,
        };
        let mut variables = workloads::connection_environment(app, identity, lifetime_seconds);
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
            network,
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
            starts_while_held,
        })
    }

    /// The program of a host in a sandbox.
    async fn sandboxed(
        &self,
        host: &HostRecord,
        furnished: &Furnished,
        opt_ml: PathBuf,
        environment: &Environment,
        function: Option<&FunctionJob>,
    ) -> Step<Program> {
        let mut prepared = match furnished.contract.prepare(&opt_ml, environment) {
            Ok(prepared) => prepared,
            Err(error) => return failed("request", format!("ClientError: {error}")),
        };
        if let Some(function) = function {
            function.adapt(&mut prepared);
        }
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

    /// What the hosts reach. Those that are isolated together find each other in the folder of the first.
    fn network(&self, records: &[HostRecord]) -> Network {
        let is_isolated = self.attempt.request.enable_network_isolation == Some(true);
        match records {
            _ if !is_isolated => Network::Host,
            [first, _, ..] => {
                Network::Peers { place: job_directory(self.attempt.app, &first.workload).join("network") }
            }
            _ => Network::None,
        }
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

/// The environment of a sandbox, with what the job's source, or its function, asks for.
async fn build(
    attempt: &Attempt<'_>,
    mut profile: ImageProfile,
    opt_ml: &Path,
    log: &JobLog,
) -> Result<Runtime, String> {
    let app = attempt.app;
    let function = FunctionJob::of(&attempt.request);
    if let Some(function) = &function {
        function.choose_python(&mut profile.source);
        let requirements =
            function.write_requirements(opt_ml).map_err(|error| format!("InternalServerError: {error}"))?;
        if let Some(folder) = requirements {
            match workloads::environment(app, &profile, &folder, log).await {
                Ok(environment) => return Ok(Runtime::Sandbox(environment, Some(function.installed()))),
                // A pre-execution command of the job may be what makes it possible.
                Err(text) => {
                    log.line(&format!("modelyard: the job installs what its function needs itself: {text}"))
                        .await;
                }
            }
        }
    }
    let built = workloads::environment(app, &profile, &opt_ml.join("code"), log).await;
    let environment =
        built.map_err(|text| format!("AlgorithmError: the environment could not be built: {text}"))?;
    Ok(Runtime::Sandbox(environment, function))
}
