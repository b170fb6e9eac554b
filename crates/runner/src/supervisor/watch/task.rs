//! The moment at which a prepared workload becomes the job of its task.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::Watch;
use crate::prepared::TASK;
use crate::sandbox;
use crate::shell;
use crate::supervisor::directory::now_ms;
use crate::supervisor::output::LogFile;

/// How far a prepared workload is.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    /// Since when its program runs.
    pub since: Option<Instant>,
    /// Its task is there, and the program is not.
    pub has_task: bool,
}

impl Watch<'_> {
    /// Lets a prepared workload become the job of its task, when both are there.
    pub(super) fn begin_task(&mut self) {
        let Some(waiting) = &mut self.waiting else { return };
        waiting.has_task = true;
        if waiting.since.is_none() {
            return;
        }
        self.waiting = None;
        if let Err(text) = self.hand_task_over() {
            self.launch_error = Some(text);
            self.force();
        }
    }

    fn hand_task_over(&mut self) -> Result<(), String> {
        let text = |error: io::Error| format!("The job's task cannot be handed over: {error}.");
        let missing = || io::Error::other("it is not there");
        let task = self.directory.task().map_err(text)?.ok_or_else(missing).map_err(text)?;
        sandbox::hand_over_prepared(self.assignment)?;
        self.log = LogFile::open(&task.log_path);
        self.time_limit = task.time_limit_seconds.map(Duration::from_secs);
        self.stop_grace = Duration::from_secs(task.stop_grace_seconds);
        self.attempt.started_at_ms = now_ms();
        self.record_running();
        self.launched();
        let content = serde_json::to_vec(&task).map_err(|error| text(error.into()))?;
        let content = sandbox::memory_file(&content).map_err(text)?;
        shell::send(&self.init, &[TASK], &[content.as_fd()]).map_err(text)
    }
}
