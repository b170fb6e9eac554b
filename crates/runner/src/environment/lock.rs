//! One builder per environment, across threads and processes.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Held while an environment is built. Programs that build get it as their standard input: it stays locked while one of them
/// lives, even when the server that started it does not.
pub struct BuildLock(File);

impl BuildLock {
    /// The lock, or `None` while another builder holds it.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn try_acquire(path: &Path) -> io::Result<Option<BuildLock>> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(BuildLock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub async fn acquire(path: &Path) -> io::Result<BuildLock> {
        let path = path.to_owned();
        let wait = move || {
            let file = open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(BuildLock(file))
        };
        tokio::task::spawn_blocking(wait).await.map_err(io::Error::other)?
    }

    /// A handle for a child process: an empty file to read, and a share of the lock.
    ///
    /// # Errors
    /// When no more files can be open.
    pub fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Never written: whoever reads it as standard input finds nothing.
    File::options().read(true).write(true).create(true).truncate(true).open(path)
}
