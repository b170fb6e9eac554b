//! A workload's directory: the files through which server and supervisor speak, and the lock that tells who
//! lives.
//!
//! `workload.json` what to run, `task.json` the rest of it where it is told later; `go` that one that is held may run;
//! `sandbox` locked while its sandbox is made; `lock` held by the supervisor for its life; `attempt.json` that an attempt
//! has begun; `running.json` which process it is; `stop` a wish to end; `control` a FIFO that wakes the
//! supervisor; `containment.json` and `cgroup.json` how the job is kept in; `usage.jsonl` what it uses;
//! `shells` a socket for [`crate::shell`]; `exit.json` the report, written last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use failpoint::Point;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Flock, FlockType, Pid, PidfdFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroup::ControlGroup;
use crate::exec_as::GO;
use crate::executor::ExecutorSettings;
use crate::prepared::{TASK, Task};
use crate::workload::{Containment, ExitReport, WorkloadSpec};

/// What a supervisor needs to know, as the server wrote it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The workload to run.
    pub spec: WorkloadSpec,
    /// The machine's settings at the time of the start.
    pub settings: ExecutorSettings,
    /// What it runs is told later, in `task.json`.
    #[serde(default)]
    pub awaits_task: bool,
    /// Its program runs only once it is let go, by the file `go`; it ends with the server that holds it.
    #[serde(default)]
    pub is_held: bool,
}

/// Record that an attempt has begun; once it exists, the workload is never started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The supervisor's pid.
    pub supervisor_pid: u32,
    /// When the job's process started or, before that, the supervisor; ms since 1970.
    pub started_at_ms: u64,
    /// The first process of the job, once there is one.
    pub job: Option<ProcessIdentity>,
}

/// What is added to an [`Attempt`] once the job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// When the job's process started, ms since 1970.
    pub started_at_ms: u64,
    /// The first process of the job.
    pub job: Option<ProcessIdentity>,
}

/// A process, told apart from later ones with the same pid by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Pid on the host.
    pub pid: u32,
    /// Start time in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// How a workload is wanted to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndRequest {
    /// SIGTERM, the grace time, SIGKILL.
    Stop,
    /// SIGKILL at once.
    Kill,
}

impl EndRequest {
    /// The byte that asks for it over the control FIFO.
    pub fn control_byte(self) -> u8 {
        match self {
            Self::Stop => b's',
            Self::Kill => b'k',
        }
    }
}

/// The files of one workload.
#[derive(Clone, Debug)]
pub struct WorkloadDirectory {
    path: PathBuf,
}

impl WorkloadDirectory {
    /// The directory at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the directory, readable by its owner only; an existing one is fine.
    pub fn create(&self) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes what to run. Not made durable: what a crash of the machine takes away has not begun, and is written again.
    pub fn write_assignment(&self, assignment: &Assignment) -> io::Result<()> {
        self.replace(Point::WorkloadAssignment, "workload.json", &serde_json::to_vec(assignment)?).map(drop)
    }

    /// Reads what to run.
    pub fn assignment(&self) -> io::Result<Option<Assignment>> {
        self.read_json("workload.json")
    }

    /// Writes down what a prepared workload is to run.
    pub fn write_task(&self, task: &Task) -> io::Result<()> {
        self.replace(Point::WorkloadTask, "task.json", &serde_json::to_vec(task)?).map(drop)
    }

    /// What a prepared workload is to run, once it has been told.
    pub fn task(&self) -> io::Result<Option<Task>> {
        self.read_passing("task.json")
    }

    /// Lets a held workload go. Not made durable: whoever does this has made its decision so.
    pub fn write_go(&self) -> io::Result<()> {
        self.replace(Point::WorkloadGo, "go", b"").map(drop)
    }

    /// Whether a held workload was let go.
    pub fn has_go(&self) -> io::Result<bool> {
        self.path.join("go").try_exists()
    }

    /// Records the attempt, for all who look from now on; [`WorkloadDirectory::settle_attempt`] makes it durable.
    pub fn write_attempt(&self, attempt: &Attempt) -> io::Result<()> {
        self.replace(Point::WorkloadAttempt, "attempt.json", &serde_json::to_vec(attempt)?).map(drop)
    }

    /// Makes the attempt durable: to be called before anything of the job runs.
    pub fn settle_attempt(&self) -> io::Result<()> {
        failpoint::at(Point::WorkloadAttemptSync)?;
        File::open(self.path.join("attempt.json"))?.sync_all()?;
        sync_directory(&self.path)?;
        sync_directory(self.path.parent().unwrap_or(Path::new("/")))
    }

    /// The attempt, if one has begun.
    pub fn attempt(&self) -> io::Result<Option<Attempt>> {
        // Whatever ran was settled first.
        let attempt: Option<Attempt> = self.read_passing("attempt.json")?;
        let running: Option<Running> = self.read_passing("running.json")?;
        Ok(attempt.map(|attempt| match running {
            Some(running) => Attempt { job: running.job, started_at_ms: running.started_at_ms, ..attempt },
            None => attempt,
        }))
    }

    /// Adds to the attempt what is known since the job runs. Not made durable: no process of the attempt survives a
    /// crash of the machine.
    pub fn write_running(&self, running: &Running) -> io::Result<()> {
        self.replace(Point::WorkloadRunning, "running.json", &serde_json::to_vec(running)?).map(drop)
    }

    /// Records how the job is kept in.
    pub fn write_containment(&self, containment: &Containment) -> io::Result<()> {
        self.replace(Point::WorkloadContainment, "containment.json", &serde_json::to_vec(containment)?)
            .map(drop)
    }

    /// How the job is kept in, once that is known.
    pub fn containment(&self) -> io::Result<Option<Containment>> {
        self.read_passing("containment.json")
    }

    /// Records the job's control group.
    pub fn write_control_group(&self, group: &ControlGroup) -> io::Result<()> {
        self.replace(Point::WorkloadControlGroup, "cgroup.json", &serde_json::to_vec(group)?).map(drop)
    }

    /// The job's control group, if one was made.
    pub fn control_group(&self) -> io::Result<Option<ControlGroup>> {
        self.read_passing("cgroup.json")
    }

    /// Writes the final report.
    pub fn write_exit(&self, report: &ExitReport) -> io::Result<()> {
        self.write_durably(Point::WorkloadExit, "exit.json", &serde_json::to_vec(report)?)
    }

    /// The final report, if the workload has ended.
    pub fn exit(&self) -> io::Result<Option<ExitReport>> {
        self.read_json("exit.json")
    }

    /// Records the wish to end. A kill replaces a stop, never the reverse.
    pub fn write_end_request(&self, request: EndRequest) -> io::Result<()> {
        let text: &[u8] = match (request, self.end_request()?) {
            (EndRequest::Stop, Some(_)) | (EndRequest::Kill, Some(EndRequest::Kill)) => return Ok(()),
            (EndRequest::Stop, None) => b"stop",
            (EndRequest::Kill, _) => b"kill",
        };
        self.write_durably(Point::WorkloadEndRequest, "stop", text)
    }

    /// The wish to end, if there is one.
    pub fn end_request(&self) -> io::Result<Option<EndRequest>> {
        match fs::read(self.path.join("stop")) {
            Ok(text) if text == b"kill" => Ok(Some(EndRequest::Kill)),
            Ok(_) => Ok(Some(EndRequest::Stop)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the control FIFO and opens it so that it never reports an end of file.
    pub fn open_control(&self) -> io::Result<File> {
        let path = self.path.join("control");
        match rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::from_raw_mode(0o600)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        OpenOptions::new().read(true).write(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
    }

    /// Wakes the supervisor with a wish to end. Nobody listening is no error: a supervisor that is only
    /// starting reads the recorded wish, and one that is gone needs none.
    pub fn poke(&self, request: EndRequest) -> io::Result<()> {
        self.wake(request.control_byte())
    }

    /// Wakes the supervisor of a prepared workload that was given its task; the same holds as for [`Self::poke`].
    pub fn poke_for_task(&self) -> io::Result<()> {
        self.wake(TASK)
    }

    /// Wakes the supervisor of a held workload that was let go; the same holds as for [`Self::poke`].
    pub fn poke_for_go(&self) -> io::Result<()> {
        self.wake(GO)
    }

    fn wake(&self, byte: u8) -> io::Result<()> {
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(self.path.join("control"));
        let mut control = match opened {
            Ok(control) => control,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match control.write(&[byte]) {
            // A full FIFO holds wake-ups enough; a broken one means that the supervisor has just ended.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::BrokenPipe) => {
                Ok(())
            }
            result => result.map(drop),
        }
    }

    /// Takes the lock for the life of this process; `None` if another process has it.
    ///
    /// A record lock is used because asking who holds it neither takes it nor disturbs the one who wants it,
    /// because the kernel tells the holder's pid, and because children do not inherit it. The process must
    /// open the file only once.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join("lock"))?;
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The pid of the supervisor that holds the lock, if one lives.
    pub fn lock_holder(&self) -> io::Result<Option<Pid>> {
        let file = match File::open(self.path.join("lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match rustix::process::fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))? {
            None => Ok(None),
            Some(holder) => holder.pid.map(Some).ok_or_else(|| {
                io::Error::other(
                    "the workload's supervisor runs in another pid namespace and cannot be seen from here",
                )
            }),
        }
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let path = self.path.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        })
    }

    /// Reads a file that was not made durable: after a crash of the machine it may hold anything, and then says nothing.
    fn read_passing<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match self.read_json(name) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            read => read,
        }
    }

    /// Replaces a file so that after a crash either the old or the whole new content is there.
    fn write_durably(&self, point: Point, name: &str, content: &[u8]) -> io::Result<()> {
        let file = self.replace_after(point, name, content, File::sync_all)?;
        drop(file);
        sync_directory(&self.path)
    }

    /// Replaces a file so that readers see either the old or the whole new content.
    fn replace(&self, point: Point, name: &str, content: &[u8]) -> io::Result<File> {
        self.replace_after(point, name, content, |_| Ok(()))
    }

    fn replace_after(
        &self,
        point: Point,
        name: &str,
        content: &[u8],
        settle: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<File> {
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let write = WRITES.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.join(format!("{name}.{}.{write}.tmp", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let replaced = failpoint::write_all(point, &mut file, content)
            .and_then(|()| settle(&file))
            .and_then(|()| fs::rename(&temporary, self.path.join(name)));
        if let Err(error) = replaced {
            // Whoever tries again makes a file of another name.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(file)
    }
}

impl ProcessIdentity {
    /// The identity of the process that has this pid now; `None` if there is none.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name, in parentheses, may contain anything; the fields after the last one are plain.
        let after_name = &stat[stat.rfind(')')? + 1..];
        let start_ticks = after_name.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, start_ticks })
    }

    /// A handle on the process if it still lives.
    pub fn open(self) -> io::Result<Option<std::os::fd::OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Compared after opening: if the identity matches now, the handle cannot belong to a later process.
        if Self::of(self.pid) != Some(self) {
            return Ok(None);
        }
        Ok(if has_ended(&handle)? { None } else { Some(handle) })
    }
}

/// Whether the process behind a pidfd has ended (it may still wait to be reaped).
pub fn has_ended(handle: &std::os::fd::OwnedFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ready =
        rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&at_once)))?;
    Ok(ready > 0)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    failpoint::at(Point::WorkloadFolderSync)?;
    File::open(path)?.sync_all()
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "a supervisor outlives the server and its clock; logs carry wall time"
    )]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, WorkloadDirectory) {
        let root = tempfile::tempdir().unwrap();
        let directory = WorkloadDirectory::new(root.path().join("w"));
        directory.create().unwrap();
        directory.create().unwrap();
        (root, directory)
    }

    #[test]
    fn a_kill_replaces_a_stop_but_not_the_reverse() {
        let (_root, directory) = directory();
        assert_eq!(directory.end_request().unwrap(), None);
        directory.write_end_request(EndRequest::Stop).unwrap();
        assert_eq!(directory.end_request().unwrap(), Some(EndRequest::Stop));
        directory.write_end_request(EndRequest::Kill).unwrap();
        directory.write_end_request(EndRequest::Stop).unwrap();
        assert_eq!(directory.end_request().unwrap(), Some(EndRequest::Kill));
    }

    #[test]
    fn poking_nobody_is_no_error_and_a_listener_gets_the_byte() {
        use std::io::Read;
        let (_root, directory) = directory();
        directory.poke(EndRequest::Stop).unwrap();
        let mut control = directory.open_control().unwrap();
        directory.poke(EndRequest::Kill).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(control.read(&mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], b'k');
        drop(control);
        directory.poke(EndRequest::Stop).unwrap();
    }

    #[test]
    fn nobody_holds_a_fresh_lock() {
        let (_root, directory) = directory();
        assert_eq!(directory.lock_holder().unwrap(), None);
    }

    #[test]
    fn a_pid_of_another_time_is_not_the_process() {
        let me = ProcessIdentity::of(std::process::id()).unwrap();
        assert!(me.open().unwrap().is_some());
        let imposter = ProcessIdentity { start_ticks: me.start_ticks + 1, ..me };
        assert!(imposter.open().unwrap().is_none());
    }

    #[test]
    fn files_are_private_to_the_owner() {
        use std::os::unix::fs::PermissionsExt;
        let (_root, directory) = directory();
        directory.write_end_request(EndRequest::Stop).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory.path()), 0o700);
        assert_eq!(mode(&directory.path().join("stop")), 0o600);
    }
}
