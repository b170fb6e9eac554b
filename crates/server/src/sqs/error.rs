//! Refusals in the codes of SQS.

use api::model::Service;
use api::sqs::BatchResultErrorEntry;

use crate::Error;

/// Result of a handler.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// What a handler answers instead of its output.
#[derive(Debug)]
pub enum Problem {
    /// A code of the service with its text.
    Code(&'static str, String),
    /// What is named belongs to another account.
    Denied(String),
    /// What all services have in common.
    Other(Error),
}

impl Problem {
    /// A code of the service with its text.
    pub fn new(code: &'static str, text: impl Into<String>) -> Problem {
        Problem::Code(code, text.into())
    }

    /// A parameter that breaks a rule.
    pub fn parameter(value: impl std::fmt::Display, parameter: &str, reason: &str) -> Problem {
        let text = format!("Value {value} for parameter {parameter} is invalid. Reason: {reason}");
        Problem::Code("InvalidParameterValue", text)
    }

    /// No such queue.
    pub fn missing() -> Problem {
        Problem::new("QueueDoesNotExist", "The specified queue does not exist.")
    }

    /// As the failed entry of a batch.
    ///
    /// # Errors
    /// What is no fault of the entry.
    pub fn of_entry(self, id: String) -> Result<BatchResultErrorEntry> {
        match self {
            Problem::Code(code, text) => {
                let (id, code) = (Some(id), Some(code.to_owned()));
                Ok(BatchResultErrorEntry { id, sender_fault: Some(true), code, message: Some(text) })
            }
            other => Err(other),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::Other(error)
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Problem {
        Problem::Other(error.into())
    }
}

impl wire::IntoError for Problem {
    fn into_error(self, service: &'static Service, request_id: &str) -> wire::Error {
        match self {
            Problem::Code(code, text) => wire::Error::new(code, 400, text),
            Problem::Denied(text) => wire::Error::new("AccessDenied", 403, text),
            Problem::Other(error) => error.into_error(service, request_id),
        }
    }
}
