//! Packages of functions: where they come from, and that they can be unpacked.

use std::io::Read;
use std::path::Path;

use api::lambda::FunctionCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runner::archive::{Limits, extract_zip};
use sha2::{Digest, Sha256};

use super::error::{Problem, Result};
use crate::{Cx, Error};

/// Largest package.
const MOST_PACKED_BYTES: u64 = 64 * 1024 * 1024;

/// What a package may unpack to, as in the service.
const LIMITS: Limits = Limits { max_bytes: 250 * 1024 * 1024, max_members: 100_000, max_path: 1024 };

/// A package that can be unpacked.
pub struct Package {
    /// The archive.
    pub bytes: Vec<u8>,
    /// Its SHA-256 in base64.
    pub sha256: String,
}

/// Fetches and checks the package that a request brings or names.
///
/// # Errors
/// When there is none, more than one, it cannot be read, or it is no zip archive with acceptable members.
pub async fn package(cx: &Cx, code: FunctionCode) -> Result<Package> {
    if code.image_uri.is_some() {
        return Err(Problem::field("ImageUri"));
    }
    if code.source_kms_key_arn.is_some_and(|arn| !arn.is_empty()) {
        return Err(Problem::field("SourceKMSKeyArn"));
    }
    if code.s3_object_storage_mode.is_some_and(|mode| mode.as_str() != "COPY") {
        return Err(Problem::field("S3ObjectStorageMode REFERENCE"));
    }
    if code.s3_object_version.is_some() {
        return Err(Problem::field("S3ObjectVersion"));
    }
    let bytes = match (code.zip_file, code.s3_bucket, code.s3_key) {
        (Some(zip), None, None) => zip.0,
        (None, Some(bucket), Some(key)) => object(cx, &bucket, &key).await?,
        _ => return Err(Problem::invalid("Please provide a source for function code.")),
    };
    if bytes.len() as u64 > MOST_PACKED_BYTES {
        return Err(too_large());
    }
    let folder = super::pool::folder(&cx.state.config).join(format!("check-{}", uuid::Uuid::new_v4()));
    let checked = tokio::task::spawn_blocking(move || {
        let unpacked = unpack(&bytes, &folder);
        // What stays is removed at the next start.
        let _ = std::fs::remove_dir_all(&folder);
        unpacked.map_err(|text| Problem::invalid(format!("Could not unzip uploaded file: {text}")))?;
        let sha256 = STANDARD.encode(Sha256::digest(&bytes));
        Ok(Package { bytes, sha256 })
    });
    checked.await.map_err(|error| Problem::Other(Error::internal(error)))?
}

fn too_large() -> Problem {
    Problem::invalid(format!("Code: a package has at most {MOST_PACKED_BYTES} bytes."))
}

/// Unpacks a package into a new folder. Blocks.
///
/// # Errors
/// A text for people.
pub fn unpack(bytes: &[u8], folder: &Path) -> std::result::Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let unpacked = extract_zip(std::io::Cursor::new(bytes), folder, LIMITS);
    unpacked.map(drop).map_err(|error| error.to_string())
}

async fn object(cx: &Cx, bucket: &str, key: &str) -> Result<Vec<u8>> {
    let opened = cx.state.objects.open_object(&cx.caller.account, bucket, key).await;
    let mut file = opened.map_err(|error| {
        Problem::invalid(format!(
            "Error occurred while GetObject. S3 Error: s3://{bucket}/{key} cannot be read: {error}"
        ))
    })?;
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        (&mut file).take(MOST_PACKED_BYTES + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = read.await.map_err(|error| Problem::Other(Error::internal(error)))?;
    let bytes = bytes.map_err(|error| Problem::Other(Error::internal(error)))?;
    if bytes.len() as u64 > MOST_PACKED_BYTES { Err(too_large()) } else { Ok(bytes) }
}
