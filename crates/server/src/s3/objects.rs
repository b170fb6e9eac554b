//! Objects: put, get and head.

use std::io::{Read, Seek, SeekFrom};
use std::ops;

use bytes::Bytes;
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use store::objects::ObjectFile;

use super::Front;
use super::attributes::{self, described, extra_headers, refuse_own_key};
use super::auth::account;
use super::conditions::{self, ReadConditions};
use super::encryption;
use super::errors::{answer, refusal};
use super::upload::{self, Declared, declared_checksums};

/// Bytes of an object that are read at a time.
const CHUNK_BYTES: usize = 512 * 1024;

/// Stores an object, whole or not at all.
pub async fn put_object(
    front: &Front,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let mut attributes = attributes::given(&request.headers, input.metadata)?;
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
    let condition = conditions::write(input.if_match, input.if_none_match.as_ref())?;
    front.objects.check(&account, &input.bucket, &input.key, &condition).await.map_err(answer)?;
    let wish = encryption::wish(&request.headers)?;
    let incoming = front.objects.begin_protected(&account, &input.bucket, wish).await.map_err(answer)?;
    let (incoming, checksums) = upload::receive(input.body, &request.headers, declared, incoming).await?;
    attributes.checksums = checksums;
    let stored =
        front.objects.commit(&account, &input.bucket, &input.key, incoming, attributes, condition).await;
    let stored = stored.map_err(answer)?;
    let described = described(&stored, true);
    let headers = encryption::headers_of_write(&account, &stored.attributes);
    let output = PutObjectOutput {
        e_tag: described.e_tag,
        checksum_crc32: described.checksum_crc32,
        checksum_crc32c: described.checksum_crc32c,
        checksum_crc64nvme: described.checksum_crc64nvme,
        checksum_sha1: described.checksum_sha1,
        checksum_sha256: described.checksum_sha256,
        checksum_type: described.checksum_type,
        ..Default::default()
    };
    Ok(S3Response::with_headers(output, headers))
}

/// Reads an object, a range or a part of it.
pub async fn get_object(
    front: &Front,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_own_key(input.sse_customer_algorithm.is_some())?;
    check_version(input.version_id.as_deref())?;
    let (object, mut file) =
        front.objects.open_version(&account, &input.bucket, &input.key).await.map_err(answer)?;
    let conditions = ReadConditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    conditions.check(&object)?;
    let selected = Selected::of(&object, input.range, input.part_number)?;
    file.until(selected.bytes.end);
    if selected.bytes.start > 0 {
        file.seek(SeekFrom::Start(selected.bytes.start)).map_err(S3Error::internal_error)?;
    }
    let described = described(&object, input.checksum_mode.is_some() && !selected.partial);
    let mut headers = extra_headers(&account, &object);
    if input.response_expires.is_some() {
        headers.remove(http::header::EXPIRES);
    }
    let output = GetObjectOutput {
        accept_ranges: described.accept_ranges,
        body: Some(StreamingBlob::wrap(chunks(file, selected.length()))),
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
        content_length: Some(selected.length() as i64),
        content_range: selected.content_range(object.size),
        content_type: input.response_content_type.or(described.content_type),
        e_tag: described.e_tag,
        last_modified: described.last_modified,
        metadata: described.metadata,
        parts_count: selected.parts,
        storage_class: described.storage_class,
        website_redirect_location: described.website_redirect_location,
        ..Default::default()
    };
    Ok(S3Response::with_headers(output, headers))
}

/// Describes an object, a range or a part of it.
pub async fn head_object(
    front: &Front,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_own_key(input.sse_customer_algorithm.is_some())?;
    check_version(input.version_id.as_deref())?;
    let object = front.objects.head(&account, &input.bucket, &input.key).await.map_err(answer)?;
    let conditions = ReadConditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    conditions.check(&object)?;
    let selected = Selected::of(&object, input.range, input.part_number)?;
    let described = described(&object, input.checksum_mode.is_some() && !selected.partial);
    let mut headers = extra_headers(&account, &object);
    if input.response_expires.is_some() {
        headers.remove(http::header::EXPIRES);
    }
    let output = HeadObjectOutput {
        cache_control: input.response_cache_control.or(described.cache_control),
        content_disposition: input.response_content_disposition.or(described.content_disposition),
        content_encoding: input.response_content_encoding.or(described.content_encoding),
        content_language: input.response_content_language.or(described.content_language),
        content_type: input.response_content_type.or(described.content_type),
        expires: input.response_expires,
        content_length: Some(selected.length() as i64),
        content_range: selected.content_range(object.size),
        parts_count: selected.parts,
        ..described
    };
    Ok(S3Response::with_headers(output, headers))
}

/// The bytes that a read asks for.
struct Selected {
    bytes: ops::Range<u64>,
    partial: bool,
    parts: Option<i32>,
}

impl Selected {
    fn of(
        object: &store::objects::Object,
        range: Option<Range>,
        part_number: Option<i32>,
    ) -> S3Result<Selected> {
        let unsatisfiable = |name: &str, text: &'static str| {
            let mut error = refusal(name, text);
            error.set_status_code(http::StatusCode::RANGE_NOT_SATISFIABLE);
            let mut headers = http::HeaderMap::new();
            let value = format!("bytes */{}", object.size).parse().ok();
            headers.extend(value.map(|value| (http::header::CONTENT_RANGE, value)));
            error.set_headers(headers);
            error
        };
        let number = match (range, part_number) {
            (Some(_), Some(_)) => {
                return Err(s3_error!(
                    InvalidRequest,
                    "Cannot specify both Range header and partNumber query parameter"
                ));
            }
            (None, None) => return Ok(Selected { bytes: 0..object.size, partial: false, parts: None }),
            (Some(range), None) => {
                let bytes = range.check(object.size).ok().filter(|bytes| !bytes.is_empty());
                let refused = || unsatisfiable("InvalidRange", "The requested range is not satisfiable");
                return Ok(Selected { bytes: bytes.ok_or_else(refused)?, partial: true, parts: None });
            }
            (None, Some(number)) => super::multipart::part_number(number)?,
        };
        let bytes = object.part_range(number).ok_or_else(|| {
            unsatisfiable("InvalidPartNumber", "The requested partnumber is not satisfiable")
        })?;
        // An empty object has no range to name.
        let partial = !bytes.is_empty();
        Ok(Selected { bytes, partial, parts: object.parts.map(|count| count as i32) })
    }

    fn length(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    fn content_range(&self, size: u64) -> Option<String> {
        self.partial.then(|| format!("bytes {}-{}/{size}", self.bytes.start, self.bytes.end - 1))
    }
}

/// Versions are not kept; the only one is called `null`.
fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
    }
}

/// The bytes of a file as a stream; reading happens off the async threads.
fn chunks(
    file: ObjectFile,
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
