//! Bodies of requests as arrays of values.

mod csv;
mod json;
mod npy;

use super::cells::Body;
use crate::engine::refusal::RequestError;

/// Reads a body; `media_type` has no parameters and is in lower case.
pub(crate) fn read<'a>(media_type: &str, body: &'a [u8]) -> Result<Body<'a>, RequestError> {
    match media_type {
        "text/csv" => csv::read(utf8(body, "csv")?).map(Body::Unnamed),
        "application/json" => json::read(utf8(body, "json")?),
        "application/x-npy" => npy::read(body).map(Body::Unnamed),
        other => Err(RequestError {
            status: 415,
            text: format!(
                "Content-type {other} is not supported; the ONNX engine reads text/csv, application/json and application/x-npy."
            ),
        }),
    }
}

fn utf8<'a>(body: &'a [u8], format: &str) -> Result<&'a str, RequestError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| RequestError::unreadable(format, &format!("the body is not UTF-8 ({error})")))?;
    if text.trim().is_empty() {
        return Err(RequestError::unreadable(format, "there are no values"));
    }
    Ok(text)
}
