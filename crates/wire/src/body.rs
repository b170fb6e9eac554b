//! Bodies of requests and answers.

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Collected, Full, LengthLimitError, Limited};

/// Any error that a body can end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any kind, whole or streamed.
pub type Body = BoxBody<Bytes, BoxError>;

/// A body that is at hand.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body without bytes.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// The error of a body that its client sends too slowly.
#[derive(Debug, Clone, Copy)]
pub struct TooSlow;

impl std::fmt::Display for TooSlow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the request body comes too slowly")
    }
}

impl std::error::Error for TooSlow {}

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum ReadProblem {
    /// It is longer than the limit.
    TooLarge,
    /// It comes too slowly.
    TooSlow,
    /// The connection ended or broke.
    Broken(BoxError),
}

/// Reads a whole body of at most `limit_bytes`.
pub(crate) async fn read(body: Body, limit_bytes: usize) -> Result<Bytes, ReadProblem> {
    // Boxed, so that the compiler can prove the future `Send` for any lifetime of the body's error.
    let collecting: BoxFuture<'static, Result<Collected<Bytes>, BoxError>> =
        Box::pin(Limited::new(body, limit_bytes).collect());
    match collecting.await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ReadProblem::TooLarge),
        Err(error) if error.is::<TooSlow>() => Err(ReadProblem::TooSlow),
        Err(error) => Err(ReadProblem::Broken(error)),
    }
}
