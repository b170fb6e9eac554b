//! How the ends of workloads are seen, whoever started them.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;

use rustix::process::{Pid, PidfdFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Error, Result};
use crate::oci;
use crate::sandbox;
use crate::supervisor::directory::{WorkloadDirectory, has_ended, now_ms};
use crate::workload::{Exit, ExitReport, Observation};

/// Ends and removes what a lost supervisor left: of its sandbox, and in its control group.
fn remove_leftovers(directory: &WorkloadDirectory) {
    if let Err(error) = sandbox::end_strays(directory.path()) {
        tracing::warn!(directory = %directory.path().display(), %error, "a sandbox could not be ended");
    }
    let removed = directory.control_group().and_then(|group| group.map_or(Ok(()), |group| group.remove()));
    if let Err(error) = removed {
        tracing::warn!(directory = %directory.path().display(), %error, "a control group could not be removed");
    }
}

/// What can be seen of the workload now.
pub(super) fn observe(directory: &WorkloadDirectory, id: &str) -> Result<Observation> {
    let during = |source| Error::Io { action: format!("Looking at workload {id:?}"), source };
    // In this order: the lock is let go only after the report is written, so the second look is final.
    if let Some(report) = directory.exit().map_err(during)? {
        return Ok(Observation::Exited(Box::new(report)));
    }
    let is_supervised = directory.lock_holder().map_err(during)?.is_some();
    if !is_supervised && let Some(report) = directory.exit().map_err(during)? {
        return Ok(Observation::Exited(Box::new(report)));
    }
    let attempt = directory.attempt().map_err(during)?;
    match attempt {
        None if is_supervised => Ok(Observation::Running { pid: None, started_at_ms: now_ms() }),
        None => Ok(Observation::Unknown),
        Some(attempt) => {
            let pid = attempt.job.map(|job| job.pid);
            let running = Observation::Running { pid, started_at_ms: attempt.started_at_ms };
            if is_supervised {
                return Ok(running);
            }
            match oci::contained(directory).map_err(during)? {
                Some(spec) => {
                    oci::finish(directory, &spec).map_err(io::Error::other).map_err(during)?;
                }
                None if attempt.job.map_or(Ok(None), |job| job.open()).map_err(during)?.is_some() => {
                    return Ok(running);
                }
                None => {}
            }
            let report = ExitReport {
                containment: directory.containment().map_err(during)?.unwrap_or_default(),
                ..ExitReport::bare(
                    Exit::SupervisorLost,
                    attempt.started_at_ms,
                    now_ms(),
                    directory.end_request().map_err(during)?.is_some(),
                )
            };
            remove_leftovers(directory);
            // Written, so that every later look gives the same times.
            directory.write_exit(&report).map_err(during)?;
            Ok(Observation::Exited(Box::new(report)))
        }
    }
}

/// A handle on the supervisor or, if it was lost, on the job's first process, which is about to follow it.
pub(super) fn living_process(directory: &WorkloadDirectory) -> io::Result<Option<OwnedFd>> {
    if let Some(pid) = directory.lock_holder()? {
        let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Holding the lock after the opening too, it must be the process that was opened.
        if directory.lock_holder()? == Some(pid) && !has_ended(&handle)? {
            return Ok(Some(handle));
        }
        return Ok(None);
    }
    match directory.attempt()?.and_then(|attempt| attempt.job) {
        // A container is not left to end by itself: the next look ends it.
        Some(job) if oci::contained(directory)?.is_none() => job.open(),
        _ => Ok(None),
    }
}

/// Takes the supervisor's exit status when it ends, since it stays this process's child until either dies.
pub(super) fn reap_when_ended(mut child: Child) {
    let handle = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    tokio::spawn(async move {
        let ended = match handle {
            Ok(handle) => ended(handle).await,
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(()) => drop(child.wait()),
            Err(error) => {
                tracing::warn!(pid = child.id(), %error, "a supervisor cannot be watched and may stay a zombie")
            }
        }
    });
}

/// Waits until the process behind a pidfd has ended.
pub(super) async fn ended(handle: OwnedFd) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "unsound only for types whose handle may change, which an OwnedFd's cannot"
    )]
    let handle = AsyncFd::with_interest(handle, Interest::READABLE)?;
    handle.readable().await?.retain_ready();
    Ok(())
}
