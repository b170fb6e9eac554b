//! The objects of a channel, page by page: those under a prefix, or those that a manifest names.

use std::io::Read;
use std::path::PathBuf;

use api::sagemaker::S3DataSource;
use store::objects::{Object, ObjectStore};

use super::manifest::{self, Manifest};
use super::uri::{plain_path, relative_path, split_uri};

/// Objects of one page.
pub(super) const PAGE: usize = 1_000;

/// An object of a channel.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its bucket.
    pub bucket: String,
    /// Its row.
    pub object: Object,
    /// Where it lies in the channel.
    pub path: PathBuf,
}

/// The objects of a channel that are still to come.
pub(super) struct Objects<'a> {
    store: &'a ObjectStore,
    account: &'a str,
    uri: &'a str,
    bucket: String,
    prefix: String,
    left: Left,
    count: usize,
}

enum Left {
    /// The keys after this one that begin with the prefix.
    After(Option<Vec<u8>>),
    /// These paths, each below the prefix.
    Paths(std::vec::IntoIter<String>),
    Nothing,
}

impl<'a> Objects<'a> {
    /// The objects of a prefix or a manifest.
    pub async fn of(
        store: &'a ObjectStore,
        account: &'a str,
        source: &'a S3DataSource,
    ) -> Result<Objects<'a>, String> {
        let uri = source.s3_uri.as_str();
        let (bucket, key) = bucket_and_key(uri)?;
        let (bucket, prefix, left) = if source.s3_data_type.as_str() == "ManifestFile" {
            let Manifest { bucket, prefix, paths } = read_manifest(store, account, uri).await?;
            (bucket, prefix, Left::Paths(paths.into_iter()))
        } else {
            (bucket.to_owned(), key.to_owned(), Left::After(None))
        };
        Ok(Objects { store, account, uri, bucket, prefix, left, count: 0 })
    }

    /// Whether there are no more pages.
    pub fn is_exhausted(&self) -> bool {
        match &self.left {
            Left::Nothing => true,
            Left::Paths(paths) => paths.len() == 0,
            Left::After(_) => false,
        }
    }

    /// The next page; an empty one ends the channel. A channel without any object is an error.
    pub async fn next(&mut self) -> Result<Vec<Found>, String> {
        loop {
            let page = match std::mem::replace(&mut self.left, Left::Nothing) {
                Left::Nothing if self.count == 0 => {
                    return Err(format!(
                        "ClientError: No S3 objects found under S3 URL {:?} given in input data source. \
                         Please ensure that the bucket exists, and that objects exist under that prefix.",
                        self.uri
                    ));
                }
                Left::Nothing => return Ok(Vec::new()),
                Left::After(after) => self.listed(after).await?,
                Left::Paths(mut paths) => {
                    let names: Vec<String> = paths.by_ref().take(PAGE).collect();
                    if !names.is_empty() {
                        self.left = Left::Paths(paths);
                    }
                    self.named(names).await?
                }
            };
            if !page.is_empty() {
                self.count += page.len();
                return Ok(page);
            }
        }
    }

    async fn listed(&mut self, after: Option<Vec<u8>>) -> Result<Vec<Found>, String> {
        let listed =
            self.store.list_keys(self.account, &self.bucket, &self.prefix, after.as_deref(), PAGE).await;
        let page = listed.map_err(|error| {
            format!("ClientError: the objects under {:?} cannot be listed: {error}.", self.uri)
        })?;
        if page.len() == PAGE {
            self.left = Left::After(page.last().map(|last| last.key.clone().into_bytes()));
        }
        // Keys that end with a slash are folder markers that consoles make; they hold no data.
        let objects = page.into_iter().filter(|object| !object.key.ends_with('/'));
        objects
            .map(|object| {
                let path = relative_path(&object.key, &self.prefix)?;
                Ok(Found { bucket: self.bucket.clone(), object, path })
            })
            .collect()
    }

    async fn named(&self, names: Vec<String>) -> Result<Vec<Found>, String> {
        let keys: Vec<String> = names.iter().map(|name| format!("{}{name}", self.prefix)).collect();
        let rows = self.store.find_many(self.account, &self.bucket, keys.clone()).await;
        let rows = rows.map_err(|error| {
            format!("ClientError: the manifest {:?} cannot be followed: {error}.", self.uri)
        })?;
        let mut found = Vec::with_capacity(rows.len());
        for ((name, key), row) in names.into_iter().zip(keys).zip(rows) {
            let object = row.ok_or_else(|| {
                format!(
                    "ClientError: the object s3://{}/{key} does not exist; the manifest {:?} names it.",
                    self.bucket, self.uri
                )
            })?;
            let path = plain_path(name.trim_start_matches('/')).ok_or_else(|| {
                format!(
                    "ClientError: the manifest {:?} names {name:?}, which cannot be the path of a file.",
                    self.uri
                )
            })?;
            found.push(Found { bucket: self.bucket.clone(), object, path });
        }
        Ok(found)
    }
}

/// Bucket and key of a data source's URI.
pub(super) fn bucket_and_key(uri: &str) -> Result<(&str, &str), String> {
    split_uri(uri).ok_or_else(|| format!("ClientError: {uri:?} is not an S3 URI such as s3://bucket/prefix."))
}

/// Opens the object of a manifest.
pub(super) async fn open_manifest(
    store: &ObjectStore,
    account: &str,
    uri: &str,
) -> Result<store::objects::ObjectFile, String> {
    let (bucket, key) = bucket_and_key(uri)?;
    let opened = store.open_object(account, bucket, key).await;
    opened.map_err(|error| format!("ClientError: the manifest {uri:?} cannot be read: {error}."))
}

async fn read_manifest(store: &ObjectStore, account: &str, uri: &str) -> Result<Manifest, String> {
    let file = open_manifest(store, account, uri).await?;
    let parsed = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        file.take(manifest::MAX_BYTES + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
        manifest::parse(&text)
    });
    let parsed = parsed.await.map_err(|error| error.to_string()).and_then(|parsed| parsed);
    parsed.map_err(|problem| format!("ClientError: the manifest {uri:?} cannot be used: {problem}"))
}
