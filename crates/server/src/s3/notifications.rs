//! Events of objects: buckets that ask for them get each change into the event log, in the transaction that makes it.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};
use serde_json::json;
use store::objects::{Change, Object, Observer};
use store::resources::ResourceKey;

use super::Front;
use super::attributes::not_honoured;
use super::auth::account;
use super::errors::answer;
use crate::events::{OBJECT_CREATED, OBJECT_DELETED, envelope};
use crate::training::input_changes::InputChanges;

/// Kind of the document that is there while a bucket sends its events.
const DOCUMENT: &str = "notification";

/// What the document says: events go to EventBridge, which here is the event log.
const EVENT_BRIDGE: &str = r#"{"EventBridgeConfiguration":{}}"#;

/// Sets whether a bucket sends its events.
pub async fn put_bucket_notification_configuration(
    front: &Front,
    request: S3Request<PutBucketNotificationConfigurationInput>,
) -> S3Result<S3Response<PutBucketNotificationConfigurationOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let wanted = input.notification_configuration;
    front.objects.bucket(&account, &input.bucket).await.map_err(answer)?;
    for (name, is_given) in [
        ("TopicConfiguration", wanted.topic_configurations.is_some_and(|all| !all.is_empty())),
        ("QueueConfiguration", wanted.queue_configurations.is_some_and(|all| !all.is_empty())),
        (
            "CloudFunctionConfiguration (LambdaFunctionConfigurations)",
            wanted.lambda_function_configurations.is_some_and(|all| !all.is_empty()),
        ),
    ] {
        if is_given {
            return Err(not_honoured(name));
        }
    }
    let document = wanted.event_bridge_configuration.map(|_| EVENT_BRIDGE.to_owned());
    let set = front.objects.set_bucket_document(&account, &input.bucket, DOCUMENT, document).await;
    set.map_err(answer)?;
    Ok(S3Response::new(PutBucketNotificationConfigurationOutput::default()))
}

/// Answers whether a bucket sends its events.
pub async fn get_bucket_notification_configuration(
    front: &Front,
    request: S3Request<GetBucketNotificationConfigurationInput>,
) -> S3Result<S3Response<GetBucketNotificationConfigurationOutput>> {
    let account = account(&request)?;
    let found = front.objects.bucket_document(&account, &request.input.bucket, DOCUMENT).await;
    let configuration = found.map_err(answer)?.map(|_| EventBridgeConfiguration::default());
    Ok(S3Response::new(GetBucketNotificationConfigurationOutput {
        event_bridge_configuration: configuration,
        ..Default::default()
    }))
}

/// Tells the jobs that read there, and writes the events of buckets that ask for them.
pub fn observer(changes: Arc<InputChanges>) -> Observer {
    Arc::new(move |session, bucket, object, change, at_ms| {
        changes.note(&bucket.name, &object.key);
        if session.bucket_document(&bucket.name, DOCUMENT)?.is_none() {
            return Ok(());
        }
        let kind = if is_deletion(change) { OBJECT_DELETED } else { OBJECT_CREATED };
        let key = ResourceKey {
            account: bucket.account.clone(),
            region: bucket.region.clone(),
            kind: "bucket".into(),
            name: bucket.name.clone(),
        };
        let detail = detail(bucket, object, change);
        let arn = format!("arn:aws:s3:::{}", bucket.name);
        let event = envelope(kind, "aws.s3", &key, &arn, &detail, at_ms);
        session.append_event(&key, kind, &event, at_ms)
    })
}

fn is_deletion(change: Change) -> bool {
    matches!(change, Change::Deleted | Change::Expired)
}

fn detail(bucket: &store::objects::Bucket, object: &Object, change: Change) -> serde_json::Value {
    // Grows from event to event, so that a reader can put those of one key into order.
    let sequencer = uuid::Uuid::now_v7().simple().to_string().to_uppercase();
    let mut detail = json!({
        "version": "0",
        "bucket": {"name": bucket.name},
        "object": {"key": object.key, "sequencer": sequencer},
        "requester": bucket.account,
        "reason": match change {
            Change::Put => "PutObject",
            Change::Copied => "CopyObject",
            Change::Completed => "CompleteMultipartUpload",
            Change::Deleted => "DeleteObject",
            Change::Expired => "Lifecycle Expiration",
        },
    });
    if is_deletion(change) {
        detail["deletion-type"] = "Permanently Deleted".into();
    } else {
        detail["object"]["size"] = object.size.into();
        detail["object"]["etag"] = object.etag.clone().into();
    }
    detail
}
