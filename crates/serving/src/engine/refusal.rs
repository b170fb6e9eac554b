//! Why a model or a request is not taken.

/// Why the native engine does not take a model file. The texts continue a sentence that names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No format that it knows.
    #[error("{0}")]
    Foreign(String),
    /// Something in it that it does not compute.
    #[error("{0}")]
    Unsupported(String),
    /// It contradicts itself.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// Why a request has no predictions: the status of the answer, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestError {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl RequestError {
    /// The rows cannot be read.
    pub(crate) fn unreadable(format: &str, problem: &str) -> Self {
        let text = format!(
            "Loading {format} data failed with Exception, please ensure data is in {format} format: {problem}"
        );
        Self { status: 415, text }
    }

    /// The rows are no rows of this model.
    pub(crate) fn unfit(problem: &str) -> Self {
        Self { status: 400, text: format!("Unable to evaluate payload provided: {problem}") }
    }

    /// The media type of the request.
    pub(crate) fn content_type(content_type: &str) -> Self {
        let text = format!(
            "Content-type {content_type} is not supported; the native engine reads text/csv, text/libsvm, text/x-libsvm, \
             application/json and application/x-npy. MODELYARD_ENGINE=python in the model's environment has Python read it."
        );
        Self { status: 415, text }
    }

    /// The media type of the answer.
    pub(crate) fn accept(accept: &str) -> Self {
        let text = format!(
            "Accept type {accept} is not supported. Please use supported accept types: application/json, application/jsonlines, \
             text/csv."
        );
        Self { status: 406, text }
    }
}
