//! Looks at a folder that a job writes to, and opens its files, without ever leaving it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};

/// More files than this are refused: they would become as many objects.
const MAX_FILES: usize = 1_000_000;

/// A folder of a job, held open: whatever the job puts in its place is not followed.
pub struct Tree {
    root: OwnedFd,
}

/// Tells whether a file was changed since it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Size in bytes.
    pub bytes: u64,
    /// When its content changed, in nanoseconds since 1970.
    pub modified_at_ns: i128,
    /// Its number in the file system, which a replaced file does not share.
    pub inode: u64,
}

/// What lies in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Plain files, and links to such that lead nowhere outside, by path relative to the folder; sorted.
    pub files: Vec<(PathBuf, Stamp)>,
    /// What is neither a file nor a folder and cannot be kept, with the reason.
    pub left_out: Vec<(PathBuf, &'static str)>,
}

impl Tree {
    /// The folder `relative` below `base`, neither of whose parts below `base` may be a link; `None` if it does not exist.
    ///
    /// # Errors
    /// When it is no folder, or a link is in the way.
    pub fn open(base: &Path, relative: &Path) -> io::Result<Option<Tree>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(base, flags | OFlags::NOFOLLOW, Mode::empty())?;
        if relative.as_os_str().is_empty() {
            return Ok(Some(Tree { root: top }));
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&top, relative, flags, Mode::empty(), resolve) {
            Ok(root) => Ok(Some(Tree { root })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lists everything below. Entries that vanish meanwhile are passed over.
    ///
    /// # Errors
    /// When a folder cannot be read, or there are too many files.
    pub fn scan(&self) -> io::Result<Scan> {
        let mut scan = Scan::default();
        let mut folders = VecDeque::from([PathBuf::new()]);
        while let Some(folder) = folders.pop_front() {
            let handle = match self.open_folder(&folder) {
                Ok(handle) => handle,
                // Gone, or replaced by something else, since it was listed.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for entry in Dir::read_from(&handle)? {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let path = folder.join(OsStr::from_bytes(name.to_bytes()));
                let Ok(stat) = rustix::fs::statat(&handle, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => scan.files.push((path, stamp(&stat))),
                    FileType::Directory => folders.push_back(path),
                    FileType::Symlink => match self.file(&path) {
                        Ok(file) => scan.files.push((path, stamp(&rustix::fs::fstat(&file)?))),
                        Err(_) => {
                            scan.left_out.push((path, "is a link to a folder, to nothing or to the outside"));
                        }
                    },
                    FileType::Socket => scan.left_out.push((path, "is a socket")),
                    FileType::Fifo => scan.left_out.push((path, "is a FIFO")),
                    _ => scan.left_out.push((path, "is a device")),
                }
                if scan.files.len() + scan.left_out.len() + folders.len() > MAX_FILES {
                    return Err(io::Error::other(format!("there are more than {MAX_FILES} files")));
                }
            }
        }
        scan.files.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        scan.left_out.sort_unstable();
        Ok(scan)
    }

    /// Opens a plain file, or one that a link leads to within the folder, for reading.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when it is gone; else when it is no plain file of this folder.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        // An opened FIFO without a writer would hang (NONBLOCK).
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no plain file"));
        }
        Ok(File::from(file))
    }

    fn open_folder(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }
}

impl Stamp {
    /// The stamp of an open file.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn of(file: &File) -> io::Result<Stamp> {
        Ok(stamp(&rustix::fs::fstat(file)?))
    }
}

fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        modified_at_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        inode: stat.st_ino,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_files_of_the_folder_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let (outside, job) = (root.path().join("outside"), root.path().join("job"));
        fs::create_dir_all(job.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "x").unwrap();
        fs::write(job.join("a/b/file"), "12345").unwrap();
        fs::write(job.join("z"), "").unwrap();
        symlink("a/b/file", job.join("inside")).unwrap();
        symlink("a", job.join("folder")).unwrap();
        symlink("../outside/secret", job.join("leak")).unwrap();
        symlink(outside.join("secret"), job.join("leak-2")).unwrap();
        symlink(&outside, job.join("a/out")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, job.join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        let _listener = UnixListener::bind(job.join("socket")).unwrap();

        let tree = Tree::open(root.path(), Path::new("job")).unwrap().unwrap();
        let scan = tree.scan().unwrap();
        let files: Vec<(String, u64)> =
            scan.files.iter().map(|(path, stamp)| (path.display().to_string(), stamp.bytes)).collect();
        assert_eq!(files, [("a/b/file".to_owned(), 5), ("inside".to_owned(), 5), ("z".to_owned(), 0)]);
        let left_out: Vec<String> =
            scan.left_out.iter().map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(left_out, ["a/out", "fifo", "folder", "leak", "leak-2", "socket"]);
        for path in ["leak", "leak-2", "a/out/secret", "../outside/secret", "fifo", "a"] {
            assert!(tree.file(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(Stamp::of(&tree.file(Path::new("inside")).unwrap()).unwrap(), scan.files[0].1);
    }

    #[test]
    fn a_folder_that_was_replaced_by_a_link_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("job")).unwrap();
        symlink("/etc", root.path().join("job/checkpoints")).unwrap();
        assert!(Tree::open(&root.path().join("job"), Path::new("checkpoints")).is_err());
        assert!(Tree::open(&root.path().join("job"), Path::new("none")).unwrap().is_none());
    }
}
