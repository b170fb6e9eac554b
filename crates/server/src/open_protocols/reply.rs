//! Answers over HTTP.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use wire::Body;

use super::refusal::{Reason, Refusal};

/// An answer of JSON.
pub fn value(value: &Value) -> Response<Body> {
    bytes(StatusCode::OK, "application/json", value.to_string().into())
}

/// An answer of any kind.
pub fn bytes(status: StatusCode, content_type: &str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(wire::full(body));
    *response.status_mut() = status;
    // What a model calls its answer may be no header.
    let kind =
        HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// An answer without a body.
pub fn empty() -> Response<Body> {
    Response::new(wire::empty())
}

/// The answer for a refusal, `{"error": "…"}`, as the inference protocols have it.
pub fn refused(refusal: &Refusal) -> Response<Body> {
    refused_with(refusal.reason, &json!({"error": refusal.message}))
}

/// The answer for a refusal with this body.
pub fn refused_with(reason: Reason, body: &Value) -> Response<Body> {
    let mut response = bytes(reason.status(), "application/json", body.to_string().into());
    match reason {
        Reason::Unauthenticated => {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Reason::Unavailable => {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}
