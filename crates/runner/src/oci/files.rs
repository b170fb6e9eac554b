//! The files that a container shares with the server: writable for its users before, the server's own after.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::engine::{Engine, EngineKind};
use crate::sandbox::give;
use crate::workload::{Access, Mount};

/// Time to give back millions of files.
const GIVE_LIMIT: Duration = Duration::from_secs(600);

/// Lets every user write into the directories of the writable mounts, which lie in a folder that only the server may enter:
/// the numbers behind the names of an image's users are not known outside of it.
pub(super) fn open_for_all(mounts: &[Mount]) -> Result<(), String> {
    for mount in mounts.iter().filter(|mount| mount.access == Access::ReadWrite) {
        open_below(&mount.source).map_err(|error| {
            format!("{} cannot be opened for the users of the image: {error}.", mount.source.display())
        })?;
    }
    Ok(())
}

fn open_below(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.file_type().is_fifo() {
        // A channel that is read as a stream.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    }
    if metadata.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        for entry in fs::read_dir(path)? {
            open_below(&entry?.path())?;
        }
    }
    Ok(())
}

/// Makes what lies in the writable mounts the server's own, whoever wrote it. The error is a sentence.
pub(super) fn take_back(engine: &Engine, mounts: &[Mount]) -> Result<(), String> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let writable = mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
    if uid.is_root() {
        for mount in writable {
            give(&mount.source, uid.as_raw(), gid.as_raw())
                .map_err(|error| format!("{} cannot be taken back: {error}.", mount.source.display()))?;
        }
        return Ok(());
    }
    let foreign: Vec<PathBuf> = writable
        .filter(|mount| !belongs_to(&mount.source, uid.as_raw()))
        .map(|mount| mount.source.clone())
        .collect();
    // Other users of a container are numbers that only its own user namespace may change; root there is this user.
    if foreign.is_empty() || engine.kind == EngineKind::Docker {
        return Ok(());
    }
    let mut command = engine.command();
    command.args(["unshare", "chown", "--recursive", "--no-dereference", "0:0", "--"]).args(&foreign);
    engine.run(command, "unshare", GIVE_LIMIT).map(drop).map_err(|error| error.to_string())
}

/// Whether the user owns the file, or the folder with all that is in it.
fn belongs_to(path: &Path, uid: u32) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else { return false };
    if metadata.uid() != uid {
        return false;
    }
    if !metadata.is_dir() {
        return true;
    }
    let Ok(entries) = fs::read_dir(path) else { return false };
    entries.into_iter().all(|entry| entry.is_ok_and(|entry| belongs_to(&entry.path(), uid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_opened_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (outside, job) = (root.path().join("outside"), root.path().join("job"));
        fs::create_dir(&outside).unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir_all(job.join("model")).unwrap();
        std::os::unix::fs::symlink(&outside, job.join("link")).unwrap();
        let mount = |access| Mount { source: job.clone(), target: "/opt/ml".into(), access };
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        open_for_all(&[mount(Access::ReadOnly)]).unwrap();
        assert_ne!(mode(&job), 0o777);
        open_for_all(&[mount(Access::ReadWrite)]).unwrap();
        assert_eq!((mode(&job), mode(&job.join("model")), mode(&outside)), (0o777, 0o777, 0o700));
    }

    #[test]
    fn one_foreign_file_is_enough() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/b"), "x").unwrap();
        let uid = fs::metadata(root.path()).unwrap().uid();
        assert!(belongs_to(root.path(), uid));
        assert!(!belongs_to(root.path(), uid + 1));
        assert!(!belongs_to(&root.path().join("missing"), uid));
    }
}
