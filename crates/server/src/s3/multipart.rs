//! Uploads in parts.

use std::collections::BTreeMap;

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use store::objects::{Object, Upload};

use super::attributes::{self, described, refuse_own_key};
use super::auth::account;
use super::errors::answer;
use super::listing::shown;
use super::upload::{self, Declared, declared_checksums};
use super::{Front, checksums, conditions, encryption};

/// Greatest part number, as in S3.
pub const MOST_PARTS: i32 = 10_000;

/// Begins an upload.
pub async fn create_multipart_upload(
    front: &Front,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let attributes = attributes::given(&request.headers, input.metadata)?;
    let wanted = checksums::wanted(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
    let kind = wanted.as_ref().map(|wanted| match wanted.full_object {
        true => ChecksumType::from_static(ChecksumType::FULL_OBJECT),
        false => ChecksumType::from_static(ChecksumType::COMPOSITE),
    });
    let wish = encryption::wish(&request.headers)?;
    let made =
        front.objects.create_upload(&account, &input.bucket, &input.key, attributes, wanted, wish).await;
    let upload = made.map_err(answer)?;
    let headers = encryption::headers_of_write(&account, &upload.attributes);
    let output = CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload.id),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: kind,
        ..Default::default()
    };
    Ok(S3Response::with_headers(output, headers))
}

/// Stores a part.
pub async fn upload_part(
    front: &Front,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let account = account(&request)?;
    let input = request.input;
    refuse_own_key(input.sse_customer_algorithm.is_some())?;
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
    let declared = of_upload(&upload, declared, &request.headers)?;
    let incoming = front.objects.begin_part(&account, &upload).await.map_err(answer)?;
    let (incoming, checksums) = upload::receive(input.body, &request.headers, declared, incoming).await?;
    let part = front.objects.put_part(&upload, number, incoming, checksums).await.map_err(answer)?;
    let checksum = |name: &str| part.checksums.get(name).cloned();
    let output = UploadPartOutput {
        e_tag: Some(ETag::Strong(part.etag.clone())),
        checksum_crc32: checksum("crc32"),
        checksum_crc32c: checksum("crc32c"),
        checksum_crc64nvme: checksum("crc64nvme"),
        checksum_sha1: checksum("sha1"),
        checksum_sha256: checksum("sha256"),
        ..Default::default()
    };
    Ok(S3Response::with_headers(output, encryption::headers(&account, &upload.attributes)))
}

/// A part carries the checksum that its upload was created with, and no other.
fn of_upload(upload: &Upload, declared: Declared, headers: &http::HeaderMap) -> S3Result<Declared> {
    let Some(wanted) = &upload.checksum else { return Ok(declared) };
    match declared.algorithms(headers).into_iter().find(|name| *name != wanted.algorithm) {
        Some(other) => Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {other}",
            wanted.algorithm
        )),
        None => Ok(Declared { algorithm: Some(wanted.algorithm.clone()), ..declared }),
    }
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
    let condition = conditions::write(input.if_match, input.if_none_match.as_ref())?;
    let found = front.objects.upload(&account, &input.bucket, &input.key, &input.upload_id).await;
    let upload = match found.map_err(answer) {
        Ok(upload) => upload,
        Err(error) => {
            // A client that lost the answer asks again; the object says which upload it came from.
            let present = front.objects.head(&account, &input.bucket, &input.key).await.ok();
            let of_this = |object: &Object| {
                let assembly = object.attributes.assembly.as_ref();
                assembly.is_some_and(|assembly| assembly.upload == input.upload_id)
            };
            let object = present.filter(of_this).ok_or(error)?;
            return Ok(completed(&account, input.bucket, input.key, &object));
        }
    };
    let declared = declared_checksums([
        input.checksum_crc32,
        input.checksum_crc32c,
        input.checksum_crc64nvme,
        input.checksum_sha1,
        input.checksum_sha256,
    ]);
    let named = named_parts(input.multipart_upload)?;
    let parts = front.objects.named_parts(&upload, &named).await.map_err(answer)?;
    let size: u64 = parts.iter().map(|part| part.size).sum();
    if input.mpu_object_size.is_some_and(|wanted| u64::try_from(wanted) != Ok(size)) {
        return Err(s3_error!(
            InvalidRequest,
            "The provided 'x-amz-mp-object-size' header does not match what was computed."
        ));
    }
    let wanted = upload.checksum.as_ref();
    let whole = wanted.map(|wanted| checksums::of_parts(wanted, &parts)).transpose()?.flatten();
    let algorithm = wanted.map(|wanted| wanted.algorithm.clone());
    checksums::check_declared(&declared, algorithm.as_deref(), whole.as_deref())?;
    front.objects.check(&account, &input.bucket, &input.key, &condition).await.map_err(answer)?;
    let kept: BTreeMap<String, String> = algorithm.zip(whole).into_iter().collect();
    let object = front.objects.complete_upload(&account, &upload, parts, kept, condition).await;
    Ok(completed(&account, input.bucket, input.key, &object.map_err(answer)?))
}

fn named_parts(upload: Option<CompletedMultipartUpload>) -> S3Result<Vec<store::objects::CompletedPart>> {
    let mut named = Vec::new();
    for part in upload.and_then(|upload| upload.parts).unwrap_or_default() {
        let etag = part.e_tag.map(ETag::into_value);
        let (Some(number), Some(etag)) = (part.part_number, etag) else {
            return Err(s3_error!(MalformedXML, "Each part needs a PartNumber and an ETag."));
        };
        let checksums = declared_checksums([
            part.checksum_crc32,
            part.checksum_crc32c,
            part.checksum_crc64nvme,
            part.checksum_sha1,
            part.checksum_sha256,
        ]);
        named.push(store::objects::CompletedPart { number: part_number(number)?, etag, checksums });
    }
    Ok(named)
}

fn completed(
    account: &str,
    bucket: String,
    key: String,
    object: &Object,
) -> S3Response<CompleteMultipartUploadOutput> {
    let described = described(object, true);
    let output = CompleteMultipartUploadOutput {
        location: Some(format!("/{bucket}/{}", shown(&key, true))),
        bucket: Some(bucket),
        key: Some(key),
        checksum_crc32: described.checksum_crc32,
        checksum_crc32c: described.checksum_crc32c,
        checksum_crc64nvme: described.checksum_crc64nvme,
        checksum_sha1: described.checksum_sha1,
        checksum_sha256: described.checksum_sha256,
        checksum_type: described.checksum_type,
        e_tag: described.e_tag,
        ..Default::default()
    };
    S3Response::with_headers(output, encryption::headers(account, &object.attributes))
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
    front.objects.abort_upload(&upload).await.map_err(answer)?;
    Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), http::StatusCode::NO_CONTENT))
}
