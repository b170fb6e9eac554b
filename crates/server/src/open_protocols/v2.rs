//! The Open Inference Protocol, version 2, over HTTP.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use wire::Body;

use super::asked::Asked;
use super::infer::{beside, infer};
use super::model::Model;
use super::refusal::Refusal;
use super::reply;
use super::v2_message::{self, HEADER_LENGTH, InferRequest};
use crate::endpoints::variant_names;

/// What the server says of itself.
pub const SERVER_NAME: &str = "modelyard";

/// Extensions of the protocol that are done.
pub const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

/// What a path below `/v2/models/NAME` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The model's description.
    Metadata,
    /// Whether it answers.
    Ready,
    /// An inference.
    Infer,
}

/// Takes what follows `/v2/models/` apart: `NAME[/versions/V][/ready|/infer]`. A name may have slashes.
pub fn wanted(rest: &str) -> (&str, Option<&str>, Wanted) {
    let asked = [("/ready", Wanted::Ready), ("/infer", Wanted::Infer)];
    let asked = asked.into_iter().find_map(|(end, wanted)| Some((rest.strip_suffix(end)?, wanted)));
    let (rest, wanted) = asked.unwrap_or((rest, Wanted::Metadata));
    match rest.rsplit_once("/versions/") {
        Some((model, version)) if !version.contains('/') => (model, Some(version), wanted),
        _ => (rest, None, wanted),
    }
}

impl Wanted {
    /// The method that fits.
    pub fn method(self) -> Method {
        if self == Wanted::Infer { Method::POST } else { Method::GET }
    }
}

/// The server's description.
pub fn server_metadata() -> Value {
    json!({"name": SERVER_NAME, "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS})
}

/// The description of a model. What goes in and comes out is not known of scripts, so nothing is said of it.
///
/// # Errors
/// When there is none of that name.
pub async fn metadata(asked: &Asked, model: &Model, version: Option<&str>) -> Result<Value, Refusal> {
    let resource = asked.found(model).await?;
    let versions = match model.variant() {
        Some(variant) => vec![variant.to_owned()],
        None => variant_names(&resource.document),
    };
    if let Some(version) = version
        && !versions.iter().any(|own| own == version)
    {
        return Err(Refusal::no_version(model.name(), version));
    }
    Ok(json!({
        "name": model.called(&resource.key.name), "versions": versions, "platform": SERVER_NAME, "inputs": [], "outputs": [],
    }))
}

/// The answer to a question for readiness.
pub fn readiness(name: &str, is_ready: bool) -> Response<Body> {
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"name": name, "ready": is_ready});
    reply::bytes(status, "application/json", body.to_string().into())
}

/// Reads a request for an inference.
///
/// # Errors
/// What is wrong with it.
pub async fn read(body: Bytes, header_length: Option<&HeaderValue>) -> Result<Arc<InferRequest>, Refusal> {
    let header_bytes = match header_length {
        None => None,
        Some(value) => {
            let parsed = value.to_str().ok().and_then(|text| text.trim().parse::<usize>().ok());
            Some(parsed.ok_or_else(|| {
                Refusal::invalid(format!("The header {HEADER_LENGTH} must be a number of bytes."))
            })?)
        }
    };
    let read = beside(body.len(), move || v2_message::read(&body, header_bytes)).await?;
    read.map(Arc::new).map_err(Refusal::invalid)
}

/// Answers a request for an inference.
///
/// # Errors
/// What the caller is told.
pub async fn answer(
    asked: &Asked,
    model: &Model,
    version: Option<&str>,
    request: Arc<InferRequest>,
) -> Result<Response<Body>, Refusal> {
    let answer = infer(asked, model, version, &request).await?;
    let bytes = answer.outputs.iter().map(|tensor| tensor.data.len()).sum();
    let written = beside(bytes, move || answer.write(&request)).await?;
    let content_type = match written.header_bytes {
        None => "application/json",
        Some(_) => "application/octet-stream",
    };
    let mut response = reply::bytes(StatusCode::OK, content_type, written.body.into());
    if let Some(header_bytes) = written.header_bytes {
        response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(header_bytes));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_version_and_question() {
        assert_eq!(wanted("m"), ("m", None, Wanted::Metadata));
        assert_eq!(wanted("m/infer"), ("m", None, Wanted::Infer));
        assert_eq!(wanted("m/versions/blue/ready"), ("m", Some("blue"), Wanted::Ready));
        assert_eq!(wanted("m/versions/blue"), ("m", Some("blue"), Wanted::Metadata));
        assert_eq!(wanted("many/a/b/versions/blue/infer"), ("many/a/b", Some("blue"), Wanted::Infer));
        assert_eq!(wanted("many/versions/a/b"), ("many/versions/a/b", None, Wanted::Metadata));
        assert_eq!(wanted("infer"), ("infer", None, Wanted::Metadata));
    }
}
