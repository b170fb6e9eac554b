//! Refusals in the codes of Glue.

use api::model::Service;

use crate::Error;

/// Result of a handler.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// What a handler answers instead of its output.
#[derive(Debug)]
pub enum Problem {
    /// A code of the service with its text.
    Code(&'static str, String),
    /// What all services have in common.
    Other(Error),
}

impl Problem {
    /// A parameter that breaks a rule.
    pub fn invalid(text: impl Into<String>) -> Problem {
        Problem::Code("InvalidInputException", text.into())
    }

    /// No such thing.
    pub fn missing(text: impl Into<String>) -> Problem {
        Problem::Code("EntityNotFoundException", text.into())
    }

    /// The name is taken.
    pub fn taken(text: impl Into<String>) -> Problem {
        Problem::Code("AlreadyExistsException", text.into())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        match error {
            Error::Validation(text) | Error::NotImplemented(text) => Problem::invalid(text),
            other => Problem::Other(other),
        }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Problem {
        Problem::from(Error::from(error))
    }
}

impl wire::IntoError for Problem {
    fn into_error(self, service: &'static Service, request_id: &str) -> wire::Error {
        match self {
            Problem::Code(code, text) => wire::Error::new(code, 400, text),
            Problem::Other(error) => error.into_error(service, request_id),
        }
    }
}
