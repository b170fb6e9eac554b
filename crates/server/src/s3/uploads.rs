//! Lists of uploads under way and of their parts.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use store::objects::{PartChecksum, Upload};

use super::Front;
use super::attributes::storage_class;
use super::auth::account;
use super::errors::answer;
use super::listing::{check_encoding, shown};
use super::upload::timestamp;

/// Most entries on a page.
const MOST_ENTRIES: i32 = 1000;

/// A limit as S3 reads it: a thousand unless less is asked for.
fn limit(name: &str, asked: Option<i32>) -> S3Result<i32> {
    match asked {
        Some(number) if number < 0 => {
            Err(s3_error!(InvalidArgument, "Argument {name} must be an integer between 0 and 2147483647"))
        }
        other => Ok(other.unwrap_or(MOST_ENTRIES).min(MOST_ENTRIES)),
    }
}

fn algorithm(checksum: &PartChecksum) -> ChecksumAlgorithm {
    ChecksumAlgorithm::from(checksum.algorithm.to_ascii_uppercase())
}

fn kind(checksum: &PartChecksum) -> ChecksumType {
    let name = if checksum.full_object { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE };
    ChecksumType::from_static(name)
}

fn owner(account: &str) -> Owner {
    Owner { id: Some(account.to_owned()), display_name: Some(account.to_owned()) }
}

fn initiator(account: &str) -> Initiator {
    Initiator { id: Some(account.to_owned()), display_name: Some(account.to_owned()) }
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
    let after = u32::try_from(input.part_number_marker.unwrap_or(0)).map_err(|_| {
        s3_error!(InvalidArgument, "Argument part-number-marker must be an integer between 0 and 2147483647")
    })?;
    let limit = limit("max-parts", input.max_parts)?;
    let parts = front.objects.parts(&upload).await.map_err(answer)?;
    let beyond: Vec<_> = parts.into_iter().filter(|part| part.number > after).collect();
    let truncated = beyond.len() > limit as usize;
    let shown_part = |part: store::objects::Part| {
        let checksum = |name: &str| part.checksums.get(name).cloned();
        Part {
            part_number: Some(part.number as i32),
            size: Some(part.size as i64),
            checksum_crc32: checksum("crc32"),
            checksum_crc32c: checksum("crc32c"),
            checksum_crc64nvme: checksum("crc64nvme"),
            checksum_sha1: checksum("sha1"),
            checksum_sha256: checksum("sha256"),
            last_modified: Some(timestamp(part.modified_at)),
            e_tag: Some(ETag::Strong(part.etag)),
        }
    };
    let page: Vec<Part> = beyond.into_iter().take(limit as usize).map(shown_part).collect();
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        checksum_algorithm: upload.checksum.as_ref().map(algorithm),
        checksum_type: upload.checksum.as_ref().map(kind),
        owner: Some(owner(&account)),
        initiator: Some(initiator(&account)),
        storage_class: Some(StorageClass::from(storage_class(&upload.attributes).to_owned())),
        part_number_marker: Some(after as i32),
        next_part_number_marker: page.last().and_then(|part| part.part_number),
        max_parts: Some(limit),
        is_truncated: Some(truncated),
        parts: Some(page),
        ..Default::default()
    }))
}

/// An entry of a list of uploads.
enum Entry {
    Upload(Box<Upload>),
    Folded(String),
}

/// Lists the uploads under way.
pub async fn list_multipart_uploads(
    front: &Front,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let encoded = check_encoding(input.encoding_type.as_ref())?;
    let limit = limit("max-uploads", input.max_uploads)?;
    let after = input.key_marker.clone().filter(|key| !key.is_empty()).map(|key| {
        // Without an upload id the marker stands after all uploads of its key.
        let id = input.upload_id_marker.clone().unwrap_or_else(|| "\u{10FFFF}".into());
        (key, id)
    });
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().filter(|delimiter| !delimiter.is_empty());
    let (page, truncated) =
        entries(front, &account, &input.bucket, &prefix, delimiter.as_deref(), after, limit as usize).await?;
    let last = page.last().filter(|_| truncated);
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    let next_key_marker = last.map(|entry| match entry {
        Entry::Upload(upload) => shown(&upload.key, encoded),
        Entry::Folded(prefix) => shown(prefix, encoded),
    });
    let next_upload_id_marker = last.and_then(|entry| match entry {
        Entry::Upload(upload) => Some(upload.id.clone()),
        Entry::Folded(_) => None,
    });
    for entry in page {
        match entry {
            Entry::Folded(prefix) => prefixes.push(CommonPrefix { prefix: Some(shown(&prefix, encoded)) }),
            Entry::Upload(upload) => uploads.push(MultipartUpload {
                key: Some(shown(&upload.key, encoded)),
                checksum_algorithm: upload.checksum.as_ref().map(algorithm),
                checksum_type: upload.checksum.as_ref().map(kind),
                initiated: Some(timestamp(upload.created_at)),
                initiator: Some(initiator(&account)),
                owner: Some(owner(&account)),
                storage_class: Some(StorageClass::from(storage_class(&upload.attributes).to_owned())),
                upload_id: Some(upload.id),
            }),
        }
    }
    Ok(S3Response::new(ListMultipartUploadsOutput {
        next_key_marker,
        next_upload_id_marker,
        uploads: Some(uploads),
        common_prefixes: Some(prefixes),
        bucket: Some(input.bucket),
        prefix: Some(shown(&prefix, encoded)),
        delimiter: input.delimiter.map(|delimiter| shown(&delimiter, encoded)),
        key_marker: input.key_marker.map(|marker| shown(&marker, encoded)),
        upload_id_marker: input.upload_id_marker,
        encoding_type: input.encoding_type,
        max_uploads: Some(limit),
        is_truncated: Some(truncated),
        ..Default::default()
    }))
}

/// One page, and whether there is more.
async fn entries(
    front: &Front,
    account: &str,
    bucket: &str,
    prefix: &str,
    delimiter: Option<&str>,
    mut after: Option<(String, String)>,
    limit: usize,
) -> S3Result<(Vec<Entry>, bool)> {
    let marker = after.as_ref().map(|(key, _)| key.clone()).unwrap_or_default();
    let mut page: Vec<Entry> = Vec::new();
    loop {
        let batch = front.objects.uploads(account, bucket, prefix, after.take(), MOST_ENTRIES as usize).await;
        let batch = batch.map_err(answer)?;
        let full = batch.len() == MOST_ENTRIES as usize;
        after = batch.last().filter(|_| full).map(|upload| (upload.key.clone(), upload.id.clone()));
        for upload in batch {
            let rest = &upload.key[prefix.len()..];
            let fold = delimiter.and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len()));
            let entry = match fold.map(|end| upload.key[..prefix.len() + end].to_owned()) {
                None => Entry::Upload(Box::new(upload)),
                Some(folded) => {
                    // A fold was shown already when it is the last entry, or the page starts after it.
                    let repeated = matches!(page.last(), Some(Entry::Folded(last)) if *last == folded);
                    if repeated || folded <= marker {
                        continue;
                    }
                    Entry::Folded(folded)
                }
            };
            if page.len() == limit {
                return Ok((page, limit > 0));
            }
            page.push(entry);
        }
        if !full {
            return Ok((page, false));
        }
    }
}
