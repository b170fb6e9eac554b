//! Makes the sandbox a job runs in, and tells whether this host can make one.

mod arguments;
mod locks_probe;
mod ownership;
mod probe;
mod processes;
mod strays;
mod system_files;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;

pub use locks_probe::probe_locks;
pub(crate) use ownership::give;
pub use probe::{SandboxReport, SandboxState, probe};
pub(crate) use strays::end as end_strays;

use crate::cgroup::ControlGroup;
use crate::exec_as::{self, InitOptions};
use crate::executor::ExecutorSettings;
use crate::feed::Feeder;
use crate::limits::EffectiveLimits;
use crate::locks::LockReport;
use crate::locks::landlock::{Places, SCRATCH_PLACES, SYSTEM_PLACES};
use crate::supervisor::directory::Assignment;
use crate::workload::{Access, Confinement, Mount, Network, WorkloadSpec};

/// The job's home directory inside the sandbox, in its private `/tmp`.
const SANDBOX_HOME: &str = "/tmp/home";
/// Where the sandbox finds the first process's program.
const SANDBOX_INIT: &str = "/run/modelyard/exec";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that is needed to start a job's processes.
pub(crate) struct Launch {
    /// The outermost process; its standard streams are still to be set.
    pub command: Command,
    /// Handles that it inherits by number: to be kept until it has started, closed after.
    pub inherited: Vec<OwnedFd>,
    /// How the pid of the job's first process is learnt.
    pub job_pid: JobPid,
    /// What feeds its streams.
    pub feeders: Vec<Feeder>,
}

/// How the pid of the job's first process is learnt.
pub(crate) enum JobPid {
    /// The sandbox writes it here; [`announced_pid`] reads it.
    Announced(OwnedFd),
    /// The started process is the one.
    Child,
    /// The started process tells it on its control channel; the job is kept in by others, with these locks.
    Told(Vec<LockReport>),
}

/// Who a job runs as on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    /// The server is root: another user, and the job's directories are given to it.
    Other { uid: u32, gid: u32 },
    /// The server is an ordinary user: the same user, in a user namespace of its own.
    Own { uid: u32, gid: u32 },
}

impl Identity {
    fn of(settings: &ExecutorSettings) -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if uid.is_root() {
            Self::Other { uid: settings.job_uid, gid: settings.job_gid }
        } else {
            Self::Own { uid: uid.as_raw(), gid: gid.as_raw() }
        }
    }

    fn ids(self) -> (u32, u32) {
        match self {
            Self::Other { uid, gid } | Self::Own { uid, gid } => (uid, gid),
        }
    }
}

/// Readies the host for a job and builds its command. The error is a sentence for the user.
pub(crate) fn prepare(
    assignment: &Assignment,
    workload_directory: &Path,
    limits: &EffectiveLimits,
    group: &ControlGroup,
) -> Result<Launch, String> {
    let Assignment { spec, settings, .. } = assignment;
    let identity = Identity::of(settings);
    let init = std::env::current_exe()
        .map_err(|error| format!("The server's own program cannot be found: {error}."))?;
    check_sources(&spec.mounts)?;
    match &spec.confinement {
        Confinement::Container(container) => {
            make_nested_targets(&spec.mounts)?;
            crate::oci::prepare(spec, container, workload_directory, limits, &init)
        }
        Confinement::Bubblewrap => {
            make_nested_targets(&spec.mounts)?;
            if !assignment.awaits_task {
                hand_over(&spec.mounts, identity)?;
            }
            let options = InitOptions {
                awaits_task: assignment.awaits_task,
                ..init_options(spec, identity, limits, group)
            };
            let mut launch = confined(spec, settings, options, limits, identity, &init)?;
            let text = |error: io::Error| format!("The sandbox's lock cannot be taken: {error}.");
            let lock = strays::mark(&mut launch.command, workload_directory).map_err(text)?;
            rustix::io::fcntl_setfd(&lock, FdFlags::empty()).map_err(|error| text(error.into()))?;
            launch.inherited.push(lock);
            Ok(launch)
        }
        Confinement::None => {
            check_unconfined(spec)?;
            hand_over(&spec.mounts, identity)?;
            unconfined(spec, init_options(spec, identity, limits, group), identity, &init, workload_directory)
        }
    }
}

/// What the first process does whether there is a sandbox or not.
fn init_options(
    spec: &WorkloadSpec,
    identity: Identity,
    limits: &EffectiveLimits,
    group: &ControlGroup,
) -> InitOptions {
    let user = match identity {
        Identity::Other { uid, gid } => Some((uid, gid)),
        Identity::Own { .. } => None,
    };
    // The kernel counts all processes of a user; those of a user namespace of its own are the job's alone.
    let others = || match (identity, &spec.confinement) {
        (Identity::Own { .. }, Confinement::Bubblewrap) => 0,
        _ => processes::of_user(identity.ids().0),
    };
    InitOptions {
        user,
        open_files: Some(limits.open_files),
        processes: (!group.limits_processes()).then(|| limits.processes.saturating_add(others())),
        file_bytes: Some(limits.disk_bytes),
        cpus: limits.cpus.filter(|_| !group.limits_cpu()),
        command: spec.command.iter().map(OsString::from).collect(),
        ..InitOptions::default()
    }
}

/// Gives the mounts of a prepared workload, filled by now, to the job's user. The error is a sentence for the user.
pub(crate) fn hand_over_prepared(assignment: &Assignment) -> Result<(), String> {
    check_sources(&assignment.spec.mounts)?;
    hand_over(&assignment.spec.mounts, Identity::of(&assignment.settings))
}

/// Gives the writable mounts to the job's user, and makes sure that it can read the others.
fn hand_over(mounts: &[Mount], identity: Identity) -> Result<(), String> {
    let Identity::Other { uid, gid } = identity else { return Ok(()) };
    for mount in mounts {
        let source = mount.source.display();
        match mount.access {
            Access::ReadWrite => give(&mount.source, uid, gid)
                .map_err(|error| format!("{source} cannot be given to the job's user {uid}: {error}."))?,
            Access::ReadOnly => {
                let readable = ownership::is_readable_by(&mount.source, uid, gid)
                    .map_err(|error| format!("The mount source {source} cannot be examined: {error}."))?;
                if !readable {
                    return Err(format!(
                        "The job's user {uid} may not read {source}: make it readable for others \
                         (chmod -R a+rX {source})."
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Refuses sources that are missing, or links: an earlier job may have put a link where a directory was.
fn check_sources(mounts: &[Mount]) -> Result<(), String> {
    for mount in mounts {
        let source = mount.source.display();
        let stat = rustix::fs::statat(CWD, &mount.source, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| format!("The mount source {source} cannot be used: {error}."))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory | FileType::RegularFile | FileType::Socket => {}
            FileType::Symlink => {
                return Err(format!(
                    "The mount source {source} is a symbolic link: mount the place it leads to."
                ));
            }
            _ => return Err(format!("The mount source {source} is neither a file nor a directory.")),
        }
    }
    Ok(())
}

/// Makes the places at which mounts lie inside other ones.
///
/// The sandbox's maker would make them too, but closed to the job's user, and it would follow a link that a
/// job has put there: it still sees the whole host at that time.
fn make_nested_targets(mounts: &[Mount]) -> Result<(), String> {
    for inner in mounts {
        let around = mounts
            .iter()
            .filter(|outer| outer.target != inner.target && inner.target.starts_with(&outer.target));
        let Some(outer) = around.max_by_key(|outer| outer.target.components().count()) else { continue };
        make_nested_target(outer, inner).map_err(|error| {
            format!(
                "The mount target {} cannot be made safely in {} ({error}): remove what is in its way there.",
                inner.target.display(),
                outer.source.display()
            )
        })?;
    }
    Ok(())
}

fn make_nested_target(outer: &Mount, inner: &Mount) -> rustix::io::Result<()> {
    let relative = inner.target.strip_prefix(&outer.target).unwrap_or(Path::new(""));
    let open_below = |root: &OwnedFd, path: &Path| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    let root =
        rustix::fs::open(&outer.source, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut parent = root.try_clone().map_err(|_| rustix::io::Errno::MFILE)?;
    let mut path = PathBuf::new();
    for part in relative.components() {
        path.push(part);
        let is_leaf = path == relative;
        parent = match open_below(&root, &path) {
            // Where nothing can be made, or a file is wanted, the sandbox's maker does what is left or says
            // why not.
            Err(rustix::io::Errno::NOENT) if outer.access == Access::ReadOnly || is_leaf => return Ok(()),
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                open_below(&root, &path)?
            }
            opened => opened?,
        };
    }
    Ok(())
}

/// What only a sandbox can give must not be silently missing.
fn check_unconfined(spec: &WorkloadSpec) -> Result<(), String> {
    if spec.network != Network::Host {
        return Err("A job cannot be cut off from the network without a sandbox: install bubblewrap, or \
                    allow the network."
            .to_owned());
    }
    match spec.mounts.iter().find(|mount| mount.source != mount.target) {
        None => Ok(()),
        Some(mount) => Err(format!(
            "The job expects {} at {}, which needs a sandbox: install bubblewrap (apt-get install bubblewrap) and turn \
             confinement on.",
            mount.source.display(),
            mount.target.display()
        )),
    }
}

fn confined(
    spec: &WorkloadSpec,
    settings: &ExecutorSettings,
    options: InitOptions,
    limits: &EffectiveLimits,
    identity: Identity,
    init: &Path,
) -> Result<Launch, String> {
    let text = |error: io::Error| format!("The sandbox cannot be described: {error}.");
    let mut inherited = Vec::new();
    let (pid_reader, pid_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| text(e.into()))?;

    let mut arguments = arguments::Arguments::new();
    arguments.namespaces(identity, &spec.network);
    arguments.system();
    inherited.extend(arguments.configuration_files());
    for file in system_files::generated(spec, identity) {
        let content = memory_file(file.content.as_bytes()).map_err(text)?;
        arguments.file(&content, file.path);
        inherited.push(content);
    }
    arguments.private_directories(limits.memory_bytes);
    arguments.gpus(&spec.gpus);
    arguments.read_only(init, Path::new(SANDBOX_INIT));
    arguments.mounts(&spec.mounts);
    arguments.finish(spec, &environment(spec, Path::new(SANDBOX_HOME)));
    arguments.announce_pid(&pid_writer);

    // Over a handle, not on the command line: any user of the host can read that, and the environment holds
    // secrets.
    let described = memory_file(&arguments.encode()).map_err(text)?;
    let writable = spec.mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
    let own_places = ["/dev", "/proc", "/tmp", "/var/tmp", "/run"].map(PathBuf::from);
    let options = InitOptions {
        home: Some(PathBuf::from(SANDBOX_HOME)),
        places: Places {
            // What there is to see, the sandbox itself decides.
            read: vec![PathBuf::from("/")],
            write: writable.map(|mount| mount.target.clone()).chain(own_places).collect(),
        },
        ..options
    };
    let mut command = Command::new(&settings.bubblewrap);
    command
        .arg("--args")
        .arg(described.as_raw_fd().to_string())
        .arg("--")
        .arg(SANDBOX_INIT)
        .arg(exec_as::SUBCOMMAND)
        .args(options.to_arguments());
    inherited.extend([described, pid_writer]);
    for handle in &inherited {
        // This process has one thread and starts one child, so nobody else can inherit them.
        rustix::io::fcntl_setfd(handle, FdFlags::empty()).map_err(|e| text(e.into()))?;
    }
    Ok(Launch { command, inherited, job_pid: JobPid::Announced(pid_reader), feeders: Vec::new() })
}

fn unconfined(
    spec: &WorkloadSpec,
    options: InitOptions,
    identity: Identity,
    init: &Path,
    workload_directory: &Path,
) -> Result<Launch, String> {
    // As root the job's user cannot enter the workload's directory, which is private: its home is then its
    // working one.
    let (home, home_to_make) = match identity {
        Identity::Other { .. } => (spec.working_directory.clone(), None),
        Identity::Own { .. } => {
            let home = workload_directory.join("home");
            (home.clone(), Some(home))
        }
    };
    let mounted = |access| {
        spec.mounts.iter().filter(move |mount| mount.access == access).map(|mount| mount.source.clone())
    };
    let options = InitOptions {
        home: home_to_make.clone(),
        subreaper: true,
        places: Places {
            // The program itself is run again for a shell in the job.
            read: SYSTEM_PLACES
                .iter()
                .map(PathBuf::from)
                .chain(mounted(Access::ReadOnly))
                .chain([init.to_owned()])
                .collect(),
            write: SCRATCH_PLACES
                .iter()
                .map(PathBuf::from)
                .chain(mounted(Access::ReadWrite))
                .chain(home_to_make)
                .collect(),
        },
        ..options
    };
    if !spec.working_directory.is_dir() {
        return Err(format!(
            "The working directory {} is not a directory of this host: make it, or turn confinement on.",
            spec.working_directory.display()
        ));
    }
    let mut command = Command::new(init);
    command
        .env_clear()
        .envs(environment(spec, &home))
        .current_dir(&spec.working_directory)
        .arg(exec_as::SUBCOMMAND)
        .args(options.to_arguments());
    Ok(Launch { command, inherited: Vec::new(), job_pid: JobPid::Child, feeders: Vec::new() })
}

/// The job's environment, with the few variables without which programs fail.
fn environment(spec: &WorkloadSpec, home: &Path) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<OsString, OsString> = [
        ("PATH".into(), DEFAULT_PATH.into()),
        ("HOME".into(), home.as_os_str().to_owned()),
        ("LANG".into(), "C.UTF-8".into()),
    ]
    .into();
    environment.extend(spec.environment.iter().map(|(name, value)| (name.into(), value.into())));
    environment
}

/// The pid in what a sandbox has announced so far; `None` while it is not complete.
pub(crate) fn announced_pid(text: &[u8]) -> Option<u32> {
    let announced: serde_json::Value = serde_json::from_slice(text).ok()?;
    u32::try_from(announced.get("child-pid")?.as_u64()?).ok()
}

/// A nameless file in memory, ready to be read from its start.
pub(crate) fn memory_file(content: &[u8]) -> io::Result<OwnedFd> {
    let handle = rustix::fs::memfd_create("modelyard", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut written = 0;
    while written < content.len() {
        written += rustix::io::pwrite(&handle, &content[written..], written as u64)?;
    }
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: &Path, target: &str) -> Mount {
        Mount { source: source.to_owned(), target: PathBuf::from(target), access: Access::ReadWrite }
    }

    #[test]
    fn sources_that_are_missing_or_links_are_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(check_sources(&[mount(root.path(), "/a")]).is_ok());
        let link = root.path().join("link");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        assert!(check_sources(&[mount(&link, "/a")]).unwrap_err().contains("symbolic link"));
        assert!(
            check_sources(&[mount(&root.path().join("no"), "/a")]).unwrap_err().contains("cannot be used")
        );
    }

    #[test]
    fn a_target_behind_a_planted_link_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let job = root.path().join("job");
        std::fs::create_dir(&job).unwrap();
        let mounts = [mount(&job, "/opt/ml"), mount(root.path(), "/opt/ml/input/data")];
        assert_eq!(make_nested_targets(&mounts), Ok(()));
        assert!(job.join("input").is_dir());
        std::fs::remove_dir(job.join("input")).unwrap();
        std::os::unix::fs::symlink("/oldroot/etc", job.join("input")).unwrap();
        assert!(make_nested_targets(&mounts).unwrap_err().contains("safely"));
        std::fs::remove_file(job.join("input")).unwrap();
        std::fs::create_dir(job.join("input")).unwrap();
        assert_eq!(make_nested_targets(&mounts), Ok(()));
        std::os::unix::fs::symlink("/etc", job.join("input/data")).unwrap();
        assert!(make_nested_targets(&mounts).is_err());
    }

    #[test]
    fn a_pid_is_read_only_when_complete() {
        assert_eq!(announced_pid(b"{\n    \"child-pid\": 4711,\n    \"mnt-namespace\": 1\n}\n"), Some(4711));
        assert_eq!(announced_pid(b"{\n    \"child-pid\": 47"), None);
    }
}
