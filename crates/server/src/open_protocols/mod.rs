//! Open protocols on every endpoint: the Open Inference Protocol over HTTP and gRPC, KServe's V1, and OpenAI's chat and completions.

mod asked;
mod flat;
mod grpc;
mod half_float;
mod hosts;
mod infer;
pub mod key;
mod listening;
mod model;
mod npy;
mod openai;
mod pass_through;
mod refusal;
mod reply;
mod routing;
mod tensor;
mod translation;
mod v1;
mod v2;
mod v2_message;

use std::sync::Arc;

use http::{Request, Response};
use wire::Body;

use crate::app::App;

pub use asked::Door;
pub use listening::{Bound, OpenListener};

/// What the paths at the main address begin with; no bucket has such a name.
pub const PREFIX: &str = "/_modelyard/open/";

/// What is kept in memory for these protocols.
#[derive(Debug, Default)]
pub struct OpenProtocols {
    hosts: hosts::Hosts,
}

/// Answers a request at the main address, where every caller needs a key.
pub async fn answer_below_prefix(app: Arc<App>, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().strip_prefix(PREFIX).map(|rest| format!("/{rest}")).unwrap_or_default();
    routing::answer(app, request, &path, Door { opens_without_key: false }).await
}

/// Answers a request at an address of these protocols' own, for tests that have no listener.
pub async fn answer_at_root(app: Arc<App>, request: Request<Body>, door: Door) -> Response<Body> {
    let path = request.uri().path().to_owned();
    routing::answer(app, request, &path, door).await
}
