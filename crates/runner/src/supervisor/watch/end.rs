//! How a job ended, from all that is known of it.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::Signal;

use super::Watch;
use crate::workload::Exit;

/// How much of what the sandbox says before the job runs is kept for the failure text.
const LAUNCH_TEXT_BYTES: usize = 4096;

impl Watch<'_> {
    /// How the job ended, with the status of its outermost process.
    pub(super) fn exit(&mut self, sandbox_status: Option<ExitStatus>) -> Exit {
        let ended_unasked = self.job_exit.is_none() || !self.stop_requested;
        if self.launch_error.is_some() || (self.launched_at.is_none() && ended_unasked) {
            return Exit::LaunchFailed(self.launch_failure(sandbox_status));
        }
        if let Some(text) = self.feed_error.take() {
            return Exit::InputFailed(text);
        }
        if self.time_is_up {
            return Exit::TimeLimit;
        }
        if let Some(exit) = self.job_exit.take() {
            return exit;
        }
        // The first process was killed before it could say more (out of memory, say); the sandbox passes it
        // on.
        match sandbox_status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) if code > 128 => Exit::Signal(code - 128),
            Some((Some(code), _)) => Exit::Code(code),
            Some((None, Some(signal))) => Exit::Signal(signal),
            _ => Exit::Signal(Signal::KILL.as_raw()),
        }
    }

    fn launch_failure(&mut self, sandbox_status: Option<ExitStatus>) -> String {
        let said = self.launch_error.take();
        let mut complaint = Vec::new();
        if let Some(output) = self.output.take() {
            // Ends with an error when the pipe is empty but still open; what was read until then is kept.
            let _ = output.take(LAUNCH_TEXT_BYTES as u64).read_to_end(&mut complaint);
        }
        let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
        if let Some(text) = said {
            return if complaint.is_empty() { text } else { format!("{text} ({complaint})") };
        }
        let ended = sandbox_status.map_or_else(|| "it ended".to_owned(), |status| status.to_string());
        if complaint.is_empty() {
            format!("The sandbox could not be set up ({ended}).")
        } else {
            format!("The sandbox could not be set up ({ended}): {complaint}")
        }
    }
}

/// Largest resident memory of any ended process below this one, and the CPU time of all of them.
pub(super) fn descendants_usage() -> (Option<u64>, Option<f64>) {
    let Ok(usage) = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN) else {
        return (None, None);
    };
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    // Linux counts resident memory in KiB here.
    let peak_memory_bytes = u64::try_from(usage.max_rss()).ok().map(|kib| kib * 1024);
    (peak_memory_bytes, Some(seconds(usage.user_time()) + seconds(usage.system_time())))
}
