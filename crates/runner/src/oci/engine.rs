//! A container engine's command line: which program it is, and one call of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

/// How much of what a call prints is kept.
const MAX_OUTPUT_BYTES: u64 = 4 * 1024 * 1024;

/// The family of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Podman, without a daemon.
    Podman,
    /// Docker, through its daemon.
    Docker,
}

impl EngineKind {
    /// Its name, as people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Podman => "Podman",
            Self::Docker => "Docker",
        }
    }
}

/// An engine of this machine, with all that a call of it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Its family.
    pub kind: EngineKind,
    /// The program.
    pub program: PathBuf,
    /// Options before every sub-command, such as `--root DIR`.
    pub options: Vec<String>,
    /// The low-level runtime (`runc`, `crun`); `None` leaves it to the engine.
    pub runtime: Option<String>,
    /// The program's whole environment.
    pub variables: BTreeMap<String, String>,
}

/// Why a call of an engine failed: its own last words, or why it could not be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(pub String);

impl Engine {
    /// The engine whose program is `name` (a path, or a name on the search path); its family goes by the program's name.
    /// `None` if there is no such program.
    pub fn named(name: &str, search_path: &[PathBuf], variables: BTreeMap<String, String>) -> Option<Self> {
        let program = if name.contains('/') {
            Some(PathBuf::from(name)).filter(|path| path.is_file())
        } else {
            search_path.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
        }?;
        let is_docker = program.file_name().is_some_and(|name| name.to_string_lossy().contains("docker"));
        let kind = if is_docker { EngineKind::Docker } else { EngineKind::Podman };
        Some(Self { kind, program, options: Vec::new(), runtime: None, variables })
    }

    /// A command of the engine, without its sub-command.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(&self.variables).current_dir("/").stdin(Stdio::null());
        command.args(&self.options);
        if let (EngineKind::Podman, Some(runtime)) = (self.kind, &self.runtime) {
            command.args(["--runtime", runtime]);
        }
        command
    }

    /// Calls the engine and gives what it printed on its standard output.
    ///
    /// # Errors
    /// [`EngineError`] with what it printed on its standard error, or why it could not be run to its end.
    pub fn call<T: AsRef<OsStr>>(&self, arguments: &[T], limit: Duration) -> Result<String, EngineError> {
        let mut command = self.command();
        command.args(arguments);
        let what = arguments.first().map(|word| word.as_ref().to_string_lossy().into_owned());
        self.run(command, &what.unwrap_or_default(), limit)
    }

    /// Runs a command made by [`Engine::command`]; `what` names it in messages.
    pub(super) fn run(
        &self,
        mut command: Command,
        what: &str,
        limit: Duration,
    ) -> Result<String, EngineError> {
        let shown = self.shown();
        let failed = |reason: &dyn std::fmt::Display| EngineError(format!("{shown} {what} failed: {reason}"));
        // Files, not pipes: a helper that the engine leaves behind may keep them open.
        let (mut output, mut complaints) =
            (memory_file().map_err(|e| failed(&e))?, memory_file().map_err(|e| failed(&e))?);
        command
            .stdout(output.try_clone().map_err(|e| failed(&e))?)
            .stderr(complaints.try_clone().map_err(|e| failed(&e))?);
        let status = wait_within(&mut command, limit).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => EngineError(format!("{shown} is not there.")),
            io::ErrorKind::TimedOut => {
                EngineError(format!("{shown} {what} did not end within {} seconds.", limit.as_secs()))
            }
            _ => failed(&error),
        })?;
        if status.success() {
            return text(&mut output).map_err(|error| failed(&error));
        }
        let complaint = text(&mut complaints).unwrap_or_default();
        match last_words(&complaint) {
            "" => Err(failed(&status)),
            words => Err(EngineError(words.to_owned())),
        }
    }

    /// The program, for messages.
    pub fn shown(&self) -> String {
        self.program.display().to_string()
    }
}

/// What an engine says last on its standard error, without its own marks.
pub(super) fn last_words(complaint: &str) -> &str {
    let line = complaint.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let line = line.strip_prefix("Error: ").unwrap_or(line);
    line.strip_prefix("Error response from daemon: ").unwrap_or(line)
}

fn memory_file() -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("engine", rustix::fs::MemfdFlags::CLOEXEC)?))
}

fn text(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs a program to its end; one that takes longer than `limit` is killed, and the error is `TimedOut`.
fn wait_within(command: &mut Command, limit: Duration) -> io::Result<ExitStatus> {
    let mut child = command.spawn()?;
    let handle: OwnedFd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    let ended =
        rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)))?;
    if ended == 0 {
        child.kill()?;
        child.wait()?;
        return Err(io::ErrorKind::TimedOut.into());
    }
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Engine {
        Engine {
            kind: EngineKind::Podman,
            program: "/bin/sh".into(),
            options: Vec::new(),
            runtime: None,
            variables: BTreeMap::from([("WORD".to_owned(), "value".to_owned())]),
        }
    }

    #[test]
    fn a_call_sees_its_own_environment_alone_and_gives_what_is_printed() {
        let limit = Duration::from_secs(60);
        assert_eq!(shell().call(&["-c", "echo $WORD $HOME"], limit).unwrap(), "value\n");
        let failed = shell()
            .call(&["-c", "echo x; echo 'warning: y' >&2; echo 'Error: no such z' >&2; exit 5"], limit);
        assert_eq!(failed.unwrap_err().0, "no such z");
        let silent = shell().call(&["-c", "exit 5"], limit).unwrap_err().0;
        assert!(silent.contains("/bin/sh -c failed: exit status: 5"), "{silent}");
        let absent = Engine { program: "/nowhere/podman".into(), ..shell() };
        assert_eq!(absent.call(&["ps"], limit).unwrap_err().0, "/nowhere/podman is not there.");
    }

    #[test]
    fn a_call_that_hangs_is_given_up() {
        let hung = shell().call(&["-c", "exec sleep 1000"], Duration::from_millis(50));
        assert!(hung.unwrap_err().0.contains("did not end within"));
    }

    #[test]
    fn the_family_goes_by_the_name_of_the_program() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["podman", "docker"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let path = [folder.path().to_owned()];
        let named = |name: &str| Engine::named(name, &path, BTreeMap::new());
        assert_eq!(named("podman").unwrap().kind, EngineKind::Podman);
        assert_eq!(named("docker").unwrap().kind, EngineKind::Docker);
        assert_eq!(named("nerdctl"), None);
        let whole = folder.path().join("docker").display().to_string();
        assert_eq!(named(&whole).unwrap().program, folder.path().join("docker"));
    }
}
