//! Uploads in parts.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use store::objects::Attributes;

use super::Front;
use super::auth::account;
use super::errors::answer;
use super::listing::shown;
use super::objects::{
    condition, kept_headers, metadata, not_honoured, refuse_encryption_with_own_key, without_chunking,
};
use super::upload::{self, Declared, declared_checksums, timestamp};

/// Greatest part number, as in S3.
pub const MOST_PARTS: i32 = 10_000;

/// Begins an upload.
pub async fn create_multipart_upload(
    front: &Front,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_encryption_with_own_key(input.sse_customer_algorithm.is_some())?;
    if input.tagging.is_some() {
        return Err(not_honoured("x-amz-tagging"));
    }
    let headers = kept_headers([
        ("content-type", input.content_type),
        ("cache-control", input.cache_control),
        ("content-disposition", input.content_disposition),
        ("content-encoding", input.content_encoding.as_deref().and_then(without_chunking)),
        ("content-language", input.content_language),
    ]);
    let attributes = Attributes { headers, metadata: metadata(input.metadata), ..Default::default() };
    let upload =
        front.objects.create_upload(&account, &input.bucket, &input.key, attributes).await.map_err(answer)?;
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload.id),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: input.checksum_type,
        ..Default::default()
    }))
}

/// Stores a part.
pub async fn upload_part(
    front: &Front,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_encryption_with_own_key(input.sse_customer_algorithm.is_some())?;
    let number = part_number(input.part_number)?;
    let upload =
        front.objects.upload(&account, &input.bucket, &input.key, &input.upload_id).await.map_err(answer)?;
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
    let incoming = front.objects.begin(&account, &input.bucket).await.map_err(answer)?;
    let (incoming, checksums) = upload::receive(input.body, &request.headers, declared, incoming).await?;
    let part = front.objects.put_part(&upload, number, incoming, checksums).await.map_err(answer)?;
    let checksum = |name: &str| part.checksums.get(name).cloned();
    Ok(S3Response::new(UploadPartOutput {
        e_tag: Some(ETag::Strong(part.etag.clone())),
        checksum_crc32: checksum("crc32"),
        checksum_crc32c: checksum("crc32c"),
        checksum_crc64nvme: checksum("crc64nvme"),
        checksum_sha1: checksum("sha1"),
        checksum_sha256: checksum("sha256"),
        ..Default::default()
    }))
}

/// A part number within S3's range.
pub fn part_number(number: i32) -> S3Result<u32> {
    if (1..=MOST_PARTS).contains(&number) {
        Ok(number as u32)
    } else {
        Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"))
    }
}

/// Joins the parts into the object.
pub async fn complete_multipart_upload(
    front: &Front,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let condition = condition(input.if_match, input.if_none_match)?;
    let upload =
        front.objects.upload(&account, &input.bucket, &input.key, &input.upload_id).await.map_err(answer)?;
    let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    let mut named = Vec::new();
    for part in parts {
        let etag = part.e_tag.map(ETag::into_value);
        let (Some(number), Some(etag)) = (part.part_number, etag) else {
            return Err(s3_error!(MalformedXML, "each part needs a PartNumber and an ETag"));
        };
        named.push(store::objects::CompletedPart { number: part_number(number)?, etag });
    }
    let object = front.objects.complete_upload(&account, &upload, named, condition).await.map_err(answer)?;
    Ok(S3Response::new(CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, shown(&input.key, true))),
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(ETag::Strong(object.etag)),
        ..Default::default()
    }))
}

/// Gives an upload up.
pub async fn abort_multipart_upload(
    front: &Front,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let upload =
        front.objects.upload(&account, &input.bucket, &input.key, &input.upload_id).await.map_err(answer)?;
    front.objects.end_upload(&upload).await.map_err(answer)?;
    Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), http::StatusCode::NO_CONTENT))
}

/// Lists the parts of an upload.
pub async fn list_parts(
    front: &Front,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let upload =
        front.objects.upload(&account, &input.bucket, &input.key, &input.upload_id).await.map_err(answer)?;
    let after = input.part_number_marker.unwrap_or(0).max(0) as u32;
    let limit = input.max_parts.unwrap_or(1000).clamp(0, 1000);
    let parts = front.objects.parts(&upload).await.map_err(answer)?;
    let beyond: Vec<_> = parts.into_iter().filter(|part| part.number > after).collect();
    let truncated = beyond.len() > limit as usize;
    let page: Vec<Part> = beyond
        .into_iter()
        .take(limit as usize)
        .map(|part| Part {
            part_number: Some(part.number as i32),
            size: Some(part.size as i64),
            e_tag: Some(ETag::Strong(part.etag)),
            last_modified: Some(timestamp(part.modified_at)),
            ..Default::default()
        })
        .collect();
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        part_number_marker: Some(after as i32),
        next_part_number_marker: page.last().and_then(|part| part.part_number),
        max_parts: Some(limit),
        is_truncated: Some(truncated),
        parts: Some(page),
        ..Default::default()
    }))
}

/// Lists the uploads under way.
pub async fn list_multipart_uploads(
    front: &Front,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let account = account(&request)?;
    let input = request.input;
    if input.delimiter.is_some() {
        return Err(not_honoured("delimiter of ListMultipartUploads"));
    }
    let encoded = input.encoding_type.as_ref().is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
    let limit = input.max_uploads.unwrap_or(1000).clamp(0, 1000);
    let after = input.key_marker.clone().map(|key| {
        // Without an upload id the marker stands after all uploads of its key.
        let id = input.upload_id_marker.clone().unwrap_or_else(|| "\u{10FFFF}".into());
        (key, id)
    });
    let prefix = input.prefix.clone().unwrap_or_default();
    let found = front
        .objects
        .uploads(&account, &input.bucket, &prefix, after, limit as usize + 1)
        .await
        .map_err(answer)?;
    let truncated = found.len() > limit as usize;
    let page: Vec<_> = found.into_iter().take(limit as usize).collect();
    let last = page.last().filter(|_| truncated);
    Ok(S3Response::new(ListMultipartUploadsOutput {
        next_key_marker: last.map(|upload| shown(&upload.key, encoded)),
        next_upload_id_marker: last.map(|upload| upload.id.clone()),
        uploads: Some(
            page.iter()
                .map(|upload| MultipartUpload {
                    key: Some(shown(&upload.key, encoded)),
                    upload_id: Some(upload.id.clone()),
                    initiated: Some(timestamp(upload.created_at)),
                    ..Default::default()
                })
                .collect(),
        ),
        bucket: Some(input.bucket),
        prefix: Some(shown(&prefix, encoded)),
        key_marker: input.key_marker,
        upload_id_marker: input.upload_id_marker,
        encoding_type: input.encoding_type,
        max_uploads: Some(limit),
        is_truncated: Some(truncated),
        ..Default::default()
    }))
}
