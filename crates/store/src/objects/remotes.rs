//! Buckets of another S3 store as buckets of this one: where they are, and what somebody who speaks S3 has to do for them.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::remote_cache::Cache;
use super::{Attributes, Bucket, Condition, Object, ObjectStore};
use crate::error::{Error, Result};
use crate::keys::KeyStore;

/// Where a remote bucket is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// `http` or `https`, host, and port where it is not the usual one: `https://s3.example.org`.
    pub endpoint: String,
    /// Name of the bucket there.
    pub bucket: String,
    /// Beginning of all keys there, empty or with a slash at its end; here they go without it.
    pub prefix: String,
    /// Region that requests are signed for.
    pub region: String,
    /// Whether the bucket stands in the path of URLs, not in their host.
    pub is_path_style: bool,
    /// Whether objects can be neither written nor removed.
    pub is_read_only: bool,
    /// Whether addresses that only this link knows may be asked, such as those where clouds give out credentials.
    pub allows_link_local: bool,
    /// The certificates to trust instead of the system's, in PEM.
    pub ca_bundle: Option<PathBuf>,
    /// [`RemoteCredentials`], sealed.
    #[serde(skip)]
    pub credentials: Vec<u8>,
}

impl Remote {
    /// The bucket as people write it.
    pub fn url(&self) -> String {
        format!("{}/{}/{}", self.endpoint, self.bucket, self.prefix).trim_end_matches('/').to_owned()
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        match self.is_read_only {
            true => Err(Error::Denied("the bucket is a remote one that is only read".into())),
            false => Ok(()),
        }
    }
}

/// What opens a remote bucket. It does not print its secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct RemoteCredentials {
    /// Key.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Session token of short-lived keys.
    pub session_token: Option<String>,
}

impl Drop for RemoteCredentials {
    fn drop(&mut self) {
        self.secret_access_key.zeroize();
        self.session_token.zeroize();
    }
}

impl std::fmt::Debug for RemoteCredentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RemoteCredentials({}, ..)", self.access_key_id)
    }
}

impl RemoteCredentials {
    /// Seals them for one bucket; with another one they do not open.
    ///
    /// # Errors
    /// None that can happen with text.
    pub fn seal(&self, keys: &KeyStore, account: &str, bucket: &str) -> Result<Vec<u8>> {
        let mut plain = serde_json::to_vec(self)?;
        let sealed = keys.of_remotes(account).seal(bucket.as_bytes(), &plain);
        plain.zeroize();
        Ok(sealed)
    }

    fn open(keys: &KeyStore, bucket: &Bucket, sealed: &[u8]) -> Result<RemoteCredentials> {
        let opened = keys.of_remotes(&bucket.account).open(bucket.name.as_bytes(), sealed);
        let mut plain = opened.map_err(|_| {
            Error::Invalid(format!(
                "the stored credentials of the remote bucket {} do not open with this master key; set them again with `modelyard bucket credentials`",
                bucket.name
            ))
        })?;
        let credentials = serde_json::from_slice(&plain);
        plain.zeroize();
        Ok(credentials?)
    }
}

/// Why a remote bucket does not do what is asked of it. The texts name the bucket there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteProblem {
    /// It does not answer, or says that it cannot for now.
    #[error("{0}")]
    Unavailable(String),
    /// It does not let these credentials do this.
    #[error("{0}")]
    Denied(String),
    /// It refuses the request.
    #[error("{0}")]
    Refused(String),
}

/// An object as the remote bucket describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteObject {
    /// Its key here.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// Milliseconds since 1970.
    pub modified_at: i64,
    /// As in [`Attributes`]; empty in lists.
    pub headers: BTreeMap<String, String>,
    /// As in [`Attributes`]; empty in lists.
    pub metadata: BTreeMap<String, String>,
}

impl From<RemoteObject> for Object {
    fn from(found: RemoteObject) -> Object {
        Object {
            path: identity(&found.etag, found.size),
            key: found.key,
            size: found.size,
            etag: found.etag,
            parts: None,
            attributes: Attributes {
                headers: found.headers,
                metadata: found.metadata,
                ..Attributes::default()
            },
            modified_at: found.modified_at,
        }
    }
}

/// What tells an object from one that replaces it.
pub(super) fn identity(etag: &str, size: u64) -> PathBuf {
    PathBuf::from(format!("{etag}-{size}"))
}

/// A page of a list to ask for.
#[derive(Debug, Clone, Default)]
pub struct RemoteList {
    /// Beginning of the keys.
    pub prefix: String,
    /// Text that ends a folded prefix.
    pub delimiter: Option<String>,
    /// The keys come after this one.
    pub after: Option<String>,
    /// Most entries.
    pub limit: usize,
}

/// A page of a list.
#[derive(Debug, Clone, Default)]
pub struct RemotePage {
    /// Objects, in key order.
    pub objects: Vec<RemoteObject>,
    /// Folded prefixes, in order.
    pub common_prefixes: Vec<String>,
    /// Whether there is more.
    pub is_truncated: bool,
}

/// Bytes to send: a range of a local file.
#[derive(Debug, Clone)]
pub struct RemoteContent {
    /// The file.
    pub file: PathBuf,
    /// Where the bytes begin.
    pub start: u64,
    /// How many there are.
    pub size: u64,
    /// Their MD5, which the remote store compares.
    pub md5: [u8; 16],
}

/// The bytes of a remote object, as they come.
#[async_trait]
pub trait RemoteBody: Send {
    /// The next bytes; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>>;
}

/// One remote bucket. Each call is tried again where that may help, and ends within a bounded time without progress.
#[async_trait]
pub trait RemoteBucket: Send + Sync {
    /// Describes an object; `None` when there is none.
    async fn head(&self, key: &str) -> Result<Option<RemoteObject>>;

    /// Reads a range, which is not empty, of the object with this entity tag. [`Error::Precondition`] when it is another one by now,
    /// [`Error::Missing`] when there is none.
    async fn get(&self, key: &str, range: Range<u64>, etag: &str) -> Result<Box<dyn RemoteBody>>;

    /// Lists a page.
    async fn list(&self, list: &RemoteList) -> Result<RemotePage>;

    /// Writes an object, whole or not at all, and returns its entity tag.
    async fn put(
        &self,
        key: &str,
        content: &RemoteContent,
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<String>;

    /// Removes an object; a missing one is fine.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Begins an upload in parts and returns its id.
    async fn create_upload(&self, key: &str, attributes: &Attributes) -> Result<String>;

    /// Sends a part and returns its entity tag.
    async fn put_part(&self, key: &str, upload: &str, number: u32, content: &RemoteContent)
    -> Result<String>;

    /// Joins parts, numbers with entity tags, and returns the object's entity tag. [`Error::Missing`] when there is no such upload.
    async fn complete_upload(
        &self,
        key: &str,
        upload: &str,
        parts: &[(u32, String)],
        condition: &Condition,
    ) -> Result<String>;

    /// Gives an upload up; one that is gone is fine.
    async fn abort_upload(&self, key: &str, upload: &str) -> Result<()>;
}

/// Speaks S3 to remote buckets.
pub trait Connector: Send + Sync {
    /// Makes ready to talk to a bucket; nothing is sent.
    ///
    /// # Errors
    /// When its address or its certificates cannot be used.
    fn connect(&self, remote: &Remote, credentials: RemoteCredentials) -> Result<Arc<dyn RemoteBucket>>;
}

/// A bucket as it was registered when the way to it was made, and the way.
type Reached = (Remote, Arc<dyn RemoteBucket>);

/// The remote buckets that were talked to.
pub(super) struct Remotes {
    connector: OnceLock<Arc<dyn Connector>>,
    connected: Mutex<HashMap<String, Reached>>,
    pub(super) cache: Cache,
    cache_limit_bytes: OnceLock<u64>,
    /// Held during writes with a condition, so that one of many wins.
    pub(super) conditional: tokio::sync::Mutex<()>,
}

impl Remotes {
    pub(super) fn new(cache: Cache) -> Remotes {
        Remotes {
            connector: OnceLock::new(),
            connected: Mutex::default(),
            cache,
            cache_limit_bytes: OnceLock::new(),
            conditional: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn cache_limit_bytes(&self) -> u64 {
        self.cache_limit_bytes.get().copied().unwrap_or_default()
    }
}

impl ObjectStore {
    /// Reaches remote buckets through `connector` from now on, and clears away what a crash left in them. Up to
    /// `cache_limit_bytes` of their objects are kept as local files.
    pub fn connect_remotes(&self, connector: Arc<dyn Connector>, cache_limit_bytes: u64) {
        // There is one per process.
        let _ = self.remotes.connector.set(connector);
        let _ = self.remotes.cache_limit_bytes.set(cache_limit_bytes);
        let store = self.clone();
        tokio::spawn(async move { store.abort_stray_transfers().await });
    }

    /// The way to a remote bucket. It is made anew when the registration has changed.
    pub(super) fn reach(&self, bucket: &Bucket, remote: &Remote) -> Result<Arc<dyn RemoteBucket>> {
        let mut connected = self.remotes.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, reached)) = connected.get(&bucket.name)
            && known == remote
        {
            return Ok(reached.clone());
        }
        let connector = self.remotes.connector.get().ok_or_else(|| {
            RemoteProblem::Unavailable("remote buckets are reached by a running server only".into())
        })?;
        let credentials = RemoteCredentials::open(&self.keys, bucket, &remote.credentials)?;
        let reached = connector.connect(remote, credentials)?;
        connected.insert(bucket.name.clone(), (remote.clone(), reached.clone()));
        Ok(reached)
    }
}

/// Whether a key may be sent to a remote store. Proxies on the way resolve dot segments: such a key could lead out of the bucket.
pub(super) fn is_sendable(key: &str) -> bool {
    !key.split('/').any(|name| matches!(name, "." | ".."))
}
