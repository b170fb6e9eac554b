//! Copies within the store.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use store::objects::{Incoming, Object, ObjectFile};

use super::Front;
use super::attributes::{self, described, not_honoured, refuse_own_key};
use super::auth::account;
use super::conditions::{self, ReadConditions};
use super::encryption;
use super::errors::answer;
use super::multipart::part_number;
use super::upload::{by_algorithm, hasher, timestamp};

/// Bytes that are copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

fn source(copy_source: &CopySource) -> S3Result<(String, String)> {
    match copy_source {
        CopySource::Bucket { bucket, key, version_id } => match version_id.as_deref() {
            // Versions are not kept; the only one is called `null`.
            None | Some("null") => Ok((bucket.to_string(), key.to_string())),
            Some(_) => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
        },
        _ => Err(not_honoured("an access point as x-amz-copy-source")),
    }
}

/// Copies an object.
pub async fn copy_object(
    front: &Front,
    request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_own_key(input.copy_source_sse_customer_algorithm.is_some())?;
    let given = attributes::given(&request.headers, input.metadata)?;
    let condition = conditions::write_from_headers(&request.headers)?;
    let (bucket, key) = source(&input.copy_source)?;
    let metadata = replaces(input.metadata_directive.as_ref().map(MetadataDirective::as_str))?;
    let tags = replaces(input.tagging_directive.as_ref().map(TaggingDirective::as_str))?;
    let same = bucket == input.bucket && key == input.key;
    if same && !metadata && !attributes::changes_placement(&request.headers) {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    front.objects.check(&account, &input.bucket, &input.key, &condition).await.map_err(answer)?;
    let (original, file) = front.objects.open_version(&account, &bucket, &key).await.map_err(answer)?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    conditions.check_source(&original)?;
    let given_tags = given.tags.clone();
    let mut attributes = match metadata {
        true => given,
        false => attributes::copied(&original.attributes, given),
    };
    attributes.tags = if tags { given_tags } else { original.attributes.tags.clone() };
    let mut algorithms: Vec<String> = original.attributes.checksums.keys().cloned().collect();
    algorithms.extend(input.checksum_algorithm.map(|algorithm| algorithm.as_str().to_ascii_lowercase()));
    let wish = encryption::wish(&request.headers)?;
    let incoming = front.objects.begin_protected(&account, &input.bucket, wish).await.map_err(answer)?;
    let (incoming, checksums) = copy(file, (0, original.size), algorithms, incoming.as_copy()).await?;
    attributes.checksums = checksums;
    let stored =
        front.objects.commit(&account, &input.bucket, &input.key, incoming, attributes, condition).await;
    let stored = stored.map_err(answer)?;
    let output = CopyObjectOutput { copy_object_result: Some(copy_result(&stored)), ..Default::default() };
    Ok(S3Response::with_headers(output, encryption::headers_of_write(&account, &stored.attributes)))
}

fn copy_result(stored: &Object) -> CopyObjectResult {
    let described = described(stored, true);
    CopyObjectResult {
        checksum_crc32: described.checksum_crc32,
        checksum_crc32c: described.checksum_crc32c,
        checksum_crc64nvme: described.checksum_crc64nvme,
        checksum_sha1: described.checksum_sha1,
        checksum_sha256: described.checksum_sha256,
        checksum_type: described.checksum_type,
        e_tag: described.e_tag,
        last_modified: described.last_modified,
    }
}

/// Whether a directive asks to replace instead of to copy.
fn replaces(directive: Option<&str>) -> S3Result<bool> {
    match directive {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(_) => Err(s3_error!(InvalidArgument, "A directive of a copy is COPY or REPLACE.")),
    }
}

/// Copies an object, or a range of it, into a part.
pub async fn upload_part_copy(
    front: &Front,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_own_key(
        input.sse_customer_algorithm.is_some() || input.copy_source_sse_customer_algorithm.is_some(),
    )?;
    let number = part_number(input.part_number)?;
    let upload =
        front.objects.upload(&account, &input.bucket, &input.key, &input.upload_id).await.map_err(answer)?;
    let (bucket, key) = source(&input.copy_source)?;
    let (original, file) = front.objects.open_version(&account, &bucket, &key).await.map_err(answer)?;
    let conditions = ReadConditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    conditions.check_source(&original)?;
    let range = match &input.copy_source_range {
        None => (0, original.size),
        Some(text) => copy_range(text, original.size)?,
    };
    let algorithms = upload.checksum.iter().map(|checksum| checksum.algorithm.clone()).collect();
    let incoming = front.objects.begin_part(&account, &upload).await.map_err(answer)?;
    let (incoming, checksums) = copy(file, range, algorithms, incoming).await?;
    let part = front.objects.put_part(&upload, number, incoming, checksums).await.map_err(answer)?;
    let checksum = |name: &str| part.checksums.get(name).cloned();
    let output = UploadPartCopyOutput {
        copy_part_result: Some(CopyPartResult {
            checksum_crc32: checksum("crc32"),
            checksum_crc32c: checksum("crc32c"),
            checksum_crc64nvme: checksum("crc64nvme"),
            checksum_sha1: checksum("sha1"),
            checksum_sha256: checksum("sha256"),
            e_tag: Some(ETag::Strong(part.etag.clone())),
            last_modified: Some(timestamp(part.modified_at)),
        }),
        ..Default::default()
    };
    Ok(S3Response::with_headers(output, encryption::headers(&account, &upload.attributes)))
}

/// Copies a range of an open version, with the checksums of what was copied.
async fn copy(
    mut file: ObjectFile,
    (start, end): (u64, u64),
    algorithms: Vec<String>,
    mut incoming: Incoming,
) -> S3Result<(Incoming, BTreeMap<String, String>)> {
    let mut hasher = hasher(&algorithms)?;
    let copied = tokio::task::spawn_blocking(move || {
        let context = || store::Error::file("read the source of a copy");
        file.until(end);
        file.seek(SeekFrom::Start(start)).map_err(context())?;
        let mut source = file.take(end - start);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = source.read(&mut buffer).map_err(context())?;
            if read == 0 {
                return Ok((incoming, by_algorithm(&hasher.finalize())));
            }
            hasher.update(&buffer[..read]);
            incoming.write(&buffer[..read])?;
        }
    });
    copied.await.map_err(S3Error::internal_error)?.map_err(answer)
}

fn copy_range(text: &str, size: u64) -> S3Result<(u64, u64)> {
    let bad = || {
        s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy"
        )
    };
    let (first, last) =
        text.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or_else(bad)?;
    let (first, last): (u64, u64) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first > last {
        return Err(bad());
    }
    if last >= size {
        return Err(s3_error!(
            InvalidArgument,
            "Range specified is not valid for source object of size: {size}"
        ));
    }
    Ok((first, last + 1))
}

#[cfg(test)]
mod tests {
    use super::copy_range;

    #[test]
    fn copy_ranges_lie_within_the_source() {
        assert_eq!(copy_range("bytes=0-0", 1).ok(), Some((0, 1)));
        assert_eq!(copy_range("bytes=2-9", 10).ok(), Some((2, 10)));
        for text in ["bytes=0-1", "bytes=1-0", "bytes=-1", "bytes=0-", "0-0", "bytes=a-b", ""] {
            assert!(copy_range(text, 1).is_err(), "{text}");
        }
    }
}
