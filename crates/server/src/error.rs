//! One protocol-neutral error for all handlers, and its codes per service.

use api::model::Service;

/// Result of a handler.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a handler can answer instead of its output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks a rule; the text names the field.
    #[error("{0}")]
    Validation(String),
    /// As `Validation`, for services that say `InvalidParameterException`.
    #[error("{0}")]
    InvalidParameter(String),
    /// No such resource in the caller's account and region.
    #[error("{kind} {name} does not exist")]
    NotFound {
        /// Kind, as in [`crate::sagemaker::kinds`], or a neighbour's word such as `role`.
        kind: &'static str,
        /// Name, or ARN where the service's text carries one.
        name: String,
    },
    /// The name is taken.
    #[error("{text}")]
    Exists {
        /// Kind of the resource.
        kind: &'static str,
        /// Public text.
        text: String,
    },
    /// The resource is used by another one, or busy.
    #[error("{0}")]
    InUse(String),
    /// What is there, or its state, does not allow it; of SageMaker for operations whose model has `ConflictException`.
    #[error("{0}")]
    Conflict(String),
    /// A limit of the account.
    #[error("{0}")]
    LimitExceeded(String),
    /// The caller may not do this.
    #[error("{0}")]
    AccessDenied(String),
    /// The model knows it, we do not do it yet; the text names the field or operation.
    #[error("{0}")]
    NotImplemented(String),
    /// The user's model or container answered with an error.
    #[error("{message}")]
    Model {
        /// Public text.
        message: String,
        /// Status that the model host answered.
        original_status: u16,
        /// The body of its answer, as text.
        original_message: String,
    },
    /// More requests than are taken at a time.
    #[error("{0}")]
    Throttled(String),
    /// The model is still being loaded.
    #[error("{0}")]
    NotReady(String),
    /// The endpoint cannot take the request now.
    #[error("{0}")]
    Unavailable(String),
    /// Our fault; the cause is logged, the caller gets a general text.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// A taken name with the service's text.
    pub fn exists(kind: &'static str, text: impl Into<String>) -> Error {
        Error::Exists { kind, text: text.into() }
    }

    /// A missing resource.
    pub fn not_found(kind: &'static str, name: impl Into<String>) -> Error {
        Error::NotFound { kind, name: name.into() }
    }

    /// An invalid parameter of a service that says `InvalidParameterException`.
    pub fn invalid_parameter(text: impl Into<String>) -> Error {
        Error::InvalidParameter(text.into())
    }

    /// A fault of ours.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Internal(source.into())
    }

    /// A field of the model that this release does not honour.
    pub fn field(name: &str) -> Error {
        Error::NotImplemented(format!(
            "Modelyard does not honour {name} yet, and does not ignore what it does not honour; leave {name} out."
        ))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        match error {
            store::Error::BadToken => {
                Error::Validation("The pagination token NextToken is not valid.".into())
            }
            store::Error::Invalid(text) => Error::Validation(text),
            store::Error::Refused(refusal) => Error::Validation(refusal.to_string()),
            store::Error::Remote(problem) => Error::Unavailable(format!("{problem}.")),
            other => match other.disk_problem() {
                Some(problem) => Error::Unavailable(problem.sentence().into()),
                None => Error::internal(other),
            },
        }
    }
}

impl wire::IntoError for Error {
    fn into_error(self, service: &'static Service, request_id: &str) -> wire::Error {
        let message = self.to_string();
        let (code, status, message): (&'static str, u16, String) = match self {
            Error::Validation(_) => match service.id {
                "sts" | "iam" | "cloudwatch" | "sagemaker-runtime" => ("ValidationError", 400, message),
                "logs" => ("InvalidParameterException", 400, message),
                "sns" => ("InvalidParameter", 400, message),
                _ => ("ValidationException", 400, message),
            },
            Error::InvalidParameter(_) => ("InvalidParameterException", 400, message),
            Error::NotFound { kind, name } => not_found(service, kind, &name),
            Error::Exists { .. } => match service.id {
                "iam" => ("EntityAlreadyExists", 409, message),
                "logs" => ("ResourceAlreadyExistsException", 400, message),
                "sagemaker" => ("ResourceInUse", 400, message),
                _ => ("ConflictException", 409, message),
            },
            Error::InUse(_) => match service.id {
                "sagemaker" => ("ResourceInUse", 400, message),
                _ => ("ConflictException", 409, message),
            },
            Error::Conflict(_) => match service.id {
                "sagemaker" => ("ConflictException", 400, message),
                _ => ("ConflictException", 409, message),
            },
            Error::LimitExceeded(_) => match service.id {
                "iam" => ("LimitExceeded", 409, message),
                "sagemaker" => ("ResourceLimitExceeded", 400, message),
                "logs" => ("TooManyTagsException", 400, message),
                _ => ("LimitExceededException", 400, message),
            },
            Error::AccessDenied(_) => match service.id {
                "sts" | "iam" => ("AccessDenied", 403, message),
                _ => ("AccessDeniedException", 400, message),
            },
            Error::NotImplemented(_) => match service.id {
                "sts" | "iam" | "cloudwatch" => ("ValidationError", 400, message),
                "logs" => ("InvalidParameterException", 400, message),
                "sns" => ("InvalidParameter", 400, message),
                _ => ("ValidationException", 400, message),
            },
            Error::Model { original_status, original_message, .. } => {
                let mut error = wire::Error::new("ModelError", 424, message);
                error.members.insert("OriginalStatusCode".into(), original_status.into());
                error.members.insert("OriginalMessage".into(), original_message.into());
                return error;
            }
            Error::Throttled(_) => ("ThrottlingException", 429, message),
            Error::NotReady(_) => ("ModelNotReadyException", 429, message),
            Error::Unavailable(_) => ("ServiceUnavailable", 503, message),
            Error::Internal(source) => {
                log_chain(source.as_ref(), service, request_id);
                let text = "An internal error occurred; the server's log has it under the request id.";
                ("InternalFailure", 500, text.to_owned())
            }
        };
        wire::Error::new(code, status, message)
    }
}

fn log_chain(source: &(dyn std::error::Error + 'static), service: &Service, request_id: &str) {
    let mut text = source.to_string();
    let mut next = source.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    tracing::error!(service = service.id, request_id, error = text, "internal error");
}

/// Code, status and text of a missing resource; clients match on both code and text.
fn not_found(service: &Service, kind: &str, name: &str) -> (&'static str, u16, String) {
    match (service.id, kind) {
        ("iam", kind) => ("NoSuchEntity", 404, format!("The {kind} with name {name} cannot be found.")),
        ("logs", kind) => ("ResourceNotFoundException", 400, format!("The specified {kind} does not exist.")),
        ("sagemaker-runtime", "endpoint") => {
            ("ValidationError", 400, format!("Endpoint {name} of account was not found."))
        }
        ("application-autoscaling", _) => {
            ("ObjectNotFoundException", 400, format!("No {kind} was found for {name}."))
        }
        (_, "model") => ("ValidationException", 400, format!("Could not find model \"{name}\".")),
        (_, "endpoint") => ("ValidationException", 400, format!("Could not find endpoint \"{name}\".")),
        (_, "endpoint-config") => {
            ("ValidationException", 400, format!("Could not find endpoint configuration \"{name}\"."))
        }
        (_, "inference-component") => {
            ("ValidationException", 400, format!("Could not find inference component \"{name}\"."))
        }
        (_, "processing-job") => {
            ("ValidationException", 400, format!("Could not find requested job with name: {name}"))
        }
        (_, "model-package-group") => {
            ("ValidationException", 400, format!("ModelPackageGroup {name} does not exist."))
        }
        (_, "model-package") => ("ValidationException", 400, format!("ModelPackage {name} does not exist.")),
        (_, "training-job") => ("ValidationException", 400, "Requested resource not found.".to_owned()),
        (_, kind) => ("ResourceNotFound", 400, format!("{kind} {name} does not exist.")),
    }
}
