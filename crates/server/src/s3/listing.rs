//! ListObjects in both versions.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use store::objects::{Bound, ListObjects, Listing};

use super::Front;
use super::attributes::{checksum_type, storage_class};
use super::auth::account;
use super::errors::answer;
use super::upload::timestamp;

/// Most keys on a page.
const MOST_KEYS: i32 = 1000;

/// Lists with a continuation token.
pub async fn list_objects_v2(
    front: &Front,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let account = account(&request)?;
    let input = request.input;
    let encoded = check_encoding(input.encoding_type.as_ref())?;
    let delimiter = input.delimiter.clone();
    let start = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => Some(decode(token)?),
        (None, Some(after)) => Some(Bound::after(after, "", None)),
        (None, None) => None,
    };
    let max_keys = max_keys(input.max_keys)?;
    let listing =
        list(front, &account, &input.bucket, input.prefix.as_deref(), delimiter, start, max_keys).await?;
    let owner = input.fetch_owner == Some(true);
    let contents = contents(&listing, encoded, owner.then_some(account.as_str()));
    let prefixes = prefixes(&listing, encoded);
    let show = |text: Option<String>| text.map(|text| shown(&text, encoded));
    Ok(S3Response::new(ListObjectsV2Output {
        key_count: Some((contents.len() + prefixes.len()) as i32),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        name: Some(input.bucket),
        prefix: Some(shown(&input.prefix.unwrap_or_default(), encoded)),
        delimiter: show(input.delimiter),
        start_after: show(input.start_after),
        encoding_type: input.encoding_type,
        max_keys: Some(max_keys),
        continuation_token: input.continuation_token,
        is_truncated: Some(listing.next.is_some()),
        next_continuation_token: listing.next.as_ref().map(encode),
        ..Default::default()
    }))
}

/// Lists with a marker.
pub async fn list_objects(
    front: &Front,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let encoded = check_encoding(input.encoding_type.as_ref())?;
    let delimiter = input.delimiter.clone();
    let marker = input.marker.clone().filter(|marker| !marker.is_empty());
    let start = marker.map(|marker| {
        Bound::after(&marker, input.prefix.as_deref().unwrap_or_default(), delimiter.as_deref())
    });
    let max_keys = max_keys(input.max_keys)?;
    let listing =
        list(front, &account, &input.bucket, input.prefix.as_deref(), delimiter, start, max_keys).await?;
    let truncated = listing.next.is_some();
    let last_key = listing.objects.last().map(|object| object.key.clone());
    let last = last_key.max(listing.common_prefixes.last().cloned());
    let contents = contents(&listing, encoded, Some(&account));
    let show = |text: Option<String>| text.map(|text| shown(&text, encoded));
    Ok(S3Response::new(ListObjectsOutput {
        contents: Some(contents),
        common_prefixes: Some(prefixes(&listing, encoded)),
        name: Some(input.bucket),
        prefix: Some(shown(&input.prefix.unwrap_or_default(), encoded)),
        marker: Some(shown(&input.marker.unwrap_or_default(), encoded)),
        next_marker: show(last.filter(|_| truncated)),
        delimiter: show(input.delimiter),
        encoding_type: input.encoding_type,
        max_keys: Some(max_keys),
        is_truncated: Some(truncated),
        ..Default::default()
    }))
}

async fn list(
    front: &Front,
    account: &str,
    bucket: &str,
    prefix: Option<&str>,
    delimiter: Option<String>,
    start: Option<Bound>,
    max_keys: i32,
) -> S3Result<Listing> {
    if max_keys == 0 {
        front.objects.bucket(account, bucket).await.map_err(answer)?;
        return Ok(Listing::default());
    }
    let list = ListObjects {
        prefix: prefix.unwrap_or_default().to_owned(),
        delimiter,
        start,
        limit: max_keys as usize,
    };
    front.objects.list(account, bucket, list).await.map_err(answer)
}

fn max_keys(asked: Option<i32>) -> S3Result<i32> {
    match asked {
        Some(number) if number < 0 => {
            Err(s3_error!(InvalidArgument, "Argument max-keys must be an integer between 0 and 2147483647"))
        }
        other => Ok(other.unwrap_or(MOST_KEYS).min(MOST_KEYS)),
    }
}

fn contents(listing: &Listing, encoded: bool, owner: Option<&str>) -> Vec<Object> {
    let shown_object = |object: &store::objects::Object| Object {
        key: Some(shown(&object.key, encoded)),
        size: Some(object.size as i64),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        last_modified: Some(timestamp(object.modified_at)),
        storage_class: Some(ObjectStorageClass::from(storage_class(&object.attributes).to_owned())),
        checksum_algorithm: (!object.attributes.checksums.is_empty()).then(|| {
            let names = object.attributes.checksums.keys();
            names.map(|name| ChecksumAlgorithm::from(name.to_ascii_uppercase())).collect()
        }),
        checksum_type: checksum_type(&object.attributes.checksums),
        owner: owner.map(|owner| Owner { id: Some(owner.to_owned()), display_name: Some(owner.to_owned()) }),
        ..Default::default()
    };
    listing.objects.iter().map(shown_object).collect()
}

fn prefixes(listing: &Listing, encoded: bool) -> Vec<CommonPrefix> {
    let all = listing.common_prefixes.iter();
    all.map(|prefix| CommonPrefix { prefix: Some(shown(prefix, encoded)) }).collect()
}

/// Whether keys are URL-encoded in the answer.
///
/// # Errors
/// `InvalidArgument` for an encoding that S3 does not have.
pub fn check_encoding(encoding: Option<&EncodingType>) -> S3Result<bool> {
    match encoding.map(EncodingType::as_str) {
        None | Some("") => Ok(false),
        Some(EncodingType::URL) => Ok(true),
        Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
    }
}

/// A key as it goes into the answer: URL-encoded where the client asked for it, since XML cannot hold every character.
pub fn shown(key: &str, encoded: bool) -> String {
    if !encoded {
        return key.to_owned();
    }
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'*' => {
                text.push(char::from(byte))
            }
            b' ' => text.push('+'),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn encode(bound: &Bound) -> String {
    let mut bytes = vec![u8::from(bound.inclusive)];
    bytes.extend_from_slice(&bound.bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(token: &str) -> S3Result<Bound> {
    let bytes = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
    match bytes.split_first() {
        Some((flag @ (0 | 1), bytes)) => Ok(Bound { bytes: bytes.to_vec(), inclusive: *flag == 1 }),
        _ => Err(s3_error!(InvalidArgument, "The continuation token provided is incorrect")),
    }
}
