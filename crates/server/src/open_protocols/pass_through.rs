//! Requests to containers that speak a protocol by themselves: they get them, and their callers the answers, untouched.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use serving::{InvokeError, InvokeRequest, ModelAnswer, SpokenPath, SpokenProtocol, SpokenRequest};
use wire::Body;

use super::asked::Asked;
use super::model::Model;
use super::refusal::Refusal;
use super::reply;
use super::v2_message::HEADER_LENGTH;

/// Headers of a caller that a container gets. Its key is not one of them.
const PASSED_ON: [&str; 4] = ["content-type", "accept", "user-agent", HEADER_LENGTH];

/// Headers of an answer that a caller gets, beside its content type.
const PASSED_BACK: &[&str] = &[HEADER_LENGTH, "cache-control"];

/// A request in its own words, for a container that speaks `protocol`.
pub fn request(
    protocol: SpokenProtocol,
    method: Method,
    path: SpokenPath,
    headers: &HeaderMap,
    body: Bytes,
) -> SpokenRequest {
    let passed = PASSED_ON.into_iter().filter_map(|name| {
        let name = HeaderName::from_static(name);
        headers.get(&name).cloned().map(|value| (name, value))
    });
    SpokenRequest {
        protocol,
        method,
        path,
        headers: passed.collect(),
        answer_headers: PASSED_BACK,
        body,
        is_required: true,
    }
}

/// Passes a request on to a model of containers; `None` when the one that would answer does not speak the protocol.
///
/// # Errors
/// What the caller is told when there is no answer.
pub async fn ask(
    asked: &Asked,
    model: &Model,
    version: Option<&str>,
    words: SpokenRequest,
) -> Result<Option<Response<Body>>, Refusal> {
    if !may_speak(asked, model).await? {
        return Ok(None);
    }
    let invocation = InvokeRequest {
        // What is checked and counted of a request is its body, whoever reads it.
        body: words.body.clone(),
        spoken: Some(words.into()),
        ..asked.invocation(model, version)?
    };
    match asked.app.endpoints.invoke(model.key(), invocation).await {
        Ok(response) => Ok(Some(answered(&response.answer, response.body))),
        Err(InvokeError::NotSpoken) => Ok(None),
        Err(InvokeError::ModelError { answer, body, .. }) if answer.spoken_headers.is_some() => {
            Ok(Some(answered(&answer, body)))
        }
        Err(error) => Err(asked.refusal(model, &error)),
    }
}

/// Whether a model is of containers that may speak a protocol by themselves.
///
/// # Errors
/// When the database fails, or there is no such model.
pub async fn may_speak(asked: &Asked, model: &Model) -> Result<bool, Refusal> {
    let host = asked.app.open_protocols.hosts.of(asked, model).await?;
    // A container of many models gets requests at the paths of each model only.
    Ok(host.is_container && !host.has_many)
}

/// A container's answer as it was.
pub fn answered(answer: &ModelAnswer, body: Bytes) -> Response<Body> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let content_type = answer.content_type.as_deref().unwrap_or("application/octet-stream");
    let mut response = reply::bytes(status, content_type, body);
    response.headers_mut().extend(answer.spoken_headers.iter().flatten().cloned());
    response
}
