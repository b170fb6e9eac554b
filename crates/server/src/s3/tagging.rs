//! Tags of objects and buckets.

use std::collections::BTreeMap;

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::Front;
use super::attributes::not_honoured;
use super::auth::{account, percent_decoded};
use super::errors::{answer, refusal};

/// Most tags of an object and of a bucket, as in S3.
const MOST_OBJECT_TAGS: usize = 10;
const MOST_BUCKET_TAGS: usize = 50;

/// Kind of the document that holds the tags of a bucket.
const DOCUMENT: &str = "tagging";

/// The tags of a write, from its header `x-amz-tagging`.
///
/// # Errors
/// `InvalidArgument` when it is no query string, and those of a set of tags.
pub fn from_header(headers: &HeaderMap) -> S3Result<BTreeMap<String, String>> {
    let malformed = || {
        s3_error!(
            InvalidArgument,
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates."
        )
    };
    let Some(value) = headers.get("x-amz-tagging") else { return Ok(BTreeMap::new()) };
    let text = value.to_str().map_err(|_| malformed())?;
    let decode = |text: &str| percent_decoded(&text.replace('+', " "));
    let mut tags = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        tags.push((decode(key), decode(value)));
    }
    checked(tags, MOST_OBJECT_TAGS).map_err(|error| match error.code().as_str() {
        "InvalidTag" if error.message().is_some_and(|text| text.contains("same key")) => malformed(),
        _ => error,
    })
}

/// The tags of a request body.
fn from_body(tagging: Tagging, most: usize) -> S3Result<BTreeMap<String, String>> {
    let tags = tagging.tag_set.into_iter();
    checked(tags.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())).collect(), most)
}

fn checked(tags: Vec<(String, String)>, most: usize) -> S3Result<BTreeMap<String, String>> {
    if tags.len() > most {
        let text = match most {
            MOST_OBJECT_TAGS => format!("Object tags cannot be greater than {most}"),
            _ => format!("Bucket tag count cannot be greater than {most}"),
        };
        return Err(refusal("BadRequest", text));
    }
    let mut set = BTreeMap::new();
    for (key, value) in tags {
        let legal = |character: char| character.is_alphanumeric() || " +-=._:/@".contains(character);
        if key.is_empty() || key.chars().count() > 128 || !key.chars().all(legal) {
            return Err(s3_error!(InvalidTag, "The TagKey you have provided is invalid"));
        }
        if value.chars().count() > 256 || !value.chars().all(legal) {
            return Err(s3_error!(InvalidTag, "The TagValue you have provided is invalid"));
        }
        if key.starts_with("aws:") {
            return Err(s3_error!(InvalidTag, "System tags cannot be added/updated by requester"));
        }
        if set.insert(key, value).is_some() {
            return Err(s3_error!(InvalidTag, "Cannot provide multiple Tags with the same key"));
        }
    }
    Ok(set)
}

fn shown(tags: BTreeMap<String, String>) -> Vec<Tag> {
    tags.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect()
}

fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
    }
}

/// Replaces the tags of an object.
pub async fn put_object_tagging(
    front: &Front,
    request: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    let account = account(&request)?;
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    let tags = from_body(input.tagging, MOST_OBJECT_TAGS)?;
    front.objects.set_tags(&account, &input.bucket, &input.key, tags).await.map_err(answer)?;
    Ok(S3Response::new(PutObjectTaggingOutput::default()))
}

/// Answers the tags of an object.
pub async fn get_object_tagging(
    front: &Front,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let account = account(&request)?;
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    if front.objects.bucket(&account, &input.bucket).await.map_err(answer)?.remote.is_some() {
        return Err(not_honoured("tags of objects in a bucket that lies in a remote store"));
    }
    let object = front.objects.head(&account, &input.bucket, &input.key).await.map_err(answer)?;
    Ok(S3Response::new(GetObjectTaggingOutput { tag_set: shown(object.attributes.tags), version_id: None }))
}

/// Removes the tags of an object.
pub async fn delete_object_tagging(
    front: &Front,
    request: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let account = account(&request)?;
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    front.objects.set_tags(&account, &input.bucket, &input.key, BTreeMap::new()).await.map_err(answer)?;
    Ok(S3Response::new(DeleteObjectTaggingOutput::default()))
}

/// Replaces the tags of a bucket.
pub async fn put_bucket_tagging(
    front: &Front,
    request: S3Request<PutBucketTaggingInput>,
) -> S3Result<S3Response<PutBucketTaggingOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let tags = from_body(input.tagging, MOST_BUCKET_TAGS)?;
    let text = serde_json::to_string(&tags).map_err(S3Error::internal_error)?;
    let set = front.objects.set_bucket_document(&account, &input.bucket, DOCUMENT, Some(text)).await;
    set.map_err(answer)?;
    Ok(S3Response::new(PutBucketTaggingOutput::default()))
}

/// Answers the tags of a bucket.
pub async fn get_bucket_tagging(
    front: &Front,
    request: S3Request<GetBucketTaggingInput>,
) -> S3Result<S3Response<GetBucketTaggingOutput>> {
    let account = account(&request)?;
    let found = front.objects.bucket_document(&account, &request.input.bucket, DOCUMENT).await;
    let text = found.map_err(answer)?.ok_or_else(|| s3_error!(NoSuchTagSet, "The TagSet does not exist"))?;
    let tags = serde_json::from_str(&text).map_err(S3Error::internal_error)?;
    Ok(S3Response::new(GetBucketTaggingOutput { tag_set: shown(tags) }))
}

/// Removes the tags of a bucket.
pub async fn delete_bucket_tagging(
    front: &Front,
    request: S3Request<DeleteBucketTaggingInput>,
) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
    let account = account(&request)?;
    let removed = front.objects.set_bucket_document(&account, &request.input.bucket, DOCUMENT, None).await;
    removed.map_err(answer)?;
    Ok(S3Response::new(DeleteBucketTaggingOutput::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> S3Result<BTreeMap<String, String>> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-tagging", text.parse().unwrap());
        from_header(&headers)
    }

    #[test]
    fn the_header_is_a_query_string() {
        let tags = header("team=red+one&b%3Ac=%C3%A4&empty").unwrap();
        let pairs: Vec<_> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("b:c", "ä"), ("empty", ""), ("team", "red one")]);
        assert!(header("").unwrap().is_empty());
    }

    #[test]
    fn bad_tags_are_refused() {
        let many = (0..11).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join("&");
        let cases = [
            ("a=1&a=2".to_owned(), "InvalidArgument"),
            (many, "BadRequest"),
            ("=v".into(), "InvalidTag"),
            ("a=%00".into(), "InvalidTag"),
            ("aws:x=1".into(), "InvalidTag"),
            (format!("{}=1", "k".repeat(129)), "InvalidTag"),
            (format!("a={}", "v".repeat(257)), "InvalidTag"),
        ];
        for (text, wanted) in cases {
            assert_eq!(header(&text).unwrap_err().code().as_str(), wanted, "{text}");
        }
    }
}
