//! `inference.GRPCInferenceService` over HTTP/2: one message in, one out, and how it went in the trailers.

mod messages;
mod tensors;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;
use serde_json::Value;
use wire::{Body, Peer};

use self::messages::{
    ModelInferRequest, ModelMetadataResponse, ModelQuestion, ModelReadyResponse, Nothing, ServerLiveResponse,
    ServerMetadataResponse, ServerReadyResponse,
};
use super::asked::{Asked, Door};
use super::infer::{beside, infer};
use super::refusal::{Reason, Refusal};
use super::{routing, v2};
use crate::app::App;

/// What the paths of the service's calls begin with.
pub const PATH: &str = "/inference.GRPCInferenceService/";

/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;

/// Longest body of a call that needs no key.
const MOST_PROBE_BYTES: usize = 4096;

/// What is escaped in a status message, beside what is no printable ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Whether a request is one of gRPC.
pub fn is_call(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // The form for browsers is another protocol.
    kind.strip_prefix("application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// How a call is counted.
pub fn operation(path: &str) -> &'static str {
    match path.strip_prefix(PATH) {
        Some("ServerLive") => "GrpcServerLive",
        Some("ServerReady") => "GrpcServerReady",
        Some("ServerMetadata") => "GrpcServerMetadata",
        Some("ModelReady") => "GrpcModelReady",
        Some("ModelMetadata") => "GrpcModelMetadata",
        Some("ModelInfer") => "GrpcModelInfer",
        _ => "",
    }
}

/// Answers a call; the error is what went wrong, which is in the answer too.
pub async fn answer(
    app: &Arc<App>,
    parts: &Parts,
    body: Body,
    path: &str,
    door: Door,
    request_id: &str,
) -> (Response<Body>, Option<Reason>) {
    let calling = call(app, parts, body, path, door, request_id);
    let called = match time_limit(&parts.headers) {
        None => calling.await,
        Some(limit) => match tokio::time::timeout(limit, calling).await {
            Ok(called) => called,
            Err(_) => Err(Refusal::new(Reason::TimedOut, "The call's own time limit has passed.")),
        },
    };
    match called {
        Ok(message) => (replied(&message), None),
        Err(refusal) => (refused(&refusal), Some(refusal.reason)),
    }
}

async fn call(
    app: &Arc<App>,
    parts: &Parts,
    body: Body,
    path: &str,
    door: Door,
    request_id: &str,
) -> Result<Bytes, Refusal> {
    let unknown = || Refusal::new(Reason::NotDone, format!("There is no call {path} here."));
    let name = path.strip_prefix(PATH).ok_or_else(unknown)?;
    // Probes come without a key, and are told nothing.
    let asked = if name.starts_with("Server") {
        None
    } else {
        let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
        Some(Asked::by(app, &parts.headers, peer, door, request_id).await?)
    };
    let limit_bytes = if asked.is_some() { wire::RAW_BODY_LIMIT_BYTES } else { MOST_PROBE_BYTES };
    let message = message(&routing::read(parts, body, limit_bytes).await?)?;
    match asked {
        None => of_server(name, message)?.ok_or_else(unknown),
        Some(asked) => of_model(&asked, name, message).await?.ok_or_else(unknown),
    }
}

/// Answers a question to the server; `None` when there is no such call.
fn of_server(name: &str, message: Bytes) -> Result<Option<Bytes>, Refusal> {
    decoded::<Nothing>(message)?;
    let answer = match name {
        "ServerLive" => ServerLiveResponse { live: true }.encode_to_vec(),
        "ServerReady" => ServerReadyResponse { ready: true }.encode_to_vec(),
        "ServerMetadata" => {
            let described = ServerMetadataResponse {
                name: v2::SERVER_NAME.into(),
                version: env!("CARGO_PKG_VERSION").into(),
                extensions: Vec::new(),
            };
            described.encode_to_vec()
        }
        _ => return Ok(None),
    };
    Ok(Some(answer.into()))
}

/// Answers a question to a model; `None` when there is no such call.
async fn of_model(asked: &Asked, name: &str, message: Bytes) -> Result<Option<Bytes>, Refusal> {
    let answer = match name {
        "ModelReady" => {
            let question: ModelQuestion = decoded(message)?;
            let model = asked.model(None, &question.name).await?;
            let ready = asked.ready(&model, version(&question.version)).await?;
            ModelReadyResponse { ready }.encode_to_vec()
        }
        "ModelMetadata" => {
            let question: ModelQuestion = decoded(message)?;
            let model = asked.model(None, &question.name).await?;
            let described = v2::metadata(asked, &model, version(&question.version)).await?;
            described_model(&described).encode_to_vec()
        }
        "ModelInfer" => {
            let bytes = message.len();
            let read = move || {
                decoded::<ModelInferRequest>(message).map(|message| {
                    let names = (message.model_name.clone(), message.model_version.clone());
                    (names, tensors::request(message))
                })
            };
            let ((name, wanted_version), request) = beside(bytes, read).await??;
            let model = asked.model(None, &name).await?;
            let request = Arc::new(request.map_err(Refusal::invalid)?);
            let answer = infer(asked, &model, version(&wanted_version), &request).await?;
            tensors::answer(answer).encode_to_vec()
        }
        _ => return Ok(None),
    };
    Ok(Some(answer.into()))
}

fn version(given: &str) -> Option<&str> {
    Some(given).filter(|given| !given.is_empty())
}

fn described_model(described: &Value) -> ModelMetadataResponse {
    let text = |member: &str| described[member].as_str().unwrap_or_default().to_owned();
    let versions = described["versions"].as_array().into_iter().flatten();
    ModelMetadataResponse {
        name: text("name"),
        versions: versions.filter_map(Value::as_str).map(str::to_owned).collect(),
        platform: text("platform"),
        inputs: Vec::new(),
        outputs: Vec::new(),
    }
}

fn decoded<M: Message + Default>(message: Bytes) -> Result<M, Refusal> {
    M::decode(message).map_err(|error| Refusal::invalid(format!("The message cannot be read: {error}.")))
}

/// The one message of a call.
fn message(body: &Bytes) -> Result<Bytes, Refusal> {
    let mut rest = body.clone();
    if rest.len() < PREFIX_BYTES {
        return Err(Refusal::invalid("The call has no message."));
    }
    if rest.get_u8() != 0 {
        return Err(Refusal::new(
            Reason::NotDone,
            "Compressed messages are not taken; send them as they are.",
        ));
    }
    let length = rest.get_u32() as usize;
    if rest.len() != length {
        return Err(Refusal::invalid(format!(
            "The message says {length} bytes, and {} came; a call has one message.",
            rest.len()
        )));
    }
    Ok(rest)
}

/// What the caller gives the call, in the words of `grpc-timeout`.
fn time_limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = Some(number).filter(|number| number.len() <= 8)?.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn head() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn replied(message: &[u8]) -> Response<Body> {
    let mut data = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    data.put_u8(0);
    data.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    data.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    let frames = [Ok::<_, wire::BoxError>(Frame::data(data.freeze())), Ok(Frame::trailers(trailers))];
    head().map(|()| BodyExt::boxed(StreamBody::new(stream::iter(frames))))
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = head().map(|()| wire::empty());
    let headers = response.headers_mut();
    headers
        .insert(HeaderName::from_static("grpc-status"), HeaderValue::from(u16::from(refusal.reason.grpc())));
    let message: String = refusal.message.chars().take(1024).collect();
    let message = utf8_percent_encode(&message, ESCAPED).to_string();
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_one_whole_message() {
        let body = |bytes: &'static [u8]| message(&Bytes::from_static(bytes));
        assert_eq!(body(b"\0\0\0\0\x02hi").unwrap(), "hi");
        assert_eq!(body(b"\0\0\0\0\0").unwrap(), "");
        for wrong in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02h", b"\0\0\0\0\x01hi", b"\0\xff\xff\xff\xffhi"] {
            assert_eq!(body(wrong).unwrap_err().reason, Reason::Invalid, "{wrong:?}");
        }
        assert_eq!(body(b"\x01\0\0\0\x02hi").unwrap_err().reason, Reason::NotDone);
    }

    #[test]
    fn time_limits_and_kinds_are_read() {
        let of = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            time_limit(&HeaderMap::from_iter([(HeaderName::from_static("grpc-timeout"), value)]))
        };
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("2H"), Some(Duration::from_secs(7200)));
        for wrong in ["", "5", "S", "123456789S", "-1S", "1x"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        let kind = |text: &'static str| {
            is_call(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))]))
        };
        assert!(kind("application/grpc") && kind("application/grpc+proto"));
        assert!(!kind("application/grpc-web") && !kind("application/json"));
    }
}
