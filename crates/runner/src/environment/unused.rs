//! Environments that nobody has used for a while: which they are, and their removal.
//!
//! The time of the mark's file says when an environment was last handed out. Removal takes the mark first, so that what a crash
//! leaves is an unfinished build like any other, and goes with the next look.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use failpoint::Point;

use super::lock::BuildLock;
use super::marker::{self, Marker};
use super::{Environments, lock_path};

/// An environment that may go, or what is left of a build that failed or was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its content key, which is the name of its folder.
    pub key: String,
    /// Its folder.
    pub directory: PathBuf,
}

/// Notes that an environment is used now. One whose time cannot be noted looks older than it is, and is built again if it goes.
pub(super) fn note_use(directory: &Path) {
    let noted = File::options().write(true).open(directory.join(marker::NAME)).and_then(|file| {
        #[expect(
            clippy::disallowed_methods,
            reason = "compared with times of files, which are the machine's"
        )]
        let now = SystemTime::now();
        file.set_modified(now)
    });
    if let Err(error) = noted {
        tracing::debug!(directory = %directory.display(), %error, "the use of an environment was not noted");
    }
}

impl Environments {
    /// Environments that were last used before a time, and what is left of builds that nobody goes on with; in no order, those after
    /// `after` of one and the same order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn unused(&self, before: SystemTime, after: &str, limit: usize) -> io::Result<Vec<Unused>> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // The least names after the position, never more of them than a page.
        let mut found = std::collections::BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            let Ok(key) = entry.file_name().into_string() else { continue };
            let directory = entry.path();
            // Builds have a lock beside their folder; whatever else lies here is not theirs.
            if *key > *after
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
                && lock_path(&directory).exists()
                && last_used(&directory).is_some_and(|at| at < before)
            {
                found.insert(key.clone(), Unused { key, directory });
                if found.len() > limit {
                    found.pop_last();
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Removes one, unless it has been used since, or is being built or handed out; whether it has gone.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub async fn remove_unused(&self, unused: &Unused, before: SystemTime) -> io::Result<bool> {
        let slot = self.slot(&unused.key);
        let Ok(mut known) = slot.try_lock() else { return Ok(false) };
        let directory = unused.directory.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let Some(_lock) = BuildLock::try_acquire(&lock_path(&directory))? else { return Ok(false) };
            if last_used(&directory).is_none_or(|at| at >= before) {
                return Ok(false);
            }
            if Marker::is_in(&directory) {
                std::fs::remove_file(directory.join(marker::NAME))?;
            }
            failpoint::pass(Point::EnvironmentRemove);
            std::fs::remove_dir_all(&directory)?;
            Ok(true)
        });
        let removed = removed.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))?;
        *known = None;
        Ok(removed)
    }
}

/// When an environment was last handed out, or an unfinished one last changed.
fn last_used(directory: &Path) -> Option<SystemTime> {
    let mark = std::fs::metadata(directory.join(marker::NAME));
    mark.or_else(|_| std::fs::metadata(directory)).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::environment::Tools;

    fn environment(root: &Path, key: &str, used_at: SystemTime, is_finished: bool) {
        std::fs::create_dir_all(root.join(key).join("bin")).unwrap();
        std::fs::write(lock_path(&root.join(key)), "").unwrap();
        let stamped = if is_finished {
            std::fs::write(root.join(key).join(marker::NAME), "{}").unwrap();
            root.join(key).join(marker::NAME)
        } else {
            root.join(key)
        };
        File::open(stamped).unwrap().set_modified(used_at).unwrap();
    }

    #[tokio::test]
    async fn what_is_long_unused_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let (old, new) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let before = SystemTime::UNIX_EPOCH + Duration::from_secs(500_000);
        environment(root, "old", old, true);
        environment(root, "new", new, true);
        environment(root, "cut-off", old, false);
        environment(root, "being-built", old, true);
        std::fs::create_dir(root.join("something-else")).unwrap();
        let environments = Environments::new(root.to_owned(), Tools::default(), BTreeMap::new());
        let found = environments.unused(before, "", 10).unwrap();
        let keys: Vec<&str> = found.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, ["being-built", "cut-off", "old"]);
        assert_eq!(environments.unused(before, "being-built", 1).unwrap()[0].key, "cut-off");

        let lock = BuildLock::try_acquire(&lock_path(&root.join("being-built"))).unwrap().unwrap();
        assert!(!environments.remove_unused(&found[0], before).await.unwrap());
        drop(lock);
        assert!(environments.remove_unused(&found[1], before).await.unwrap());
        note_use(&root.join("old"));
        assert!(!environments.remove_unused(&found[2], before).await.unwrap(), "it was used meanwhile");
        for (key, stays) in [("old", true), ("new", true), ("cut-off", false), ("being-built", true)] {
            assert_eq!(root.join(key).exists(), stays, "{key}");
        }
    }
}
