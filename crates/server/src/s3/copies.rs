//! Copies within the store.

use std::io::{Read, Seek, SeekFrom};

use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use store::objects::{Attributes, Condition};

use super::Front;
use super::auth::account;
use super::errors::answer;
use super::multipart::part_number;
use super::objects::{
    kept_headers, metadata, not_honoured, refuse_encryption_with_own_key, without_chunking,
};
use super::upload::timestamp;

fn source(copy_source: &CopySource) -> S3Result<(String, String)> {
    match copy_source {
        CopySource::Bucket { bucket, key, version_id: None } => Ok((bucket.to_string(), key.to_string())),
        CopySource::Bucket { .. } => Err(not_honoured("versionId of x-amz-copy-source")),
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
    refuse_encryption_with_own_key(
        input.sse_customer_algorithm.is_some() || input.copy_source_sse_customer_algorithm.is_some(),
    )?;
    if input.tagging.is_some() {
        return Err(not_honoured("x-amz-tagging"));
    }
    let (bucket, key) = source(&input.copy_source)?;
    let replace = input
        .metadata_directive
        .as_ref()
        .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
    if bucket == input.bucket && key == input.key && !replace {
        return Err(s3_error!(
            InvalidRequest,
            "an object cannot be copied to itself without replacing its metadata: set x-amz-metadata-directive to REPLACE"
        ));
    }
    let (original, mut file) = front.objects.open_version(&account, &bucket, &key).await.map_err(answer)?;
    check_source(
        &original,
        input.copy_source_if_match,
        input.copy_source_if_none_match,
        input.copy_source_if_modified_since,
        input.copy_source_if_unmodified_since,
    )?;
    let attributes = if replace {
        let headers = kept_headers([
            ("content-type", input.content_type),
            ("cache-control", input.cache_control),
            ("content-disposition", input.content_disposition),
            ("content-encoding", input.content_encoding.as_deref().and_then(without_chunking)),
            ("content-language", input.content_language),
        ]);
        Attributes {
            headers,
            metadata: metadata(input.metadata),
            checksums: original.attributes.checksums.clone(),
        }
    } else {
        original.attributes.clone()
    };
    let mut incoming = front.objects.begin(&account, &input.bucket).await.map_err(answer)?;
    let copied = tokio::task::spawn_blocking(move || incoming.copy_from(&mut file).map(|()| incoming));
    let incoming = copied.await.map_err(S3Error::internal_error)?.map_err(answer)?;
    let stored = front
        .objects
        .commit(&account, &input.bucket, &input.key, incoming, attributes, Condition::default())
        .await;
    let stored = stored.map_err(answer)?;
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(CopyObjectResult {
            e_tag: Some(ETag::Strong(stored.etag)),
            last_modified: Some(timestamp(stored.modified_at)),
            ..Default::default()
        }),
        ..Default::default()
    }))
}

/// Copies an object, or a range of it, into a part.
pub async fn upload_part_copy(
    front: &Front,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_encryption_with_own_key(
        input.sse_customer_algorithm.is_some() || input.copy_source_sse_customer_algorithm.is_some(),
    )?;
    let number = part_number(input.part_number)?;
    let upload =
        front.objects.upload(&account, &input.bucket, &input.key, &input.upload_id).await.map_err(answer)?;
    let (bucket, key) = source(&input.copy_source)?;
    let (original, mut file) = front.objects.open_version(&account, &bucket, &key).await.map_err(answer)?;
    check_source(
        &original,
        input.copy_source_if_match,
        input.copy_source_if_none_match,
        input.copy_source_if_modified_since,
        input.copy_source_if_unmodified_since,
    )?;
    let (start, end) = match &input.copy_source_range {
        None => (0, original.size),
        Some(text) => copy_range(text, original.size)?,
    };
    let mut incoming = front.objects.begin(&account, &input.bucket).await.map_err(answer)?;
    let copied = tokio::task::spawn_blocking(move || {
        file.seek(SeekFrom::Start(start)).map_err(store::Error::file("seek in the source of a copy"))?;
        incoming.copy_from(&mut file.take(end - start)).map(|()| incoming)
    });
    let incoming = copied.await.map_err(S3Error::internal_error)?.map_err(answer)?;
    let part = front.objects.put_part(&upload, number, incoming, Default::default()).await.map_err(answer)?;
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(CopyPartResult {
            e_tag: Some(ETag::Strong(part.etag)),
            last_modified: Some(timestamp(part.modified_at)),
            ..Default::default()
        }),
        ..Default::default()
    }))
}

fn copy_range(text: &str, size: u64) -> S3Result<(u64, u64)> {
    let bad = || {
        s3_error!(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last")
    };
    let (first, last) =
        text.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or_else(bad)?;
    let (first, last): (u64, u64) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first > last || last >= size {
        return Err(s3_error!(
            InvalidRange,
            "The specified copy range is invalid for the source object size"
        ));
    }
    Ok((first, last + 1))
}

fn check_source(
    object: &store::objects::Object,
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
) -> S3Result<()> {
    let is = |condition: ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(tag) => tag.value() == object.etag,
    };
    let modified = timestamp(object.modified_at);
    let holds = if_match.is_none_or(is)
        && if_none_match.is_none_or(|condition| !is(condition))
        && if_modified_since.is_none_or(|since| modified > since)
        && if_unmodified_since.is_none_or(|since| modified <= since);
    if holds {
        Ok(())
    } else {
        Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"))
    }
}
