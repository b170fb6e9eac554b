//! Bodies of requests and answers.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};

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

/// Reads a whole body of at most `limit_bytes`. Most come in one piece, which is not copied.
pub(crate) async fn read(mut body: Body, limit_bytes: usize) -> Result<Bytes, ReadProblem> {
    let mut first = Bytes::new();
    let mut others = Vec::new();
    let mut total = 0;
    while !body.is_end_stream() {
        let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await else { break };
        // Trailers say nothing here.
        let Ok(data) = frame.map_err(problem)?.into_data() else { continue };
        total += data.len();
        if total > limit_bytes {
            return Err(ReadProblem::TooLarge);
        }
        if first.is_empty() {
            first = data;
        } else {
            others.push(data);
        }
    }
    if others.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(total);
    std::iter::once(first).chain(others).for_each(|piece| whole.extend_from_slice(&piece));
    Ok(whole.freeze())
}

fn problem(error: BoxError) -> ReadProblem {
    if error.is::<TooSlow>() { ReadProblem::TooSlow } else { ReadProblem::Broken(error) }
}
