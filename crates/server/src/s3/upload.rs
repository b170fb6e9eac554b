//! Request bodies on their way to a file: in constant memory, digests checked against what the client said.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::dto::{Checksum, StreamingBlob, Timestamp};
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};
use store::objects::Incoming;

use super::errors::{answer, refusal};

/// Bytes that are gathered before they go to the disk.
const BATCH_BYTES: usize = 1 << 20;

/// Names of the algorithms in headers and attributes.
pub const ALGORITHMS: [&str; 5] = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"];

/// What the client says of its body.
#[derive(Default)]
pub struct Declared {
    /// MD5 in base64.
    pub content_md5: Option<String>,
    /// Checksums by algorithm, in base64.
    pub checksums: BTreeMap<String, String>,
    /// Algorithm to compute though no value is declared.
    pub algorithm: Option<String>,
    /// Size in bytes.
    pub content_length: Option<i64>,
    /// Headers after the body, which may declare a checksum too.
    pub trailing: Option<TrailingHeaders>,
}

impl Declared {
    /// The algorithms that must be computed.
    pub fn algorithms(&self, headers: &http::HeaderMap) -> Vec<String> {
        let mut wanted: Vec<String> = self.checksums.keys().cloned().collect();
        wanted.extend(self.algorithm.as_ref().map(|name| name.to_ascii_lowercase()));
        wanted.extend(announced(headers));
        wanted.sort();
        wanted.dedup();
        wanted
    }
}

/// Writes a body to the file and checks it; returns the checksums to keep.
///
/// # Errors
/// `BadDigest`, `IncompleteBody`, or the store's errors.
pub async fn receive(
    body: Option<StreamingBlob>,
    headers: &http::HeaderMap,
    declared: Declared,
    mut incoming: Incoming,
) -> S3Result<(Incoming, BTreeMap<String, String>)> {
    let mut hasher = hasher(&declared.algorithms(headers))?;
    if let Some(mut body) = body {
        let mut batch = BytesMut::new();
        loop {
            let chunk = body.next().await.transpose();
            let chunk = chunk.map_err(|error| unreadable(&error.to_string()))?;
            let ended = chunk.is_none();
            if let Some(chunk) = chunk {
                batch.extend_from_slice(&chunk);
            }
            if batch.len() >= BATCH_BYTES || (ended && !batch.is_empty()) {
                let bytes: Bytes = batch.split().freeze();
                let written = tokio::task::spawn_blocking(move || {
                    hasher.update(&bytes);
                    incoming.write(&bytes).map(|()| (incoming, hasher))
                });
                let written = written.await.map_err(|error| s3_error!(InternalError, "{error}"))?;
                (incoming, hasher) = written.map_err(answer)?;
            }
            if ended {
                break;
            }
        }
    }
    if declared.content_length.is_some_and(|length| length >= 0 && length as u64 != incoming.size()) {
        return Err(s3_error!(
            IncompleteBody,
            "You did not provide the number of bytes specified by the Content-Length HTTP header"
        ));
    }
    if let Some(expected) = &declared.content_md5 {
        let decoded = STANDARD
            .decode(expected)
            .ok()
            .filter(|digest| digest.len() == 16)
            .ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified was invalid."))?;
        if decoded != incoming.md5() {
            return Err(s3_error!(
                BadDigest,
                "The Content-MD5 you specified did not match what we received."
            ));
        }
    }
    let computed = by_algorithm(&hasher.finalize());
    let mut expected = declared.checksums;
    let trailing = declared.trailing.and_then(|trailing| trailing.take()).unwrap_or_default();
    for name in announced(headers) {
        let value = trailing.get(format!("x-amz-checksum-{name}")).and_then(|value| value.to_str().ok());
        let value = value.ok_or_else(|| {
            let text =
                format!("The trailer x-amz-checksum-{name} was announced and did not follow the body.");
            refusal("MalformedTrailerError", text)
        })?;
        expected.insert(name, value.to_owned());
    }
    for (algorithm, value) in &expected {
        let Some(computed) = computed.get(algorithm) else { continue };
        let length = |text: &str| STANDARD.decode(text).map(|bytes| bytes.len()).ok();
        if length(value) != length(computed) {
            return Err(s3_error!(InvalidRequest, "Value for x-amz-checksum-{algorithm} header is invalid."));
        }
        if computed != value {
            return Err(s3_error!(
                BadDigest,
                "The {} you specified did not match the calculated checksum.",
                algorithm.to_ascii_uppercase()
            ));
        }
    }
    Ok((incoming, computed))
}

/// The algorithms of checksums that will follow the body; a trailer is announced before it.
fn announced(headers: &http::HeaderMap) -> Vec<String> {
    let lines = headers.get_all("x-amz-trailer").iter().filter_map(|value| value.to_str().ok());
    let names = lines.flat_map(|names| names.split(',')).map(|name| name.trim().to_ascii_lowercase());
    names.filter_map(|name| name.strip_prefix("x-amz-checksum-").map(str::to_owned)).collect()
}

/// Why a body could not be read, in the code of S3. `s3s` verifies signatures and hashes on the way and says so in the
/// text of the error alone.
fn unreadable(text: &str) -> S3Error {
    if text.contains("Sha256Mismatch") {
        let text = "The provided 'x-amz-content-sha256' header does not match what was computed.";
        return refusal("XAmzContentSHA256Mismatch", text);
    }
    if text.contains("SignatureMismatch") {
        return s3_error!(
            SignatureDoesNotMatch,
            "The signature of a chunk of the body does not match the signature that was calculated."
        );
    }
    s3_error!(IncompleteBody, "The body could not be read to its end.")
}

/// Computes checksums with these algorithms.
///
/// # Errors
/// `InvalidRequest` names an algorithm that S3 does not have.
pub fn hasher(algorithms: &[String]) -> S3Result<ChecksumHasher> {
    let mut hasher = ChecksumHasher::default();
    for algorithm in algorithms {
        match algorithm.as_str() {
            "crc32" => hasher.crc32 = Some(Crc32::new()),
            "crc32c" => hasher.crc32c = Some(Crc32c::new()),
            "crc64nvme" => hasher.crc64nvme = Some(Crc64Nvme::new()),
            "sha1" => hasher.sha1 = Some(Sha1::new()),
            "sha256" => hasher.sha256 = Some(Sha256::new()),
            other => {
                return Err(s3_error!(InvalidRequest, "The checksum algorithm {other} is not supported."));
            }
        }
    }
    Ok(hasher)
}

/// The computed checksums by algorithm, in base64.
pub fn by_algorithm(checksum: &Checksum) -> BTreeMap<String, String> {
    let values = [
        &checksum.checksum_crc32,
        &checksum.checksum_crc32c,
        &checksum.checksum_crc64nvme,
        &checksum.checksum_sha1,
        &checksum.checksum_sha256,
    ];
    let named = ALGORITHMS.iter().zip(values);
    named.filter_map(|(name, value)| value.clone().map(|value| ((*name).to_owned(), value))).collect()
}

/// Declared checksums by algorithm, from the members of an input in the order of [`ALGORITHMS`].
pub fn declared_checksums(values: [Option<String>; 5]) -> BTreeMap<String, String> {
    let named = ALGORITHMS.iter().zip(values);
    named.filter_map(|(name, value)| value.map(|value| ((*name).to_owned(), value))).collect()
}

/// Milliseconds since 1970 as S3 writes times: to the second.
pub fn timestamp(at_ms: i64) -> Timestamp {
    let at = time::OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1000))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    Timestamp::from(at)
}
