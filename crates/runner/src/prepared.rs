//! Prepared workloads: a sandbox and the program in it are there before it is known what they are to run.
//!
//! The program reads its task, a line of JSON, from its standard input, and becomes it. Until then the writable mounts are
//! the server's alone, so that whatever is put there cannot be tampered with.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::workload::{Confinement, WorkloadSpec};

/// Byte that wakes a supervisor whose workload was given a task, and that hands the task to the first process.
pub(crate) const TASK: u8 = b't';

/// What a prepared workload is given to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// As [`WorkloadSpec::command`].
    pub command: Vec<String>,
    /// As [`WorkloadSpec::environment`].
    pub environment: BTreeMap<String, String>,
    /// As [`WorkloadSpec::working_directory`].
    pub working_directory: PathBuf,
    /// As [`WorkloadSpec::log_path`].
    pub log_path: PathBuf,
    /// As [`WorkloadSpec::time_limit_seconds`], counted from the moment at which the task is handed over.
    pub time_limit_seconds: Option<u64>,
    /// As [`WorkloadSpec::stop_grace_seconds`].
    pub stop_grace_seconds: u64,
}

impl Task {
    /// What is left of a workload's description when its sandbox is there already.
    pub fn of(spec: &WorkloadSpec) -> Task {
        Task {
            command: spec.command.clone(),
            environment: spec.environment.clone(),
            working_directory: spec.working_directory.clone(),
            log_path: spec.log_path.clone(),
            time_limit_seconds: spec.time_limit_seconds,
            stop_grace_seconds: spec.stop_grace_seconds,
        }
    }

    /// `prepared` with this task, as if it had been started for it.
    #[must_use]
    pub fn in_place_of(&self, prepared: &WorkloadSpec) -> WorkloadSpec {
        WorkloadSpec {
            command: self.command.clone(),
            environment: self.environment.clone(),
            working_directory: self.working_directory.clone(),
            log_path: self.log_path.clone(),
            time_limit_seconds: self.time_limit_seconds,
            stop_grace_seconds: self.stop_grace_seconds,
            ..prepared.clone()
        }
    }
}

/// Whether the sandbox of `prepared` is in every respect the one that `wanted` describes.
pub fn serves(prepared: &WorkloadSpec, wanted: &WorkloadSpec) -> bool {
    Task::of(wanted).in_place_of(prepared) == *wanted
}

/// Whether such a workload can be prepared: what it is to read or write must be safe from it until it has its task, and
/// only another user, in a sandbox, is kept from that.
pub fn can_be_prepared(spec: &WorkloadSpec) -> bool {
    spec.confinement == Confinement::Bubblewrap
        && spec.feeds.is_empty()
        && rustix::process::geteuid().is_root()
}

/// Reads the start of a file below `root` that a job may have written: no link is followed.
///
/// # Errors
/// What the disk says, also for what is no text.
pub fn read_beneath(root: &Path, relative: &Path, most_bytes: u64) -> io::Result<String> {
    let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, place, Mode::empty())?;
    // A pipe in the file's place must not keep the reader waiting.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(&root, relative, flags, Mode::empty(), resolve)?;
    let mut text = String::new();
    File::from(file).take(most_bytes).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Access, Mount};

    #[test]
    fn a_sandbox_serves_only_what_it_was_made_for() {
        let prepared = WorkloadSpec::plain("job-1", vec!["python".to_owned()]);
        let mut wanted = WorkloadSpec::plain("job-1", vec!["python".to_owned(), "train.py".to_owned()]);
        wanted.environment.insert("A".to_owned(), "1".to_owned());
        wanted.log_path = PathBuf::from("/logs/x");
        wanted.time_limit_seconds = Some(60);
        assert!(serves(&prepared, &wanted));
        let source = PathBuf::from("/data");
        let mount = Mount { source, target: PathBuf::from("/data"), access: Access::ReadOnly };
        assert!(!serves(&prepared, &WorkloadSpec { mounts: vec![mount], ..wanted.clone() }));
        assert!(!serves(&prepared, &WorkloadSpec { hostname: "algo-2".to_owned(), ..wanted.clone() }));
        assert!(!serves(&prepared, &WorkloadSpec { gpus: vec![0], ..wanted }));
    }
}
