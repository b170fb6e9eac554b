//! Sessions that a model holds: where they are, so that their requests come back to the same worker.

/// Where a session is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPlace {
    /// The variant.
    pub variant: String,
    /// The replica.
    pub replica: String,
    /// Which of its workers, where each answers for itself.
    pub worker: Option<u64>,
}
