//! Deletions of objects, one or many.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use store::objects::Condition;

use super::Front;
use super::attributes::not_honoured;
use super::auth::account;
use super::conditions;
use super::errors::answer;

/// Most keys in one request.
const MOST_KEYS: usize = 1000;

/// Removes an object; a missing one is no error.
pub async fn delete_object(
    front: &Front,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let account = account(&request)?;
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    if input.if_match_size.is_some() || input.if_match_last_modified_time.is_some() {
        return Err(not_honoured("a condition on size or time of a deletion"));
    }
    let condition = conditions::write(input.if_match, None)?;
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
    let objects = input.delete.objects;
    if objects.is_empty() || objects.len() > MOST_KEYS {
        return Err(s3_error!(MalformedXML, "A request deletes at least 1 and at most {MOST_KEYS} objects."));
    }
    let mut keys = Vec::with_capacity(objects.len());
    for object in objects {
        check_version(object.version_id.as_deref())?;
        if object.size.is_some() || object.last_modified_time.is_some() {
            return Err(not_honoured("a condition on size or time of a deletion"));
        }
        let if_match = object.e_tag.map(ETag::into_value);
        keys.push((object.key, Condition { if_match, if_none_match: false }));
    }
    let quiet = input.delete.quiet == Some(true);
    let names: Vec<String> = keys.iter().map(|(key, _)| key.clone()).collect();
    let done = front.objects.delete_many(&account, &input.bucket, keys).await.map_err(answer)?;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for (key, done) in names.into_iter().zip(done) {
        match done.map_err(answer) {
            Ok(_) if quiet => {}
            Ok(_) => deleted.push(DeletedObject { key: Some(key), ..Default::default() }),
            Err(error) => errors.push(Error {
                key: Some(key),
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

/// Versions are not kept; deleting another one than `null` must not delete the object.
fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(InvalidArgument, "Invalid version id specified")),
    }
}
