//! Starts workloads, sees how they do and ends them, from a server that may itself come and go.

mod ends;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use failpoint::Point;
use futures::future::BoxFuture;
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use self::ends::{ended, living_process, observe, reap_when_ended};
use crate::oci::{self, Engine};
use crate::prepared::{Task, can_be_prepared};
use crate::supervisor::directory::{Assignment, EndRequest, WorkloadDirectory};
use crate::supervisor::{ALREADY_STARTED, IN_CHARGE};
use crate::usage::{SamplePage, read_samples};
use crate::workload::{Confinement, Containment, ExitReport, Observation, WorkloadSpec, is_valid_id};

/// Result of the execution half of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a request about a workload could not be met.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The description of the workload is wrong; the text says where.
    #[error("{0}")]
    InvalidSpec(String),
    /// No workload of this id was started here, or it was removed.
    #[error("There is no workload {0:?} on this machine.")]
    UnknownWorkload(String),
    /// The workload has to end before this can be done.
    #[error("The workload {0:?} still runs: stop it first.")]
    StillRunning(String),
    /// The supervisor's process could not be started or refused to take charge.
    #[error("The supervisor of workload {id:?} did not take charge: {reason}.")]
    Supervisor {
        /// The workload.
        id: String,
        /// What it said, or what kept it from starting.
        reason: String,
    },
    /// The disk or the kernel refused something.
    #[error("{action} failed: {source}.")]
    Io {
        /// What was being done.
        action: String,
        /// What came back.
        source: io::Error,
    },
}

/// Runs workloads. All calls may be repeated; ids are used once for good (until removed).
pub trait Executor: Send + Sync {
    /// Starts a workload; one that was started before is left as it is. Returns when a supervisor is in
    /// charge: that the job's own process cannot be launched is told by the exit report,
    /// [`crate::workload::Exit::LaunchFailed`].
    fn start<'a>(&'a self, spec: &'a WorkloadSpec) -> BoxFuture<'a, Result<()>>;

    /// Starts a workload that is told later what it runs: its command reads that from its standard input. Only for those
    /// that [`crate::prepared::can_be_prepared`] accepts.
    fn prepare<'a>(&'a self, spec: &'a WorkloadSpec) -> BoxFuture<'a, Result<()>>;

    /// Starts a workload up to the moment at which its program would run, and holds it there: sandbox, limits and locks are as
    /// they will be. It ends with this executor unless it is let go. Only for those that [`can_be_held`] accepts.
    fn hold<'a>(&'a self, spec: &'a WorkloadSpec) -> BoxFuture<'a, Result<()>>;

    /// Lets the program of a held workload run, once for good; from then on it is as if it had been started.
    fn let_go(&self, id: &str) -> Result<()>;

    /// Whether this is a held workload that was not let go.
    fn is_held(&self, id: &str) -> Result<bool>;

    /// Waits until no process of the workload runs any more, or its supervisor has ended: mostly some time before
    /// [`Executor::wait`] returns, as what the job was is still being written down.
    fn wait_for_processes<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Gives a prepared workload its task, once for good; from then on it is as if it had been started with it.
    fn assign(&self, id: &str, task: &Task) -> Result<()>;

    /// Whether this is a prepared workload that has no task yet.
    fn awaits_task(&self, id: &str) -> Result<bool>;

    /// Whether this workload was there before its task.
    fn was_prepared(&self, id: &str) -> Result<bool>;

    /// The description of a workload, with its task where it was given one; `None` for an unknown one.
    fn spec(&self, id: &str) -> Result<Option<WorkloadSpec>>;

    /// What can be seen of the workload now. Reads a few small files; a container whose supervisor was lost is removed
    /// first.
    fn observe(&self, id: &str) -> Result<Observation>;

    /// Waits for the workload's end, whichever server started it. [`Error::UnknownWorkload`] if it was never
    /// started.
    fn wait<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ExitReport>>;

    /// Asks the workload to end: SIGTERM to its main process, SIGKILL after the grace time.
    fn stop(&self, id: &str) -> Result<()>;

    /// Ends the workload with SIGKILL now.
    fn kill(&self, id: &str) -> Result<()>;

    /// Forgets a workload that has ended; an unknown one is fine. Its log stays, unless it lies in its
    /// directory.
    fn remove(&self, id: &str) -> Result<()>;

    /// The ids of all workloads that are not removed, sorted.
    fn list(&self) -> Result<Vec<String>>;

    /// How the workload is kept in; `None` until its first process has said, and for an unknown one.
    fn containment(&self, id: &str) -> Result<Option<Containment>> {
        let _ = id;
        Ok(None)
    }

    /// What the workload used of the machine after `after_ms`, a page of samples at a time; none for an unknown one.
    fn samples(&self, id: &str, after_ms: u64) -> Result<SamplePage> {
        let _ = id;
        Ok(SamplePage { samples: Vec::new(), last_at_ms: after_ms })
    }
}

/// What executing needs to know about this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorSettings {
    /// The bubblewrap program.
    pub bubblewrap: PathBuf,
    /// User that jobs run as when the server is root; it needs no account.
    pub job_uid: u32,
    /// Group that jobs run as when the server is root.
    pub job_gid: u32,
    /// The program that tells of NVIDIA GPUs, where there are some.
    #[serde(default)]
    pub nvidia_smi: Option<PathBuf>,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self {
            bubblewrap: PathBuf::from("/usr/bin/bwrap"),
            job_uid: 64_000,
            job_gid: 64_000,
            nvidia_smi: None,
        }
    }
}

/// Runs workloads as processes of this machine, each under a supervisor that outlives the server.
#[derive(Clone, Debug)]
pub struct ProcessExecutor {
    root: PathBuf,
    supervisor_command: Vec<String>,
    settings: ExecutorSettings,
    life: Arc<Life>,
}

/// A pipe into which nothing is written: its end tells supervisors of held workloads that this executor is gone.
#[derive(Debug)]
struct Life {
    read: OwnedFd,
    #[expect(dead_code, reason = "open as long as the executor lives, which is all that it is for")]
    write: OwnedFd,
}

/// What becomes of a workload once its sandbox is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// Its program runs.
    AtOnce,
    /// Its program runs, and is told later what to do.
    WithTask,
    /// Its program runs once it is let go.
    Held,
}

impl ProcessExecutor {
    /// Keeps the workloads' directories in `root` (made if missing) and starts supervisors with
    /// `supervisor_command`, to which the workload's directory is added: the product's program and
    /// [`crate::supervisor::SUBCOMMAND`].
    pub fn new(root: &Path, supervisor_command: Vec<String>, settings: ExecutorSettings) -> Result<Self> {
        if supervisor_command.is_empty() {
            return Err(Error::InvalidSpec(
                "The supervisor's command is empty: name the program to run.".to_owned(),
            ));
        }
        if settings.job_uid == 0 || settings.job_gid == 0 {
            return Err(Error::InvalidSpec(
                "Jobs cannot run as root: set the job user and group to numbers above zero.".to_owned(),
            ));
        }
        let during = |source| Error::Io { action: format!("Preparing {}", root.display()), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(during)?;
        // Supervisors leave the working directory, so that they need the absolute path.
        let root = root.canonicalize().map_err(during)?;
        let (read, write) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| during(error.into()))?;
        let life = Arc::new(Life { read, write });
        let executor = Self { root, supervisor_command, settings, life };
        executor.finish_removals()?;
        Ok(executor)
    }

    fn directory(&self, id: &str) -> Result<WorkloadDirectory> {
        if is_valid_id(id) {
            Ok(WorkloadDirectory::new(self.root.join(id)))
        } else {
            Err(Error::UnknownWorkload(id.to_owned()))
        }
    }

    /// Writes down what to run and starts the supervisor; `None` if the workload was started before.
    fn launch_supervisor(&self, spec: WorkloadSpec, beginning: Beginning) -> Result<Option<Child>> {
        let directory = self.directory(&spec.id)?;
        if observe(&directory, &spec.id)? != Observation::Unknown {
            return Ok(None);
        }
        let during = |source| Error::Io { action: format!("Writing {}", directory.path().display()), source };
        directory.create().map_err(during)?;
        let id = spec.id.clone();
        let assignment = Assignment {
            spec,
            settings: self.settings.clone(),
            awaits_task: beginning == Beginning::WithTask,
            is_held: beginning == Beginning::Held,
        };
        directory.write_assignment(&assignment).map_err(during)?;
        let input = match beginning {
            Beginning::Held => Stdio::from(self.life.read.try_clone().map_err(during)?),
            Beginning::AtOnce | Beginning::WithTask => Stdio::null(),
        };
        let complaints = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(directory.path().join("supervisor.log"))
            .map_err(during)?;
        failpoint::at(Point::SupervisorStart).map_err(during)?;
        Command::new(&self.supervisor_command[0])
            .args(&self.supervisor_command[1..])
            .arg(directory.path())
            // The server's environment holds secrets that neither supervisor nor job has a use for.
            .env_clear()
            .envs(failpoint::environment())
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .map(Some)
            .map_err(|error| Error::Supervisor {
                id,
                reason: format!("{} cannot be started: {error}", self.supervisor_command[0]),
            })
    }

    /// Deletes what an interrupted [`Executor::remove`] left.
    fn finish_removals(&self) -> Result<()> {
        let during = |source| Error::Io { action: format!("Cleaning {}", self.root.display()), source };
        for entry in fs::read_dir(&self.root).map_err(during)? {
            let entry = entry.map_err(during)?;
            if entry.file_name().to_string_lossy().starts_with(REMOVED_PREFIX) {
                fs::remove_dir_all(entry.path()).map_err(during)?;
            }
        }
        Ok(())
    }

    /// Ends and removes the containers of this executor's workloads that no supervisor watches: what a crash of machine,
    /// server and supervisors can leave behind. Gives the ids of their workloads. Blocks for some tenths of a second.
    pub fn remove_stray_containers(&self, engine: &Engine) -> Result<Vec<String>> {
        let is_supervised = |id: &str| {
            let holder = self.directory(id).ok().map(|directory| directory.lock_holder());
            // If that cannot be told, the container is left alone.
            holder.is_some_and(|holder| !matches!(holder, Ok(None)))
        };
        oci::strays(engine, &self.root, is_supervised).map_err(|text| Error::Io {
            action: "Looking for containers that nobody watches".to_owned(),
            source: io::Error::other(text),
        })
    }

    /// Starts a supervisor and listens until it has taken charge.
    async fn begin(&self, spec: &WorkloadSpec, beginning: Beginning) -> Result<()> {
        spec.validate().map_err(Error::InvalidSpec)?;
        let (this, owned) = (self.clone(), spec.clone());
        let launched = tokio::task::spawn_blocking(move || this.launch_supervisor(owned, beginning)).await;
        let launched = launched.map_err(|error| Error::Supervisor {
            id: spec.id.clone(),
            reason: format!("starting it was interrupted ({error})"),
        })??;
        let Some(mut child) = launched else { return Ok(()) };
        failpoint::pass(Point::SupervisorStarted);
        let answer = child.stdout.take();
        reap_when_ended(child);
        let mut text = String::new();
        if let Some(answer) = answer {
            let during = |source| Error::Io { action: "Listening to the supervisor".to_owned(), source };
            let answer = OwnedFd::from(answer);
            rustix::io::ioctl_fionbio(&answer, true).map_err(|error| during(error.into()))?;
            let mut answer = tokio::net::unix::pipe::Receiver::from_owned_fd(answer).map_err(during)?;
            answer.read_to_string(&mut text).await.map_err(during)?;
        }
        match text.trim() {
            IN_CHARGE | ALREADY_STARTED => Ok(()),
            "" => Err(Error::Supervisor {
                id: spec.id.clone(),
                reason: format!(
                    "it ended at once; see {}",
                    self.root.join(&spec.id).join("supervisor.log").display()
                ),
            }),
            other => Err(Error::Supervisor {
                id: spec.id.clone(),
                reason: other.strip_prefix("failed ").unwrap_or(other).to_owned(),
            }),
        }
    }

    fn request_end(&self, id: &str, request: EndRequest) -> Result<()> {
        let directory = self.directory(id)?;
        if !directory.path().is_dir() {
            return Err(Error::UnknownWorkload(id.to_owned()));
        }
        let during = |source| Error::Io { action: format!("Ending workload {id:?}"), source };
        // Recorded before the wake-up, so that a supervisor that is only starting finds it.
        directory.write_end_request(request).map_err(during)?;
        directory.poke(request).map_err(during)
    }
}

/// Whether a workload can wait for its start in its sandbox, which is made of what is there then.
pub fn can_be_held(spec: &WorkloadSpec) -> bool {
    spec.confinement == Confinement::Bubblewrap && spec.feeds.is_empty()
}

/// Starts the name of a directory that is being removed; ids contain no dot.
const REMOVED_PREFIX: &str = "removed.";

impl Executor for ProcessExecutor {
    fn start<'a>(&'a self, spec: &'a WorkloadSpec) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.begin(spec, Beginning::AtOnce))
    }

    fn prepare<'a>(&'a self, spec: &'a WorkloadSpec) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if !can_be_prepared(spec) {
                let text = "Only a sandbox of another user, without streams, can be prepared.".to_owned();
                return Err(Error::InvalidSpec(text));
            }
            self.begin(spec, Beginning::WithTask).await
        })
    }

    fn hold<'a>(&'a self, spec: &'a WorkloadSpec) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if !can_be_held(spec) {
                return Err(Error::InvalidSpec("Only a sandbox can be held.".to_owned()));
            }
            self.begin(spec, Beginning::Held).await
        })
    }

    fn let_go(&self, id: &str) -> Result<()> {
        let during = |source| Error::Io { action: format!("Letting workload {id:?} go"), source };
        let directory = self.directory(id)?;
        if !self.is_held(id)? {
            return Err(Error::UnknownWorkload(id.to_owned()));
        }
        directory.write_go().map_err(during)?;
        directory.poke_for_go().map_err(during)
    }

    fn is_held(&self, id: &str) -> Result<bool> {
        let during = |source| Error::Io { action: format!("Looking at workload {id:?}"), source };
        let directory = self.directory(id)?;
        if !directory.assignment().map_err(during)?.is_some_and(|assignment| assignment.is_held) {
            return Ok(false);
        }
        if !directory.has_go().map_err(during)? {
            return Ok(true);
        }
        // As with a task: whoever wrote it may have died before it said so.
        directory.poke_for_go().map_err(during)?;
        Ok(false)
    }

    fn wait_for_processes<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let directory = self.directory(id)?;
            let during = |source| Error::Io { action: format!("Waiting for workload {id:?}"), source };
            let assignment = directory.assignment().map_err(during)?;
            let is_sandbox =
                assignment.is_some_and(|assignment| assignment.spec.confinement == Confinement::Bubblewrap);
            let first = directory.attempt().map_err(during)?.and_then(|attempt| attempt.job);
            let handle = match first {
                // With the first process, all others of a sandbox end.
                Some(job) if is_sandbox => job.open().map_err(during)?,
                _ => living_process(&directory).map_err(during)?,
            };
            match handle {
                Some(handle) => ended(handle).await.map_err(during),
                None => Ok(()),
            }
        })
    }

    fn assign(&self, id: &str, task: &Task) -> Result<()> {
        let during = |source| Error::Io { action: format!("Giving workload {id:?} its task"), source };
        let directory = self.directory(id)?;
        if !self.awaits_task(id)? {
            return Err(Error::UnknownWorkload(id.to_owned()));
        }
        directory.write_task(task).map_err(during)?;
        directory.poke_for_task().map_err(during)
    }

    fn awaits_task(&self, id: &str) -> Result<bool> {
        let during = |source| Error::Io { action: format!("Looking at workload {id:?}"), source };
        let directory = self.directory(id)?;
        if !directory.assignment().map_err(during)?.is_some_and(|assignment| assignment.awaits_task) {
            return Ok(false);
        }
        if directory.task().map_err(during)?.is_none() {
            return Ok(true);
        }
        // Whoever wrote the task may have died before it said so; once too often does no harm.
        directory.poke_for_task().map_err(during)?;
        Ok(false)
    }

    fn was_prepared(&self, id: &str) -> Result<bool> {
        let during = |source| Error::Io { action: format!("Looking at workload {id:?}"), source };
        let assignment = self.directory(id)?.assignment().map_err(during)?;
        Ok(assignment.is_some_and(|assignment| assignment.awaits_task))
    }

    fn spec(&self, id: &str) -> Result<Option<WorkloadSpec>> {
        let during = |source| Error::Io { action: format!("Looking at workload {id:?}"), source };
        let directory = self.directory(id)?;
        let Some(assignment) = directory.assignment().map_err(during)? else { return Ok(None) };
        let task = directory.task().map_err(during)?.filter(|_| assignment.awaits_task);
        Ok(Some(task.map_or(assignment.spec.clone(), |task| task.in_place_of(&assignment.spec))))
    }

    fn observe(&self, id: &str) -> Result<Observation> {
        observe(&self.directory(id)?, id)
    }

    fn wait<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ExitReport>> {
        Box::pin(async move {
            let directory = self.directory(id)?;
            let during = |source| Error::Io { action: format!("Waiting for workload {id:?}"), source };
            loop {
                match observe(&directory, id)? {
                    Observation::Exited(report) => return Ok(*report),
                    Observation::Unknown => return Err(Error::UnknownWorkload(id.to_owned())),
                    Observation::Running { .. } => {}
                }
                // Whoever of the two still lives; when both are gone the next look shows the end.
                if let Some(handle) = living_process(&directory).map_err(during)? {
                    ended(handle).await.map_err(during)?;
                }
            }
        })
    }

    fn stop(&self, id: &str) -> Result<()> {
        self.request_end(id, EndRequest::Stop)
    }

    fn kill(&self, id: &str) -> Result<()> {
        self.request_end(id, EndRequest::Kill)
    }

    fn remove(&self, id: &str) -> Result<()> {
        let directory = self.directory(id)?;
        let during = |source| Error::Io { action: format!("Removing workload {id:?}"), source };
        if let Observation::Running { .. } = observe(&directory, id)? {
            return Err(Error::StillRunning(id.to_owned()));
        }
        // First out of sight as a whole: half a directory would look like another story.
        let doomed = self.root.join(format!("{REMOVED_PREFIX}{id}"));
        match fs::rename(directory.path(), &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(during(error)),
            Ok(()) => failpoint::at(Point::WorkloadRemove)
                .and_then(|()| fs::remove_dir_all(&doomed))
                .map_err(during),
        }
    }

    fn list(&self) -> Result<Vec<String>> {
        let during = |source| Error::Io { action: format!("Listing {}", self.root.display()), source };
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(during)? {
            let name = entry.map_err(during)?.file_name();
            if let Some(id) = name.to_str().filter(|name| is_valid_id(name)) {
                ids.push(id.to_owned());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn containment(&self, id: &str) -> Result<Option<Containment>> {
        let during = |source| Error::Io { action: format!("Looking at workload {id:?}"), source };
        self.directory(id)?.containment().map_err(during)
    }

    fn samples(&self, id: &str, after_ms: u64) -> Result<SamplePage> {
        let during = |source| Error::Io { action: format!("Reading the samples of workload {id:?}"), source };
        read_samples(self.directory(id)?.path(), after_ms).map_err(during)
    }
}
