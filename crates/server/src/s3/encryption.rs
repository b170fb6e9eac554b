//! Encryption at rest: what a write asks for, what answers show, and what a bucket prescribes.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use store::keys::KeyProblem;
use store::objects::{Attributes, Protection};

use super::Front;
use super::attributes::not_honoured;
use super::auth::account;
use super::errors::{answer, refusal};

const ALGORITHM: &str = "x-amz-server-side-encryption";
const KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CONTEXT: &str = "x-amz-server-side-encryption-context";
const BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";

/// Whether a request says anything about encryption.
pub fn is_given(headers: &HeaderMap) -> bool {
    [ALGORITHM, KEY, CONTEXT, BUCKET_KEY].iter().any(|name| headers.contains_key(*name))
}

/// How a write wants its object encrypted; `None` leaves it to the bucket.
///
/// # Errors
/// Names a header that is not legal or not honoured.
pub fn wish(headers: &HeaderMap) -> S3Result<Option<Protection>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_of_key = text(KEY).is_some() || text(CONTEXT).is_some();
    match text(ALGORITHM) {
        Some("aws:kms") => {}
        Some("aws:kms:dsse") => return Err(not_honoured("x-amz-server-side-encryption aws:kms:dsse")),
        None | Some("AES256") if is_of_key => {
            return Err(s3_error!(
                InvalidArgument,
                "Server Side Encryption with KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms"
            ));
        }
        None => return Ok(None),
        Some("AES256") => return Ok(Some(Protection::Account)),
        Some(_) => {
            return Err(s3_error!(
                InvalidEncryptionAlgorithmError,
                "The encryption request that you specified is not valid. The valid values are AES256 and aws:kms."
            ));
        }
    }
    let bucket_key = match text(BUCKET_KEY).map(str::to_ascii_lowercase).as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(s3_error!(InvalidArgument, "The header {BUCKET_KEY} is true or false.")),
    };
    let context = text(CONTEXT).map(context).transpose()?.unwrap_or_default();
    Ok(Some(Protection::Key { reference: text(KEY).map(str::to_owned), context, bucket_key }))
}

fn context(header: &str) -> S3Result<BTreeMap<String, String>> {
    let parsed = STANDARD.decode(header).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    parsed.ok_or_else(|| {
        s3_error!(InvalidArgument, "The header {CONTEXT} must be a JSON object of texts, in base64.")
    })
}

/// The headers that say how an object or upload is encrypted; none for a plain one.
pub fn headers(account: &str, attributes: &Attributes) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(encryption) = &attributes.encryption else { return headers };
    let mut set = |name: &'static str, value: String| {
        headers.extend(
            HeaderValue::try_from(value).ok().map(|value| (http::HeaderName::from_static(name), value)),
        );
    };
    match &encryption.key {
        None => set(ALGORITHM, "AES256".into()),
        Some(key) => {
            set(ALGORITHM, "aws:kms".into());
            set(KEY, crate::kms::key_arn(&key.region, account, &key.id));
            if key.bucket_key {
                set(BUCKET_KEY, "true".into());
            }
        }
    }
    headers
}

/// As [`headers`], with the context that a write gave.
pub fn headers_of_write(account: &str, attributes: &Attributes) -> HeaderMap {
    let mut headers = headers(account, attributes);
    let key = attributes.encryption.as_ref().and_then(|encryption| encryption.key.as_ref());
    if let Some(key) = key.filter(|key| !key.context.is_empty()) {
        let text = STANDARD.encode(serde_json::json!(key.context).to_string());
        headers.extend(
            HeaderValue::try_from(text).ok().map(|value| (http::HeaderName::from_static(CONTEXT), value)),
        );
    }
    headers
}

/// The answer for a key that cannot be used, in the words of S3.
pub fn refused(problem: &KeyProblem) -> s3s::S3Error {
    match problem {
        KeyProblem::Missing(name) | KeyProblem::MissingAlias(name) => {
            refusal("KMS.NotFoundException", format!("Invalid keyId {name}: there is no such key."))
        }
        KeyProblem::Disabled(id) => refusal("KMS.DisabledException", format!("The key {id} is disabled.")),
        KeyProblem::PendingDeletion(id) => {
            refusal("KMS.KMSInvalidStateException", format!("The key {id} is pending deletion."))
        }
        other => {
            tracing::error!(problem = %other, "an object cannot be decrypted");
            s3_error!(InternalError, "The object cannot be decrypted; the server's log has the cause.")
        }
    }
}

/// Sets how objects are encrypted whose write does not say so.
pub async fn put_bucket_encryption(
    front: &Front,
    request: S3Request<PutBucketEncryptionInput>,
) -> S3Result<S3Response<PutBucketEncryptionOutput>> {
    let account = account(&request)?;
    let input = request.input;
    let protection = prescribed(input.server_side_encryption_configuration.rules)?;
    let set = front.objects.set_default_protection(&account, &input.bucket, Some(&protection)).await;
    set.map_err(answer)?;
    Ok(S3Response::new(PutBucketEncryptionOutput::default()))
}

fn prescribed(rules: Vec<ServerSideEncryptionRule>) -> S3Result<Protection> {
    let one: Result<[ServerSideEncryptionRule; 1], _> = rules.try_into();
    let [rule] = one.map_err(|_| s3_error!(MalformedXML, "An encryption configuration has one rule."))?;
    let default = rule
        .apply_server_side_encryption_by_default
        .ok_or_else(|| s3_error!(MalformedXML, "A rule needs ApplyServerSideEncryptionByDefault."))?;
    match (default.sse_algorithm.as_str(), default.kms_master_key_id) {
        ("AES256", None) => Ok(Protection::Account),
        ("AES256", Some(_)) => Err(s3_error!(
            InvalidArgument,
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms"
        )),
        ("aws:kms", reference) => Ok(Protection::Key {
            reference,
            context: BTreeMap::new(),
            bucket_key: rule.bucket_key_enabled == Some(true),
        }),
        ("aws:kms:dsse", _) => Err(not_honoured("SSEAlgorithm aws:kms:dsse")),
        _ => Err(s3_error!(MalformedXML, "The SSEAlgorithm of a rule is AES256 or aws:kms.")),
    }
}

/// Answers how objects are encrypted whose write does not say so.
pub async fn get_bucket_encryption(
    front: &Front,
    request: S3Request<GetBucketEncryptionInput>,
) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
    let account = account(&request)?;
    let found = front.objects.default_protection(&account, &request.input.bucket).await.map_err(answer)?;
    let (algorithm, key, bucket_key) = match found {
        None | Some(Protection::Plain) => {
            let mut error = refusal(
                "ServerSideEncryptionConfigurationNotFoundError",
                "The server side encryption configuration was not found",
            );
            error.set_status_code(http::StatusCode::NOT_FOUND);
            return Err(error);
        }
        Some(Protection::Account) => (ServerSideEncryption::AES256, None, false),
        Some(Protection::Key { reference, bucket_key, .. }) => {
            (ServerSideEncryption::AWS_KMS, reference, bucket_key)
        }
    };
    let rule = ServerSideEncryptionRule {
        apply_server_side_encryption_by_default: Some(ServerSideEncryptionByDefault {
            kms_master_key_id: key,
            sse_algorithm: ServerSideEncryption::from_static(algorithm),
        }),
        bucket_key_enabled: Some(bucket_key),
    };
    Ok(S3Response::new(GetBucketEncryptionOutput {
        server_side_encryption_configuration: Some(ServerSideEncryptionConfiguration { rules: vec![rule] }),
    }))
}

/// Leaves objects plain again whose write does not ask for encryption.
pub async fn delete_bucket_encryption(
    front: &Front,
    request: S3Request<DeleteBucketEncryptionInput>,
) -> S3Result<S3Response<DeleteBucketEncryptionOutput>> {
    let account = account(&request)?;
    let removed = front.objects.set_default_protection(&account, &request.input.bucket, None).await;
    removed.map_err(answer)?;
    Ok(S3Response::with_status(DeleteBucketEncryptionOutput::default(), http::StatusCode::NO_CONTENT))
}
