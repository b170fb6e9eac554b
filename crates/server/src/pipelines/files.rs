//! Objects that pipelines read: definitions, property files, and the states of inputs.

use std::io::Read;
use std::sync::Arc;

use serde_json::Value;

use super::cache::Facts;
use crate::app::App;

/// Longest JSON file that an expression reads.
const JSON_LIMIT_BYTES: u64 = 16 << 20;
/// Objects of one location whose states are facts of their own; more are one digest.
const SINGLE_OBJECTS: usize = 50;
/// Objects of one location that are looked at in one query.
const PAGE: usize = 1_000;

/// Reads an object as text.
///
/// # Errors
/// The rest of a sentence that names the object.
pub async fn read_text(app: &Arc<App>, account: &str, uri: &str, limit_bytes: u64) -> Result<String, String> {
    let (bucket, key) =
        crate::training::bucket_and_key(uri).ok_or_else(|| format!("{uri:?} is not an S3 URI"))?;
    let file = app.objects.open_object(account, bucket, key).await;
    let file = file.map_err(|error| format!("{uri} cannot be read: {error}"))?;
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        file.take(limit_bytes + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = read.await.map_err(|error| error.to_string())?;
    let bytes = bytes.map_err(|error| format!("{uri} cannot be read: {error}"))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(format!("{uri} has more than {limit_bytes} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| format!("{uri} is not UTF-8 text"))
}

/// Reads an object as JSON; with the length of its text.
///
/// # Errors
/// One sentence that names the object.
pub async fn read_json(app: &Arc<App>, account: &str, uri: &str) -> Result<(Value, usize), String> {
    let text =
        read_text(app, account, uri, JSON_LIMIT_BYTES).await.map_err(|problem| format!("{problem}."))?;
    let read = serde_json::from_str(&text).map_err(|error| format!("{uri} is not JSON: {error}."))?;
    Ok((read, text.len()))
}

/// Whether there is an object with this URI.
pub async fn exists(app: &Arc<App>, account: &str, uri: &str) -> bool {
    match crate::training::bucket_and_key(uri) {
        Some((bucket, key)) => app.objects.head(account, bucket, key).await.is_ok(),
        None => false,
    }
}

/// The states of the objects at a location that a field names. What cannot be listed is a fact, too.
pub async fn object_facts(app: &Arc<App>, account: &str, field: &str, uri: &str) -> Facts {
    let mut facts = Facts::new();
    let Some((bucket, prefix)) = crate::training::bucket_and_key(uri) else { return facts };
    let mut count = 0_usize;
    let mut digest = digest_of(&[]);
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = app.objects.list_keys(account, bucket, prefix, after.as_deref(), PAGE).await;
        let Ok(page) = page else { break };
        let is_last = page.len() < PAGE;
        after = page.last().map(|object| object.key.clone().into_bytes());
        for object in page {
            count += 1;
            digest = digest_of(&[&digest, object.key.as_bytes(), b"\n", object.etag.as_bytes()]);
            if count <= SINGLE_OBJECTS {
                facts.insert(format!("{field}: object s3://{bucket}/{}", object.key), object.etag.into());
            }
        }
        if is_last {
            break;
        }
    }
    facts.insert(format!("{field}: objects"), count.into());
    if count > SINGLE_OBJECTS {
        facts.insert(format!("{field}: digest of all objects"), hex::encode(digest).into());
    }
    facts
}

/// Digest of parts in a row.
fn digest_of(parts: &[&[u8]]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().to_vec()
}
