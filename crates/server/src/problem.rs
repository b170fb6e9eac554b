//! Refusals in the codes of a service, for services that share no code for them with SageMaker.

use api::model::Service;

use crate::Error;

/// Result of a handler.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// What a handler answers instead of its output.
#[derive(Debug)]
pub enum Problem {
    /// A code of the service with its text; the model knows the status.
    Code(&'static str, String),
    /// What all services have in common.
    Other(Error),
}

impl Problem {
    /// A parameter that breaks a rule.
    pub fn validation(text: impl Into<String>) -> Problem {
        Problem::Code("ValidationException", text.into())
    }

    /// No such thing.
    pub fn missing(text: impl Into<String>) -> Problem {
        Problem::Code("ResourceNotFoundException", text.into())
    }

    /// It is not in the state for that.
    pub fn conflict(text: impl Into<String>) -> Problem {
        Problem::Code("ConflictException", text.into())
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
            Problem::Other(error) => error.into_error(service, request_id),
        }
    }
}
