//! How CloudWatch refuses: its own codes for what is missing, wrong, or wrong together.

use api::model::Service;

use crate::Error;

/// Result of a handler of this service.
pub type Result<T, E = Refusal> = std::result::Result<T, E>;

/// Why a request is refused.
#[derive(Debug)]
pub enum Refusal {
    /// A parameter that must be given.
    Missing(String),
    /// A parameter whose value cannot be.
    Value(String),
    /// Parameters that do not go together.
    Combination(String),
    /// A rule of GetMetricData, which words its refusals in another way than the older operations.
    Validation(String),
    /// A token that this operation did not make, or made for another request.
    Token,
    /// Another error of the model, by the name of its shape.
    Named(&'static str, String),
    /// Everything that other services have, too.
    Other(Error),
}

impl Refusal {
    /// A value that is not allowed, in the words of the service.
    pub fn value(value: impl std::fmt::Display, parameter: &str) -> Refusal {
        Refusal::Value(format!("The value {value} for parameter {parameter} is invalid."))
    }
}

impl<E: Into<Error>> From<E> for Refusal {
    fn from(error: E) -> Refusal {
        Refusal::Other(error.into())
    }
}

impl wire::IntoError for Refusal {
    fn into_error(self, service: &'static Service, request_id: &str) -> wire::Error {
        let (code, text) = match self {
            Refusal::Missing(text) => ("MissingParameter", text),
            Refusal::Value(text) => ("InvalidParameterValue", text),
            Refusal::Combination(text) => ("InvalidParameterCombination", text),
            Refusal::Validation(text) => ("ValidationError", text),
            Refusal::Token => ("InvalidNextToken", "The NextToken does not belong to this request.".into()),
            Refusal::Named(name, text) => (name, text),
            Refusal::Other(error) => return error.into_error(service, request_id),
        };
        wire::Error::new(code, 400, text)
    }
}
