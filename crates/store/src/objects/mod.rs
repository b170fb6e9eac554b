//! Buckets and objects. An object is one plain file per version; its row in the database says which version is current.
//!
//! A write goes to a file under `.incoming`, is forced to the disk, renamed to its place and forced again, and only then
//! does the row change: a crash leaves the old object or the new one, whole, and at most a stray file that the next start sweeps.

mod changes;
mod documents;
mod export;
mod files;
mod folder_listing;
mod folder_rows;
mod folders;
mod listing;
mod multipart;
pub mod names;
mod object;
mod protection;
mod refusal;
mod remote_cache;
mod remote_reader;
mod remote_reads;
mod remote_rows;
mod remote_writes;
mod remotes;
mod rows;
mod sealed;
mod sweep;
mod upload_rows;
mod writes;

use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use failpoint::Point;
use md5::{Digest, Md5};

pub use changes::{Change, Observer};
pub use export::{Export, ExportedObject};
pub use files::Incoming;
pub use folders::Folder;
pub use listing::{Bound, ListObjects, Listing};
pub use multipart::{CompletedPart, Part, PartChecksum, SMALLEST_PART_BYTES, Upload};
pub use object::{Assembly, Attributes, Bucket, Condition, Object};
pub use protection::{Encryption, EncryptionKey, Protection};
pub use refusal::Refusal;
pub use remotes::{
    Connector, Remote, RemoteBody, RemoteBucket, RemoteContent, RemoteCredentials, RemoteList, RemoteObject,
    RemotePage, RemoteProblem,
};
pub use sealed::ObjectFile;
use writes::{NewVersion, check_key};

use crate::clock::Clock;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::keys::KeyStore;

/// Kind of a bucket in errors.
pub const BUCKET_KIND: &str = "bucket";
/// Kind of an object in errors.
pub const OBJECT_KIND: &str = "object";
/// Kind of a multipart upload in errors.
pub const UPLOAD_KIND: &str = "upload";

/// All buckets of a data directory; clones share it.
#[derive(Clone)]
pub struct ObjectStore {
    database: Database,
    root: PathBuf,
    clock: Clock,
    keys: KeyStore,
    observer: Arc<OnceLock<Observer>>,
    under_way: sweep::UnderWay,
    swept: tokio::sync::watch::Sender<bool>,
    /// Held while the folder and the row of a bucket come or go together.
    bucket_change: Arc<tokio::sync::Mutex<()>>,
    /// Held while an object comes into a folder that is a bucket.
    folder_change: Arc<tokio::sync::Mutex<()>>,
    remotes: Arc<remotes::Remotes>,
}

impl ObjectStore {
    /// Opens the buckets under `root` and sweeps what a crash left.
    ///
    /// # Errors
    /// When the folder or the database fails.
    pub async fn open(
        database: Database,
        root: PathBuf,
        clock: Clock,
        keys: KeyStore,
    ) -> Result<ObjectStore> {
        files::make_root(&root)?;
        let remotes = Arc::new(remotes::Remotes::new(remote_cache::Cache::open(&root)?));
        let store = ObjectStore {
            database,
            root,
            clock,
            keys,
            observer: Arc::default(),
            under_way: sweep::UnderWay::default(),
            swept: tokio::sync::watch::Sender::new(false),
            bucket_change: Arc::default(),
            folder_change: Arc::default(),
            remotes,
        };
        store.sweep_unfinished().await?;
        store.sweep_in_background().await?;
        Ok(store)
    }

    /// The time that objects get, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Makes a bucket; `false` when the account owns it already.
    ///
    /// # Errors
    /// [`Error::Refused`] for an illegal name, [`Error::Exists`] when another account owns the name.
    pub async fn create_bucket(&self, account: &str, region: &str, name: &str) -> Result<bool> {
        if !names::is_bucket_name(name) {
            return Err(Refusal::BucketName(name.to_owned()).into());
        }
        let bucket = Bucket {
            name: name.to_owned(),
            account: account.to_owned(),
            region: region.to_owned(),
            created_at: self.clock.now_ms(),
            folder: None,
            remote: None,
        };
        let _alone = self.bucket_change.lock().await;
        files::make_folders(&self.root, &self.root.join(name).join(files::INCOMING))?;
        failpoint::at(Point::BucketRow).map_err(Error::file(format!("make the bucket {name}")))?;
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
        let _alone = self.bucket_change.lock().await;
        self.database.write(move |session| session.delete_bucket(&account, &bucket)).await?;
        failpoint::pass(Point::BucketRemove);
        let folder = self.root.join(name);
        blocking(move || {
            files::remove_tree(&folder);
            Ok(())
        })
        .await
    }

    /// An object's row.
    ///
    /// # Errors
    /// [`Error::Missing`] of bucket or object, or [`Error::Denied`].
    pub async fn head(&self, account: &str, bucket: &str, key: &str) -> Result<Object> {
        self.find(account, bucket, key).await.map(|(_, object)| object)
    }

    async fn find(&self, account: &str, bucket: &str, key: &str) -> Result<(Bucket, Object)> {
        let (account, bucket, name) = (account.to_owned(), bucket.to_owned(), key.to_owned());
        let looked = self.database.read(move |session| {
            let bucket = session.owned_bucket(&account, &bucket)?;
            let object = match bucket.remote {
                None => session.present(&bucket, &name)?,
                Some(_) => None,
            };
            Ok((bucket, object))
        });
        let (bucket, mut object) = looked.await?;
        if let Some(remote) = &bucket.remote {
            object = self.remote_object(&bucket, remote, key).await?;
        }
        let missing = || Error::Missing { kind: OBJECT_KIND.into(), name: key.to_owned() };
        Ok((bucket, object.ok_or_else(missing)?))
    }

    /// An object's row and its open file. A version that is replaced meanwhile stays readable through the handle.
    ///
    /// # Errors
    /// As [`ObjectStore::head`], and [`Error::Key`] when the key of an encrypted object cannot be used.
    pub async fn open_version(&self, account: &str, bucket: &str, key: &str) -> Result<(Object, ObjectFile)> {
        loop {
            let (owned, object) = self.find(account, bucket, key).await?;
            if let Some(folder) = owned.folder {
                match self.open_in_folder(bucket, folder, key).await? {
                    Some((object, file)) => return Ok((object, ObjectFile::plain(file))),
                    // Removed between the two looks.
                    None => continue,
                }
            }
            if let Some(remote) = &owned.remote {
                let reader = remote_reader::RemoteReader::new(self.reach(&owned, remote)?, &object);
                return Ok((object, ObjectFile::remote(reader)));
            }
            let path = self.root.join(bucket).join(&object.path);
            match File::open(&path) {
                Ok(file) => {
                    let context = || Error::file(format!("read {}", path.display()));
                    let file = match &object.attributes.encryption {
                        None => ObjectFile::plain(file),
                        Some(encryption) => {
                            let data_key = self.data_key(account, bucket, encryption).await?;
                            ObjectFile::sealed(file, &data_key, object.size).map_err(context())?
                        }
                    };
                    return Ok((object, file));
                }
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
    pub async fn open_object(&self, account: &str, bucket: &str, key: &str) -> Result<ObjectFile> {
        self.open_version(account, bucket, key).await.map(|(_, file)| file)
    }
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

/// Runs to its end even when the caller goes away: half of it would leave files that nobody removes.
async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(Error::NotCommitted("a write panicked".into())))
}
