//! What bubblewrap leaves when it dies in the middle of its work: known by a lock, found by a mark, and ended.
//!
//! bubblewrap dies with the supervisor, or when it has something to tell it. Until it has let the process in the new namespaces go
//! on, that process waits for it; it would wait for good, since it has not come to the point yet at which it follows bubblewrap.
//!
//! The lock is on a file that all processes of the sandbox's making inherit: as long as it is held, one of them lives, even one that
//! the kernel is only just loading and whose mark cannot be seen yet.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use rustix::event::{Timespec, poll};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

/// Variable of bubblewrap's own processes, and of no others, that names the workload's directory.
const MARK: &str = "MODELYARD_WORKLOAD";

/// How often strays are looked for before they are given up.
const ROUNDS: u32 = 200;
/// Pause between two looks.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// File with the lock.
const LOCK: &str = "sandbox";

/// Marks the command of a sandbox; its environment is otherwise empty. Gives the lock, which it is to inherit.
pub(super) fn mark(command: &mut Command, workload_directory: &Path) -> io::Result<OwnedFd> {
    command.env_clear().env(MARK, workload_directory);
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let lock = rustix::fs::openat(CWD, workload_directory.join(LOCK), flags, mode)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

/// Ends what is left of a sandbox, once its supervisor is lost.
pub(crate) fn end(workload_directory: &Path) -> io::Result<()> {
    let lock = match File::open(workload_directory.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mark = [MARK.as_bytes(), b"=", workload_directory.as_os_str().as_bytes()].concat();
    for _ in 0..ROUNDS {
        let is_free = match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => true,
            Err(rustix::io::Errno::WOULDBLOCK) => false,
            Err(error) => return Err(error.into()),
        };
        // The first process of a finished sandbox has let go of the lock, and dies a moment after bubblewrap.
        if end_those_with(&mark)? == 0 && is_free {
            return Ok(());
        }
        let _ = poll(&mut [], Some(&PAUSE));
    }
    Err(io::Error::other("processes of its sandbox do not end"))
}

/// Kills the processes that are marked; how many there were.
fn end_those_with(mark: &[u8]) -> io::Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(pid) = Pid::from_raw(pid).filter(|_| is_marked(&entry.path(), mark)) else { continue };
        found += 1;
        if let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            // Looked at again: another process may have got the number meanwhile.
            && is_marked(&entry.path(), mark)
        {
            // If it has ended, that is what is wanted.
            let _ = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
        }
    }
    Ok(found)
}

fn is_marked(process: &Path, mark: &[u8]) -> bool {
    // Those of other users cannot be read, and are none of this server's.
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_the_processes_of_the_workload_are_ended() {
        let root = tempfile::tempdir().unwrap();
        let start = |workload: &str| {
            let directory = root.path().join(workload);
            fs::create_dir(&directory).unwrap();
            let mut command = Command::new("/bin/sleep");
            let lock = mark(&mut command, &directory).unwrap();
            // Inherited as the standard input, which is an inheritance like any other.
            (command.arg("1000").stdin(lock).spawn().unwrap(), directory)
        };
        let ((mut doomed, own), (mut other, _)) = (start("a"), start("a1"));
        end(&own).unwrap();
        assert_eq!(doomed.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        end(&own).unwrap();
        end(&root.path().join("never")).unwrap();
    }
}
