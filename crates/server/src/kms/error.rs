//! Refusals in the codes of KMS.

use api::model::Service;
use store::keys::KeyProblem;

use crate::{Cx, Error};

/// Result of a handler.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// What a handler answers instead of its output.
#[derive(Debug)]
pub enum Problem {
    /// A code of the service with its text.
    Code(&'static str, String),
    /// The name of a key is not one.
    Arn(String),
    /// What is named belongs to another account.
    Denied(String),
    /// What all services have in common.
    Other(Error),
}

impl Problem {
    /// The answer for an error of the store.
    pub fn of_key(cx: &Cx, error: store::Error) -> Problem {
        let store::Error::Key(problem) = error else { return Problem::Other(error.into()) };
        let (region, account) = (&cx.caller.region, &cx.caller.account);
        let arn = |id: &str| super::key_arn(region, account, id);
        let alias = |name: &str| format!("arn:aws:kms:{region}:{account}:{name}");
        let (code, text) = match &problem {
            KeyProblem::Missing(id) => ("NotFoundException", format!("Key '{}' does not exist", arn(id))),
            KeyProblem::MissingAlias(name) => {
                ("NotFoundException", format!("Alias {} is not found.", alias(name)))
            }
            KeyProblem::AliasExists(name) => {
                ("AlreadyExistsException", format!("An alias with the name {} already exists", alias(name)))
            }
            KeyProblem::Disabled(id) => ("DisabledException", format!("{} is disabled.", arn(id))),
            KeyProblem::PendingDeletion(id) => {
                ("KMSInvalidStateException", format!("{} is pending deletion.", arn(id)))
            }
            KeyProblem::NotPendingDeletion(id) => {
                ("KMSInvalidStateException", format!("{} is not pending deletion.", arn(id)))
            }
            KeyProblem::Managed(id) => {
                let text = format!("{} is managed by the server and cannot be changed.", arn(id));
                return Problem::Denied(text);
            }
            KeyProblem::Incorrect(id) => (
                "IncorrectKeyException",
                format!(
                    "The key ID in the request, {}, does not identify the key of the ciphertext.",
                    arn(id)
                ),
            ),
            KeyProblem::UnknownKey => {
                return Problem::Denied(
                    "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you \
                     are not allowed to access."
                        .into(),
                );
            }
            KeyProblem::Ciphertext => (
                "InvalidCiphertextException",
                "The ciphertext was changed, or its encryption context is another one.".into(),
            ),
        };
        Problem::Code(code, text)
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
            Problem::Arn(text) => wire::Error::new("InvalidArnException", 400, text),
            Problem::Denied(text) => wire::Error::new("AccessDeniedException", 400, text),
            Problem::Other(error) => error.into_error(service, request_id),
        }
    }
}
