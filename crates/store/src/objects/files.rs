//! The files behind objects: written aside, forced to the disk, renamed into place.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use failpoint::Point;

use super::sealed::{ObjectFile, Sealer};
use super::{Change, Encryption, Folder, md5_of};
use crate::error::{Error, Result};
use crate::seal::SecretKey;

/// Folder of unfinished writes and of parts, in each bucket. No key maps there: names that begin with a dot are escaped.
pub const INCOMING: &str = ".incoming";

/// An object that is being written. Dropped without being finished, its file goes.
pub struct Incoming {
    file: File,
    path: PathBuf,
    digest: Md5,
    size: u64,
    keep: bool,
    encryption: Option<Encryption>,
    sealer: Option<Sealer>,
    pub(super) change: Change,
    /// The folder that the file goes to, when the bucket is one.
    pub(super) folder: Option<Folder>,
    /// Whether the bucket lies in another store.
    pub(super) is_remote: bool,
}

/// A finished file that waits for its place.
pub struct Written {
    /// Where it lies.
    pub file: PathBuf,
    /// Size in bytes of what was written.
    pub size: u64,
    /// Its entity tag: the MD5, unless a key of the caller's encrypts it.
    pub etag: [u8; 16],
    /// How it is encrypted.
    pub encryption: Option<Encryption>,
}

impl Incoming {
    /// A new file in the bucket's folder, encrypted where there is a data key.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn create(bucket: &Path, encrypted: Option<(Encryption, SecretKey)>) -> Result<Incoming> {
        let path = bucket.join(INCOMING).join(uuid::Uuid::new_v4().simple().to_string());
        let file = failpoint::at(Point::ObjectCreate)
            .and_then(|()| File::options().write(true).create_new(true).mode(0o600).open(&path));
        let file = match file {
            // The bucket was deleted after its row was looked at.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(gone(bucket)),
            file => file.map_err(Error::file(format!("make {}", path.display())))?,
        };
        let digest = Md5::new();
        let (encryption, sealer, change) = (None, None, Change::Put);
        let mut incoming = Incoming {
            file,
            path,
            digest,
            size: 0,
            keep: false,
            encryption,
            sealer,
            change,
            folder: None,
            is_remote: false,
        };
        if let Some((encryption, data_key)) = encrypted {
            let begun = Sealer::begin(&data_key, &mut incoming.file);
            incoming.sealer = Some(begun.map_err(Error::file("begin an encrypted file"))?);
            incoming.encryption = Some(encryption);
        }
        Ok(incoming)
    }

    /// Appends bytes. Blocks.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)?;
        self.digest.update(bytes);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.sealer {
            None => failpoint::write_all(Point::ObjectWrite, &mut self.file, bytes),
            Some(sealer) => sealer.write(&mut self.file, bytes),
        };
        written.map_err(Error::file(format!("write {}", self.path.display())))?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Appends all of a file. Blocks.
    ///
    /// # Errors
    /// When either file fails.
    pub fn copy_from(&mut self, source: &mut impl Read) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = source.read(&mut buffer).map_err(Error::file("read the source of a copy"))?;
            if read == 0 {
                return Ok(());
            }
            self.write(&buffer[..read])?;
        }
    }

    /// Appends all of a file without its digest, by the kernel where it can share or move the blocks itself. Blocks.
    ///
    /// # Errors
    /// When either file fails.
    pub(super) fn join(&mut self, source: &mut ObjectFile) -> Result<()> {
        let path = self.path.clone();
        let context = || Error::file(format!("join a part to {}", path.display()));
        failpoint::at(Point::ObjectJoin).map_err(context())?;
        if let (None, Some(source)) = (&self.sealer, source.plain_file()) {
            self.size += std::io::copy(source, &mut self.file).map_err(context())?;
            return Ok(());
        }
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = source.read(&mut buffer).map_err(context())?;
            if read == 0 {
                return Ok(());
            }
            self.append(&buffer[..read])?;
        }
    }

    /// Says that this is a copy of an object, for those who are told of changes.
    pub fn as_copy(mut self) -> Incoming {
        self.change = Change::Copied;
        self
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// MD5 of the bytes so far, but for joined ones.
    pub fn md5(&self) -> [u8; 16] {
        self.digest.clone().finalize().into()
    }

    /// Forces the file to the disk. Blocks.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn finish(mut self) -> Result<Written> {
        let context = || Error::file(format!("write {}", self.path.display()));
        let mut etag = self.md5();
        if let Some(sealer) = self.sealer.take() {
            if self.encryption.as_ref().is_some_and(|encryption| encryption.key.is_some()) {
                // As in S3, the tag does not tell what the bytes are.
                etag = md5_of(&[sealer.salt(), &etag].concat());
            }
            sealer.finish(&mut self.file).map_err(context())?;
        }
        let synced = failpoint::at(Point::ObjectSync).and_then(|()| self.file.sync_all());
        synced.map_err(context())?;
        self.keep = true;
        let encryption = self.encryption.take();
        Ok(Written { file: self.path.clone(), size: self.size, etag, encryption })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.keep {
            // A stray file is swept by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the folder of all buckets, closed to other users.
pub fn make_root(root: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(root);
    made.map_err(Error::file(format!("make {}", root.display())))
}

/// Makes `folder` and what is missing between it and `base`, each durable in its parent.
pub fn make_folders(base: &Path, folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut missing = Vec::new();
    let mut at = folder;
    while !at.is_dir() && at != base {
        missing.push(at);
        at = at.parent().unwrap_or(base);
    }
    for path in missing.into_iter().rev() {
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::file(format!("make {}", path.display()))(error)),
        }
        sync_folder(path.parent().unwrap_or(base))?;
    }
    Ok(())
}

/// Renames a file into place so that it is there after a power cut.
pub fn move_durably(from: &Path, to: &Path, base: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(base);
    loop {
        make_folders(base, folder)?;
        match failpoint::at(Point::ObjectRename).and_then(|()| std::fs::rename(from, to)) {
            Ok(()) => return sync_folder(folder),
            // A deletion next door removed the folder when it became empty.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && from.exists() => {}
            // The file goes with its bucket only.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                remove_empty_folders(base, folder);
                return Err(gone(base));
            }
            Err(error) => return Err(Error::file(format!("rename to {}", to.display()))(error)),
        }
    }
}

fn sync_folder(folder: &Path) -> Result<()> {
    let sync = || {
        failpoint::at(Point::ObjectFolderSync)?;
        File::open(folder)?.sync_all()
    };
    match sync() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(Error::file(format!("write {}", folder.display()))),
    }
}

/// Removes a version's file and the folders that it leaves empty.
pub fn remove_version(bucket: &Path, path: &Path) {
    let file = bucket.join(path);
    if let Err(error) = std::fs::remove_file(&file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(file = %file.display(), %error, "a replaced object could not be removed; the next start tries again");
    }
    if let Some(folder) = file.parent() {
        remove_empty_folders(bucket, folder);
    }
}

/// Removes `folder` and those above it, as far as they are empty and below `bucket`.
fn remove_empty_folders(bucket: &Path, folder: &Path) {
    let mut folder = Some(folder);
    while let Some(at) = folder.filter(|at| *at != bucket && !at.ends_with(INCOMING)) {
        if std::fs::remove_dir(at).is_err() {
            break;
        }
        folder = at.parent();
    }
}

/// The bucket of this folder is not there.
fn gone(bucket: &Path) -> Error {
    let name = bucket.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Error::Missing { kind: super::BUCKET_KIND.into(), name }
}

/// Removes a bucket's folder.
pub fn remove_tree(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "the folder of a deleted bucket could not be removed");
    }
}

/// Unfinished files of a bucket, relative to its folder.
pub fn incoming_files(bucket: &Path) -> Result<Vec<PathBuf>> {
    let folder = bucket.join(INCOMING);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::file(format!("read {}", folder.display())))?,
    };
    Ok(entries.flatten().map(|entry| PathBuf::from(INCOMING).join(entry.file_name())).collect())
}

/// The folders of buckets.
pub fn bucket_folders(root: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(root).map_err(Error::file(format!("read {}", root.display())))?;
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.map(|entry| entry.path()).collect())
}

/// Whether a file has the name of a version; others were put there by hand and are left alone.
fn is_version(name: &std::ffi::OsStr) -> bool {
    let version = name.to_str().and_then(|name| name.rsplit_once('@')).map(|(_, version)| version);
    version.is_some_and(|text| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Versions directly in `folder`, relative to the bucket's folder; its sub-folders are added to `folders`.
pub fn versions_in(bucket: &Path, folder: &Path, folders: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut versions = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        // Removed since it was seen.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(versions),
        entries => entries.map_err(Error::file(format!("read {}", folder.display())))?,
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !path.ends_with(INCOMING) {
                folders.push(path);
            }
        } else if is_version(&entry.file_name())
            && let Ok(relative) = path.strip_prefix(bucket)
        {
            versions.push(relative.to_owned());
        }
    }
    Ok(versions)
}
