//! Lifecycle rules of a bucket: which are taken, stored and shown. [`super::expiry`] acts on them.

use std::collections::HashSet;

use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};

use super::Front;
use super::attributes::not_honoured;
use super::auth::account;
use super::errors::answer;

/// Kind of the document that holds the rules of a bucket.
pub const DOCUMENT: &str = "lifecycle";

/// Most rules of a bucket, as in S3.
const MOST_RULES: usize = 1000;

/// Milliseconds of a day.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Stores the rules of a bucket; they act at once.
pub async fn put_bucket_lifecycle_configuration(
    front: &Front,
    request: S3Request<PutBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let bucket = front.objects.bucket(&account, &input.bucket).await.map_err(answer)?;
    if bucket.remote.is_some() {
        return Err(not_honoured("lifecycle rules of a bucket that lies in a remote store"));
    }
    if bucket.folder.is_some() {
        return Err(not_honoured("lifecycle rules of a bucket that is a folder of the machine"));
    }
    let configuration = input
        .lifecycle_configuration
        .ok_or_else(|| s3_error!(MissingRequestBodyError, "Request Body is empty"))?;
    let rules = checked(configuration.rules)?;
    let text = serde_json::to_string(&rules).map_err(S3Error::internal_error)?;
    let set = front.objects.set_bucket_document(&account, &input.bucket, DOCUMENT, Some(text)).await;
    set.map_err(answer)?;
    front.rules_changed.notify_one();
    Ok(S3Response::new(PutBucketLifecycleConfigurationOutput {
        transition_default_minimum_object_size: input.transition_default_minimum_object_size,
    }))
}

/// Answers the rules of a bucket.
pub async fn get_bucket_lifecycle_configuration(
    front: &Front,
    request: S3Request<GetBucketLifecycleConfigurationInput>,
) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
    let account = account(&request)?;
    let found = front.objects.bucket_document(&account, &request.input.bucket, DOCUMENT).await;
    let text = found.map_err(answer)?.ok_or_else(|| {
        s3_error!(NoSuchLifecycleConfiguration, "The lifecycle configuration does not exist")
    })?;
    let rules: LifecycleRules = serde_json::from_str(&text).map_err(S3Error::internal_error)?;
    Ok(S3Response::new(GetBucketLifecycleConfigurationOutput {
        rules: Some(rules),
        transition_default_minimum_object_size: None,
    }))
}

/// Removes the rules of a bucket.
pub async fn delete_bucket_lifecycle(
    front: &Front,
    request: S3Request<DeleteBucketLifecycleInput>,
) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
    let account = account(&request)?;
    let removed = front.objects.set_bucket_document(&account, &request.input.bucket, DOCUMENT, None).await;
    removed.map_err(answer)?;
    Ok(S3Response::new(DeleteBucketLifecycleOutput::default()))
}

/// Rules that can be acted on, each with an id.
fn checked(mut rules: LifecycleRules) -> S3Result<LifecycleRules> {
    if rules.is_empty() || rules.len() > MOST_RULES {
        return Err(s3_error!(MalformedXML, "A lifecycle configuration has 1 to {MOST_RULES} rules."));
    }
    let mut ids = HashSet::new();
    for rule in &mut rules {
        let id = rule.id.get_or_insert_with(|| uuid::Uuid::new_v4().to_string());
        if id.len() > 255 {
            return Err(s3_error!(InvalidArgument, "ID length should not exceed allowed limit of 255"));
        }
        if !ids.insert(id.clone()) {
            return Err(s3_error!(
                InvalidArgument,
                "Rule ID must be unique. Found same ID for more than one rule"
            ));
        }
        check(rule)?;
    }
    Ok(rules)
}

fn check(rule: &LifecycleRule) -> S3Result<()> {
    if !matches!(rule.status.as_str(), ExpirationStatus::ENABLED | ExpirationStatus::DISABLED) {
        return Err(s3_error!(MalformedXML, "The Status of a rule is Enabled or Disabled."));
    }
    if rule.transitions.as_ref().is_some_and(|all| !all.is_empty()) {
        return Err(not_honoured("Transition of a lifecycle rule"));
    }
    let noncurrent = rule.noncurrent_version_transitions.as_ref().is_some_and(|all| !all.is_empty());
    if rule.noncurrent_version_expiration.is_some() || noncurrent {
        return Err(not_honoured("an action on noncurrent versions in a lifecycle rule"));
    }
    match (&rule.filter, &rule.prefix) {
        (Some(_), Some(_)) => {
            return Err(s3_error!(MalformedXML, "Prefix cannot be used together with Filter."));
        }
        (None, None) => return Err(s3_error!(MalformedXML, "A rule needs a Filter.")),
        (Some(filter), None) => check_filter(filter)?,
        (None, Some(_)) => {}
    }
    if rule.expiration.is_none() && rule.abort_incomplete_multipart_upload.is_none() {
        return Err(s3_error!(InvalidRequest, "At least one action needs to be specified in a rule"));
    }
    rule.expiration.as_ref().map_or(Ok(()), check_expiration)?;
    if let Some(abort) = &rule.abort_incomplete_multipart_upload {
        let by_content = rule.filter.as_ref().is_some_and(|filter| {
            let and = filter.and.as_ref();
            filter.tag.is_some()
                || filter.object_size_greater_than.is_some()
                || filter.object_size_less_than.is_some()
                || and.is_some_and(|and| {
                    and.tags.as_ref().is_some_and(|tags| !tags.is_empty())
                        || and.object_size_greater_than.is_some()
                        || and.object_size_less_than.is_some()
                })
        });
        if by_content {
            return Err(s3_error!(
                InvalidRequest,
                "AbortIncompleteMultipartUpload cannot be specified with Tags or object sizes"
            ));
        }
        if abort.days_after_initiation.is_none_or(|days| days < 1) {
            return Err(s3_error!(
                InvalidArgument,
                "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer"
            ));
        }
    }
    Ok(())
}

fn check_filter(filter: &LifecycleRuleFilter) -> S3Result<()> {
    let given = [
        filter.and.is_some(),
        filter.prefix.is_some(),
        filter.tag.is_some(),
        filter.object_size_greater_than.is_some(),
        filter.object_size_less_than.is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(s3_error!(MalformedXML, "A Filter has one condition, or And with several."));
    }
    Ok(())
}

fn check_expiration(expiration: &LifecycleExpiration) -> S3Result<()> {
    match (&expiration.date, expiration.days, expiration.expired_object_delete_marker) {
        (_, _, Some(true)) => Err(not_honoured("ExpiredObjectDeleteMarker of a lifecycle rule")),
        (None, Some(days), _) if days >= 1 => Ok(()),
        (None, Some(_), _) => {
            Err(s3_error!(InvalidArgument, "'Days' for Expiration action must be a positive integer"))
        }
        (Some(date), None, _) if super::expiry::millis(date) % DAY_MS == 0 => Ok(()),
        (Some(_), None, _) => Err(s3_error!(InvalidArgument, "'Date' must be at midnight GMT")),
        _ => Err(s3_error!(MalformedXML, "An Expiration has either Days or a Date.")),
    }
}
