//! What is captured, in which form, and where it goes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::segment::Segment;
use crate::launcher::BoxFuture;

/// How invocations of one endpoint are captured.
#[derive(Clone)]
pub struct CapturePlan {
    /// How many invocations of a hundred are captured.
    pub percentage: u8,
    /// Whether requests are captured.
    pub input: bool,
    /// Whether answers are captured.
    pub output: bool,
    /// Where it goes, for the [`CaptureStore`]; kept with the spool, so that the next server knows it, too.
    pub target: serde_json::Value,
    /// Writes a captured invocation down.
    pub format: Arc<dyn CaptureFormat>,
}

/// The text form of captured invocations.
pub trait CaptureFormat: Send + Sync {
    /// Appends one line, without a line feed in it or at its end.
    fn write(&self, captured: &CapturedInvocation, line: &mut Vec<u8>);
}

/// Where captured data is kept.
pub trait CaptureStore: Send + Sync {
    /// Stores a segment and returns when it is durable. One that was stored already, before a crash, is stored again under the same
    /// name. The error is a text for people; the delivery is tried again.
    fn deliver<'a>(
        &'a self,
        target: &'a serde_json::Value,
        segment: &'a Segment,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// Hears of captured invocations that are gone, because a server was killed or nothing took them for too long.
    fn lost<'a>(&'a self, target: &'a serde_json::Value, count: u64) -> BoxFuture<'a, ()>;
}

/// One side of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedBody {
    /// The media type that was given.
    pub content_type: Option<String>,
    /// The bytes, of a long streamed answer the first ones.
    pub data: Bytes,
}

/// One invocation that was answered.
#[derive(Clone, Debug)]
pub struct CapturedInvocation {
    /// The name of the request in logs, when it had one.
    pub request_id: Option<String>,
    /// The variant that answered.
    pub variant: String,
    /// When it was answered, milliseconds since 1970.
    pub at_ms: i64,
    /// From the arrival of the request to the end of the answer.
    pub latency: Duration,
    /// Free text for the model.
    pub custom_attributes: Option<String>,
    /// The caller's name for this inference.
    pub inference_id: Option<String>,
    /// The model that the caller named, of several.
    pub target_model: Option<String>,
    /// The container that the caller named, of several.
    pub target_container: Option<String>,
    /// The request, when it is wanted.
    pub input: Option<CapturedBody>,
    /// The answer, when it is wanted.
    pub output: Option<CapturedBody>,
}
