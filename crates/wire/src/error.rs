//! Errors as clients see them, and the codes of errors that arise before a handler runs.

use std::borrow::Cow;

use api::model::{Protocol, Service};
use serde_json::{Map, Value};

use crate::CredentialProblem;
use crate::sigv4::Problem;

/// An error answer: a code that clients match on, a text for people, and a status.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    /// Code, for example `ValidationException`. Where the model lists an error shape of this name, its status and wire code hold.
    pub code: Cow<'static, str>,
    /// One clear sentence.
    pub message: String,
    /// HTTP status, unless the model names one for this code.
    pub status: u16,
    /// Further members of the error shape, by model member name.
    pub members: Map<String, Value>,
}

/// Turns a product's error into an error answer of a service.
pub trait IntoError: Send {
    /// The answer for `service`; `request_id` is for the log line of an internal fault.
    fn into_error(self, service: &'static Service, request_id: &str) -> Error;
}

impl IntoError for Error {
    fn into_error(self, _service: &'static Service, _request_id: &str) -> Error {
        self
    }
}

/// Texts that differ only by protocol family in their codes.
const INVALID_TOKEN: &str = "The security token included in the request is invalid.";

impl Error {
    /// An error without further members.
    pub fn new(code: impl Into<Cow<'static, str>>, status: u16, message: impl Into<String>) -> Error {
        Error { code: code.into(), message: message.into(), status, members: Map::new() }
    }

    /// An operation that the service's model does not have.
    pub fn unknown_operation(protocol: Protocol, service: &str, operation: &str) -> Error {
        let text = format!(
            "{service} has no operation {operation}; check the client's version against docs/compatibility.md."
        );
        match protocol {
            Protocol::Query => Error::new("InvalidAction", 400, text),
            Protocol::RestJson | Protocol::RestXml => Error::new("UnknownOperationException", 404, text),
            _ => Error::new("UnknownOperationException", 400, text),
        }
    }

    /// A credential scope that names no service of this server.
    pub fn unknown_service(signing_name: &str) -> Error {
        let text = format!(
            "Modelyard does not speak for the service {signing_name:?}; docs/compatibility.md lists its services."
        );
        Error::new("UnknownService", 400, text)
    }

    /// An operation of the model that no handler is registered for. 400, so that clients do not try again.
    pub fn not_implemented(service: &str, operation: &str) -> Error {
        let text = format!(
            "Modelyard does not implement {service} {operation} yet; docs/compatibility.md lists what it does."
        );
        Error::new("NotImplemented", 400, text)
    }

    /// A protocol that this server does not decode.
    pub fn unsupported_protocol(protocol: &str) -> Error {
        let text = format!(
            "Modelyard does not decode the protocol {protocol}; use a client that speaks JSON or query."
        );
        Error::new("UnsupportedProtocol", 415, text)
    }

    /// An input that breaks a rule of its model, under the code that the service uses.
    pub fn validation(service: &Service, message: impl Into<String>) -> Error {
        let code = match service.id {
            "iam" | "sts" | "sns" | "cloudwatch" => "ValidationError",
            "sagemaker-runtime" | "sagemaker-featurestore-runtime" => "ValidationError",
            "logs" | "ecr" => "InvalidParameterException",
            _ => "ValidationException",
        };
        Error::new(code, 400, message)
    }

    /// A body, path or header that cannot be read as the operation's input.
    pub fn serialization(message: impl Into<String>) -> Error {
        Error::new("SerializationException", 400, message)
    }

    /// A body over the limit.
    pub fn too_large(limit_bytes: usize) -> Error {
        let text = format!(
            "The request body is larger than {limit_bytes} bytes, which is the limit of this operation."
        );
        Error::new("RequestEntityTooLargeException", 413, text)
    }

    /// A body that does not come, or drips.
    pub fn too_slow() -> Error {
        let text = "The request body came too slowly; send it in one go, and wait no longer than 30 seconds between two parts.";
        Error::new("RequestTimeout", 408, text)
    }

    /// A body in a coding that the server does not undo.
    pub fn unsupported_encoding(encoding: &str) -> Error {
        let text = format!(
            "The content encoding {encoding:?} is not supported; send the body as it is or with gzip."
        );
        Error::new("UnsupportedMediaTypeException", 415, text)
    }

    /// A request that must be signed and is not.
    pub fn missing_authentication_token(protocol: Protocol) -> Error {
        let code = match protocol {
            Protocol::Query => "MissingAuthenticationToken",
            _ => "MissingAuthenticationTokenException",
        };
        Error::new(code, 403, "Request is missing Authentication Token")
    }

    /// A key for which there is no usable credential.
    pub fn credential(protocol: Protocol, problem: CredentialProblem) -> Error {
        let (query_code, code, text) = match problem {
            CredentialProblem::Unknown | CredentialProblem::InvalidToken => {
                ("InvalidClientTokenId", "UnrecognizedClientException", INVALID_TOKEN)
            }
            CredentialProblem::Expired => (
                "ExpiredToken",
                "ExpiredTokenException",
                "The security token included in the request is expired",
            ),
            CredentialProblem::Unavailable => {
                let text =
                    "The access key could not be looked up; the server's log has the cause. Try again.";
                return Error::new("ServiceUnavailable", 503, text);
            }
        };
        Error::by_family(protocol, query_code, code, text.to_owned())
    }

    /// A signature that is malformed, late or wrong.
    pub fn signature(protocol: Protocol, problem: Problem) -> Error {
        match problem {
            Problem::Incomplete(text) => {
                Error::by_family(protocol, "IncompleteSignature", "IncompleteSignatureException", text)
            }
            Problem::Mismatch(text) | Problem::Time(text) => {
                Error::by_family(protocol, "SignatureDoesNotMatch", "InvalidSignatureException", text)
            }
        }
    }

    /// A fault of ours; the log has the cause under the request id.
    pub fn internal() -> Error {
        let text = "An internal error occurred; the server's log has it under the request id.";
        Error::new("InternalFailure", 500, text)
    }

    /// Query and REST services refuse an identity with 403, JSON services with 400.
    fn by_family(protocol: Protocol, query_code: &'static str, code: &'static str, text: String) -> Error {
        match protocol {
            Protocol::Query if query_code == "IncompleteSignature" => Error::new(query_code, 400, text),
            Protocol::Query => Error::new(query_code, 403, text),
            Protocol::RestJson | Protocol::RestXml => Error::new(code, 403, text),
            _ => Error::new(code, 400, text),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}
