//! Removes files that no row knows: what a crash between a file and its row left.
//!
//! Unfinished writes go before the store opens, since nothing can be under way yet. Versions are looked through in the
//! background: a bucket may hold millions.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ObjectStore, blocking, files};
use crate::database::Database;
use crate::error::{Error, Result};

/// Files that one step looks up.
const BATCH: usize = 1_000;

/// Version files that have no row yet since their write is under way.
#[derive(Clone, Default)]
pub struct UnderWay(Arc<Mutex<HashSet<PathBuf>>>);

/// Keeps a file from the sweep while it lives.
pub struct Spared {
    under_way: UnderWay,
    file: PathBuf,
}

impl UnderWay {
    /// Spares a file from now on, before it is there.
    pub fn spare(&self, file: PathBuf) -> Spared {
        self.lock().insert(file.clone());
        Spared { under_way: self.clone(), file }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Spared {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.file);
    }
}

impl ObjectStore {
    /// Removes unfinished writes and the folders of buckets that are gone.
    pub(super) async fn sweep_unfinished(&self) -> Result<()> {
        let names: HashSet<String> =
            self.database.read(|session| session.bucket_names()).await?.into_iter().collect();
        for name in &names {
            let folder = self.root.join(name);
            files::make_folders(&self.root, &folder.join(files::INCOMING))?;
            let bucket = name.clone();
            let kept = self.database.read(move |session| session.part_paths(&bucket)).await?;
            for stray in files::incoming_files(&folder)?.into_iter().filter(|path| !kept.contains(path)) {
                files::remove_version(&folder, &stray);
            }
        }
        for folder in files::bucket_folders(&self.root)? {
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if !names.contains(&name) && super::names::is_bucket_name(&name) {
                sweep_versions(&self.database, &folder, &self.under_way).await?;
                for stray in files::incoming_files(&folder)? {
                    files::remove_version(&folder, &stray);
                }
                // What was put there by hand keeps its folder.
                let _ = std::fs::remove_dir(folder.join(files::INCOMING));
                let _ = std::fs::remove_dir(&folder);
            }
        }
        Ok(())
    }

    /// Starts to look through the versions of all buckets.
    pub(super) async fn sweep_in_background(&self) -> Result<()> {
        let (database, root, under_way) = (self.database.clone(), self.root.clone(), self.under_way.clone());
        let names = self.database.read(|session| session.bucket_names()).await?;
        let done = self.swept.clone();
        tokio::spawn(async move {
            for name in names {
                if let Err(error) = sweep_versions(&database, &root.join(&name), &under_way).await {
                    tracing::warn!(bucket = name, %error, "stray files were not swept; the next start tries again");
                }
            }
            done.send_replace(true);
        });
        Ok(())
    }

    /// Waits until the files that an earlier crash left are removed.
    pub async fn swept(&self) {
        // The sender lives as long as the store.
        let _ = self.swept.subscribe().wait_for(|done| *done).await;
    }
}

async fn sweep_versions(database: &Database, folder: &Path, under_way: &UnderWay) -> Result<()> {
    let bucket = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut folders = vec![folder.to_owned()];
    while !folders.is_empty() {
        let base = folder.to_owned();
        let mut left = std::mem::take(&mut folders);
        let (left, found) = blocking(move || {
            let mut found = Vec::new();
            while found.len() < BATCH
                && let Some(next) = left.pop()
            {
                found.extend(files::versions_in(&base, &next, &mut left)?);
            }
            Ok::<_, Error>((left, found))
        })
        .await?;
        folders = left;
        // First what is under way, then the rows: a write that ends in between has its row by now.
        let settled: Vec<PathBuf> = {
            let spared = under_way.lock();
            found.into_iter().filter(|path| !spared.contains(&folder.join(path))).collect()
        };
        let name = bucket.clone();
        let strays = database.read(move |session| session.unknown_paths(&name, settled)).await?;
        let base = folder.to_owned();
        blocking(move || {
            for stray in strays {
                files::remove_version(&base, &stray);
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_version_without_a_row_stays_while_it_is_under_way() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("test.db")).unwrap();
        let bucket = folder.path().join("bucket");
        let version = bucket.join("folder/key@0123456789abcdef0123456789abcdef");
        std::fs::create_dir_all(bucket.join("folder")).unwrap();
        std::fs::write(&version, b"x").unwrap();
        let under_way = UnderWay::default();
        let spared = under_way.spare(version.clone());
        sweep_versions(&database, &bucket, &under_way).await.unwrap();
        assert!(version.exists());
        drop(spared);
        sweep_versions(&database, &bucket, &under_way).await.unwrap();
        assert!(!version.exists());
    }
}
