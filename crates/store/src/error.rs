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
    /// A remote bucket does not do what is asked of it.
    #[error("{0}")]
    Remote(#[from] crate::objects::RemoteProblem),
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

/// Why the disk takes no writes; it may take them again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskProblem {
    /// No space is left, or none that this user may have.
    Full,
    /// The file system is mounted read-only, as the system does with one that is damaged.
    ReadOnly,
}

impl DiskProblem {
    /// The problem behind an error of the system.
    pub fn of(error: &std::io::Error) -> Option<DiskProblem> {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(DiskProblem::Full),
            ErrorKind::ReadOnlyFilesystem => Some(DiskProblem::ReadOnly),
            _ => None,
        }
    }

    /// A few words.
    pub fn text(self) -> &'static str {
        match self {
            DiskProblem::Full => "the disk is full",
            DiskProblem::ReadOnly => "the file system is read-only",
        }
    }

    /// A sentence for whoever asked for the write.
    pub fn sentence(self) -> &'static str {
        match self {
            DiskProblem::Full => {
                "The disk of the data directory is full: nothing was written. Free space there, then try again."
            }
            DiskProblem::ReadOnly => {
                "The file system of the data directory is read-only: nothing was written. Make it writable, then try again."
            }
        }
    }
}

impl Error {
    /// What the disk has to do with it.
    pub fn disk_problem(&self) -> Option<DiskProblem> {
        match self {
            Error::File { source, .. } => DiskProblem::of(source),
            Error::Database(error) => match error.sqlite_error_code()? {
                rusqlite::ErrorCode::DiskFull => Some(DiskProblem::Full),
                rusqlite::ErrorCode::ReadOnly => Some(DiskProblem::ReadOnly),
                _ => None,
            },
            Error::NotCommitted(text) => {
                [DiskProblem::Full, DiskProblem::ReadOnly].into_iter().find(|problem| problem.text() == text)
            }
            _ => None,
        }
    }

    /// Its text with that of its cause, for people who see nothing else of it.
    pub fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    /// The text of [`Error::NotCommitted`] for all writes that shared the commit which failed so.
    pub(crate) fn commit_text(&self) -> String {
        self.disk_problem().map_or_else(|| self.with_cause(), |problem| problem.text().to_owned())
    }

    /// Wraps an I/O error with what was being done.
    pub fn file(context: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let context = context.into();
        move |source| Error::File { context, source }
    }
}
