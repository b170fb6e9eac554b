//! Buckets.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::attributes::{self, not_honoured};
use super::auth::account;
use super::errors::answer;
use super::{Front, upload};

/// Makes a bucket of the caller's account.
pub async fn create_bucket(
    front: &Front,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let account = account(&request)?;
    let input = request.input;
    attributes::given(&request.headers, None)?;
    if input.object_lock_enabled_for_bucket == Some(true) {
        return Err(not_honoured("x-amz-bucket-object-lock-enabled"));
    }
    if input.object_ownership.is_some_and(|ownership| ownership.as_str() != "BucketOwnerEnforced") {
        return Err(not_honoured("x-amz-object-ownership other than BucketOwnerEnforced"));
    }
    let configuration = input.create_bucket_configuration.as_ref();
    if configuration
        .is_some_and(|configuration| configuration.bucket.is_some() || configuration.location.is_some())
    {
        return Err(not_honoured("Bucket and Location of a bucket configuration"));
    }
    let wanted =
        input.create_bucket_configuration.and_then(|configuration| configuration.location_constraint);
    let region = wanted.map_or_else(|| "us-east-1".to_owned(), |region| region.as_str().to_owned());
    let made = front.objects.create_bucket(&account, &region, &input.bucket).await.map_err(answer)?;
    if !made && region != "us-east-1" {
        return Err(s3_error!(
            BucketAlreadyOwnedByYou,
            "Your previous request to create the named bucket succeeded and you already own it."
        ));
    }
    Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", input.bucket)) }))
}

/// Removes an empty bucket.
pub async fn delete_bucket(
    front: &Front,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    let account = account(&request)?;
    front.objects.delete_bucket(&account, &request.input.bucket).await.map_err(answer)?;
    Ok(S3Response::with_status(DeleteBucketOutput::default(), http::StatusCode::NO_CONTENT))
}

/// Answers the region of a bucket; none for us-east-1, as the service does.
pub async fn get_bucket_location(
    front: &Front,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    let account = account(&request)?;
    let bucket = front.objects.bucket(&account, &request.input.bucket).await.map_err(answer)?;
    let constraint = (bucket.region != "us-east-1").then(|| BucketLocationConstraint::from(bucket.region));
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint: constraint }))
}

/// Answers that versions are not kept.
pub async fn get_bucket_versioning(
    front: &Front,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<S3Response<GetBucketVersioningOutput>> {
    let account = account(&request)?;
    front.objects.bucket(&account, &request.input.bucket).await.map_err(answer)?;
    Ok(S3Response::new(GetBucketVersioningOutput::default()))
}

/// Answers whether a bucket is there.
pub async fn head_bucket(
    front: &Front,
    request: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    let account = account(&request)?;
    let bucket = front.objects.bucket(&account, &request.input.bucket).await.map_err(answer)?;
    Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(bucket.region), ..Default::default() }))
}

/// Lists the buckets of the account.
pub async fn list_buckets(
    front: &Front,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let found = front.objects.buckets(&account).await.map_err(answer)?;
    let wanted = |bucket: &&store::objects::Bucket| {
        input.prefix.as_deref().is_none_or(|prefix| bucket.name.starts_with(prefix))
            && input.bucket_region.as_deref().is_none_or(|region| bucket.region == region)
            && input.continuation_token.as_deref().is_none_or(|token| bucket.name.as_str() > token)
    };
    if input.max_buckets.is_some_and(|most| !(1..=10_000).contains(&most)) {
        return Err(s3_error!(
            InvalidArgument,
            "Argument max-buckets must be an integer between 1 and 10000"
        ));
    }
    let limit = input.max_buckets.map_or(usize::MAX, |most| most as usize);
    let matching: Vec<_> = found.iter().filter(wanted).collect();
    let buckets: Vec<Bucket> = matching
        .iter()
        .take(limit)
        .map(|bucket| Bucket {
            name: Some(bucket.name.clone()),
            creation_date: Some(upload::timestamp(bucket.created_at)),
            bucket_region: Some(bucket.region.clone()),
        })
        .collect();
    let more = matching.len() > buckets.len();
    Ok(S3Response::new(ListBucketsOutput {
        continuation_token: more.then(|| buckets.last().and_then(|bucket| bucket.name.clone())).flatten(),
        owner: Some(Owner { id: Some(account.clone()), display_name: Some(account) }),
        prefix: input.prefix,
        buckets: Some(buckets),
    }))
}
