//! Capture of invocations beside the hot path: a sampled invocation goes to a bounded queue, from there to a spool on the disk
//! several times a second, and from the spool, piece by piece, to wherever captured data is kept.

mod captures;
mod counts;
mod delivery;
mod draft;
mod latencies;
mod plan;
mod queue;
mod recovery;
mod segment;
mod spool;
mod writer;

pub use captures::{CaptureCounts, CaptureSettings, Captures};
pub(crate) use draft::Draft;
pub use latencies::Latencies;
pub use plan::{CaptureFormat, CapturePlan, CaptureStore, CapturedBody, CapturedInvocation};
pub use queue::Capture;
pub(crate) use queue::kept;
pub use segment::Segment;
