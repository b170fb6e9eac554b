//! Refusals in the codes of Lambda.

use api::model::Service;

use crate::Error;

/// Result of a handler.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// What a handler answers instead of its output.
#[derive(Debug)]
pub enum Problem {
    /// A code of the service with its text; the model knows the status.
    Code(&'static str, String),
    /// What is named belongs to another account.
    Denied(String),
    /// What all services have in common.
    Other(Error),
}

impl Problem {
    /// A parameter that breaks a rule.
    pub fn invalid(text: impl Into<String>) -> Problem {
        Problem::Code("InvalidParameterValueException", text.into())
    }

    /// A field that is not honoured.
    pub fn field(name: &str) -> Problem {
        Problem::invalid(Error::field(name).to_string())
    }

    /// No such function.
    pub fn missing(arn: impl std::fmt::Display) -> Problem {
        Problem::Code("ResourceNotFoundException", format!("Function not found: {arn}"))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        match error {
            Error::NotImplemented(text) | Error::Validation(text) => Problem::invalid(text),
            other => Problem::Other(other),
        }
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
            Problem::Denied(text) => wire::Error::new("AccessDeniedException", 403, text),
            Problem::Other(error) => error.into_error(service, request_id),
        }
    }
}
