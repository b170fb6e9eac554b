//! Gives directories to the job's user without ever following a link.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};

/// Deeper trees are refused: each level holds a handle.
const MAX_DEPTH: usize = 512;

/// Gives `path`, and all that lies below it on the same file system, to the user.
///
/// Links themselves are given, never what they lead to. A file with several names that belongs to someone
/// else is left alone, since another of its names may lie outside.
pub(crate) fn give(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    let giving = Giving { uid, gid, device: stat.st_dev };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return giving.entry(CWD, path, &stat);
    }
    let directory = rustix::fs::open(path, directory_flags(), Mode::empty())?;
    giving.entry(CWD, path, &stat)?;
    giving.below(&directory, MAX_DEPTH)
}

/// Whether the user may read the file, or enter and list the directory, going by owner, group and mode bits.
pub(super) fn is_readable_by(path: &Path, uid: u32, gid: u32) -> io::Result<bool> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    let wanted = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { 0o5 } else { 0o4 };
    let shift = if stat.st_uid == uid {
        6
    } else if stat.st_gid == gid {
        3
    } else {
        0
    };
    Ok((stat.st_mode >> shift) & wanted == wanted)
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

struct Giving {
    uid: u32,
    gid: u32,
    device: u64,
}

impl Giving {
    fn below(&self, directory: &OwnedFd, levels_left: usize) -> io::Result<()> {
        if levels_left == 0 {
            return Err(io::Error::other(format!("the directories lie more than {MAX_DEPTH} levels deep")));
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if stat.st_dev != self.device {
                continue;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let inner = rustix::fs::openat(directory, name, directory_flags(), Mode::empty())?;
                self.entry(directory, name, &stat)?;
                self.below(&inner, levels_left - 1)?;
            } else {
                self.entry(directory, name, &stat)?;
            }
        }
        Ok(())
    }

    fn entry<P: rustix::path::Arg>(&self, directory: impl AsFd, name: P, stat: &Stat) -> io::Result<()> {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let is_given = stat.st_uid == self.uid && stat.st_gid == self.gid;
        let is_shared = !is_directory && stat.st_nlink > 1 && stat.st_uid != self.uid;
        if is_given || is_shared {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        Ok(rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn only_what_lies_inside_changes_hands() {
        if !rustix::process::geteuid().is_root() {
            // Giving is done by root alone; an ordinary user's jobs own their directories from the start.
            assert!(give(Path::new("/etc"), 64_000, 64_000).is_err());
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (outside, job) = (root.path().join("outside"), root.path().join("job"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("canary"), "x").unwrap();
        fs::create_dir_all(job.join("a/b")).unwrap();
        fs::write(job.join("a/b/file"), "y").unwrap();
        symlink(&outside, job.join("link")).unwrap();
        symlink(outside.join("canary"), job.join("a/link")).unwrap();
        fs::hard_link(outside.join("canary"), job.join("hard")).unwrap();
        give(&job, 64_000, 64_001).unwrap();
        let owner = |path: &Path| {
            let metadata = fs::symlink_metadata(path).unwrap();
            (metadata.uid(), metadata.gid())
        };
        for given in ["", "a", "a/b", "a/b/file", "link", "a/link"] {
            assert_eq!(owner(&job.join(given)), (64_000, 64_001), "{given:?}");
        }
        assert_eq!(owner(&outside), (0, 0));
        assert_eq!(owner(&outside.join("canary")), (0, 0));
    }

    #[test]
    fn reading_is_judged_by_owner_group_and_others() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "x").unwrap();
        let metadata = fs::metadata(&file).unwrap();
        let set = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let stranger = (metadata.uid() + 1, metadata.gid() + 1);
        for (mode, who, expected) in [
            (0o600, stranger, false),
            (0o604, stranger, true),
            (0o640, (stranger.0, metadata.gid()), true),
            (0o400, (metadata.uid(), stranger.1), true),
            (0o044, (metadata.uid(), stranger.1), false),
        ] {
            set(mode);
            assert_eq!(is_readable_by(&file, who.0, who.1).unwrap(), expected, "{mode:o}");
        }
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o744)).unwrap();
        assert!(
            !is_readable_by(root.path(), stranger.0, stranger.1).unwrap(),
            "a directory must be entered too"
        );
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
    }
}
