//! Objects of remote buckets as local files: fetched once per version, kept while there is room, and given to jobs by name.
//!
//! The cache holds nothing that is not elsewhere. It begins empty with each server, so that nothing of it has to survive a crash.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::export::{ExportSource, PATIENCE, export_all};
use super::remote_reader::RemoteReader;
use super::{Bucket, Export, ExportedObject, OBJECT_KIND, Object, ObjectStore, Remote, blocking, hex};
use crate::error::{Error, Result};

/// Name of the cache beside the buckets; no bucket can have it.
const FOLDER: &str = ".remote-cache";

/// Objects that are fetched at once for one caller.
const PARALLEL_FETCHES: usize = 8;

/// Bytes that are read at a time.
const READ_BYTES: usize = 512 * 1024;

/// The files, by name.
#[derive(Default)]
struct Entries {
    bytes: u64,
    uses: u64,
    /// Size, and when it was used last.
    files: HashMap<String, (u64, u64)>,
}

/// The cached objects of a data directory.
pub(super) struct Cache {
    folder: PathBuf,
    entries: Mutex<Entries>,
}

/// A local file with the bytes of an object. One that the cache does not keep goes with this.
pub(super) struct Fetched {
    pub path: PathBuf,
    is_kept: bool,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        if !self.is_kept {
            // What stays goes with the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Cache {
    /// An empty cache below the folder of all buckets.
    pub fn open(root: &Path) -> Result<Cache> {
        let folder = root.join(FOLDER);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file(format!("empty {}", folder.display()))(error));
            }
            _ => {}
        }
        Ok(Cache { folder, entries: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self, name: &str) -> bool {
        let mut entries = self.lock();
        entries.uses += 1;
        let now = entries.uses;
        entries.files.get_mut(name).map(|(_, used)| *used = now).is_some()
    }

    /// Takes a file in, and gives up those that were not used for the longest time until it fits.
    fn keep(&self, name: &str, bytes: u64, limit_bytes: u64) {
        let mut entries = self.lock();
        entries.uses += 1;
        let now = entries.uses;
        if entries.files.insert(name.to_owned(), (bytes, now)).is_none() {
            entries.bytes += bytes;
        }
        while entries.bytes > limit_bytes {
            let oldest =
                entries.files.iter().filter(|(other, _)| *other != name).min_by_key(|(_, (_, used))| *used);
            let Some((oldest, size)) = oldest.map(|(name, (size, _))| (name.clone(), *size)) else { break };
            entries.files.remove(&oldest);
            entries.bytes -= size;
            // Jobs that got it keep it under their own name.
            let _ = std::fs::remove_file(self.folder.join(&oldest));
        }
    }

    fn forget(&self, name: &str) {
        let mut entries = self.lock();
        if let Some((size, _)) = entries.files.remove(name) {
            entries.bytes -= size;
        }
    }
}

impl ObjectStore {
    /// Makes files of objects of one remote bucket.
    pub(super) async fn export_remote(
        &self,
        bucket: Bucket,
        objects: Vec<ExportedObject>,
        how: Export,
    ) -> Result<()> {
        let permits = Arc::new(Semaphore::new(PARALLEL_FETCHES));
        let mut making = JoinSet::new();
        for one in objects {
            let permit = permits.clone().acquire_owned().await;
            let (store, bucket) = (self.clone(), bucket.clone());
            making.spawn(async move {
                let made = store.export_one(&bucket, one, how).await;
                drop(permit);
                made
            });
            while let Some(made) = making.try_join_next() {
                joined(made)?;
            }
        }
        while let Some(made) = making.join_next().await {
            joined(made)?;
        }
        Ok(())
    }

    async fn export_one(&self, bucket: &Bucket, mut one: ExportedObject, how: Export) -> Result<()> {
        let gone = |key: &str| Error::Missing { kind: OBJECT_KIND.into(), name: key.to_owned() };
        let remote = bucket.remote.as_ref().ok_or_else(|| gone(&one.object.key))?;
        for _ in 0..PATIENCE {
            match self.fetch(bucket, remote, &one.object).await {
                Ok(fetched) => {
                    let (root, source) = (self.root.clone(), ExportSource::Fetched(fetched));
                    let mut evicted = blocking(move || export_all(&root, vec![(one, source)], how)).await?;
                    match evicted.pop() {
                        None => return Ok(()),
                        Some(again) => one = again,
                    }
                }
                // Replaced since it was listed.
                Err(Error::Precondition(_)) => {
                    let now = self.remote_object(bucket, remote, &one.object.key).await?;
                    one.object = now.ok_or_else(|| gone(&one.object.key))?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(gone(&one.object.key))
    }

    /// A local file with the bytes of an object.
    async fn fetch(&self, bucket: &Bucket, remote: &Remote, object: &Object) -> Result<Fetched> {
        let cache = &self.remotes.cache;
        let identity = format!("{}\n{}\n{}\n{}", remote.url(), object.key, object.etag, object.size);
        let name = hex(&Sha256::digest(identity.as_bytes()));
        let path = cache.folder.join(&name);
        if cache.used(&name) {
            if path.exists() {
                return Ok(Fetched { path, is_kept: true });
            }
            cache.forget(&name);
        }
        let arriving = cache.folder.join(uuid::Uuid::new_v4().simple().to_string());
        let reader = RemoteReader::new(self.reach(bucket, remote)?, object);
        let (size, folder) = (object.size, cache.folder.clone());
        let mut fetched = blocking(move || {
            let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder);
            made.map_err(Error::file(format!("make {}", folder.display())))?;
            download(reader, &arriving, size)
        })
        .await?;
        let limit_bytes = self.remotes.cache_limit_bytes();
        if size <= limit_bytes {
            // Whoever fetched the same meanwhile has the same bytes.
            let linked = std::fs::hard_link(&fetched.path, &path);
            if linked.is_ok() || linked.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
                cache.keep(&name, size, limit_bytes);
                fetched = Fetched { path, is_kept: true };
            }
        }
        Ok(fetched)
    }
}

fn joined(made: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    made.unwrap_or_else(|_| Err(Error::NotCommitted("a fetch of a remote object panicked".into())))
}

fn download(reader: RemoteReader, path: &Path, size: u64) -> Result<Fetched> {
    let context = || Error::file(format!("write {}", path.display()));
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(path).map_err(context())?;
    let fetched = Fetched { path: path.to_owned(), is_kept: false };
    let mut reader = io::BufReader::with_capacity(READ_BYTES, reader);
    let copied = io::copy(&mut reader, &mut file).map_err(|error| match error.downcast::<Error>() {
        Ok(of_remote) => of_remote,
        Err(of_file) => context()(of_file),
    })?;
    if copied != size {
        return Err(Error::Precondition("the object has another size than its description says".into()));
    }
    Ok(fetched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_long_goes_first() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).unwrap();
        std::fs::create_dir(&cache.folder).unwrap();
        let put = |name: &str, bytes: u64| {
            std::fs::write(cache.folder.join(name), vec![0; bytes as usize]).unwrap();
            cache.keep(name, bytes, 10);
        };
        put("a", 4);
        put("b", 4);
        assert!(cache.used("a"));
        put("c", 4);
        assert!(cache.used("a") && cache.used("c") && !cache.used("b"));
        assert!(!cache.folder.join("b").exists() && cache.folder.join("a").exists());
        put("d", 10);
        assert!(cache.used("d") && !cache.used("a") && !cache.used("c"));
        assert_eq!(cache.lock().bytes, 10);
        let again = Cache::open(root.path()).unwrap();
        assert!(!again.used("d") && !again.folder.exists());
    }
}
