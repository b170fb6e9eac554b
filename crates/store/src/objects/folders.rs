//! Folders of the machine as buckets: their plain files are the objects, wherever they came from.
//!
//! Paths are walked from a handle of the folder, one name at a time and never through a link: no key leads out of it. What a
//! file cannot hold (headers, metadata, tags, the tag of its content) lies in a row that counts only while the file is the
//! one it was written for.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use failpoint::Point;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use super::{Attributes, Object, Refusal, hex, md5_of};
use crate::error::{Error, Result};

/// Beginning of the names of files that are on their way into a folder; they are no objects.
pub const PASSING: &str = ".modelyard-incoming-";

/// Longest file name.
const LONGEST_NAME_BYTES: usize = 255;

/// A folder that is a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Where it lies; no link leads there.
    pub path: PathBuf,
    /// Whether objects can be neither written nor removed.
    pub is_read_only: bool,
}

impl Folder {
    /// A folder that may become a bucket.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong with it.
    pub fn check(path: &Path, data_dir: &Path, is_read_only: bool) -> Result<Folder> {
        let shown = path.display();
        let real = path.canonicalize().map_err(|error| Error::Invalid(format!("{shown}: {error}")))?;
        if !real.is_dir() {
            return Err(Error::Invalid(format!("{shown} is not a folder")));
        }
        let data_dir = data_dir.canonicalize().map_err(Error::file("look at the data directory"))?;
        if real.starts_with(&data_dir) || data_dir.starts_with(&real) {
            return Err(Error::Invalid(format!(
                "{shown} and the data directory {} lie within each other; choose another folder",
                data_dir.display()
            )));
        }
        if real.to_str().is_none() {
            return Err(Error::Invalid(format!("the path {shown} is not UTF-8")));
        }
        Ok(Folder { path: real, is_read_only })
    }

    /// Refuses changes of a folder that is only read.
    pub(super) fn check_writable(&self) -> Result<()> {
        match self.is_read_only {
            true => Err(Error::Denied("the bucket is a folder that is only read".into())),
            false => Ok(()),
        }
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.path, flags, Mode::empty())?)
    }

    /// The folder that holds the file of a key, and the name of the file there.
    fn place<'a>(&self, key: &'a str, makes_folders: bool) -> io::Result<(OwnedFd, &'a str)> {
        let (folders, name) =
            key.rsplit_once('/').map_or((None, key), |(folders, name)| (Some(folders), name));
        let mut at = self.open()?;
        for folder in folders.into_iter().flat_map(|folders| folders.split('/')) {
            at = match open_folder(&at, folder) {
                Err(error) if makes_folders && error.kind() == io::ErrorKind::NotFound => {
                    match rustix::fs::mkdirat(&at, folder, Mode::from_raw_mode(0o755)) {
                        Ok(()) => rustix::fs::fsync(&at)?,
                        Err(rustix::io::Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    open_folder(&at, folder)?
                }
                opened => opened?,
            };
        }
        Ok((at, name))
    }

    /// The file of a key, when it is a plain one.
    pub(super) fn file(&self, key: &str) -> Result<Option<File>> {
        if !is_path(key) {
            return Ok(None);
        }
        // Opening a FIFO must not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = self.place(key, false).and_then(|(folder, name)| {
            Ok(File::from(rustix::fs::openat(&folder, name, flags, Mode::empty())?))
        });
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Error::Denied(format!("the file of {key:?} may not be read: {error}")));
            }
            Err(error) => return Err(Error::file(format!("open the file of {key:?}"))(error)),
        };
        let metadata = file.metadata().map_err(Error::file(format!("look at the file of {key:?}")))?;
        Ok(metadata.is_file().then_some(file))
    }

    /// The file of a key as an object, without what lies in its row.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object>> {
        if !is_path(key) {
            return Ok(None);
        }
        let looked = self.place(key, false).and_then(|(folder, name)| {
            let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(object_of(key, &stat))
        });
        match looked {
            Ok(object) => Ok(object),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::Denied(format!("the file of {key:?} may not be looked at: {error}")))
            }
            Err(error) => Err(Error::file(format!("look at the file of {key:?}"))(error)),
        }
    }

    /// Makes a finished file the one of a key, durably. With `is_first`, there must be none yet.
    pub(super) fn put(&self, key: &str, file: &Path, is_first: bool) -> Result<()> {
        if !is_path(key) {
            return Err(Refusal::NoFileName(key.to_owned()).into());
        }
        let placed = self.place(key, true).and_then(|(folder, name)| {
            let passing = format!("{PASSING}{}", uuid::Uuid::new_v4().simple());
            bring(file, &folder, &passing)?;
            let flags = if is_first { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
            let renamed = failpoint::at(Point::ObjectRename)
                .and_then(|()| Ok(rustix::fs::renameat_with(&folder, &passing, &folder, name, flags)?));
            if renamed.is_err() {
                // Whatever is left of it is no object.
                let _ = rustix::fs::unlinkat(&folder, &passing, AtFlags::empty());
            }
            renamed?;
            Ok(rustix::fs::fsync(&folder)?)
        });
        match placed {
            Ok(()) => Ok(()),
            Err(error) if is_first && error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::Precondition("there is an object of this key".into()))
            }
            // A link or a file where the key has a folder, or a folder where it has a file.
            Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::IsADirectory => {
                Err(Refusal::NoFileName(key.to_owned()).into())
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::Denied(format!("the file of {key:?} may not be written: {error}")))
            }
            Err(error) => Err(Error::file(format!("write the file of {key:?}"))(error)),
        }
    }

    /// Removes the file of a key, when it is a plain one. The folders above it stay.
    pub(super) fn remove(&self, key: &str) -> Result<()> {
        let removed = self.place(key, false).and_then(|(folder, name)| {
            let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if object_of(key, &stat).is_some() {
                rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
                rustix::fs::fsync(&folder)?;
            }
            Ok(())
        });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::Denied(format!("the file of {key:?} may not be removed: {error}")))
            }
            Err(error) if !is_absent(&error) => {
                Err(Error::file(format!("remove the file of {key:?}"))(error))
            }
            _ => Ok(()),
        }
    }
}

/// Brings a finished file into a folder, by name where both are on one file system.
fn bring(file: &Path, folder: &OwnedFd, name: &str) -> io::Result<()> {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644))?;
    match rustix::fs::renameat(rustix::fs::CWD, file, folder, name) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::XDEV) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut target = File::from(rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o644))?);
    let copied = io::copy(&mut File::open(file)?, &mut target)
        .and_then(|_| failpoint::at(Point::ObjectSync))
        .and_then(|()| target.sync_all());
    if copied.is_err() {
        // Whatever is left of it is no object.
        let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
    }
    copied?;
    std::fs::remove_file(file)
}

pub(super) fn open_folder(at: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

/// Whether nothing of that name can be there: nothing is, a link is, or a file where a folder had to be.
fn is_absent(error: &io::Error) -> bool {
    let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_link || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether a key names a file below a folder.
fn is_path(key: &str) -> bool {
    key.split('/').all(|name| {
        !matches!(name, "" | "." | "..")
            && name.len() <= LONGEST_NAME_BYTES
            && !name.contains('\0')
            && !name.starts_with(PASSING)
    })
}

/// A plain file as an object; `None` for anything else.
pub(super) fn object_of(key: &str, stat: &rustix::fs::Stat) -> Option<Object> {
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return None;
    }
    let modified_at_ns = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    Some(object(key, stat.st_size as u64, modified_at_ns, stat.st_dev, stat.st_ino))
}

/// As [`object_of`], of an open file.
pub(super) fn object_of_file(key: &str, file: &File) -> Result<Object> {
    let metadata = file.metadata().map_err(Error::file(format!("look at the file of {key:?}")))?;
    let modified_at_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    Ok(object(key, metadata.len(), modified_at_ns, metadata.dev(), metadata.ino()))
}

fn object(key: &str, size: u64, modified_at_ns: i128, device: u64, inode: u64) -> Object {
    let identity = format!("{device}-{inode}-{size}-{modified_at_ns}");
    Object {
        key: key.to_owned(),
        size,
        // With the form of a tag of parts, so that no client takes it for the MD5 of the content.
        etag: format!("{}-1", hex(&md5_of(identity.as_bytes()))),
        parts: None,
        attributes: Attributes::default(),
        modified_at: i64::try_from(modified_at_ns.div_euclid(1_000_000)).unwrap_or(i64::MAX),
        path: PathBuf::from(identity),
    }
}

/// A new file with the bytes of an object's file, or another name of it where that may be.
pub(super) fn export(folder: &Folder, object: &Object, target: &Path, shares: bool) -> io::Result<()> {
    let file = match folder.file(&object.key) {
        Ok(Some(file)) => file,
        Ok(None) => return Err(io::ErrorKind::NotFound.into()),
        Err(error) => return Err(io::Error::other(error)),
    };
    let metadata = file.metadata()?;
    if shares && metadata.mode() & 0o444 == 0o444 {
        let (at, name) = folder.place(&object.key, false)?;
        let linked = rustix::fs::linkat(&at, name, rustix::fs::CWD, target, AtFlags::empty());
        if linked.is_ok() {
            let made = std::fs::symlink_metadata(target)?;
            if (made.dev(), made.ino()) == (metadata.dev(), metadata.ino()) {
                return Ok(());
            }
            // It was replaced in between, perhaps by a link.
            std::fs::remove_file(target)?;
        } else if linked == Err(rustix::io::Errno::EXIST) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
    }
    let mut copy = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(target)?;
    copy.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    io::copy(&mut &file, &mut copy)?;
    copy.set_modified(metadata.modified()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_files_below_the_folder_and_nowhere_else() {
        for key in ["a", "a/b", ".hidden", "a b/ü", "..a", "a.."] {
            assert!(is_path(key), "{key}");
        }
        let passing = format!("a/{PASSING}x");
        for key in ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "nul\0", &passing] {
            assert!(!is_path(key), "{key:?}");
        }
        assert!(!is_path(&"x".repeat(256)));
    }
}
