//! OpenAI's chat and completions, passed through to models that speak them; answers may come in pieces.

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use serving::{InvokeError, InvokeRequest, InvokeStream, SpokenPath, SpokenProtocol, SpokenRequest};
use wire::Body;

use super::asked::Asked;
use super::model::Model;
use super::refusal::{Reason, Refusal};
use super::{pass_through, reply};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// Longest line of a streamed answer that is not in the form of events.
const MOST_LINE_BYTES: usize = 4 * 1024 * 1024;

/// What is read of a request; the rest is the model's.
#[derive(serde::Deserialize)]
struct Head {
    model: Option<String>,
    #[serde(default)]
    stream: Option<bool>,
}

/// Answers a request at `path`. The model is below the endpoint `scope`, where the address names one.
///
/// # Errors
/// What the caller is told.
pub async fn answer(
    asked: &Asked,
    scope: Option<&str>,
    path: &'static str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, Refusal> {
    let head: Head = serde_json::from_slice(&body)
        .map_err(|error| Refusal::invalid(format!("The request cannot be read: {error}.")))?;
    let Some(name) = head.model.as_deref().or(scope) else {
        return Err(Refusal::invalid("The request names no model; models are the endpoints in service."));
    };
    let model = &asked.model(scope, name).await?;
    let native_path = match model.is_scoped {
        true => SpokenPath::Exact(path.to_owned()),
        false => SpokenPath::InBody { path, name: name.to_owned() },
    };
    let wants_stream = head.stream == Some(true);
    let words =
        pass_through::request(SpokenProtocol::OpenAi, Method::POST, native_path, headers, body.clone());
    let invocation = InvokeRequest {
        content_type: Some(JSON.into()),
        accept: Some(if wants_stream { EVENTS } else { JSON }.into()),
        body,
        spoken: Some(SpokenRequest { is_required: false, ..words }.into()),
        ..asked.invocation(model, None)?
    };
    if wants_stream {
        return match asked.app.endpoints.invoke_stream(model.key(), invocation).await {
            Ok(stream) => streamed(stream).await.map_err(|error| asked.refusal(model, &error)),
            Err(error) => failed(asked, model, error),
        };
    }
    match asked.app.endpoints.invoke(model.key(), invocation).await {
        Ok(response) => Ok(pass_through::answered(&response.answer, response.body)),
        Err(error) => failed(asked, model, error),
    }
}

/// Errors that a model wrote in the words of this protocol are passed on; `{"error": …}` is one.
fn failed(asked: &Asked, model: &Model, error: InvokeError) -> Result<Response<Body>, Refusal> {
    /// The member by which its errors are known.
    #[derive(serde::Deserialize)]
    struct Error {
        #[serde(rename = "error")]
        _error: serde::de::IgnoredAny,
    }
    match error {
        InvokeError::ModelError { answer, body, .. }
            if answer.spoken_headers.is_some() || serde_json::from_slice::<Error>(&body).is_ok() =>
        {
            Ok(pass_through::answered(&answer, body))
        }
        error => Err(asked.refusal(model, &error)),
    }
}

/// A streamed answer as events.
async fn streamed(mut stream: InvokeStream) -> Result<Response<Body>, InvokeError> {
    let first = stream.next_chunk().await.transpose()?.unwrap_or_default();
    let is_native = stream.answer.spoken_headers.is_some();
    let status = StatusCode::from_u16(stream.answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let spoken_headers = stream.answer.spoken_headers.clone().unwrap_or_default();
    let form = if is_native || is_event(&first) { Form::Events } else { Form::Lines(BytesMut::new()) };
    let content_type = match &form {
        // A container that does not stream answers with what it says.
        Form::Events if is_native => stream.answer.content_type.clone().unwrap_or_else(|| EVENTS.into()),
        _ => EVENTS.into(),
    };
    let pieces = Pieces { first: Some(first), stream: Some(stream), form };
    let frames = futures::stream::unfold(pieces, |mut pieces| async move {
        let piece = pieces.next().await?;
        Some((Ok::<_, wire::BoxError>(Frame::data(piece)), pieces))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let kind = HeaderValue::from_str(&content_type).unwrap_or(HeaderValue::from_static(EVENTS));
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.extend(spoken_headers);
    Ok(response)
}

/// Whether a streamed answer is in the form of events already.
fn is_event(first: &[u8]) -> bool {
    let first = first.trim_ascii_start();
    [&b"data:"[..], b"event:", b"id:", b"retry:", b":"].iter().any(|start| first.starts_with(start))
}

/// In which form a model streams.
#[derive(Debug)]
enum Form {
    /// Events, which pass as they are.
    Events,
    /// Lines of JSON, each to become an event; what is left of the last piece.
    Lines(BytesMut),
}

/// The pieces of an answer on their way.
struct Pieces {
    first: Option<Bytes>,
    /// Gone once the end was sent.
    stream: Option<InvokeStream>,
    form: Form,
}

impl Pieces {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let stream = self.stream.as_mut()?;
            let piece = match self.first.take() {
                Some(first) => Some(Ok(first)),
                None => stream.next_chunk().await,
            };
            let piece = match piece {
                Some(Ok(piece)) => self.form.passed(&piece),
                Some(Err(error)) => {
                    self.stream = None;
                    return Some(error_event(&error.to_string()));
                }
                None => {
                    self.stream = None;
                    return self.form.end();
                }
            };
            match piece {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Some(piece),
                Err(problem) => {
                    self.stream = None;
                    return Some(error_event(problem));
                }
            }
        }
    }
}

impl Form {
    /// What of a piece can go out.
    fn passed(&mut self, piece: &Bytes) -> Result<Bytes, &'static str> {
        let Form::Lines(rest) = self else { return Ok(piece.clone()) };
        rest.extend_from_slice(piece);
        let mut events = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            write_event(&mut events, &rest.split_to(end + 1));
        }
        if rest.len() > MOST_LINE_BYTES {
            return Err("The model streams a line that is too long.");
        }
        Ok(events.into())
    }

    /// What goes out at the end.
    fn end(&mut self) -> Option<Bytes> {
        let Form::Lines(rest) = self else { return None };
        let mut events = Vec::new();
        write_event(&mut events, rest);
        write_event(&mut events, b"[DONE]");
        Some(events.into())
    }
}

fn write_event(events: &mut Vec<u8>, line: &[u8]) {
    let line = line.trim_ascii();
    if !line.is_empty() {
        events.extend_from_slice(b"data: ");
        events.extend_from_slice(line);
        events.extend_from_slice(b"\n\n");
    }
}

fn error_event(text: &str) -> Bytes {
    let error = json!({"error": {"message": text, "type": "server_error", "param": null, "code": null}});
    format!("data: {error}\n\n").into()
}

/// The answer for a refusal, in the words of this protocol.
pub fn refused(refusal: &Refusal) -> Response<Body> {
    let kind = match refusal.reason {
        Reason::Unauthenticated => "authentication_error",
        Reason::Denied => "permission_error",
        reason if reason.status().is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    let code = match refusal.reason {
        Reason::Unauthenticated => Some("invalid_api_key"),
        Reason::NotFound => Some("model_not_found"),
        _ => None,
    };
    let body = json!({"error": {"message": refusal.message, "type": kind, "param": null, "code": code}});
    reply::refused_with(refusal.reason, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_events_wherever_they_are_cut() {
        let mut form = Form::Lines(BytesMut::new());
        let mut sent = Vec::new();
        for piece in ["{\"a\":", "1}\n\n{\"b\":2}\n{", "\"c\":3}"] {
            sent.extend_from_slice(&form.passed(&Bytes::from_static(piece.as_bytes())).unwrap());
        }
        sent.extend_from_slice(&form.end().unwrap());
        assert_eq!(
            String::from_utf8(sent).unwrap(),
            "data: {\"a\":1}\n\ndata: {\"b\":2}\n\ndata: {\"c\":3}\n\ndata: [DONE]\n\n"
        );
        let long = Bytes::from(vec![b'x'; MOST_LINE_BYTES + 1]);
        assert!(Form::Lines(BytesMut::new()).passed(&long).is_err());
    }

    #[test]
    fn events_are_known_by_their_beginning() {
        assert!(is_event(b"data: {}\n\n") && is_event(b"\n: hello\n") && is_event(b"event: x\n"));
        assert!(!is_event(b"{\"choices\":[]}\n") && !is_event(b""));
        assert_eq!(Form::Events.passed(&Bytes::from_static(b"data: x")).unwrap(), "data: x");
        assert_eq!(Form::Events.end(), None);
    }
}
