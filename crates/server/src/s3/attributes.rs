//! What a write says about its object: headers and metadata that are kept, and wishes that are refused by name.

use std::collections::{BTreeMap, HashMap};

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use store::objects::Attributes;

use super::tagging;
use super::upload::timestamp;

/// Headers that come back as they were given.
const KEPT: [&str; 8] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    STORAGE_CLASS,
    "x-amz-website-redirect-location",
];

const STORAGE_CLASS: &str = "x-amz-storage-class";

/// Classes that change nothing for a reader. The archive classes would: their objects must be restored first.
const STORAGE_CLASSES: [&str; 7] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "EXPRESS_ONEZONE",
];

/// Most bytes of names and values of the user's metadata.
const MOST_METADATA_BYTES: usize = 2048;

/// What a write asks its object to carry; the checksums follow with the body.
///
/// # Errors
/// Names a header that is not honoured, or is not legal.
pub fn given(headers: &HeaderMap, metadata: Option<Metadata>) -> S3Result<Attributes> {
    check_wishes(headers)?;
    let mut kept = BTreeMap::new();
    for name in KEPT {
        let Some(value) = headers.get(name) else { continue };
        let value = value
            .to_str()
            .map_err(|_| s3_error!(InvalidArgument, "The header {name} must be text in US-ASCII."))?;
        let value = if name == "content-encoding" {
            without_chunking(value)
        } else {
            (!value.is_empty()).then(|| value.to_owned())
        };
        kept.extend(value.map(|value| (name.to_owned(), value)));
    }
    check_storage_class(kept.get(STORAGE_CLASS).map(String::as_str))?;
    let metadata: BTreeMap<String, String> = metadata.unwrap_or_default().into_iter().collect();
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MOST_METADATA_BYTES {
        return Err(s3_error!(
            MetadataTooLarge,
            "Your metadata headers exceed the maximum allowed metadata size of {MOST_METADATA_BYTES} bytes."
        ));
    }
    let tags = tagging::from_header(headers)?;
    Ok(Attributes { headers: kept, metadata, tags, ..Attributes::default() })
}

/// Whether a copy asks for another storage class, redirect or encryption than its source has by default.
pub fn changes_placement(headers: &HeaderMap) -> bool {
    super::encryption::is_given(headers)
        || headers.contains_key(STORAGE_CLASS)
        || headers.contains_key("x-amz-website-redirect-location")
}

/// The attributes that a copy takes over from its source; placement is the copy's own.
pub fn copied(original: &Attributes, given: Attributes) -> Attributes {
    let own = |name: &str| name.starts_with("x-amz-");
    let mut headers = original.headers.clone();
    headers.retain(|name, _| !own(name));
    headers.extend(given.headers.into_iter().filter(|(name, _)| own(name)));
    Attributes {
        headers,
        metadata: original.metadata.clone(),
        tags: original.tags.clone(),
        ..Attributes::default()
    }
}

fn check_wishes(headers: &HeaderMap) -> S3Result<()> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(acl) = text("x-amz-acl")
        && !["private", "bucket-owner-full-control", "bucket-owner-read"].contains(&acl)
    {
        return Err(not_honoured(&format!("x-amz-acl {acl}")));
    }
    for name in headers.keys().map(http::HeaderName::as_str) {
        if name.starts_with("x-amz-grant-") || name.contains("server-side-encryption-customer") {
            return Err(not_honoured(name));
        }
        if name == "x-amz-write-offset-bytes" {
            return Err(not_honoured(name));
        }
        if name.starts_with("x-amz-object-lock-") {
            return Err(s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration"));
        }
    }
    Ok(())
}

fn check_storage_class(class: Option<&str>) -> S3Result<()> {
    match class {
        None => Ok(()),
        Some(class) if STORAGE_CLASSES.contains(&class) => Ok(()),
        Some(class @ ("GLACIER" | "DEEP_ARCHIVE" | "OUTPOSTS" | "SNOW")) => {
            Err(not_honoured(&format!("x-amz-storage-class {class}")))
        }
        Some(_) => Err(s3_error!(InvalidStorageClass, "The storage class you specified is not valid")),
    }
}

/// `aws-chunked` is how the body travelled, not what the object is.
fn without_chunking(encoding: &str) -> Option<String> {
    let kept: Vec<&str> = encoding
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty() && *part != "aws-chunked")
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// A header that S3 knows and this release does not do.
pub fn not_honoured(what: &str) -> S3Error {
    let mut error = S3Error::with_message(
        S3ErrorCode::NotImplemented,
        format!("Modelyard does not honour {what} yet; leave it out."),
    );
    // Clients repeat a 501 with pauses; nothing would change.
    error.set_status_code(http::StatusCode::BAD_REQUEST);
    error
}

/// Refuses a read that brings its own key: objects are not encrypted with one.
pub fn refuse_own_key(asked: bool) -> S3Result<()> {
    if asked { Err(not_honoured("x-amz-server-side-encryption-customer-algorithm")) } else { Ok(()) }
}

/// The storage class as lists show it.
pub fn storage_class(object: &Attributes) -> &str {
    object.headers.get(STORAGE_CLASS).map_or("STANDARD", String::as_str)
}

/// The headers of an object.
pub fn described(object: &store::objects::Object, with_checksums: bool) -> HeadObjectOutput {
    let attributes = &object.attributes;
    let header = |name: &str| attributes.headers.get(name).cloned();
    let checksum = |name: &str| attributes.checksums.get(name).filter(|_| with_checksums).cloned();
    let class = Some(storage_class(attributes)).filter(|class| *class != "STANDARD");
    HeadObjectOutput {
        accept_ranges: Some("bytes".into()),
        cache_control: header("cache-control"),
        checksum_crc32: checksum("crc32"),
        checksum_crc32c: checksum("crc32c"),
        checksum_crc64nvme: checksum("crc64nvme"),
        checksum_sha1: checksum("sha1"),
        checksum_sha256: checksum("sha256"),
        checksum_type: checksum_type(&attributes.checksums).filter(|_| with_checksums),
        content_disposition: header("content-disposition"),
        content_encoding: header("content-encoding"),
        content_language: header("content-language"),
        content_length: Some(object.size as i64),
        content_type: header("content-type").or_else(|| Some("binary/octet-stream".into())),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        last_modified: Some(timestamp(object.modified_at)),
        metadata: (!attributes.metadata.is_empty())
            .then(|| attributes.metadata.clone().into_iter().collect::<HashMap<_, _>>()),
        storage_class: class.map(|class| StorageClass::from(class.to_owned())),
        website_redirect_location: header("x-amz-website-redirect-location"),
        ..Default::default()
    }
}

/// Headers of an object that have no member in the outputs of both GetObject and HeadObject.
pub fn extra_headers(account: &str, object: &store::objects::Object) -> HeaderMap {
    let mut headers = super::encryption::headers(account, &object.attributes);
    let expires = object.attributes.headers.get("expires").and_then(|value| value.parse().ok());
    headers.extend(expires.map(|value| (http::header::EXPIRES, value)));
    if !object.attributes.tags.is_empty() {
        headers.insert("x-amz-tagging-count", http::HeaderValue::from(object.attributes.tags.len()));
    }
    headers
}

/// Whether checksums are those of the bytes, or of the parts' checksums.
pub fn checksum_type(checksums: &BTreeMap<String, String>) -> Option<ChecksumType> {
    // A checksum of checksums carries the number of parts; base64 has no hyphen.
    let composite = checksums.values().next()?.contains('-');
    let name = if composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
    Some(ChecksumType::from_static(name))
}
