//! What can go wrong in the store.

/// Result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A resource with this kind and name exists already.
    #[error("{kind} {name} exists already")]
    Exists {
        /// Kind of the resource.
        kind: String,
        /// Its name.
        name: String,
    },
    /// No such resource.
    #[error("{kind} {name} does not exist")]
    Missing {
        /// Kind of the resource.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The resource is not in a status that allows the change.
    #[error("{kind} {name} is in status {status}")]
    WrongStatus {
        /// Kind of the resource.
        kind: String,
        /// Its name.
        name: String,
        /// Status it is in.
        status: String,
    },
    /// Somebody else holds the work, or a newer attempt does.
    #[error("the lease on {kind} {name} was lost")]
    LeaseLost {
        /// Kind of the resource.
        kind: String,
        /// Its name.
        name: String,
    },
    /// What is asked for belongs to another account.
    #[error("{0}")]
    Denied(String),
    /// A condition of the request does not hold.
    #[error("{0}")]
    Precondition(String),
    /// A page token that this store did not make.
    #[error("the page token is not valid")]
    BadToken,
    /// The input breaks a rule of the store.
    #[error("{0}")]
    Invalid(String),
    /// The input breaks a rule of S3.
    #[error("{0}")]
    Refused(#[from] crate::objects::Refusal),
    /// An encryption key cannot be used.
    #[error("{0}")]
    Key(#[from] crate::keys::KeyProblem),
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
    /// A file failed.
    #[error("a file operation failed: {context}")]
    File {
        /// What was being done.
        context: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A stored document does not parse.
    #[error("a stored document is damaged")]
    Damaged(#[from] serde_json::Error),
    /// The commit that carried this write failed, or the writer is gone.
    #[error("the write was not committed: {0}")]
    NotCommitted(String),
}

impl Error {
    /// Wraps an I/O error with what was being done.
    pub fn file(context: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let context = context.into();
        move |source| Error::File { context, source }
    }
}
