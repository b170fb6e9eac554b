//! Artifacts of model packages: their SHA-256 is taken when a package is registered and compared when it is deployed.

use std::io::{Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::objects::{Object, ObjectFile};

use crate::app::App;
use crate::{Error, Result};

/// Most objects that one prefix of a package may hold.
const MOST_OBJECTS: usize = 1_000;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// One object of a package as it was when it was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Account that the object belongs to.
    pub account: String,
    /// S3 URI of the object.
    pub uri: String,
    /// Its entity tag.
    pub etag: String,
    /// Its size.
    pub size_bytes: u64,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// Takes down what the containers of an inference specification are made of, and fills in the entity tags.
///
/// # Errors
/// [`Error::Validation`] for what is not there, and for an entity tag in the request that the object does not have.
pub async fn record(app: &App, account: &str, containers: &mut Value) -> Result<Vec<Artifact>> {
    let mut artifacts: Vec<Artifact> = Vec::new();
    let mut none = Vec::new();
    for container in containers.as_array_mut().unwrap_or(&mut none) {
        if let Some(uri) = container["ModelDataUrl"].as_str().map(str::to_owned) {
            let artifact = record_object(app, account, &uri).await?;
            settle_etag(&mut container["ModelDataETag"], "ModelDataETag", &artifact)?;
            artifacts.push(artifact);
        }
        let source = &mut container["ModelDataSource"]["S3DataSource"];
        if let Some(uri) = source["S3Uri"].as_str().map(str::to_owned) {
            if source["S3DataType"] == "S3Prefix" {
                artifacts.extend(record_prefix(app, account, &uri).await?);
            } else {
                let artifact = record_object(app, account, &uri).await?;
                settle_etag(&mut source["ETag"], "ModelDataSource.S3DataSource.ETag", &artifact)?;
                artifacts.push(artifact);
            }
        }
        drop_nulls(container);
    }
    artifacts.sort_by(|left, right| left.uri.cmp(&right.uri));
    artifacts.dedup();
    Ok(artifacts)
}

/// Indexing above makes empty members.
fn drop_nulls(container: &mut Value) {
    if let Some(members) = container.as_object_mut() {
        if let Some(Value::Object(source)) = members.get_mut("ModelDataSource") {
            source.retain(|_, value| !value.is_null());
        }
        members
            .retain(|_, value| !value.is_null() && value.as_object().is_none_or(|inner| !inner.is_empty()));
    }
}

fn settle_etag(given: &mut Value, member: &str, artifact: &Artifact) -> Result<()> {
    match given.as_str().map(|etag| etag.trim_matches('"')) {
        Some(etag) if etag != artifact.etag => Err(Error::Validation(format!(
            "{member} is {etag:?}, but {} has the entity tag {:?}.",
            artifact.uri, artifact.etag
        ))),
        _ => {
            *given = Value::from(artifact.etag.as_str());
            Ok(())
        }
    }
}

async fn record_object(app: &App, account: &str, uri: &str) -> Result<Artifact> {
    let (object, file) = open(app, account, uri).await.map_err(Error::Validation)?;
    let (sha256, _) = hashed(file).await.map_err(|problem| unreadable(uri, &problem))?;
    Ok(Artifact {
        account: account.to_owned(),
        uri: uri.to_owned(),
        etag: object.etag,
        size_bytes: object.size,
        sha256,
    })
}

async fn record_prefix(app: &App, account: &str, uri: &str) -> Result<Vec<Artifact>> {
    let (bucket, prefix) = crate::training::bucket_and_key(uri)
        .ok_or_else(|| Error::Validation(format!("S3Uri: {uri:?} is not an S3 URI.")))?;
    let objects = app.objects.list_keys(account, bucket, prefix, None, MOST_OBJECTS + 1).await;
    let objects = objects.map_err(|error| Error::Validation(missing(uri, &error)))?;
    if objects.is_empty() {
        return Err(Error::Validation(format!("Could not find model data at {uri}: no object begins so.")));
    }
    if objects.len() > MOST_OBJECTS {
        let text = format!("{uri} has more than {MOST_OBJECTS} objects: register the model as one archive.");
        return Err(Error::Validation(text));
    }
    let mut artifacts = Vec::with_capacity(objects.len());
    for object in objects {
        artifacts.push(record_object(app, account, &format!("s3://{bucket}/{}", object.key)).await?);
    }
    Ok(artifacts)
}

/// Opens an artifact, and compares it with what was registered. The file that was compared is the one that is handed out.
///
/// # Errors
/// A sentence for people that names the object and both hashes.
pub async fn open_unchanged(app: &App, artifact: &Artifact) -> Result<ObjectFile, String> {
    let (object, file) = open(app, &artifact.account, &artifact.uri).await?;
    let (sha256, file) =
        hashed(file).await.map_err(|problem| unreadable(&artifact.uri, &problem).to_string())?;
    if sha256 != artifact.sha256 {
        return Err(format!(
            "{} has changed since its model package was registered: its SHA-256 is {sha256} ({} bytes), and {} ({} bytes) was \
             registered. Put the registered object back, or register the new one as a new version.",
            artifact.uri, object.size, artifact.sha256, artifact.size_bytes
        ));
    }
    Ok(file)
}

async fn open(app: &App, account: &str, uri: &str) -> Result<(Object, ObjectFile), String> {
    let (bucket, key) = crate::training::bucket_and_key(uri)
        .filter(|(_, key)| !key.is_empty() && !key.ends_with('/'))
        .ok_or_else(|| format!("ModelDataUrl: {uri:?} is not the S3 URI of an object."))?;
    app.objects.open_version(account, bucket, key).await.map_err(|error| missing(uri, &error))
}

fn missing(uri: &str, error: &store::Error) -> String {
    format!("Could not find model data at {uri}: {error}.")
}

fn unreadable(uri: &str, problem: &std::io::Error) -> Error {
    Error::Validation(format!("The model data at {uri} cannot be read: {problem}."))
}

/// The SHA-256 of a file, and the file at its beginning again.
async fn hashed(mut file: ObjectFile) -> std::io::Result<(String, ObjectFile)> {
    let hashing = tokio::task::spawn_blocking(move || {
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            hash.update(&chunk[..count]);
        }
        file.seek(SeekFrom::Start(0))?;
        Ok((hex::encode(hash.finalize()), file))
    });
    hashing.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}
