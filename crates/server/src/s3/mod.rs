//! S3 on the crate `s3s`: it parses, verifies signatures and writes XML; here the operations meet the object store.

mod attributes;
mod auth;
mod body;
mod buckets;
mod checksums;
mod conditions;
mod copies;
mod deletes;
mod encryption;
mod errors;
mod expiry;
mod lifecycle;
mod listing;
mod multipart;
mod notifications;
mod objects;
mod policies;
mod tagging;
mod upload;
mod uploads;

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result};
use store::objects::ObjectStore;
use wire::Body;

use crate::training::input_changes::InputChanges;

pub use auth::Owner;

/// What the operations share.
pub struct Front {
    objects: Arc<ObjectStore>,
    rules_changed: Arc<tokio::sync::Notify>,
}

/// A function from S3 request to answer.
pub type Service = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The S3 service over an object store, which it keeps to the lifecycle rules of its buckets.
pub fn service(
    objects: Arc<ObjectStore>,
    credentials: Arc<dyn wire::Credentials>,
    authorize: Arc<dyn wire::Authorize>,
    region: String,
    changes: Arc<InputChanges>,
) -> Service {
    objects.observe(notifications::observer(changes));
    let mut builder = S3ServiceBuilder::new(Front { rules_changed: expiry::start(&objects), objects });
    builder.set_auth(auth::Keys { credentials: credentials.clone() });
    builder.set_access(auth::Gate { credentials, authorize, region });
    let service = builder.build();
    Arc::new(move |request| {
        let service = service.clone();
        Box::pin(async move {
            let token = auth::session_token(&request);
            let is_head = request.method() == http::Method::HEAD;
            let (request, watched) = body::watch(request);
            let called =
                auth::SESSION_TOKEN.scope(token, service.call(request.map(s3s::Body::http_body))).await;
            let mut response = match called {
                Ok(response) => response.map(|body| body.map_err(wire::BoxError::from).boxed()),
                Err(error) => {
                    tracing::error!(?error, "an S3 request failed");
                    let mut response = Response::new(wire::empty());
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    response
                }
            };
            if is_head
                && response.headers().contains_key(http::header::CONTENT_RANGE)
                && response.status() == 200
            {
                // `s3s` does so for GetObject alone.
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            }
            if response.status() == StatusCode::NOT_IMPLEMENTED {
                // Clients repeat a 501 with pauses; nothing would change.
                *response.status_mut() = StatusCode::BAD_REQUEST;
            }
            watched.mend(response)
        })
    })
}

/// Operations that are done, a line `s3 OPERATION` each; the others are refused by name before they are parsed.
const IMPLEMENTED: &str = include_str!("../../s3_operations.txt");

/// Whether an operation is done.
fn is_implemented(operation: &str) -> bool {
    IMPLEMENTED.lines().any(|line| line.strip_prefix("s3 ") == Some(operation))
}

/// Each operation is in the file of its noun.
macro_rules! delegate {
    ($($file:ident::$name:ident($input:ty) -> $output:ty;)*) => {
        #[async_trait::async_trait]
        impl S3 for Front {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                $file::$name(self, request).await
            })*
        }
    };
}

delegate! {
    buckets::create_bucket(CreateBucketInput) -> CreateBucketOutput;
    buckets::delete_bucket(DeleteBucketInput) -> DeleteBucketOutput;
    buckets::get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;
    buckets::get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput;
    buckets::head_bucket(HeadBucketInput) -> HeadBucketOutput;
    buckets::list_buckets(ListBucketsInput) -> ListBucketsOutput;
    copies::copy_object(CopyObjectInput) -> CopyObjectOutput;
    copies::upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput;
    deletes::delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    deletes::delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
    encryption::delete_bucket_encryption(DeleteBucketEncryptionInput) -> DeleteBucketEncryptionOutput;
    encryption::get_bucket_encryption(GetBucketEncryptionInput) -> GetBucketEncryptionOutput;
    encryption::put_bucket_encryption(PutBucketEncryptionInput) -> PutBucketEncryptionOutput;
    lifecycle::delete_bucket_lifecycle(DeleteBucketLifecycleInput) -> DeleteBucketLifecycleOutput;
    lifecycle::get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput) -> GetBucketLifecycleConfigurationOutput;
    lifecycle::put_bucket_lifecycle_configuration(PutBucketLifecycleConfigurationInput) -> PutBucketLifecycleConfigurationOutput;
    listing::list_objects(ListObjectsInput) -> ListObjectsOutput;
    listing::list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    multipart::abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    multipart::complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    multipart::create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    multipart::upload_part(UploadPartInput) -> UploadPartOutput;
    notifications::get_bucket_notification_configuration(GetBucketNotificationConfigurationInput) -> GetBucketNotificationConfigurationOutput;
    notifications::put_bucket_notification_configuration(PutBucketNotificationConfigurationInput) -> PutBucketNotificationConfigurationOutput;
    objects::get_object(GetObjectInput) -> GetObjectOutput;
    objects::head_object(HeadObjectInput) -> HeadObjectOutput;
    objects::put_object(PutObjectInput) -> PutObjectOutput;
    policies::delete_bucket_policy(DeleteBucketPolicyInput) -> DeleteBucketPolicyOutput;
    policies::get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput;
    policies::put_bucket_policy(PutBucketPolicyInput) -> PutBucketPolicyOutput;
    tagging::delete_bucket_tagging(DeleteBucketTaggingInput) -> DeleteBucketTaggingOutput;
    tagging::delete_object_tagging(DeleteObjectTaggingInput) -> DeleteObjectTaggingOutput;
    tagging::get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput;
    tagging::get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput;
    tagging::put_bucket_tagging(PutBucketTaggingInput) -> PutBucketTaggingOutput;
    tagging::put_object_tagging(PutObjectTaggingInput) -> PutObjectTaggingOutput;
    uploads::list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput;
    uploads::list_parts(ListPartsInput) -> ListPartsOutput;
}
