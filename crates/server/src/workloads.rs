//! What training jobs and model replicas share on their way into a sandbox: folders, environments, credentials, mounts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runner::archive::{ArchiveError, Limits, extract_tar_gz};
use runner::catalogue::ImageProfile;
use runner::environment::{Environment, Environments, Requirements, Tools};
use runner::executor::{Executor, ExecutorSettings, ProcessExecutor};
use runner::sandbox::{self, SandboxState};
use runner::supervisor;
use runner::workload::{Access, Exit, ExitReport, Mount};
use wire::SessionTags;

use store::objects::ObjectFile;

use crate::app::{App, StartError};
use crate::config::Config;
use crate::identity::EXECUTION_ROLE;
use crate::job_log::JobLog;

/// Where the sandbox shows the model host.
pub const MODEL_HOST_TARGET: &str = "/opt/modelyard/python";
/// Where the sandbox shows the folder of a replica's socket.
pub const SOCKET_TARGET: &str = "/run/model";
/// Where the sandbox shows the import hook.
const HOOK_TARGET: &str = "/opt/modelyard/hook";
/// Where the sandbox shows a generated certificate.
const CA_BUNDLE_TARGET: &str = "/opt/modelyard/ca.pem";

/// Limits for archives of users: far above real ones, far below what fills a disk by surprise.
const ARCHIVE_LIMITS: Limits =
    Limits { max_bytes: 200 * 1024 * 1024 * 1024, max_members: 2_000_000, max_path: 4_095 };

/// Files of the model host, embedded so that one binary is all there is to install.
const MODEL_HOST_FILES: &[(&str, &str)] = &include!("model_host_files.rs");

/// The executor of this server: supervised processes in sandboxes.
///
/// # Errors
/// When sandboxes do not work here.
pub fn executor(config: &Config) -> Result<Arc<dyn Executor>, StartError> {
    let settings = executor_settings(&config.search_path, config.job_user_id);
    let report = sandbox::probe(&settings);
    if report.state != SandboxState::Works {
        return Err(StartError::new(format!(
            "user code cannot be confined here: {} {}",
            report.detail,
            report.remedy.as_deref().unwrap_or("`modelyard doctor` says more.")
        )));
    }
    if let Err(why) = runner::cgroup::prepare_delegation() {
        tracing::info!(why, "jobs have no control groups here; the supervisor watches their limits");
    }
    let command = supervisor_command().map_err(|error| StartError::new(error.to_string()))?;
    let executor = ProcessExecutor::new(&config.data_dir.join("workloads"), command, settings);
    let executor = executor.map_err(|error| StartError::new(error.to_string()))?;
    crate::containers::remove_strays(&executor, &config.containers);
    Ok(Arc::new(executor))
}

/// The command that supervises a workload: this program.
///
/// # Errors
/// When the program's path is not known.
pub fn supervisor_command() -> std::io::Result<Vec<String>> {
    let program = std::env::current_exe()?;
    Ok(vec![program.display().to_string(), supervisor::SUBCOMMAND.to_owned()])
}

/// What executing needs to know: bubblewrap and `nvidia-smi` from the `PATH`, and the user of jobs.
pub fn executor_settings(search_path: &[PathBuf], job_user_id: u32) -> ExecutorSettings {
    let mut settings =
        ExecutorSettings { job_uid: job_user_id, job_gid: job_user_id, ..ExecutorSettings::default() };
    let find = |name: &str| search_path.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    if let Some(path) = find("bwrap") {
        settings.bubblewrap = path;
    }
    settings.nvidia_smi = find("nvidia-smi");
    settings
}

/// Python environments of this server.
pub fn environments(config: &Config) -> Environments {
    let tools = Tools::find(&config.search_path);
    Environments::new(config.data_dir.join("environments"), tools, config.build_environment.clone())
}

/// Who a workload acts as.
pub struct JobIdentity<'a> {
    /// Twelve-digit account.
    pub account: &'a str,
    /// Region.
    pub region: &'a str,
    /// Role it was given; the account's execution role where there is none.
    pub role_arn: Option<&'a str>,
    /// Tags that its session gets.
    pub session_tags: SessionTags,
}

/// The variables with which user code reaches this server: endpoint, region, credentials of its own, the import hook.
pub fn connection_environment(
    app: &App,
    identity: JobIdentity<'_>,
    lifetime_seconds: i64,
) -> BTreeMap<String, String> {
    let role =
        identity.role_arn.and_then(crate::iam::split_role_arn).map_or(EXECUTION_ROLE, |(_, name)| name);
    let arn = format!("arn:aws:sts::{}:assumed-role/{role}/SageMaker", identity.account);
    let id = format!("AROA{role}:SageMaker");
    let session =
        app.identity.sessions().issue(identity.account, &arn, &id, lifetime_seconds, identity.session_tags);
    let endpoint = &app.connection.endpoint;
    let mut variables: BTreeMap<&str, String> = BTreeMap::from([
        ("AWS_ENDPOINT_URL", endpoint.clone()),
        ("S3_ENDPOINT_URL", endpoint.clone()),
        ("AWS_REGION", identity.region.to_owned()),
        ("AWS_DEFAULT_REGION", identity.region.to_owned()),
        ("AWS_ACCESS_KEY_ID", session.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", session.secret_access_key),
        ("AWS_SESSION_TOKEN", session.session_token),
        ("PYTHONPATH", HOOK_TARGET.to_owned()),
    ]);
    if app.connection.ca_bundle.is_some() {
        variables.insert("AWS_CA_BUNDLE", CA_BUNDLE_TARGET.to_owned());
        variables.insert("REQUESTS_CA_BUNDLE", CA_BUNDLE_TARGET.to_owned());
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A host path that a workload may read.
fn read_only(source: &Path, target: &Path) -> Mount {
    Mount { source: source.to_owned(), target: target.to_owned(), access: Access::ReadOnly }
}

/// Mounts of every sandboxed workload: its Python environment, and those of [`connection_mounts`].
pub fn shared_mounts(app: &App, environment: &Environment) -> Vec<Mount> {
    let mut mounts: Vec<Mount> =
        environment.read_only_paths.iter().map(|path| read_only(path, path)).collect();
    mounts.extend(connection_mounts(app));
    mounts
}

/// Mounts with which user code reaches this server: the import hook, the certificate.
pub fn connection_mounts(app: &App) -> Vec<Mount> {
    let mut mounts = vec![read_only(&crate::hook::directory(&app.config.data_dir), Path::new(HOOK_TARGET))];
    if let Some(bundle) = &app.connection.ca_bundle {
        mounts.push(read_only(bundle, Path::new(CA_BUNDLE_TARGET)));
    }
    mounts
}

/// `PATH` inside the sandbox: the environment's programs first.
pub fn path_with(environment: &Environment) -> String {
    format!(
        "{}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        environment.directory.display()
    )
}

/// Builds, or finds, the environment of an image with the `requirements.txt` of `code`, its progress in the job's log.
///
/// # Errors
/// A text that says which step failed.
pub async fn environment(
    app: &App,
    profile: &ImageProfile,
    code: &Path,
    log: &JobLog,
) -> Result<Environment, String> {
    let requirements = match tokio::fs::read_to_string(code.join("requirements.txt")).await {
        Ok(text) if !text.trim().is_empty() => Some(Requirements { text, directory: Some(code.to_owned()) }),
        _ => None,
    };
    let (lines, mut received) = tokio::sync::mpsc::unbounded_channel::<String>();
    let mut progress = move |line: &str| {
        // The receiver lives as long as the build below.
        let _ = lines.send(line.to_owned());
    };
    let build = async move { app.environments.ensure(profile, requirements, &mut progress).await };
    let write = async {
        while let Some(line) = received.recv().await {
            log.line(&format!("modelyard: {line}")).await;
        }
    };
    // The channel closes when the build ends, and with it the writing.
    let (built, ()) = tokio::join!(build, write);
    built.map_err(|error| error.to_string())
}

/// Where the files of a training job's `/opt/ml` live while it runs.
pub fn job_directory(config: &Config, id: &str) -> PathBuf {
    config.data_dir.join("jobs").join(id)
}

/// Where the files of a replica's `/opt/ml` live while it runs.
pub fn replica_directory(config: &Config, id: &str) -> PathBuf {
    config.data_dir.join("replicas").join(id)
}

/// Removes what an earlier attempt left in `directory` and makes `inner` below it.
///
/// # Errors
/// A text for people.
pub async fn make_fresh(directory: &Path, inner: &Path) -> Result<(), String> {
    remove_directory(directory).await;
    tokio::fs::create_dir_all(inner).await.map_err(|error| format!("{}: {error}", inner.display()))
}

/// Removes a folder with all that is in it; a missing one is fine.
pub async fn remove_directory(directory: &Path) {
    match tokio::fs::remove_dir_all(directory).await {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "a folder could not be removed")
        }
    }
}

/// Extracts the tar.gz object at an S3 URI into `directory`.
///
/// # Errors
/// A text for people that names the object.
pub async fn extract_object(app: &App, account: &str, uri: &str, directory: &Path) -> Result<(), String> {
    let (bucket, key) =
        crate::training::bucket_and_key(uri).ok_or_else(|| format!("{uri:?} is not an S3 URI"))?;
    let file = app.objects.open_object(account, bucket, key).await;
    let file = file.map_err(|error| format!("{uri} cannot be read: {error}"))?;
    extract_file(file, uri, directory).await
}

/// Extracts the open tar.gz object, which came from `uri`, into `directory`.
///
/// # Errors
/// A text for people that names the object.
pub async fn extract_file(file: ObjectFile, uri: &str, directory: &Path) -> Result<(), String> {
    let target = directory.to_owned();
    let extracted = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&target).map_err(|error| error.to_string())?;
        let room = room_bytes(&target);
        let limits = Limits { max_bytes: ARCHIVE_LIMITS.max_bytes.min(room), ..ARCHIVE_LIMITS };
        extract_tar_gz(file, &target, limits).map_err(|error| match error {
            ArchiveError::TooManyBytes { max_bytes } if max_bytes == room => format!(
                "The archive unpacks to more than {max_bytes} bytes, nine tenths of what the disk has left: make it smaller, or free space."
            ),
            other => other.to_string(),
        })
    });
    extracted
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("{uri} cannot be unpacked: {error}"))?;
    Ok(())
}

/// What an archive may take of the disk that has this folder: the server and other jobs need some of it, too.
fn room_bytes(folder: &Path) -> u64 {
    let disk = rustix::fs::statvfs(folder);
    disk.map_or(u64::MAX, |disk| (disk.f_bavail / 10).saturating_mul(9).saturating_mul(disk.f_frsize))
}

/// Folder of the model host's files, written once per release.
pub fn model_host(config: &Config) -> PathBuf {
    config.data_dir.join(concat!("model-host-", env!("CARGO_PKG_VERSION")))
}

/// Writes the model host's files where they differ.
///
/// # Errors
/// When the folder cannot be written.
pub fn install_model_host(config: &Config) -> std::io::Result<()> {
    let directory = model_host(config);
    for (name, content) in MODEL_HOST_FILES {
        let path = directory.join(name);
        if !std::fs::read_to_string(&path).is_ok_and(|present| present == *content) {
            std::fs::create_dir_all(path.parent().unwrap_or(&directory))?;
            let partial = path.with_extension("partial");
            std::fs::write(&partial, content)?;
            failpoint::at(failpoint::Point::ModelHostFile)?;
            std::fs::rename(&partial, &path)?;
        }
    }
    Ok(())
}

/// How a program ended, in a sentence, and the limit it ran into.
pub fn exit_sentence(report: &ExitReport) -> String {
    let sentence = match &report.exit {
        Exit::Code(code) => format!("The container exited with code {code}."),
        Exit::Signal(number) => format!("The container was ended by signal {number}."),
        Exit::TimeLimit => "The container ran into its time limit.".into(),
        Exit::SupervisorLost => "The supervisor of the container was killed.".into(),
        Exit::InputFailed(text) => format!("An input of the container could not be read to its end: {text}"),
        Exit::LaunchFailed(text) => format!("The container could not be started: {text}"),
    };
    let events = report.limit_events.iter().map(|event| format!(" {}", event.sentence()));
    sentence + &events.collect::<String>()
}
