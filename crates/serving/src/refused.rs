//! Why a replica of many models or several containers has no answer, where it is no fault of a worker.

/// What stands between a request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no model of the name that the request gives; the text says where it was looked for.
    NoSuchModel(String),
    /// The model cannot be loaded; the text says why.
    NotLoaded {
        /// The status that stands for it.
        status: u16,
        /// Why, with the last lines of its log where there are any.
        reason: String,
    },
    /// The model is still being loaded.
    NotReady,
    /// No worker was free in time.
    Overloaded,
    /// The model, or a container, took too long.
    TimedOut,
}
