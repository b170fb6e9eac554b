//! Errors of the store in the codes of S3.

use s3s::{S3Error, S3ErrorCode, s3_error};
use store::Error;
use store::objects::{BUCKET_KIND, Refusal, RemoteProblem, UPLOAD_KIND};

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
        Error::Refused(refusal) => refused(&refusal),
        Error::Key(problem) => super::encryption::refused(&problem),
        Error::Remote(problem) => of_remote(problem),
        Error::Invalid(text) => S3Error::with_message(S3ErrorCode::InvalidArgument, text),
        other => {
            if let Some(problem) = other.disk_problem() {
                tracing::warn!(error = %other, "the disk takes no writes");
                return S3Error::with_message(S3ErrorCode::ServiceUnavailable, problem.sentence());
            }
            tracing::error!(error = %other, source = ?std::error::Error::source(&other), "an S3 operation failed");
            s3_error!(InternalError, "We encountered an internal error. Please try again.")
        }
    }
}

fn of_remote(problem: RemoteProblem) -> S3Error {
    let (code, text) = match problem {
        RemoteProblem::Unavailable(text) => (S3ErrorCode::ServiceUnavailable, text),
        RemoteProblem::Denied(text) => (S3ErrorCode::AccessDenied, text),
        RemoteProblem::Refused(text) => (S3ErrorCode::InvalidRequest, text),
    };
    tracing::warn!(problem = text, "a remote bucket does not do what is asked of it");
    S3Error::with_message(code, format!("{text}."))
}

fn refused(refusal: &Refusal) -> S3Error {
    let code = match refusal {
        Refusal::BucketName(_) => S3ErrorCode::InvalidBucketName,
        Refusal::KeyEmpty => S3ErrorCode::InvalidArgument,
        Refusal::NoFileName(_) => S3ErrorCode::InvalidArgument,
        Refusal::OfFolder(_) | Refusal::OfRemote(_) => S3ErrorCode::InvalidRequest,
        Refusal::KeyTooLong => S3ErrorCode::KeyTooLongError,
        Refusal::NoParts => S3ErrorCode::MalformedXML,
        Refusal::PartOrder => S3ErrorCode::InvalidPartOrder,
        Refusal::Part(_) => S3ErrorCode::InvalidPart,
        Refusal::PartTooSmall(_) => S3ErrorCode::EntityTooSmall,
    };
    S3Error::with_message(code, format!("Your request was refused: {refusal}."))
}

/// A refusal with a code that `s3s` does not list.
pub fn refusal(code: &str, text: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InvalidRequest);
    let mut error = S3Error::with_message(code, text);
    error.set_status_code(http::StatusCode::BAD_REQUEST);
    error
}
