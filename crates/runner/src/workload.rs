//! What a workload is: the description a caller gives and the report it gets back.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::feed::Feed;
use crate::limits::{EffectiveLimits, LimitEvent, Limits};
use crate::locks::{Lock, LockReport};
use crate::oci::Container;
use crate::usage::UsageSummary;

/// The longest workload id, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// One process to run, with everything it may see. Stored as JSON in the workload's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadSpec {
    /// Names the workload for good: `[A-Za-z0-9-]{1,128}`. One id runs at most once.
    pub id: String,
    /// Program and arguments; the program is looked up in the job's `PATH` inside the sandbox. For a container: the
    /// arguments of its entry point, perhaps none.
    pub command: Vec<String>,
    /// The job's whole environment. `PATH`, `HOME` and `LANG` get defaults when missing; nothing else is
    /// added. A container gets no defaults: its image has its own.
    pub environment: BTreeMap<String, String>,
    /// Where the job starts, as the job sees it. A container starts where its image says.
    pub working_directory: PathBuf,
    /// Host files and directories the job sees, besides the read-only system.
    pub mounts: Vec<Mount>,
    /// Channels that the job reads as streams.
    #[serde(default)]
    pub feeds: Vec<Feed>,
    /// Host file that the job's output is appended to, in the format of [`crate::log_line`].
    pub log_path: PathBuf,
    /// Longest run time, counted from the job's first instruction; `None` for no limit.
    pub time_limit_seconds: Option<u64>,
    /// Time between SIGTERM and SIGKILL when the job is stopped or its time is up.
    pub stop_grace_seconds: u64,
    /// What the job can reach.
    pub network: Network,
    /// Who the job runs as.
    pub user: JobUser,
    /// How the job is kept apart from the host.
    pub confinement: Confinement,
    /// The host name the job sees.
    pub hostname: String,
    /// What the job may use of the machine.
    #[serde(default)]
    pub limits: Limits,
    /// Locks without which the job must not run.
    #[serde(default)]
    pub required_locks: Vec<Lock>,
    /// NVIDIA GPUs that it sees, by the number of the device file (`/dev/nvidiaN`).
    #[serde(default)]
    pub gpus: Vec<u32>,
    /// Names that the job can resolve and their loopback addresses: its own and those of its peers. Without any, the host
    /// name is 127.0.0.1.
    #[serde(default)]
    pub hosts: BTreeMap<String, Ipv4Addr>,
    /// Whether the program may start while the workload is held: a Python interpreter whose import hook heeds [`AWAITS_GO`]
    /// before anything of the job can run.
    #[serde(default)]
    pub starts_while_held: bool,
}

/// Variable of an interpreter that was started before its program may run. The first place in `PYTHONPATH` has a hook that
/// reads one byte from the standard input, whose end means that the program is not to run at all, and puts the null device
/// there. Until then `PYTHONPATH` has nothing but that place; this variable has the whole.
pub const AWAITS_GO: &str = "MODELYARD_AWAITS_GO";

/// A host path made visible to a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Host file or directory; it must exist and must not itself be a symbolic link.
    pub source: PathBuf,
    /// Absolute path at which the job sees it.
    pub target: PathBuf,
    /// Whether the job may change it.
    pub access: Access,
}

/// Whether a job may change what is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Reading only. The content must be readable by the job's user.
    ReadOnly,
    /// Reading and writing. The content is given to the job's user before the start.
    ReadWrite,
}

/// What a job can reach over the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The host's network.
    Host,
    /// A loopback interface of its own, and nothing else.
    None,
    /// A loopback interface that it shares with the workloads that name the same place, and nothing else.
    Peers {
        /// A file in which they find each other; its folder must exist.
        place: PathBuf,
    },
}

/// The user a job runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobUser {
    /// The configured job user when the server is root, else the server's own user; never with any
    /// capability.
    Unprivileged,
}

/// How a job is kept apart from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confinement {
    /// Private namespaces and a private file system made by bubblewrap.
    Bubblewrap,
    /// A plain process that sees the host's files: only for jobs that are trusted as much as the server.
    None,
    /// A container of a real image, made by a container engine, with the users of the image.
    Container(Box<Container>),
}

/// How a workload ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// The job's process returned this exit code.
    Code(i32),
    /// The job's process was ended by this signal.
    Signal(i32),
    /// The job ran into its time limit and was ended for it.
    TimeLimit,
    /// The supervisor died without a report, and the job with it; its exit is not known.
    SupervisorLost,
    /// A channel could not be sent to its end, and the job was ended for it; the text says why.
    InputFailed(String),
    /// The job's process never ran, for the reason in the text.
    LaunchFailed(String),
}

/// All that is known about a workload that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExitReport {
    /// How it ended.
    pub exit: Exit,
    /// When the job's process started (or, if it never did, when its supervisor did), in ms since 1970.
    pub started_at_ms: u64,
    /// When the job's last process was gone, in ms since 1970.
    pub ended_at_ms: u64,
    /// Whether a stop or a kill was asked for before the end.
    pub stop_requested: bool,
    /// Largest resident memory of any single process of the job, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// CPU time of all the job's processes, user and system, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Why some output is missing from the log, if it is (a full disk, say).
    pub log_error: Option<String>,
    /// How it was kept in.
    #[serde(default)]
    pub containment: Containment,
    /// Limits it ran into.
    #[serde(default)]
    pub limit_events: Vec<LimitEvent>,
    /// What it used of the machine.
    #[serde(default)]
    pub usage: Option<UsageSummary>,
}

/// How a workload is kept in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Containment {
    /// Every lock, and whether it holds; empty until the job's first process has said.
    pub locks: Vec<LockReport>,
    /// The limits in force.
    pub limits: Option<EffectiveLimits>,
}

/// What can be seen of a workload now.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// No such workload was ever started here; starting it is safe.
    Unknown,
    /// It is being prepared or it runs.
    Running {
        /// Host pid of the first process inside the sandbox, once there is one. Its namespaces are the job's.
        pid: Option<u32>,
        /// When the job's process started (or, while it is being prepared, its supervisor), in ms since 1970.
        started_at_ms: u64,
    },
    /// It has ended, and none of its processes is left.
    Exited(Box<ExitReport>),
}

/// Whether `id` can name a workload.
pub fn is_valid_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl ExitReport {
    /// A report that says no more than how and when a workload ended.
    pub fn bare(exit: Exit, started_at_ms: u64, ended_at_ms: u64, stop_requested: bool) -> ExitReport {
        ExitReport {
            exit,
            started_at_ms,
            ended_at_ms,
            stop_requested,
            peak_memory_bytes: None,
            cpu_seconds: None,
            log_error: None,
            containment: Containment::default(),
            limit_events: Vec::new(),
            usage: None,
        }
    }
}

impl WorkloadSpec {
    /// A confined process with nothing mounted, no network, no log and no limits of its own.
    pub fn plain(id: &str, command: Vec<String>) -> WorkloadSpec {
        WorkloadSpec {
            id: id.to_owned(),
            command,
            environment: BTreeMap::new(),
            working_directory: PathBuf::from("/"),
            mounts: Vec::new(),
            feeds: Vec::new(),
            log_path: PathBuf::from("/dev/null"),
            time_limit_seconds: None,
            stop_grace_seconds: 1,
            network: Network::None,
            user: JobUser::Unprivileged,
            confinement: Confinement::Bubblewrap,
            hostname: "algo-1".to_owned(),
            limits: Limits::default(),
            required_locks: Vec::new(),
            gpus: Vec::new(),
            hosts: BTreeMap::new(),
            starts_while_held: false,
        }
    }

    /// Checks all that can be checked without touching the host; the error is a sentence for the user.
    pub fn validate(&self) -> Result<(), String> {
        if !is_valid_id(&self.id) {
            return Err(format!(
                "The workload id {:?} is not valid: use 1 to {MAX_ID_BYTES} letters, digits and hyphens.",
                self.id
            ));
        }
        let brings_program = matches!(self.confinement, Confinement::Container(_));
        if !brings_program && self.command.first().is_none_or(String::is_empty) {
            return Err("The command is empty: name the program to run.".to_owned());
        }
        if self.command.iter().any(|argument| argument.contains('\0')) {
            return Err("The command contains a NUL byte: remove it.".to_owned());
        }
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(format!(
                    "The environment variable {name:?} cannot be set: a name must not be empty or contain '=', and neither \
                     name nor value may contain a NUL byte."
                ));
            }
        }
        for name in self.hosts.keys().chain([&self.hostname]) {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
            if !(1..=64).contains(&name.len()) || !name.bytes().all(is_plain) {
                return Err(format!(
                    "The host name {name:?} is not valid: use 1 to 64 letters, digits, hyphens and dots."
                ));
            }
        }
        if let Some((name, address)) = self.hosts.iter().find(|(_, address)| !address.is_loopback()) {
            return Err(format!(
                "The address {address} of the host {name:?} is not valid: use one of this machine alone, 127.0.0.0/8."
            ));
        }
        if self.time_limit_seconds == Some(0) {
            return Err("The time limit is zero: give at least one second, or no limit.".to_owned());
        }
        self.limits.validate()?;
        check_plain_absolute("working directory", &self.working_directory)?;
        check_plain_absolute("log path", &self.log_path)?;
        self.validate_mounts()
    }

    fn validate_mounts(&self) -> Result<(), String> {
        for feed in &self.feeds {
            for path in [&feed.directory, &feed.plan, &feed.files] {
                check_plain_absolute("feed's path", path)?;
            }
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            check_plain_absolute("mount source", &mount.source)?;
            if self.mounts[..index].iter().any(|earlier| earlier.target == mount.target) {
                return Err(format!(
                    "Two mounts have the target {}: keep one of them.",
                    mount.target.display()
                ));
            }
            match self.confinement {
                Confinement::Bubblewrap | Confinement::Container(_) => check_mount_target(&mount.target)?,
                Confinement::None => check_plain_absolute("mount target", &mount.target)?,
            }
        }
        Ok(())
    }
}

/// Checks that something can be mounted at `target` in a sandbox; the error is a sentence for the user.
pub fn check_mount_target(target: &Path) -> Result<(), String> {
    check_plain_absolute("mount target", target)?;
    if is_reserved_target(target) {
        return Err(format!(
            "The mount target {} belongs to the sandbox itself: choose another one.",
            target.display()
        ));
    }
    Ok(())
}

/// The sandbox's own mounts, which a caller's mount would break or pierce.
fn is_reserved_target(target: &Path) -> bool {
    let inside_dev = target.starts_with("/dev") && !target.starts_with("/dev/shm");
    target == Path::new("/")
        || target.starts_with("/proc")
        || target.starts_with("/sys")
        || target == Path::new("/run")
        || target.starts_with("/run/modelyard")
        || inside_dev
}

/// Refuses paths that are relative or whose meaning depends on links (`..`), since they are compared as text.
fn check_plain_absolute(what: &str, path: &Path) -> Result<(), String> {
    use std::os::unix::ffi::OsStrExt;
    let plain =
        path.components().all(|component| matches!(component, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && !path.as_os_str().as_bytes().contains(&0) {
        return Ok(());
    }
    Err(format!(
        "The {what} {:?} is not valid: use an absolute path without '..'.",
        path.display().to_string()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> WorkloadSpec {
        WorkloadSpec::plain("job-1", vec!["true".to_owned()])
    }

    fn mount(target: &str) -> Mount {
        Mount { source: PathBuf::from("/data"), target: PathBuf::from(target), access: Access::ReadOnly }
    }

    #[test]
    fn ids_are_plain_names() {
        assert!(is_valid_id("a") && is_valid_id("Train-2026-x") && is_valid_id(&"a".repeat(128)));
        for id in ["", ".", "..", "a/b", "a.b", "a b", "é", &"a".repeat(129)] {
            assert!(!is_valid_id(id), "{id:?} must be refused");
        }
    }

    #[test]
    fn a_plain_spec_is_accepted_and_survives_json() {
        let spec = spec();
        assert_eq!(spec.validate(), Ok(()));
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<WorkloadSpec>(&text).unwrap(), spec);
    }

    #[test]
    fn each_broken_field_is_named() {
        type Spoil = Box<dyn Fn(&mut WorkloadSpec)>;
        let cases: Vec<(&str, Spoil)> = vec![
            ("workload id", Box::new(|s| s.id = "../x".to_owned())),
            ("command is empty", Box::new(|s| s.command.clear())),
            ("NUL", Box::new(|s| s.command.push("a\0b".to_owned()))),
            ("environment", Box::new(|s| drop(s.environment.insert("A=B".to_owned(), "1".to_owned())))),
            ("host name", Box::new(|s| s.hostname = "a b".to_owned())),
            ("host name", Box::new(|s| s.hosts = [("a\nb".to_owned(), Ipv4Addr::LOCALHOST)].into())),
            ("address", Box::new(|s| s.hosts = [("b".to_owned(), Ipv4Addr::new(10, 0, 0, 1))].into())),
            ("time limit", Box::new(|s| s.time_limit_seconds = Some(0))),
            ("limit processes", Box::new(|s| s.limits.processes = Some(0))),
            ("working directory", Box::new(|s| s.working_directory = PathBuf::from("x"))),
            ("log path", Box::new(|s| s.log_path = PathBuf::from("/a/../b"))),
            ("sandbox itself", Box::new(|s| s.mounts.push(mount("/proc/1")))),
            ("sandbox itself", Box::new(|s| s.mounts.push(mount("/run/modelyard/exec")))),
            ("Two mounts", Box::new(|s| s.mounts.extend([mount("/opt/ml"), mount("/opt/ml")]))),
        ];
        for (expected, spoil) in cases {
            let mut spec = spec();
            spoil(&mut spec);
            let error = spec.validate().unwrap_err();
            assert!(error.contains(expected), "{error:?} should mention {expected:?}");
        }
    }
}
