//! Buckets and objects. An object is one plain file per version; its row in the database says which version is current.
//!
//! A write goes to a file under `.incoming`, is forced to the disk, renamed to its place and forced again, and only then
//! does the row change: a crash leaves the old object or the new one, whole, and at most a stray file that the next start sweeps.

mod export;
mod files;
mod listing;
mod multipart;
pub mod names;
mod rows;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

pub use export::{Export, ExportedObject};
pub use files::Incoming;
pub use listing::{Bound, ListObjects, Listing};
pub use multipart::{CompletedPart, Part, Upload};

use crate::clock::Clock;
use crate::database::Database;
use crate::error::{Error, Result};

/// Kind of a bucket in errors.
pub const BUCKET_KIND: &str = "bucket";
/// Kind of an object in errors.
pub const OBJECT_KIND: &str = "object";
/// Kind of a multipart upload in errors.
pub const UPLOAD_KIND: &str = "upload";

/// A bucket. Names are unique over all accounts, as in S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Account that owns it.
    pub account: String,
    /// Region it was made in.
    pub region: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// What is kept of an object beside its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Headers that come back as they were given: `content-type` and the like, in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The user's metadata.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Checksums by algorithm (`crc32`, `sha256` and so on), as the protocol writes them.
    #[serde(default)]
    pub checksums: BTreeMap<String, String>,
}

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// MD5 in hex, or digest-of-digests with the number of parts; without quotes.
    pub etag: String,
    /// Number of parts it was uploaded in, when in parts.
    pub parts: Option<u32>,
    /// Headers, metadata, checksums.
    pub attributes: Attributes,
    /// Milliseconds since 1970.
    pub modified_at: i64,
    /// Its file, relative to the folder of the bucket.
    path: PathBuf,
}

/// Under which condition a write happens; checked in the transaction that makes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// The present object must have this entity tag.
    pub if_match: Option<String>,
    /// There must be no object.
    pub if_none_match: bool,
}

/// All buckets of a data directory.
pub struct ObjectStore {
    database: Database,
    root: PathBuf,
    clock: Clock,
}

impl ObjectStore {
    /// Opens the buckets under `root` and sweeps what a crash left.
    ///
    /// # Errors
    /// When the folder or the database fails.
    pub async fn open(database: Database, root: PathBuf, clock: Clock) -> Result<ObjectStore> {
        std::fs::create_dir_all(&root).map_err(Error::file(format!("make {}", root.display())))?;
        let store = ObjectStore { database, root, clock };
        store.sweep().await?;
        Ok(store)
    }

    /// Makes a bucket; `false` when the account owns it already.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an illegal name, [`Error::Exists`] when another account owns the name.
    pub async fn create_bucket(&self, account: &str, region: &str, name: &str) -> Result<bool> {
        if !names::is_bucket_name(name) {
            return Err(Error::Invalid(format!("{name:?} is not a legal bucket name")));
        }
        let bucket = Bucket {
            name: name.to_owned(),
            account: account.to_owned(),
            region: region.to_owned(),
            created_at: self.clock.now_ms(),
        };
        files::make_folders(&self.root, &self.root.join(name).join(files::INCOMING))?;
        self.database.write(move |session| session.insert_bucket(&bucket)).await
    }

    /// A bucket of an account.
    ///
    /// # Errors
    /// [`Error::Missing`], or [`Error::Denied`] when another account owns it.
    pub async fn bucket(&self, account: &str, name: &str) -> Result<Bucket> {
        let (account, name) = (account.to_owned(), name.to_owned());
        self.database.read(move |session| session.owned_bucket(&account, &name)).await
    }

    /// The buckets of an account, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn buckets(&self, account: &str) -> Result<Vec<Bucket>> {
        let account = account.to_owned();
        self.database.read(move |session| session.buckets(&account)).await
    }

    /// Removes an empty bucket.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] when it is not empty; [`Error::Missing`] or [`Error::Denied`].
    pub async fn delete_bucket(&self, account: &str, name: &str) -> Result<()> {
        let (account, bucket) = (account.to_owned(), name.to_owned());
        self.database.write(move |session| session.delete_bucket(&account, &bucket)).await?;
        files::remove_tree(&self.root.join(name));
        Ok(())
    }

    /// An object's row.
    ///
    /// # Errors
    /// [`Error::Missing`] of bucket or object, or [`Error::Denied`].
    pub async fn head(&self, account: &str, bucket: &str, key: &str) -> Result<Object> {
        let (account, bucket, key) = (account.to_owned(), bucket.to_owned(), key.to_owned());
        self.database
            .read(move |session| {
                session.owned_bucket(&account, &bucket)?;
                session.object(&bucket, &key)
            })
            .await
    }

    /// An object's row and its open file. A version that is replaced meanwhile stays readable through the handle.
    ///
    /// # Errors
    /// As [`ObjectStore::head`].
    pub async fn open_version(&self, account: &str, bucket: &str, key: &str) -> Result<(Object, File)> {
        loop {
            let object = self.head(account, bucket, key).await?;
            let path = self.root.join(bucket).join(&object.path);
            match File::open(&path) {
                Ok(file) => return Ok((object, file)),
                // Replaced or deleted between the look at the row and now: look again, unless the row still says so.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if self.head(account, bucket, key).await?.path == object.path {
                        return Err(Error::file(format!("open {}", path.display()))(error));
                    }
                }
                Err(error) => return Err(Error::file(format!("open {}", path.display()))(error)),
            }
        }
    }

    /// An object's open file.
    ///
    /// # Errors
    /// As [`ObjectStore::head`].
    pub async fn open_object(&self, account: &str, bucket: &str, key: &str) -> Result<File> {
        self.open_version(account, bucket, key).await.map(|(_, file)| file)
    }

    /// Begins a write; nothing is visible before [`ObjectStore::commit`].
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Denied`], or when the file cannot be made.
    pub async fn begin(&self, account: &str, bucket: &str) -> Result<Incoming> {
        self.bucket(account, bucket).await?;
        Incoming::create(&self.root.join(bucket))
    }

    /// Makes what was written the object of that key.
    ///
    /// # Errors
    /// [`Error::Precondition`] when the condition does not hold, [`Error::Invalid`] for an illegal key.
    pub async fn commit(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        incoming: Incoming,
        attributes: Attributes,
        condition: Condition,
    ) -> Result<Object> {
        check_key(key)?;
        let written = blocking(move || incoming.finish()).await?;
        let etag = hex(&written.md5);
        self.place(
            account,
            bucket,
            key,
            written.file,
            NewVersion { size: written.size, etag, parts: None, attributes },
            condition,
        )
        .await
    }

    /// Takes a finished file of ours in as an object: it is renamed where it can be, else copied.
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
    ) -> Result<Object> {
        let mut incoming = self.begin(account, bucket).await?;
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

    /// Removes an object; a missing one is fine, as in S3. Returns whether there was one.
    ///
    /// # Errors
    /// [`Error::Missing`] of the bucket, [`Error::Denied`], [`Error::Precondition`].
    pub async fn delete(&self, account: &str, bucket: &str, key: &str, condition: Condition) -> Result<bool> {
        let (owner, name, key) = (account.to_owned(), bucket.to_owned(), key.to_owned());
        let removed = self
            .database
            .write(move |session| {
                session.owned_bucket(&owner, &name)?;
                let present = session.find_object(&name, &key)?;
                condition.check(present.as_ref())?;
                session.delete_object(&name, &key)?;
                Ok(present)
            })
            .await?;
        let Some(object) = removed else { return Ok(false) };
        files::remove_version(&self.root.join(bucket), &object.path);
        Ok(true)
    }

    /// Renames a durable file into place and makes it current.
    async fn place(
        &self,
        account: &str,
        bucket: &str,
        key: &str,
        file: PathBuf,
        version: NewVersion,
        condition: Condition,
    ) -> Result<Object> {
        let folder = self.root.join(bucket);
        let path = names::object_path(key, &uuid::Uuid::now_v7().simple().to_string());
        let (from, to, base) = (file.clone(), folder.join(&path), folder.clone());
        blocking(move || files::move_durably(&from, &to, &base)).await?;
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
        let replaced = self
            .database
            .write(move |session| {
                session.owned_bucket(&owner, &name)?;
                let present = session.find_object(&name, &stored.key)?;
                condition.check(present.as_ref())?;
                session.put_object(&name, &stored)?;
                Ok(present)
            })
            .await;
        match replaced {
            Ok(present) => {
                if let Some(old) = present {
                    files::remove_version(&folder, &old.path);
                }
                Ok(object)
            }
            Err(error) => {
                files::remove_version(&folder, &path);
                Err(error)
            }
        }
    }

    /// Removes files that no row knows: what a crash between file and row left.
    async fn sweep(&self) -> Result<()> {
        let names = self.database.read(|session| session.bucket_names()).await?;
        for name in names {
            let folder = self.root.join(&name);
            files::make_folders(&self.root, &folder.join(files::INCOMING))?;
            let strays = files::incoming_files(&folder)?;
            let bucket = name.clone();
            let kept = self.database.read(move |session| session.part_paths(&bucket)).await?;
            for stray in strays.into_iter().filter(|path| !kept.contains(path)) {
                files::remove_version(&folder, &stray);
            }
            let mut batch = Vec::new();
            let mut folders = vec![folder.clone()];
            while let Some(next) = folders.pop() {
                batch.extend(files::versions_in(&folder, &next, &mut folders)?);
                if batch.len() >= SWEEP_BATCH || folders.is_empty() {
                    let (bucket, paths) = (name.clone(), std::mem::take(&mut batch));
                    let strays =
                        self.database.read(move |session| session.unknown_paths(&bucket, paths)).await?;
                    for stray in strays {
                        files::remove_version(&folder, &stray);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Files that one sweep step looks up.
const SWEEP_BATCH: usize = 1_000;

struct NewVersion {
    size: u64,
    etag: String,
    parts: Option<u32>,
    attributes: Attributes,
}

impl Condition {
    fn check(&self, present: Option<&Object>) -> Result<()> {
        let holds = match (&self.if_match, present) {
            (Some(wanted), Some(object)) => wanted == "*" || *wanted == object.etag,
            (Some(_), None) => return Err(Error::Missing { kind: OBJECT_KIND.into(), name: String::new() }),
            (None, present) => !(self.if_none_match && present.is_some()),
        };
        if holds {
            Ok(())
        } else {
            Err(Error::Precondition("at least one of the preconditions did not hold".into()))
        }
    }
}

fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::Invalid("an object key must not be empty".into()));
    }
    if key.len() > names::LONGEST_KEY_BYTES {
        return Err(Error::Invalid(format!("an object key has at most {} bytes", names::LONGEST_KEY_BYTES)));
    }
    Ok(())
}

fn md5_of(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::NotCommitted("a file operation panicked".into())))
}
