//! Files of a folder in the order of their keys.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType};

use super::folders::{Folder, PASSING, object_of, open_folder};
use super::{Bound, Object};
use crate::error::{Error, Result};

/// The files whose keys begin with `prefix`, from a bound on, at most `limit`. Links and special files are passed over.
pub(super) fn objects_from(folder: &Folder, prefix: &str, from: &Bound, limit: usize) -> Result<Vec<Object>> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let context = || Error::file(format!("list {}", folder.path.display()));
    let root = rustix::fs::open(&folder.path, flags, rustix::fs::Mode::empty());
    let root = root.map_err(io::Error::from).map_err(context())?;
    let mut walk = Walk { prefix: prefix.as_bytes(), from, limit, found: Vec::new() };
    walk.folder(&root, "").map_err(context())?;
    Ok(walk.found)
}

struct Walk<'a> {
    prefix: &'a [u8],
    from: &'a Bound,
    limit: usize,
    found: Vec<Object>,
}

impl Walk<'_> {
    fn folder(&mut self, at: &OwnedFd, above: &str) -> io::Result<()> {
        // In the order of keys, a folder stands where its name with a slash does.
        let mut names: Vec<(String, bool)> = Vec::new();
        for entry in Dir::read_from(at)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") || name.starts_with(PASSING) {
                continue;
            }
            let is_folder = match entry.file_type() {
                FileType::Directory => true,
                FileType::RegularFile => false,
                // File systems need not say it here.
                FileType::Unknown => {
                    let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                }
                _ => continue,
            };
            names.push((
                if is_folder { format!("{above}{name}/") } else { format!("{above}{name}") },
                is_folder,
            ));
        }
        names.sort_unstable();
        for (key, is_folder) in names {
            if self.found.len() == self.limit {
                return Ok(());
            }
            if is_folder {
                if self.may_hold(key.as_bytes()) {
                    self.inner(at, &key, above)?;
                }
            } else if self.holds(key.as_bytes()) {
                self.file(at, &key, above)?;
            }
        }
        Ok(())
    }

    fn inner(&mut self, at: &OwnedFd, key: &str, above: &str) -> io::Result<()> {
        match open_folder(at, key[above.len()..].trim_end_matches('/')) {
            Ok(inner) => self.folder(&inner, key),
            // Gone meanwhile, or closed to the server.
            Err(error) if passes_over(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn file(&mut self, at: &OwnedFd, key: &str, above: &str) -> io::Result<()> {
        match rustix::fs::statat(at, &key[above.len()..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.found.extend(object_of(key, &stat)),
            Err(error) if passes_over(&error.into()) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn holds(&self, key: &[u8]) -> bool {
        let from = self.from.bytes.as_slice();
        key.starts_with(self.prefix) && (key > from || self.from.inclusive && key == from)
    }

    /// Whether keys that begin with this folder can belong to the list.
    fn may_hold(&self, folder: &[u8]) -> bool {
        let from = self.from.bytes.as_slice();
        let fits = folder.starts_with(self.prefix) || self.prefix.starts_with(folder);
        fits && (from < folder || from.starts_with(folder))
    }
}

fn passes_over(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}
