//! Uploads in parts: each part is a file, completion joins them into one object.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use failpoint::Point;

use super::remote_writes::check_remote_write;
use super::{
    Assembly, Attributes, Change, Condition, Incoming, NewVersion, Object, ObjectFile, ObjectStore,
    Protection, Refusal, blocking, check_key, detached, files, hex, md5_of,
};
use crate::error::{Error, Result};
use crate::seal::SecretKey;

/// Smallest part but for the last, as in S3.
pub const SMALLEST_PART_BYTES: u64 = 5 * 1024 * 1024;

/// An upload in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// Bucket it goes to.
    pub bucket: String,
    /// Key it goes to.
    pub key: String,
    /// What the object will carry.
    pub attributes: Attributes,
    /// The checksum that each part gets.
    pub checksum: Option<PartChecksum>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Its id in the remote store that the bucket lies in.
    pub(super) remote_id: Option<String>,
}

/// How an upload is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartChecksum {
    /// Name of the algorithm as in [`Attributes::checksums`].
    pub algorithm: String,
    /// Whether the object's checksum is that of its bytes, not that of its parts' checksums.
    pub full_object: bool,
}

/// A part that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Size in bytes.
    pub size: u64,
    /// MD5 in hex.
    pub etag: String,
    /// Checksums by algorithm.
    pub checksums: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub modified_at: i64,
    pub(super) path: PathBuf,
}

/// A part as the caller names it at completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    /// Its number.
    pub number: u32,
    /// The entity tag it was answered with, without quotes.
    pub etag: String,
    /// Checksums that it must have, by algorithm.
    pub checksums: BTreeMap<String, String>,
}

impl ObjectStore {
    /// Begins an upload, encrypted as it wishes or as the bucket prescribes.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Denied`], [`Error::Refused`] for an illegal key, [`Error::Key`].
    pub async fn create_upload(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        mut attributes: Attributes,
        checksum: Option<PartChecksum>,
        wish: Option<Protection>,
    ) -> Result<Upload> {
        check_key(key)?;
        let (written, protection) = self.written_bucket(account, bucket, wish).await?;
        attributes.encryption =
            self.new_data_key(&written, protection).await?.map(|(encryption, _)| encryption);
        let remote_id = match &written.remote {
            None => None,
            Some(remote) => {
                check_remote_write(key, &attributes)?;
                Some(self.reach(&written, remote)?.create_upload(key, &attributes).await?)
            }
        };
        let upload = Upload {
            id: uuid::Uuid::now_v7().simple().to_string(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            attributes,
            checksum,
            created_at: self.clock.now_ms(),
            remote_id,
        };
        let (owner, stored) = (account.to_owned(), upload.clone());
        self.database
            .write(move |session| {
                session.owned_bucket(&owner, &stored.bucket)?;
                session.insert_upload(&stored)
            })
            .await?;
        Ok(upload)
    }

    /// An upload of this bucket and key.
    ///
    /// # Errors
    /// [`Error::Missing`] of kind [`super::UPLOAD_KIND`] and the bucket's errors.
    pub async fn upload(&self, account: &str, bucket: &str, key: &str, id: &str) -> Result<Upload> {
        let (account, bucket, key, id) =
            (account.to_owned(), bucket.to_owned(), key.to_owned(), id.to_owned());
        self.database
            .read(move |session| {
                session.owned_bucket(&account, &bucket)?;
                session.upload(&bucket, &key, &id)
            })
            .await
    }

    /// Begins a part of an upload.
    ///
    /// # Errors
    /// [`Error::Key`], or when the file cannot be made.
    pub async fn begin_part(&self, account: &str, upload: &Upload) -> Result<Incoming> {
        let data_key = self.data_key_of(account, upload).await?;
        let encryption = upload.attributes.encryption.clone();
        self.incoming(&self.bucket(account, &upload.bucket).await?, encryption.zip(data_key))
    }

    async fn data_key_of(&self, account: &str, upload: &Upload) -> Result<Option<SecretKey>> {
        match &upload.attributes.encryption {
            None => Ok(None),
            Some(encryption) => self.data_key(account, &upload.bucket, encryption).await.map(Some),
        }
    }

    /// Makes what was written, from [`ObjectStore::begin_part`], part `number` of an upload, replacing an earlier one.
    ///
    /// # Errors
    /// When the upload is gone or the disk fails.
    pub async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        incoming: Incoming,
        checksums: BTreeMap<String, String>,
    ) -> Result<Part> {
        let (store, upload) = (self.clone(), upload.clone());
        detached(async move {
            let written = blocking(move || incoming.finish()).await?;
            if let Some(remote_id) = &upload.remote_id {
                return store.put_remote_part(&upload, remote_id, number, written, checksums).await;
            }
            let folder = store.root.join(&upload.bucket);
            if written.encryption != upload.attributes.encryption {
                files::remove_version(&folder, &relative(&written.file, &folder));
                return Err(Error::Invalid("the part was not begun as one of this upload".into()));
            }
            failpoint::pass(Point::PartRow);
            let part = Part {
                number,
                size: written.size,
                etag: hex(&written.etag),
                checksums,
                modified_at: store.clock.now_ms(),
                path: relative(&written.file, &folder),
            };
            let stored = part.clone();
            let replaced = store
                .database
                .write(move |session| {
                    session.upload(&upload.bucket, &upload.key, &upload.id)?;
                    let before =
                        session.parts(&upload.id)?.into_iter().find(|part| part.number == stored.number);
                    session.put_part(&upload.id, &stored)?;
                    Ok(before)
                })
                .await;
            let (superseded, result) = match replaced {
                Ok(before) => (before.map(|before| before.path), Ok(part)),
                // Whether the commit went through is not known: the sweep of the next start does what is right.
                Err(error @ Error::NotCommitted(_)) => (None, Err(error)),
                Err(error) => (Some(part.path), Err(error)),
            };
            if let Some(path) = superseded {
                files::remove_version(&folder, &path);
            }
            result
        })
        .await
    }

    /// The parts of an upload, by number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn parts(&self, upload: &Upload) -> Result<Vec<Part>> {
        let id = upload.id.clone();
        self.database.read(move |session| session.parts(&id)).await
    }

    /// The uploads under way in a bucket whose key begins with `prefix`, by key and id, after a position.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Denied`] of the bucket.
    pub async fn uploads(
        &self,
        account: &str,
        bucket: &str,
        prefix: &str,
        after: Option<(String, String)>,
        limit: usize,
    ) -> Result<Vec<Upload>> {
        let (account, bucket, prefix) = (account.to_owned(), bucket.to_owned(), prefix.to_owned());
        self.database
            .read(move |session| {
                session.owned_bucket(&account, &bucket)?;
                session.uploads(&bucket, &prefix, after.as_ref(), limit)
            })
            .await
    }

    /// Uploads to local buckets of all accounts that nobody has gone on with since a time, by id, with the bytes of their parts.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn idle_uploads(
        &self,
        before_ms: i64,
        after: String,
        limit: usize,
    ) -> Result<Vec<(Upload, u64)>> {
        self.database.read(move |session| session.idle_uploads(before_ms, &after, limit)).await
    }

    /// The parts that a completion names, which must be there just so.
    ///
    /// # Errors
    /// [`Error::Refused`] with what is wrong.
    pub async fn named_parts(&self, upload: &Upload, named: &[CompletedPart]) -> Result<Vec<Part>> {
        let present = self.parts(upload).await?;
        Ok(choose(&present, named)?.into_iter().cloned().collect())
    }

    /// Joins parts, from [`ObjectStore::named_parts`], into the object and ends the upload in the same transaction.
    /// The object keeps `checksums`, which say something about all of it.
    ///
    /// # Errors
    /// [`Error::Missing`] when the upload has ended, [`Error::Precondition`].
    pub async fn complete_upload(
        &self,
        account: &str,
        upload: &Upload,
        parts: Vec<Part>,
        checksums: BTreeMap<String, String>,
        condition: Condition,
    ) -> Result<Object> {
        let (store, account, upload) = (self.clone(), account.to_owned(), upload.clone());
        detached(async move {
            if let Some(remote_id) = upload.remote_id.clone() {
                return store
                    .complete_remote(&account, upload, &remote_id, parts, checksums, condition)
                    .await;
            }
            let folder = store.root.join(&upload.bucket);
            let etag = joined_etag(&parts);
            let assembly = Assembly::of(&upload.id, parts.iter().map(|part| part.size));
            let count = parts.len() as u32;
            let data_key = store.data_key_of(&account, &upload).await?;
            let encryption = upload.attributes.encryption.clone();
            let bucket = store.bucket(&account, &upload.bucket).await?;
            let mut joined = store.incoming(&bucket, encryption.zip(data_key.clone()))?;
            let written = blocking(move || {
                for part in &parts {
                    joined.join(&mut open_part(&folder.join(&part.path), part, data_key.as_ref())?)?;
                }
                joined.finish()
            })
            .await?;
            let attributes = Attributes { checksums, assembly: Some(assembly), ..upload.attributes.clone() };
            let version = NewVersion {
                size: written.size,
                etag,
                parts: Some(count),
                attributes,
                ends: Some(upload.clone()),
                change: Change::Completed,
                folder: bucket.folder,
            };
            store.place(&account, &upload.bucket, &upload.key, written.file, version, condition).await
        })
        .await
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// [`Error::Missing`] when it has ended.
    pub async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        let (store, upload) = (self.clone(), upload.clone());
        detached(async move {
            if let Some(remote_id) = &upload.remote_id {
                return store.abort_remote(&upload, remote_id).await;
            }
            let folder = store.root.join(&upload.bucket);
            let parts = store
                .database
                .write(move |session| {
                    session.upload(&upload.bucket, &upload.key, &upload.id)?;
                    let parts = session.parts(&upload.id)?;
                    session.delete_upload(&upload.id)?;
                    Ok(parts)
                })
                .await?;
            failpoint::pass(Point::UploadRemove);
            blocking(move || {
                for part in parts {
                    files::remove_version(&folder, &part.path);
                }
                Ok(())
            })
            .await
        })
        .await
    }
}

fn relative(file: &Path, folder: &Path) -> PathBuf {
    file.strip_prefix(folder).unwrap_or(file).to_owned()
}

fn open_part(path: &Path, part: &Part, data_key: Option<&SecretKey>) -> Result<ObjectFile> {
    let context = || Error::file(format!("open {}", path.display()));
    let file = match File::open(path) {
        // Replaced or given up meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Refusal::Part(part.number).into());
        }
        opened => opened.map_err(context())?,
    };
    match data_key {
        None => Ok(ObjectFile::plain(file)),
        Some(data_key) => ObjectFile::sealed(file, data_key, part.size).map_err(context()),
    }
}

fn choose<'a>(present: &'a [Part], named: &[CompletedPart]) -> Result<Vec<&'a Part>> {
    if named.is_empty() {
        return Err(Refusal::NoParts.into());
    }
    if !named.windows(2).all(|pair| pair[0].number < pair[1].number) {
        return Err(Refusal::PartOrder.into());
    }
    let mut chosen = Vec::new();
    for (position, wanted) in named.iter().enumerate() {
        let found = present.binary_search_by_key(&wanted.number, |part| part.number);
        let part = found.map(|at| &present[at]).map_err(|_| Refusal::Part(wanted.number))?;
        let same = part.etag == wanted.etag
            && wanted.checksums.iter().all(|(name, value)| part.checksums.get(name) == Some(value));
        if !same {
            return Err(Refusal::Part(wanted.number).into());
        }
        if position + 1 < named.len() && part.size < SMALLEST_PART_BYTES {
            return Err(Refusal::PartTooSmall(part.number).into());
        }
        chosen.push(part);
    }
    Ok(chosen)
}

/// The entity tag of an object that is joined from parts.
pub(super) fn joined_etag(parts: &[Part]) -> String {
    let digests: Vec<u8> = parts.iter().flat_map(|part| unhex(&part.etag)).collect();
    format!("{}-{}", hex(&md5_of(&digests)), parts.len())
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    text.as_bytes()
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |value, byte| value * 16 + digit(*byte)))
        .collect()
}
