//! Objects as files outside the store: hard links where the file system can, else copies.

use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::remote_cache::Fetched;
use super::{Bucket, Folder, OBJECT_KIND, Object, ObjectFile, ObjectStore, blocking};
use crate::error::{Error, Result};
use crate::seal::SecretKey;

/// Times that an object may be replaced between the look at its row and the use of its file.
pub(super) const PATIENCE: usize = 16;

/// Bytes that are decrypted at a time.
const DECRYPTED_BYTES: usize = 256 * 1024;

/// What the files share with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// The bytes, where the file system can: made at once whatever the size. Nobody may write to such a file. It stays as it
    /// is when the object is replaced or deleted. Encrypted objects become decrypted copies all the same. Files of a folder
    /// that is a bucket show what is written into them later.
    Shared,
    /// Nothing: each file may be changed by whoever gets it. Its time of change is the object's.
    Own,
}

/// An object and the file it becomes.
#[derive(Debug, Clone)]
pub struct ExportedObject {
    /// Bucket of the object.
    pub bucket: String,
    /// Its row.
    pub object: Object,
    /// The file, which must not exist; folders above it are made.
    pub target: PathBuf,
}

impl ObjectStore {
    /// The rows of many keys of one bucket, in the order of the keys; `None` for objects that do not exist.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Denied`] of the bucket.
    pub async fn find_many(
        &self,
        account: &str,
        bucket: &str,
        keys: Vec<String>,
    ) -> Result<Vec<Option<Object>>> {
        let owned = self.bucket(account, bucket).await?;
        if owned.remote.is_some() {
            return self.remote_objects(owned, keys).await;
        }
        let (account, bucket) = (account.to_owned(), bucket.to_owned());
        self.database
            .read(move |session| {
                let bucket = session.owned_bucket(&account, &bucket)?;
                keys.iter().map(|key| session.present(&bucket, key)).collect()
            })
            .await
    }

    /// Makes a file of each object. Files are readable for everyone who reaches them, their folders can be entered.
    ///
    /// # Errors
    /// [`Error::Missing`] when an object was deleted meanwhile; [`Error::Invalid`] when two objects want the same path;
    /// else when a file cannot be made.
    pub async fn export(&self, account: &str, mut objects: Vec<ExportedObject>, how: Export) -> Result<()> {
        for _ in 0..PATIENCE {
            let root = self.root.clone();
            let mut versions = Vec::with_capacity(objects.len());
            let mut buckets: HashMap<String, Bucket> = HashMap::new();
            let mut remote: HashMap<String, Vec<ExportedObject>> = HashMap::new();
            for one in objects {
                if !buckets.contains_key(&one.bucket) {
                    buckets.insert(one.bucket.clone(), self.bucket(account, &one.bucket).await?);
                }
                let bucket = &buckets[&one.bucket];
                let source = match (&one.object.attributes.encryption, &bucket.folder) {
                    _ if bucket.remote.is_some() => {
                        remote.entry(one.bucket.clone()).or_default().push(one);
                        continue;
                    }
                    (_, Some(folder)) => ExportSource::Folder(folder.clone()),
                    (None, None) => ExportSource::Version,
                    (Some(encryption), None) => {
                        ExportSource::Sealed(self.data_key(account, &one.bucket, encryption).await?)
                    }
                };
                versions.push((one, source));
            }
            for (name, objects) in remote {
                self.export_remote(buckets[&name].clone(), objects, how).await?;
            }
            let replaced = blocking(move || export_all(&root, versions, how)).await?;
            objects = Vec::new();
            for mut stale in replaced {
                stale.object = self.head(account, &stale.bucket, &stale.object.key).await?;
                objects.push(stale);
            }
            if objects.is_empty() {
                return Ok(());
            }
        }
        let name = objects.first().map(|one| one.object.key.clone()).unwrap_or_default();
        Err(Error::Missing { kind: OBJECT_KIND.into(), name })
    }
}

/// What the bytes of an object come from.
pub(super) enum ExportSource {
    /// Its file.
    Version,
    /// Its file, which is encrypted.
    Sealed(SecretKey),
    /// A file of the folder that the bucket is.
    Folder(Folder),
    /// A local file that was fetched from a remote bucket.
    Fetched(Fetched),
}

/// Makes the files; returns the objects whose version is gone.
pub(super) fn export_all(
    root: &Path,
    versions: Vec<(ExportedObject, ExportSource)>,
    how: Export,
) -> Result<Vec<ExportedObject>> {
    let mut made_folders: HashSet<PathBuf> = HashSet::new();
    let mut replaced = Vec::new();
    for (one, source) in versions {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                Error::Invalid(format!(
                    "the object {:?} cannot become a file: another object needs the same path",
                    one.object.key
                ))
            }
            _ => Error::file(format!("make a file of the object {:?}", one.object.key))(error),
        };
        if let Some(folder) = one.target.parent()
            && !made_folders.contains(folder)
        {
            make_open_folders(folder).map_err(failed)?;
            made_folders.insert(folder.to_owned());
        }
        let version = root.join(&one.bucket).join(&one.object.path);
        let made = failpoint::at(failpoint::Point::ObjectExport).and_then(|()| match (how, &source) {
            (Export::Shared, ExportSource::Version) => share(&version, &one.target),
            (Export::Own, ExportSource::Version) => copy(&version, &one.target, one.object.modified_at),
            (_, ExportSource::Sealed(data_key)) => decrypt(&version, data_key, &one),
            (Export::Shared, ExportSource::Fetched(fetched)) => share(&fetched.path, &one.target),
            (Export::Own, ExportSource::Fetched(fetched)) => {
                copy(&fetched.path, &one.target, one.object.modified_at)
            }
            (how, ExportSource::Folder(folder)) => {
                super::folders::export(folder, &one.object, &one.target, how == Export::Shared)
            }
        });
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => replaced.push(one),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(replaced)
}

/// Makes `folder` and what is missing above it, open to everyone who gets that far, whatever the umask says.
fn make_open_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| !at.is_dir()).collect();
    for at in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o755).create(at) {
            // Made meanwhile for an object that is fetched at the same time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && at.is_dir() => {}
            made => made?,
        }
        std::fs::set_permissions(at, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn share(version: &Path, target: &Path) -> io::Result<()> {
    match std::fs::hard_link(version, target) {
        Ok(()) => {
            let metadata = std::fs::symlink_metadata(target)?;
            if metadata.mode() & 0o444 != 0o444 {
                // The version itself lies in folders that only the server can enter.
                std::fs::set_permissions(target, Permissions::from_mode(0o644))?;
            }
            Ok(())
        }
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                Err(error)
            }
            // Another file system, too many names of one file, or a file system without such links.
            _ => copy(version, target, 0),
        },
    }
}

fn copy(version: &Path, target: &Path, modified_at_ms: i64) -> io::Result<()> {
    let mut source = File::open(version)?;
    let mut file = open_file(target)?;
    // Shares the blocks where the file system can.
    io::copy(&mut source, &mut file)?;
    set_modified(&file, modified_at_ms)
}

fn decrypt(version: &Path, data_key: &SecretKey, one: &ExportedObject) -> io::Result<()> {
    let mut source = ObjectFile::sealed(File::open(version)?, data_key, one.object.size)?;
    let mut file = open_file(&one.target)?;
    io::copy(&mut io::BufReader::with_capacity(DECRYPTED_BYTES, &mut source), &mut file)?;
    set_modified(&file, one.object.modified_at)
}

/// A new file that everyone who reaches it can read.
fn open_file(target: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(target)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    Ok(file)
}

fn set_modified(file: &File, modified_at_ms: i64) -> io::Result<()> {
    if let Ok(milliseconds @ 1..) = u64::try_from(modified_at_ms) {
        let modified = std::time::UNIX_EPOCH + std::time::Duration::from_millis(milliseconds);
        file.set_modified(modified)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_arrive_at_the_same_time_share_their_folders() {
        let root = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let begin = std::sync::Barrier::new(4);
            let made = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|thread| {
                        let folder = root.path().join(format!("{round}/data/deep/{thread}"));
                        let begin = &begin;
                        scope.spawn(move || {
                            begin.wait();
                            make_open_folders(&folder)
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            assert!(made.iter().all(Result::is_ok), "{made:?}");
        }
    }
}
