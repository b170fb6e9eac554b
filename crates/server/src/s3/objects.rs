//! Objects: put, get, head, delete.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom};

use bytes::Bytes;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use store::objects::{Attributes, Condition};

use super::Front;
use super::auth::account;
use super::errors::answer;
use super::upload::{self, Declared, declared_checksums, timestamp};

/// Bytes of an object that are read at a time.
const CHUNK_BYTES: usize = 512 * 1024;

/// Stores an object, whole or not at all.
pub async fn put_object(
    front: &Front,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_encryption_with_own_key(input.sse_customer_algorithm.is_some())?;
    if input.tagging.is_some() {
        return Err(not_honoured("x-amz-tagging"));
    }
    if input.write_offset_bytes.is_some() {
        return Err(not_honoured("x-amz-write-offset-bytes"));
    }
    let declared = Declared {
        content_md5: input.content_md5,
        checksums: declared_checksums([
            input.checksum_crc32,
            input.checksum_crc32c,
            input.checksum_crc64nvme,
            input.checksum_sha1,
            input.checksum_sha256,
        ]),
        algorithm: input.checksum_algorithm.map(|algorithm| algorithm.as_str().to_owned()),
        content_length: input.content_length,
        trailing: request.trailing_headers,
    };
    let headers = kept_headers([
        ("content-type", input.content_type),
        ("cache-control", input.cache_control),
        ("content-disposition", input.content_disposition),
        ("content-encoding", input.content_encoding.as_deref().and_then(without_chunking)),
        ("content-language", input.content_language),
        ("expires", request.headers.get("expires").and_then(|value| value.to_str().ok()).map(str::to_owned)),
    ]);
    let condition = condition(input.if_match, input.if_none_match)?;
    let incoming = front.objects.begin(&account, &input.bucket).await.map_err(answer)?;
    let (incoming, checksums) = upload::receive(input.body, &request.headers, declared, incoming).await?;
    let attributes = Attributes { headers, metadata: metadata(input.metadata), checksums: checksums.clone() };
    let stored =
        front.objects.commit(&account, &input.bucket, &input.key, incoming, attributes, condition).await;
    let stored = stored.map_err(answer)?;
    let checksum = |name: &str| checksums.get(name).cloned();
    Ok(S3Response::new(PutObjectOutput {
        e_tag: Some(ETag::Strong(stored.etag)),
        checksum_crc32: checksum("crc32"),
        checksum_crc32c: checksum("crc32c"),
        checksum_crc64nvme: checksum("crc64nvme"),
        checksum_sha1: checksum("sha1"),
        checksum_sha256: checksum("sha256"),
        ..Default::default()
    }))
}

/// Reads an object or a range of it.
pub async fn get_object(
    front: &Front,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_encryption_with_own_key(input.sse_customer_algorithm.is_some())?;
    if input.version_id.is_some_and(|version| version != "null") {
        return Err(s3_error!(NoSuchVersion, "The specified version does not exist."));
    }
    if input.part_number.is_some_and(|number| number != 1) {
        return Err(not_honoured("partNumber above 1"));
    }
    let (object, mut file) =
        front.objects.open_version(&account, &input.bucket, &input.key).await.map_err(answer)?;
    check_read(
        &object,
        input.if_match,
        input.if_none_match,
        input.if_modified_since,
        input.if_unmodified_since,
    )?;
    let range = match input.range {
        Some(range) => Some(
            range
                .check(object.size)
                .map_err(|_| s3_error!(InvalidRange, "The requested range is not satisfiable"))?,
        ),
        None => None,
    };
    let (start, end) = range.as_ref().map_or((0, object.size), |range| (range.start, range.end));
    if start > 0 {
        file.seek(SeekFrom::Start(start)).map_err(S3Error::internal_error)?;
    }
    let with_checksums = input.checksum_mode.is_some() && range.is_none();
    let described = described(&object, with_checksums);
    let output = GetObjectOutput {
        accept_ranges: Some("bytes".into()),
        body: Some(StreamingBlob::wrap(chunks(file, end - start))),
        cache_control: input.response_cache_control.or(described.cache_control),
        checksum_crc32: described.checksum_crc32,
        checksum_crc32c: described.checksum_crc32c,
        checksum_crc64nvme: described.checksum_crc64nvme,
        checksum_sha1: described.checksum_sha1,
        checksum_sha256: described.checksum_sha256,
        checksum_type: described.checksum_type,
        content_disposition: input.response_content_disposition.or(described.content_disposition),
        content_encoding: input.response_content_encoding.or(described.content_encoding),
        content_language: input.response_content_language.or(described.content_language),
        content_length: Some((end - start) as i64),
        content_range: range
            .as_ref()
            .map(|_| format!("bytes {start}-{}/{}", end.saturating_sub(1), object.size)),
        content_type: input.response_content_type.or(described.content_type),
        e_tag: described.e_tag,
        last_modified: described.last_modified,
        metadata: described.metadata,
        ..Default::default()
    };
    Ok(if range.is_some() {
        S3Response::with_status(output, http::StatusCode::PARTIAL_CONTENT)
    } else {
        S3Response::new(output)
    })
}

/// Describes an object.
pub async fn head_object(
    front: &Front,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_encryption_with_own_key(input.sse_customer_algorithm.is_some())?;
    if input.version_id.is_some_and(|version| version != "null") {
        return Err(s3_error!(NoSuchVersion, "The specified version does not exist."));
    }
    let object = front.objects.head(&account, &input.bucket, &input.key).await.map_err(answer)?;
    check_read(
        &object,
        input.if_match,
        input.if_none_match,
        input.if_modified_since,
        input.if_unmodified_since,
    )?;
    let mut output = described(&object, input.checksum_mode.is_some() && input.range.is_none());
    let Some(range) = input.range else { return Ok(S3Response::new(output)) };
    let range = range
        .check(object.size)
        .map_err(|_| s3_error!(InvalidRange, "The requested range is not satisfiable"))?;
    output.content_length = Some((range.end - range.start) as i64);
    output.content_range =
        Some(format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), object.size));
    Ok(S3Response::with_status(output, http::StatusCode::PARTIAL_CONTENT))
}

/// Removes an object; a missing one is no error.
pub async fn delete_object(
    front: &Front,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let condition = condition(input.if_match, None)?;
    let removed = front.objects.delete(&account, &input.bucket, &input.key, condition).await;
    removed.map_err(answer)?;
    Ok(S3Response::with_status(DeleteObjectOutput::default(), http::StatusCode::NO_CONTENT))
}

/// Removes up to a thousand objects; each has its own answer.
pub async fn delete_objects(
    front: &Front,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let account = account(&request)?;
    let input = request.input;
    if input.delete.objects.len() > 1000 {
        return Err(s3_error!(MalformedXML, "a request deletes at most 1000 objects"));
    }
    front.objects.bucket(&account, &input.bucket).await.map_err(answer)?;
    let quiet = input.delete.quiet == Some(true);
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in input.delete.objects {
        let done = front.objects.delete(&account, &input.bucket, &object.key, Condition::default()).await;
        match done.map_err(answer) {
            Ok(_) if quiet => {}
            Ok(_) => deleted.push(DeletedObject { key: Some(object.key), ..Default::default() }),
            Err(error) => errors.push(Error {
                key: Some(object.key),
                code: Some(error.code().as_str().to_owned()),
                message: error.message().map(str::to_owned),
                ..Default::default()
            }),
        }
    }
    Ok(S3Response::new(DeleteObjectsOutput {
        deleted: Some(deleted),
        errors: Some(errors),
        ..Default::default()
    }))
}

/// The headers of an object.
pub fn described(object: &store::objects::Object, with_checksums: bool) -> HeadObjectOutput {
    let header = |name: &str| object.attributes.headers.get(name).cloned();
    let checksum = |name: &str| object.attributes.checksums.get(name).filter(|_| with_checksums).cloned();
    let any_checksum = with_checksums && !object.attributes.checksums.is_empty();
    HeadObjectOutput {
        accept_ranges: Some("bytes".into()),
        cache_control: header("cache-control"),
        checksum_crc32: checksum("crc32"),
        checksum_crc32c: checksum("crc32c"),
        checksum_crc64nvme: checksum("crc64nvme"),
        checksum_sha1: checksum("sha1"),
        checksum_sha256: checksum("sha256"),
        checksum_type: any_checksum.then(|| ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
        content_disposition: header("content-disposition"),
        content_encoding: header("content-encoding"),
        content_language: header("content-language"),
        content_length: Some(object.size as i64),
        content_type: header("content-type").or_else(|| Some("binary/octet-stream".into())),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        last_modified: Some(timestamp(object.modified_at)),
        metadata: (!object.attributes.metadata.is_empty())
            .then(|| object.attributes.metadata.clone().into_iter().collect::<HashMap<_, _>>()),
        ..Default::default()
    }
}

/// Conditions of a read, in the order that HTTP gives them.
#[expect(clippy::needless_pass_by_value, reason = "the conditions of a request are consumed by its check")]
fn check_read(
    object: &store::objects::Object,
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
) -> S3Result<()> {
    let is = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(tag) => tag.value() == object.etag,
    };
    let modified = timestamp(object.modified_at);
    let failed = || {
        Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"))
    };
    match (&if_match, if_unmodified_since) {
        (Some(condition), _) if !is(condition) => return failed(),
        (None, Some(since)) if modified > since => return failed(),
        _ => {}
    }
    let unchanged = match (&if_none_match, if_modified_since) {
        (Some(condition), _) => is(condition),
        (None, Some(since)) => modified <= since,
        (None, None) => false,
    };
    if unchanged { Err(S3Error::with_message(S3ErrorCode::NotModified, "Not Modified")) } else { Ok(()) }
}

/// Conditions of a write.
#[expect(clippy::needless_pass_by_value, reason = "the conditions of a request are consumed by its check")]
pub fn condition(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> S3Result<Condition> {
    let if_match = if_match.map(|condition| match condition {
        ETagCondition::Any => "*".to_owned(),
        ETagCondition::ETag(tag) => tag.into_value(),
    });
    match if_none_match {
        Some(ETagCondition::ETag(_)) => Err(not_honoured("If-None-Match with an entity tag on a write")),
        Some(ETagCondition::Any) => Ok(Condition { if_match, if_none_match: true }),
        None => Ok(Condition { if_match, if_none_match: false }),
    }
}

/// The headers that come back as they were given.
pub fn kept_headers<const COUNT: usize>(given: [(&str, Option<String>); COUNT]) -> BTreeMap<String, String> {
    given.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value))).collect()
}

/// The user's metadata in order.
pub fn metadata(given: Option<Metadata>) -> BTreeMap<String, String> {
    given.unwrap_or_default().into_iter().collect()
}

/// `aws-chunked` is how the body travelled, not what the object is.
pub fn without_chunking(encoding: &str) -> Option<String> {
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
    error.set_status_code(http::StatusCode::BAD_REQUEST);
    error
}

/// Encryption with the caller's key would have to be real.
pub fn refuse_encryption_with_own_key(asked: bool) -> S3Result<()> {
    if asked { Err(not_honoured("x-amz-server-side-encryption-customer-algorithm")) } else { Ok(()) }
}

/// The bytes of a file as a stream; reading happens off the async threads.
fn chunks(
    file: std::fs::File,
    length: u64,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static {
    futures::stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES))];
            file.read_exact(&mut buffer)?;
            Ok::<_, std::io::Error>((Bytes::from(buffer), file))
        });
        let (bytes, file) = read.await.map_err(std::io::Error::other)??;
        let left = left - bytes.len() as u64;
        Ok(Some((bytes, (file, left))))
    })
}
