//! Runs one program of a build: its output as lines, a time limit, and nothing left of it when the build is given up.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::EnvironmentError;
use super::lock::BuildLock;

/// Variables of a program.
pub type Variables = BTreeMap<String, String>;

/// Lines of output that an error carries.
const TAIL_LINES: usize = 30;

/// Longer lines are cut into several.
const LINE_BYTES: usize = 16 * 1024;

/// pip writes its progress to standard output, uv to standard error: both become one stream. Others must be able to read what
/// is built, whatever the server's own mask. The shell stays, as the one process whose death takes a sandbox with it.
const SCRIPT: &str = "umask 022; \"$0\" \"$@\" 1>&2; exit $?";

/// A program to run.
pub struct Step<'a> {
    /// What it does, for messages.
    pub name: &'a str,
    /// Program and arguments.
    pub command: Vec<String>,
    /// All of its variables.
    pub variables: &'a Variables,
    /// Where it starts; anywhere, if `None`.
    pub directory: Option<&'a Path>,
    /// Kept locked while the program lives.
    pub lock: &'a BuildLock,
    /// How long it may take.
    pub time_limit: Duration,
}

impl Step<'_> {
    /// Runs it; `progress` gets its output line by line. Dropping the future ends the program and all its descendants.
    ///
    /// # Errors
    /// With the end of the output, when the program does not start, fails, or takes too long.
    pub async fn run(&self, progress: &mut (dyn FnMut(&str) + Send)) -> Result<(), EnvironmentError> {
        let mut output = Lines { pending: Vec::new(), tail: Vec::new() };
        let ended = tokio::time::timeout(self.time_limit, self.watch(&mut output, progress)).await;
        let failed = |reason: &str| {
            let mut detail = output.tail.join("\n");
            detail.push_str(&format!("\n({reason})"));
            self.failure(detail.trim_start().to_owned())
        };
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failed(&status.to_string())),
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => {
                Err(failed(&format!("ended after its time limit of {} seconds", self.time_limit.as_secs())))
            }
        }
    }

    async fn watch(
        &self,
        output: &mut Lines,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> std::io::Result<ExitStatus> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT]).args(&self.command);
        command.env_clear().envs(self.variables);
        command.current_dir(self.directory.unwrap_or(Path::new("/")));
        command.stdin(self.lock.share()?).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let group = Group::of(&child);
        let mut stream =
            child.stderr.take().ok_or_else(|| std::io::Error::other("its output cannot be read"))?;
        let mut buffer = vec![0; LINE_BYTES];
        let mut status = None;
        loop {
            tokio::select! {
                count = stream.read(&mut buffer) => match count? {
                    0 => break,
                    count => output.take(&buffer[..count], progress),
                },
                ended = child.wait(), if status.is_none() => {
                    status = Some(ended?);
                    // What it left in the background would keep the output open.
                    group.end();
                }
            }
        }
        output.finish(progress);
        match status {
            Some(status) => Ok(status),
            None => child.wait().await,
        }
    }

    fn failure(&self, detail: String) -> EnvironmentError {
        EnvironmentError { step: self.name.to_owned(), command: self.command.join(" "), detail }
    }
}

/// All processes that a program started; they end with this.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn end(&self) {
        if let Some(group) = self.0 {
            // An error says that nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Output cut into lines.
struct Lines {
    pending: Vec<u8>,
    tail: Vec<String>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], progress: &mut (dyn FnMut(&str) + Send)) {
        for byte in bytes {
            match byte {
                b'\n' => self.finish(progress),
                _ => self.pending.push(*byte),
            }
            if self.pending.len() == LINE_BYTES {
                self.finish(progress);
            }
        }
    }

    fn finish(&mut self, progress: &mut (dyn FnMut(&str) + Send)) {
        let line = String::from_utf8_lossy(&self.pending).trim_end().to_owned();
        self.pending.clear();
        if line.is_empty() {
            return;
        }
        progress(&line);
        if self.tail.len() == TAIL_LINES {
            self.tail.remove(0);
        }
        self.tail.push(line);
    }
}

/// Standard output of a short program.
///
/// # Errors
/// Its error output, or why it did not start.
pub async fn output_of(program: &Path, words: &[&str], variables: &Variables) -> Result<String, String> {
    let output = Command::new(program)
        .args(words)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
