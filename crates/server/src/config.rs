//! Settings: flags over environment over file over defaults. The only place that reads the environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use runner::locks::Lock;
use serde::Deserialize;

use crate::capacity::settings::CapacitySettings;
use crate::containers::{ContainerConfig, ContainerFile, is_engine_variable};
use crate::endpoints::settings::EndpointSettings;
use crate::registry::settings::RegistrySettings;
use crate::retention::settings::RetentionSettings;

/// What the server runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder that holds everything.
    pub data_dir: PathBuf,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Where the open inference protocols are spoken at the root of the address; nowhere unless given.
    pub open_protocols: Option<crate::open_protocols::OpenListener>,
    /// Default region: what `modelyard env` prints.
    pub region: String,
    /// Twelve-digit id of the first account.
    pub account: String,
    /// TLS, when wanted.
    pub tls: Option<TlsConfig>,
    /// Image catalogue overlays; a later one wins.
    pub images: Vec<PathBuf>,
    /// Most training jobs that run at once.
    pub parallel_jobs: usize,
    /// How the machine is shared out to jobs.
    pub capacity: CapacitySettings,
    /// User id that user code runs as when the server runs as root.
    pub job_user_id: u32,
    /// Locks without which no user code runs.
    pub required_locks: Vec<Lock>,
    /// What a scrape of `/_modelyard/metrics` must bring; without one, only this machine may ask.
    pub metrics_token: Option<String>,
    /// Days that metrics are kept.
    pub metrics_retention_days: u32,
    /// How real container images are run.
    pub containers: ContainerConfig,
    /// Rules of the model registry.
    pub registry: RegistrySettings,
    /// Seconds without a log line and without CPU use after which a job is said to hang; 0 for never.
    pub hang_after_seconds: u64,
    /// What then happens to it.
    pub hang_action: HangAction,
    /// How long what is old is kept.
    pub retention: RetentionSettings,
    /// How endpoints queue.
    pub endpoints: EndpointSettings,
    /// Seconds that a metric must be low before a target tracking policy takes replicas away.
    pub scale_in_after_seconds: u32,
    /// Variables that environment builds see, such as `PIP_INDEX_URL`.
    pub build_environment: BTreeMap<String, String>,
    /// Most GiB of objects of remote buckets that are kept as local files.
    pub remote_cache_gib: u64,
    /// Folders that are searched for programs (`uv`, `python3.11`, `bwrap`).
    pub search_path: Vec<PathBuf>,
}

/// What happens to a job that hangs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HangAction {
    /// An event, a line in its log and a message on its status.
    #[default]
    Warn,
    /// The same, and it is ended as failed.
    Fail,
}

/// Where the TLS certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsConfig {
    /// Made once and kept in the data directory.
    Generated,
    /// The user's PEM files.
    Files {
        /// Certificate chain.
        certificate: PathBuf,
        /// Private key.
        key: PathBuf,
    },
}

/// Flags of every command that needs the data directory.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DataDirFlag {
    /// Folder that holds everything: database, objects, logs, environments [default: ~/.modelyard]
    #[arg(long, value_name = "DIR", env = "MODELYARD_DATA_DIR", global = true)]
    pub data_dir: Option<PathBuf>,
}

/// Flags of `modelyard serve`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServeFlags {
    /// Address and port to listen on; port 0 picks a free one [default: 127.0.0.1:9000]
    #[arg(long, value_name = "ADDR:PORT", env = "MODELYARD_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Speak the open inference protocols (V2, gRPC, V1, OpenAI) at the root of this address too
    #[arg(long, value_name = "ADDR:PORT", env = "MODELYARD_OPEN_PROTOCOLS")]
    pub open_protocols: Option<SocketAddr>,
    /// Take requests at --open-protocols from programs of this machine without a key; the address must be loopback
    #[arg(long, env = "MODELYARD_OPEN_PROTOCOLS_WITHOUT_KEY")]
    pub open_protocols_without_key: bool,
    /// Settings file [default: DATA_DIR/modelyard.toml when it exists]
    #[arg(long, value_name = "FILE", env = "MODELYARD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Image catalogue overlay; may be given several times, a later one wins
    #[arg(long, value_name = "FILE", env = "MODELYARD_IMAGES", value_delimiter = ':')]
    pub images: Vec<PathBuf>,
    /// Region that `modelyard env` prints [default: us-east-1]
    #[arg(long, env = "MODELYARD_REGION")]
    pub region: Option<String>,
    /// Twelve-digit id of the first account, fixed when the data directory is made [default: 123456789012]
    #[arg(long, env = "MODELYARD_ACCOUNT")]
    pub account: Option<String>,
    /// Serve HTTPS with a certificate that is made once and kept in the data directory
    #[arg(long, env = "MODELYARD_TLS")]
    pub tls: bool,
    /// Serve HTTPS with this certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "MODELYARD_TLS_CERTIFICATE")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of --tls-certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate", env = "MODELYARD_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Most training jobs that run at once [default: the number of CPUs]
    #[arg(long, value_name = "N", env = "MODELYARD_PARALLEL_JOBS")]
    pub parallel_jobs: Option<usize>,
    /// Token that a scrape of /_modelyard/metrics must bring; without one, only this machine may ask
    #[arg(long, value_name = "TOKEN", env = "MODELYARD_METRICS_TOKEN", hide_env_values = true)]
    pub metrics_token: Option<String>,
}

/// The settings file; a key that is not listed here is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<SocketAddr>,
    open_protocols: Option<SocketAddr>,
    open_protocols_without_key: bool,
    region: Option<String>,
    account: Option<String>,
    images: Vec<PathBuf>,
    tls: bool,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    parallel_jobs: Option<usize>,
    job_user_id: Option<u32>,
    capacity: CapacitySettings,
    required_locks: Vec<String>,
    metrics_token: Option<String>,
    metrics_retention_days: Option<u32>,
    containers: ContainerFile,
    hang_after_seconds: Option<u64>,
    hang_action: HangAction,
    remote_cache_gib: Option<u64>,
    registry: RegistrySettings,
    retention: RetentionSettings,
    endpoints: EndpointSettings,
    scale_in_after_seconds: Option<u32>,
}

/// A minute: the service waits a quarter of an hour, where instances are paid for by the second and take minutes to start.
pub const DEFAULT_SCALE_IN_AFTER_SECONDS: u32 = 60;

/// Half an hour without a sign of life: longer than an epoch's silent part in most programs.
pub const DEFAULT_HANG_AFTER_SECONDS: u64 = 1_800;

/// Room for the channels of a few jobs.
pub const DEFAULT_REMOTE_CACHE_GIB: u64 = 16;

/// Default port; `modelyard env` needs no flag when it is used.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9000);

/// User id for user code when the server runs as root: outside the ranges that distributions give out.
pub const DEFAULT_JOB_USER_ID: u32 = 64_000;

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// The data directory that the flags name.
///
/// # Errors
/// When no flag is given and there is no home directory to put it in.
pub fn data_dir(flag: &DataDirFlag) -> Result<PathBuf, ConfigError> {
    let chosen = match &flag.data_dir {
        Some(directory) => directory.clone(),
        None => variable("HOME").map(|home| Path::new(&home).join(".modelyard")).ok_or_else(|| {
            ConfigError("HOME is not set: say where to keep data with --data-dir DIR".into())
        })?,
    };
    std::path::absolute(&chosen).map_err(|error| ConfigError(format!("{}: {error}", chosen.display())))
}

impl Config {
    /// Resolves flags, settings file and defaults.
    ///
    /// # Errors
    /// When the file cannot be read or a setting makes no sense; the text names it.
    pub fn resolve(data_dir: PathBuf, flags: &ServeFlags) -> Result<Config, ConfigError> {
        let file = read_file(&data_dir, flags.config.as_deref())?;
        let account = flags.account.clone().or(file.account).unwrap_or_else(|| "123456789012".into());
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ConfigError(format!("account {account:?}: an account id is twelve digits")));
        }
        let region = flags.region.clone().or(file.region).unwrap_or_else(|| "us-east-1".into());
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if region.is_empty() || !region.bytes().all(plain) {
            return Err(ConfigError(format!("region {region:?}: a region looks like us-east-1")));
        }
        let certificate = flags.tls_certificate.clone().or(file.tls_certificate);
        let tls = match (certificate, flags.tls_key.clone().or(file.tls_key)) {
            (Some(certificate), Some(key)) => Some(TlsConfig::Files { certificate, key }),
            (None, None) => (flags.tls || file.tls).then_some(TlsConfig::Generated),
            _ => return Err(ConfigError("tls_certificate and tls_key go together".into())),
        };
        let cpus = std::thread::available_parallelism().map_or(2, usize::from);
        let parallel_jobs = flags.parallel_jobs.or(file.parallel_jobs).unwrap_or(cpus.max(2));
        if parallel_jobs == 0 {
            return Err(ConfigError("parallel_jobs must be at least 1".into()));
        }
        file.capacity.check().map_err(ConfigError)?;
        file.retention.check().map_err(ConfigError)?;
        file.endpoints.check().map_err(ConfigError)?;
        let required_locks =
            file.required_locks.iter().map(|name| name.parse()).collect::<Result<_, String>>();
        let required_locks = required_locks.map_err(|text| ConfigError(format!("required_locks: {text}")))?;
        let metrics_token = flags.metrics_token.clone().or(file.metrics_token);
        if metrics_token.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError(
                "metrics_token must not be empty; leave it out to show metrics to this machine only".into(),
            ));
        }
        let metrics_retention_days =
            file.metrics_retention_days.unwrap_or(store::metrics::DEFAULT_RETENTION_DAYS);
        if metrics_retention_days < 15 {
            return Err(ConfigError(
                "metrics_retention_days must be at least 15: samples may come two weeks late".into(),
            ));
        }
        let open_protocols = crate::open_protocols::OpenListener::resolve(
            flags.open_protocols.or(file.open_protocols),
            flags.open_protocols_without_key || file.open_protocols_without_key,
        );
        Ok(Config {
            open_protocols: open_protocols.map_err(ConfigError)?,
            metrics_token,
            metrics_retention_days,
            listen: flags.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN),
            region,
            account,
            tls,
            images: if flags.images.is_empty() { file.images } else { flags.images.clone() },
            parallel_jobs,
            capacity: file.capacity,
            job_user_id: file.job_user_id.unwrap_or(DEFAULT_JOB_USER_ID),
            required_locks,
            containers: containers(file.containers)?,
            hang_after_seconds: file.hang_after_seconds.unwrap_or(DEFAULT_HANG_AFTER_SECONDS),
            hang_action: file.hang_action,
            remote_cache_gib: remote_cache_gib(file.remote_cache_gib)?,
            registry: file.registry,
            retention: file.retention,
            endpoints: file.endpoints,
            scale_in_after_seconds: file.scale_in_after_seconds.unwrap_or(DEFAULT_SCALE_IN_AFTER_SECONDS),
            build_environment: build_environment(),
            search_path: search_path(),
            data_dir,
        })
    }
}

fn remote_cache_gib(given: Option<u64>) -> Result<u64, ConfigError> {
    match given.unwrap_or(DEFAULT_REMOTE_CACHE_GIB) {
        gib @ 0..=1_000_000 => Ok(gib),
        _ => Err(ConfigError("remote_cache_gib must be at most 1000000".into())),
    }
}

fn containers(file: ContainerFile) -> Result<ContainerConfig, ConfigError> {
    let variables = std::env::vars().filter(|(name, _)| is_engine_variable(name)).collect();
    ContainerConfig::resolve(file, &search_path(), &variables).map_err(ConfigError)
}

/// How the server of a data directory runs real images, without its flags.
///
/// # Errors
/// As [`Config::resolve`].
pub fn containers_of(data_dir: &Path) -> Result<ContainerConfig, ConfigError> {
    containers(read_file(data_dir, None)?.containers)
}

fn read_file(data_dir: &Path, given: Option<&Path>) -> Result<File, ConfigError> {
    let path = given.map_or_else(|| data_dir.join("modelyard.toml"), Path::to_owned);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            toml::from_str(&text).map_err(|error| ConfigError(format!("{}: {error}", path.display())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && given.is_none() => Ok(File::default()),
        Err(error) => Err(ConfigError(format!("{}: {error}", path.display()))),
    }
}

/// A variable of the process.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Folders that programs are searched in.
pub fn search_path() -> Vec<PathBuf> {
    variable("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Whether a variable says how the outside is reached: proxies and certificates.
pub fn is_network_variable(name: &str) -> bool {
    matches!(
        name,
        "HTTP_PROXY"
            | "HTTPS_PROXY"
            | "NO_PROXY"
            | "http_proxy"
            | "https_proxy"
            | "no_proxy"
            | "SSL_CERT_FILE"
            | "SSL_CERT_DIR"
    )
}

/// What package installers may see of the server's environment: index, proxy and certificate settings, nothing else.
fn build_environment() -> BTreeMap<String, String> {
    let wanted = |name: &str| {
        name.starts_with("PIP_")
            || name.starts_with("UV_")
            || is_network_variable(name)
            || matches!(name, "REQUESTS_CA_BUNDLE" | "HOME" | "PATH" | "PYENV_ROOT")
    };
    std::env::vars().filter(|(name, _)| wanted(name)).collect()
}
