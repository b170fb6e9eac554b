//! Feeds: channels that a job reads as streams, one FIFO per epoch (`CHANNEL_0`, `CHANNEL_1` and so on).
//!
//! What is sent is written down before the start, in a [`plan`] over plain files; the supervisor sends it, so that a feed
//! outlives the server.

mod epochs;
mod order;
pub mod plan;
mod record_io;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use epochs::{Feeder, Feeds};
pub use order::shard;
pub use record_io::MAX_RECORD_BYTES;

/// A channel that a job reads as a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Name of the channel.
    pub name: String,
    /// Host folder in which the FIFOs are made; the job may own it.
    pub directory: PathBuf,
    /// The file that says what is sent, see [`plan`].
    pub plan: PathBuf,
    /// Host folder of the files that the plan names. The job must not reach it.
    pub files: PathBuf,
    /// Whether each part of the plan becomes a record in MXNet's RecordIO framing.
    pub record_io: bool,
    /// Whether the files are compressed with gzip and sent uncompressed.
    pub gunzip: bool,
    /// Changes the order of the plan's entries from epoch to epoch.
    pub shuffle_seed: Option<i64>,
    /// Which of the entries this host gets; all when there is none.
    pub shard: Option<Shard>,
}

/// A host's part of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Index of the host, from zero.
    pub host: usize,
    /// Number of hosts.
    pub hosts: usize,
}
