//! Errors of the store in the codes of S3.

use s3s::{S3Error, S3ErrorCode, s3_error};
use store::Error;
use store::objects::{BUCKET_KIND, UPLOAD_KIND};

/// The answer for an error of the store.
pub fn answer(error: Error) -> S3Error {
    match error {
        Error::Missing { kind, .. } if kind == BUCKET_KIND => {
            s3_error!(NoSuchBucket, "The specified bucket does not exist")
        }
        Error::Missing { kind, .. } if kind == UPLOAD_KIND => s3_error!(
            NoSuchUpload,
            "The specified multipart upload does not exist. The upload ID might be invalid, or the multipart upload might have been aborted or completed."
        ),
        Error::Missing { .. } => s3_error!(NoSuchKey, "The specified key does not exist."),
        Error::Denied(_) => s3_error!(AccessDenied, "Access Denied"),
        Error::Exists { .. } => s3_error!(
            BucketAlreadyExists,
            "The requested bucket name is not available. The bucket namespace is shared by all accounts."
        ),
        Error::WrongStatus { .. } => s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"),
        Error::Precondition(_) => {
            s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
        }
        Error::Invalid(text) => invalid(text),
        other => {
            tracing::error!(error = %other, source = ?std::error::Error::source(&other), "an S3 operation failed");
            s3_error!(InternalError, "We encountered an internal error. Please try again.")
        }
    }
}

/// The store puts the code before the text where S3 has one.
fn invalid(text: String) -> S3Error {
    let code = match text.split(':').next() {
        Some("InvalidPart") => S3ErrorCode::InvalidPart,
        Some("InvalidPartOrder") => S3ErrorCode::InvalidPartOrder,
        Some("EntityTooSmall") => S3ErrorCode::EntityTooSmall,
        _ if text.contains("bucket name") => S3ErrorCode::InvalidBucketName,
        _ if text.contains("at most") => S3ErrorCode::KeyTooLongError,
        _ => S3ErrorCode::InvalidArgument,
    };
    S3Error::with_message(code, text)
}
