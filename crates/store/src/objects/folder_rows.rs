//! The rows of folders that are buckets, and what is kept of their files.

use std::fs::File;
use std::path::PathBuf;

use failpoint::Point;
use rusqlite::{OptionalExtension, params};

use super::writes::NewVersion;
use super::{
    Attributes, BUCKET_KIND, Bucket, Change, Condition, Folder, Object, ObjectStore, Refusal, blocking, files,
};
use crate::database::Session;
use crate::error::{Error, Result};

/// A write into a folder, on its last steps.
pub(super) struct Arrival {
    pub account: String,
    pub bucket: String,
    pub key: String,
    /// The finished file.
    pub file: PathBuf,
    pub folder: Folder,
    pub version: NewVersion,
    pub condition: Condition,
}

/// What is to be removed from a folder, with what decides about each key.
pub(super) struct Removal<T> {
    pub account: String,
    pub bucket: String,
    pub folder: Folder,
    pub keys: Vec<(String, T)>,
    pub change: Change,
}

impl ObjectStore {
    /// Removes the files of keys for which `decide` says so, then what was kept of them: a file cannot come back when a
    /// transaction fails. Must run detached.
    pub(super) async fn remove_in_folder<T: Send + 'static>(
        &self,
        removal: Removal<T>,
        decide: impl Fn(&T, Option<&Object>) -> Result<bool> + Send + 'static,
    ) -> Result<Vec<Result<bool>>> {
        let Removal { account, bucket, folder, keys, change } = removal;
        folder.check_writable()?;
        let _alone = self.folder_change.lock().await;
        let (owner, name) = (account.clone(), bucket.clone());
        let decided = self.database.read(move |session| {
            let bucket = session.owned_bucket(&owner, &name)?;
            let mut decided = Vec::with_capacity(keys.len());
            for (key, given) in keys {
                let present = session.present(&bucket, &key)?;
                decided.push(decide(&given, present.as_ref()).map(|is_wanted| present.filter(|_| is_wanted)));
            }
            Ok(decided)
        });
        let decided = decided.await?;
        let removed = blocking(move || {
            for object in decided.iter().flatten().flatten() {
                folder.remove(&object.key)?;
            }
            failpoint::pass(Point::ObjectRemove);
            Ok(decided)
        });
        let removed = removed.await?;
        let gone: Vec<Object> = removed.iter().flatten().flatten().cloned().collect();
        let telling = self.clone();
        let written = self.database.write(move |session| {
            let owned = session.owned_bucket(&account, &bucket)?;
            for object in &gone {
                session.delete_folder_file(&bucket, &object.key)?;
                telling.tell(session, &owned, object, change)?;
            }
            Ok(())
        });
        written.await?;
        Ok(removed.into_iter().map(|result| result.map(|object| object.is_some())).collect())
    }

    /// An object of a folder and its open file, which belong together whatever happens to the folder.
    pub(super) async fn open_in_folder(
        &self,
        bucket: &str,
        folder: Folder,
        key: &str,
    ) -> Result<Option<(Object, File)>> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.database
            .read(move |session| {
                let Some(file) = folder.file(&key)? else { return Ok(None) };
                let found = super::folders::object_of_file(&key, &file)?;
                Ok(Some((session.with_row(&bucket, found)?, file)))
            })
            .await
    }

    /// Makes a finished file the one of a key in a folder, then keeps what it cannot hold. Must run detached. What other
    /// programs do in the folder meanwhile is not kept apart from it.
    pub(super) async fn place_in_folder(&self, arrival: Arrival) -> Result<Object> {
        let Arrival { account, bucket, key, file, folder, version, condition } = arrival;
        let _alone = self.folder_change.lock().await;
        if let Err(error) = self.check(&account, &bucket, &key, &condition).await {
            // A stray file is swept by the next start.
            let _ = std::fs::remove_file(&file);
            return Err(error);
        }
        let placed_key = key.clone();
        let placed = blocking(move || {
            let put = folder.put(&placed_key, &file, condition.if_none_match);
            if put.is_err() {
                // A stray file is swept by the next start.
                let _ = std::fs::remove_file(&file);
            }
            put?;
            folder.object(&placed_key)
        })
        .await?;
        let gone = || Error::Missing { kind: super::OBJECT_KIND.into(), name: key.clone() };
        let NewVersion { etag, parts, attributes, ends, change, .. } = version;
        let object = Object { etag, parts, attributes, ..placed.ok_or_else(gone)? };
        let (telling, stored, name) = (self.clone(), object.clone(), bucket.clone());
        let superseded = self
            .database
            .write(move |session| {
                let bucket = session.owned_bucket(&account, &name)?;
                session.put_folder_file(&name, &stored)?;
                telling.tell(session, &bucket, &stored, change)?;
                let Some(upload) = ends else { return Ok(Vec::new()) };
                session.upload(&upload.bucket, &upload.key, &upload.id)?;
                let parts = session.parts(&upload.id)?;
                session.delete_upload(&upload.id)?;
                Ok(parts)
            })
            .await?;
        let own = self.root.join(&bucket);
        blocking(move || {
            for part in superseded {
                files::remove_version(&own, &part.path);
            }
            Ok(())
        })
        .await?;
        Ok(object)
    }
}

impl Session<'_> {
    /// Makes a folder a bucket.
    ///
    /// # Errors
    /// [`Error::Refused`] for an illegal name, [`Error::Exists`] for one that is taken.
    pub fn insert_folder_bucket(&self, bucket: &Bucket) -> Result<()> {
        if !super::names::is_bucket_name(&bucket.name) {
            return Err(Refusal::BucketName(bucket.name.clone()).into());
        }
        let taken = || Error::Exists { kind: BUCKET_KIND.into(), name: bucket.name.clone() };
        if !self.insert_bucket(bucket)? {
            return Err(taken());
        }
        let folder = bucket.folder.as_ref().ok_or_else(taken)?;
        self.connection
            .prepare_cached("INSERT INTO bucket_folders (bucket, path, is_read_only) VALUES (?1, ?2, ?3)")?
            .execute(params![bucket.name, folder.path.display().to_string(), folder.is_read_only])?;
        Ok(())
    }

    /// Makes a bucket a mere folder again; its files stay.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Denied`], and [`Error::Invalid`] for a bucket that is no folder.
    pub fn delete_folder_bucket(&self, account: &str, name: &str) -> Result<()> {
        if self.owned_bucket(account, name)?.folder.is_none() {
            return Err(Error::Invalid(format!(
                "{name} is no folder, its objects are kept by the server: empty it and delete it through S3"
            )));
        }
        for table in ["folder_files", "bucket_folders"] {
            let sql = format!("DELETE FROM {table} WHERE bucket = ?1");
            self.connection.prepare_cached(&sql)?.execute(params![name])?;
        }
        self.delete_bucket_rows(name)
    }

    /// The object of a key as it is now.
    pub(super) fn present(&self, bucket: &Bucket, key: &str) -> Result<Option<Object>> {
        match &bucket.folder {
            None => self.find_object(&bucket.name, key),
            Some(folder) => folder.object(key)?.map(|found| self.with_row(&bucket.name, found)).transpose(),
        }
    }

    /// A file with what was kept of it, where it is still that file.
    pub(super) fn with_row(&self, bucket: &str, found: Object) -> Result<Object> {
        let row = self
            .connection
            .prepare_cached(
                "SELECT etag, parts, attributes FROM folder_files WHERE bucket = ?1 AND key = ?2 AND identity = ?3",
            )?
            .query_row(params![bucket, found.key.as_bytes(), found.path.display().to_string()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
            })
            .optional()?;
        let Some((etag, parts, attributes)) = row else { return Ok(found) };
        let attributes: Attributes = serde_json::from_str(&attributes)?;
        Ok(Object { etag, parts, attributes, ..found })
    }

    /// Keeps what a file cannot hold.
    pub(super) fn put_folder_file(&self, bucket: &str, object: &Object) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO folder_files (bucket, key, identity, etag, parts, attributes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (bucket, key) DO UPDATE SET identity = excluded.identity, etag = excluded.etag,
                 parts = excluded.parts, attributes = excluded.attributes",
            )?
            .execute(params![
                bucket,
                object.key.as_bytes(),
                object.path.display().to_string(),
                object.etag,
                object.parts,
                serde_json::to_string(&object.attributes)?,
            ])?;
        Ok(())
    }

    pub(super) fn delete_folder_file(&self, bucket: &str, key: &str) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM folder_files WHERE bucket = ?1 AND key = ?2")?
            .execute(params![bucket, key.as_bytes()])?;
        Ok(())
    }
}
