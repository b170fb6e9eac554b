//! AWS protocols on the wire: dispatch, signatures, parsing, constraint checks, answers and errors.

mod body;
mod caller;
mod dispatch;
mod encoding;
mod error;
pub mod event_stream;
mod finishing;
mod form;
mod front;
mod internal;
mod path_template;
mod protocol;
mod registry;
mod services;
pub mod sigv4;
mod timestamp;
mod understood;
pub mod validation;

pub use body::{Body, BoxError, TooSlow, empty, full};
pub use caller::{Authorize, Caller, Context, Credential, CredentialProblem, Credentials, Peer, SessionTags};
pub use error::{Error, IntoError};
pub use front::{Front, Observed, Observer, RAW_BODY_LIMIT_BYTES, Responder};
pub use internal::Internal;
pub use registry::{RawRequest, Registry};
pub use services::Services;
pub use understood::Understood;
