//! What clients of the open protocols are told when there is no answer, in one form for all of them.

use http::StatusCode;
use serving::{InvokeError, TargetProblem};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of trouble it is; gRPC and HTTP have a code of their own for each.
    pub reason: Reason,
    /// One clear sentence.
    pub message: String,
}

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request cannot be read, or asks for what cannot be.
    Invalid,
    /// There is no good key.
    Unauthenticated,
    /// The key's owner may not do it.
    Denied,
    /// There is nothing of that name.
    NotFound,
    /// The method does not fit the path.
    WrongMethod,
    /// The protocol has it, this release does not do it.
    NotDone,
    /// The body is too large.
    TooLarge,
    /// Nobody takes requests now; later may be better.
    Unavailable,
    /// The model took too long.
    TimedOut,
    /// The model answered with this status of HTTP.
    Model(u16),
    /// The model's process was lost, or its answer cannot be read.
    BadAnswer,
    /// Our fault.
    Internal,
}

impl Reason {
    /// The status of HTTP.
    pub fn status(self) -> StatusCode {
        match self {
            Reason::Invalid | Reason::NotDone => StatusCode::BAD_REQUEST,
            Reason::Unauthenticated => StatusCode::UNAUTHORIZED,
            Reason::Denied => StatusCode::FORBIDDEN,
            Reason::NotFound => StatusCode::NOT_FOUND,
            Reason::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Reason::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Reason::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Reason::Model(status) => StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
            Reason::BadAnswer => StatusCode::BAD_GATEWAY,
            Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The status code of gRPC.
    pub fn grpc(self) -> u8 {
        match self {
            Reason::Invalid => 3,
            Reason::TimedOut => 4,
            Reason::NotFound => 5,
            Reason::Denied => 7,
            Reason::TooLarge => 8,
            Reason::WrongMethod | Reason::NotDone => 12,
            Reason::Model(400..=499) => 3,
            Reason::Model(_) | Reason::BadAnswer | Reason::Internal => 13,
            Reason::Unavailable => 14,
            Reason::Unauthenticated => 16,
        }
    }
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Refusal {
        Refusal { reason, message: message.into() }
    }

    /// A request that cannot be taken as it is.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(Reason::Invalid, message)
    }

    /// What came of an invocation of the model `name`.
    pub fn of(name: &str, error: &InvokeError) -> Refusal {
        let reason = match error {
            InvokeError::NoSuchEndpoint { .. } => return Refusal::no_model(name),
            InvokeError::NoSuchVariant { variant } => return Refusal::no_version(name, variant),
            InvokeError::WrongTarget { problem: TargetProblem::NoModelNamed } => {
                let text =
                    format!("The endpoint {name} has many models; call the one that is meant {name}/MODEL.");
                return Refusal::invalid(text);
            }
            InvokeError::ModelError { answer, body, .. } => {
                let shown: String = String::from_utf8_lossy(body).chars().take(4096).collect();
                let text = format!("The model {name} answered with status {}: {shown}", answer.status);
                return Refusal::new(Reason::Model(answer.status), text);
            }
            InvokeError::NoSuchModel { .. } => Reason::NotFound,
            InvokeError::WrongTarget { .. } => Reason::Invalid,
            InvokeError::NotInService { .. }
            | InvokeError::Overloaded { .. }
            | InvokeError::Throttled { .. }
            | InvokeError::ModelNotReady => Reason::Unavailable,
            InvokeError::Timeout { .. } => Reason::TimedOut,
            InvokeError::TooLarge { what: "request body", .. } => Reason::TooLarge,
            _ => Reason::BadAnswer,
        };
        Refusal::new(reason, error.to_string())
    }

    /// There is no model of that name, or it is another account's: which of both, nobody is told.
    pub fn no_model(name: &str) -> Refusal {
        let text = format!(
            "There is no model {name}; models are the endpoints and inference components in service."
        );
        Refusal::new(Reason::NotFound, text)
    }

    /// A model has no such version.
    pub fn no_version(name: &str, version: &str) -> Refusal {
        let text =
            format!("The model {name} has no version {version}; versions are the endpoint's variants.");
        Refusal::new(Reason::NotFound, text)
    }
}
