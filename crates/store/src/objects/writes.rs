//! Writes and deletions of objects.

use std::fs::File;
use std::path::{Path, PathBuf};

use failpoint::Point;

use super::folder_rows::{Arrival, Removal};
use super::remote_writes::{Departure, check_remote_write};
use super::{
    Attributes, Bucket, Change, Condition, Encryption, Folder, Incoming, OBJECT_KIND, Object, ObjectStore,
    Part, Protection, Refusal, Upload, blocking, detached, files, hex, names,
};
use crate::error::{Error, Result};
use crate::seal::SecretKey;

/// What [`ObjectStore::place`] makes current.
pub(super) struct NewVersion {
    pub size: u64,
    pub etag: String,
    pub parts: Option<u32>,
    pub attributes: Attributes,
    /// The upload that ends with this version, in the same transaction.
    pub ends: Option<Upload>,
    /// How it came about.
    pub change: Change,
    /// The folder that the file goes to, when the bucket is one.
    pub folder: Option<Folder>,
}

impl ObjectStore {
    /// Begins a write, encrypted as the bucket prescribes; nothing is visible before [`ObjectStore::commit`].
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Denied`], [`Error::Key`], or when the file cannot be made.
    pub async fn begin(&self, account: &str, bucket: &str) -> Result<Incoming> {
        self.begin_protected(account, bucket, None).await
    }

    /// As [`ObjectStore::begin`], encrypted as the write wishes.
    ///
    /// # Errors
    /// As [`ObjectStore::begin`].
    pub async fn begin_protected(
        &self,
        account: &str,
        bucket: &str,
        wish: Option<Protection>,
    ) -> Result<Incoming> {
        let (bucket, protection) = self.written_bucket(account, bucket, wish).await?;
        let data_key = self.new_data_key(&bucket, protection).await?;
        self.incoming(&bucket, data_key)
    }

    /// A new file for the bucket.
    pub(super) fn incoming(
        &self,
        bucket: &Bucket,
        data_key: Option<(Encryption, SecretKey)>,
    ) -> Result<Incoming> {
        let folder = self.root.join(&bucket.name);
        if bucket.folder.is_some() || bucket.remote.is_some() {
            // The bucket came without the server's doing.
            files::make_folders(&self.root, &folder.join(files::INCOMING))?;
        }
        let mut incoming = Incoming::create(&folder, data_key)?;
        incoming.folder.clone_from(&bucket.folder);
        incoming.is_remote = bucket.remote.is_some();
        Ok(incoming)
    }

    /// Whether a write to this key would be accepted now. It spares a body that is refused in the end; only
    /// [`ObjectStore::commit`] decides.
    ///
    /// # Errors
    /// As [`ObjectStore::commit`].
    pub async fn check(&self, account: &str, bucket: &str, key: &str, condition: &Condition) -> Result<()> {
        check_key(key)?;
        let (owner, name, sought) = (account.to_owned(), bucket.to_owned(), key.to_owned());
        let local = condition.clone();
        let looked = self.database.read(move |session| {
            let bucket = session.owned_bucket(&owner, &name)?;
            bucket.folder.as_ref().map_or(Ok(()), Folder::check_writable)?;
            if bucket.remote.is_none() {
                local.check(session.present(&bucket, &sought)?.as_ref())?;
            }
            Ok(bucket)
        });
        let bucket = looked.await?;
        let Some(remote) = &bucket.remote else { return Ok(()) };
        remote.check_writable()?;
        check_remote_write(key, &Attributes::default())?;
        if *condition == Condition::default() {
            return Ok(());
        }
        condition.check(self.remote_object(&bucket, remote, key).await?.as_ref())
    }

    /// Makes what was written the object of that key.
    ///
    /// # Errors
    /// [`Error::Precondition`] when the condition does not hold, [`Error::Refused`] for an illegal key.
    pub async fn commit(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        incoming: Incoming,
        mut attributes: Attributes,
        condition: Condition,
    ) -> Result<Object> {
        check_key(key)?;
        let store = self.clone();
        let (account, bucket, key) = (account.to_owned(), bucket.to_owned(), key.to_owned());
        detached(async move {
            let (change, folder, is_remote) = (incoming.change, incoming.folder.clone(), incoming.is_remote);
            let written = blocking(move || incoming.finish()).await?;
            if is_remote {
                let departure = Departure { account, bucket, key, written, attributes, change, condition };
                return store.depart(departure).await;
            }
            let etag = hex(&written.etag);
            attributes.encryption = written.encryption;
            let version =
                NewVersion { size: written.size, etag, parts: None, attributes, ends: None, change, folder };
            store.place(&account, &bucket, &key, written.file, version, condition).await
        })
        .await
    }

    /// Takes a finished file in as an object. It is copied: whoever made it may still hold it open.
    ///
    /// # Errors
    /// As [`ObjectStore::commit`].
    pub async fn put_from_path(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        path: &Path,
        content_type: Option<&str>,
        wish: Option<Protection>,
    ) -> Result<Object> {
        let mut incoming = self.begin_protected(account, bucket, wish).await?;
        let source = path.to_owned();
        let incoming = blocking(move || {
            let mut file = File::open(&source).map_err(Error::file(format!("open {}", source.display())))?;
            incoming.copy_from(&mut file)?;
            Ok(incoming)
        })
        .await?;
        let headers =
            content_type.map(|value| ("content-type".to_owned(), value.to_owned())).into_iter().collect();
        let attributes = Attributes { headers, ..Attributes::default() };
        self.commit(account, bucket, key, incoming, attributes, Condition::default()).await
    }

    /// Replaces the tags of an object; everything else of it stays.
    ///
    /// # Errors
    /// [`Error::Missing`] of bucket or object, or [`Error::Denied`].
    pub async fn set_tags(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        tags: std::collections::BTreeMap<String, String>,
    ) -> Result<()> {
        let (owner, name, key) = (account.to_owned(), bucket.to_owned(), key.to_owned());
        self.database
            .write(move |session| {
                let bucket = session.owned_bucket(&owner, &name)?;
                if bucket.remote.is_some() {
                    return Err(Refusal::OfRemote("tags of its objects are not kept").into());
                }
                bucket.folder.as_ref().map_or(Ok(()), Folder::check_writable)?;
                let missing = || Error::Missing { kind: OBJECT_KIND.into(), name: key.clone() };
                let mut object = session.present(&bucket, &key)?.ok_or_else(missing)?;
                object.attributes.tags = tags;
                match bucket.folder {
                    None => session.put_object(&name, &object),
                    Some(_) => session.put_folder_file(&name, &object),
                }
            })
            .await
    }

    /// Removes an object; a missing one is fine, as in S3. Returns whether there was one.
    ///
    /// # Errors
    /// [`Error::Missing`] of the bucket, [`Error::Denied`], [`Error::Precondition`].
    pub async fn delete(&self, account: &str, bucket: &str, key: &str, condition: Condition) -> Result<bool> {
        let mut done = self.delete_many(account, bucket, vec![(key.to_owned(), condition)]).await?;
        done.pop().unwrap_or(Ok(false))
    }

    /// Removes objects in one transaction. The results are in the order of the keys.
    ///
    /// # Errors
    /// [`Error::Missing`] of the bucket or [`Error::Denied`]; each result has those of [`ObjectStore::delete`].
    pub async fn delete_many(
        &self,
        account: &str,
        bucket: &str,
        keys: Vec<(String, Condition)>,
    ) -> Result<Vec<Result<bool>>> {
        let owned = self.bucket(account, bucket).await?;
        if owned.remote.is_some() {
            let store = self.clone();
            return detached(async move { store.remove_remote(owned, keys).await }).await;
        }
        self.remove(account, bucket, keys, Change::Deleted, |condition, present| {
            condition.check(present)?;
            Ok(true)
        })
        .await
    }

    /// Removes objects in one transaction, but for those that were written again since they were read. Returns how many.
    ///
    /// # Errors
    /// [`Error::Missing`] of the bucket or [`Error::Denied`].
    pub async fn delete_unchanged(&self, account: &str, bucket: &str, objects: Vec<Object>) -> Result<usize> {
        let versions = objects.into_iter().map(|object| (object.key, object.path)).collect();
        let unchanged = |path: &PathBuf, present: Option<&Object>| {
            Ok(present.is_some_and(|present| present.path == *path))
        };
        let removed = self.remove(account, bucket, versions, Change::Expired, unchanged);
        Ok(removed.await?.into_iter().filter(|removed| matches!(removed, Ok(true))).count())
    }

    /// Removes the objects of keys for which `decide` says so.
    async fn remove<T: Send + 'static>(
        &self,
        account: &str,
        bucket: &str,
        keys: Vec<(String, T)>,
        change: Change,
        decide: impl Fn(&T, Option<&Object>) -> Result<bool> + Send + 'static,
    ) -> Result<Vec<Result<bool>>> {
        let (store, owner, name) = (self.clone(), account.to_owned(), bucket.to_owned());
        let folder = self.root.join(bucket);
        detached(async move {
            if let Some(folder) = store.bucket(&owner, &name).await?.folder {
                let removal = Removal { account: owner, bucket: name, folder, keys, change };
                return store.remove_in_folder(removal, decide).await;
            }
            let telling = store.clone();
            let removed = store
                .database
                .write(move |session| {
                    let bucket = session.owned_bucket(&owner, &name)?;
                    let mut removed = Vec::with_capacity(keys.len());
                    for (key, given) in keys {
                        let present = session.present(&bucket, &key)?;
                        let decided = decide(&given, present.as_ref());
                        let gone = present.filter(|_| matches!(decided, Ok(true)));
                        if let Some(gone) = &gone {
                            session.delete_object(&name, &key)?;
                            telling.tell(session, &bucket, gone, change)?;
                        }
                        removed.push(decided.map(|_| gone));
                    }
                    Ok(removed)
                })
                .await?;
            failpoint::pass(Point::ObjectRemove);
            blocking(move || {
                let gone = |object: Option<Object>| {
                    if let Some(object) = &object {
                        files::remove_version(&folder, &object.path);
                    }
                    object.is_some()
                };
                Ok(removed.into_iter().map(|result| result.map(gone)).collect())
            })
            .await
        })
        .await
    }

    /// Renames a durable file into place and makes it current. Must run detached.
    pub(super) async fn place(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        file: PathBuf,
        version: NewVersion,
        condition: Condition,
    ) -> Result<Object> {
        if let Some(folder) = version.folder.clone() {
            let (account, bucket, key) = (account.to_owned(), bucket.to_owned(), key.to_owned());
            let arrival = Arrival { account, bucket, key, file, folder, version, condition };
            return self.place_in_folder(arrival).await;
        }
        let folder = self.root.join(bucket);
        let path = names::object_path(key, &uuid::Uuid::now_v7().simple().to_string());
        let spared = self.under_way.spare(folder.join(&path));
        let (from, to, base) = (file, folder.join(&path), folder.clone());
        blocking(move || {
            let moved = files::move_durably(&from, &to, &base);
            if moved.is_err() {
                // It may have been renamed before the disk failed. A stray file is swept by the next start.
                let _ = std::fs::remove_file(&from);
                files::remove_version(&base, &to);
            }
            moved
        })
        .await?;
        failpoint::pass(Point::ObjectRow);
        let object = Object {
            key: key.to_owned(),
            size: version.size,
            etag: version.etag,
            parts: version.parts,
            attributes: version.attributes,
            modified_at: self.clock.now_ms(),
            path: path.clone(),
        };
        let (owner, name, stored) = (account.to_owned(), bucket.to_owned(), object.clone());
        let (ends, change, telling) = (version.ends, version.change, self.clone());
        let replaced = self
            .database
            .write(move |session| {
                let bucket = session.owned_bucket(&owner, &name)?;
                let present = session.find_object(&name, &stored.key)?;
                condition.check(present.as_ref())?;
                let mut parts: Vec<Part> = Vec::new();
                if let Some(upload) = ends {
                    session.upload(&upload.bucket, &upload.key, &upload.id)?;
                    parts = session.parts(&upload.id)?;
                    session.delete_upload(&upload.id)?;
                }
                session.put_object(&name, &stored)?;
                telling.tell(session, &bucket, &stored, change)?;
                let parts = parts.into_iter().map(|part| part.path);
                Ok(parts.chain(present.map(|old| old.path)).collect::<Vec<_>>())
            })
            .await;
        drop(spared);
        failpoint::pass(Point::ObjectReplaced);
        let (superseded, result) = match replaced {
            Ok(superseded) => (superseded, Ok(object)),
            // Whether the commit went through is not known: the sweep of the next start does what is right.
            Err(error @ Error::NotCommitted(_)) => (Vec::new(), Err(error)),
            Err(error) => (vec![path], Err(error)),
        };
        blocking(move || {
            for path in superseded {
                files::remove_version(&folder, &path);
            }
            Ok(())
        })
        .await?;
        result
    }
}

pub(super) fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Refusal::KeyEmpty.into());
    }
    if key.len() > names::LONGEST_KEY_BYTES {
        return Err(Refusal::KeyTooLong.into());
    }
    Ok(())
}
