//! The frames between the data plane and a model host, as `python/model_host/PROTOCOL.md` describes them.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::batch::BatchRequest;
use crate::invocation::{InvokeRequest, SpokenHeaders};

/// `u32` header length, `u64` body length.
pub(crate) const PREFIX_BYTES: usize = 12;
/// Larger headers are a broken peer.
pub(crate) const MAX_HEADER_BYTES: usize = 1024 * 1024;
/// A body length that says "in chunks".
pub(crate) const CHUNKED: u64 = u64::MAX;
/// A chunk length that says "the model failed; the error text follows as a last chunk".
pub(crate) const CHUNK_ERROR: u32 = u32::MAX;

/// The header of a request; fields that are not set are left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RequestHeader<'a> {
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accept: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) custom_attributes: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inference_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_limit_seconds: Option<f64>,
    /// The model that is meant, as a host of many models knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<&'a str>,
    /// The folder of a model that is to be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model_dir: Option<&'a str>,
    /// Whether the worker is to forget all models that it has before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) forgets: bool,
}

impl<'a> RequestHeader<'a> {
    /// Of an invocation.
    pub(crate) fn of(request: &'a InvokeRequest) -> Self {
        Self {
            kind: "invoke",
            content_type: request.content_type.as_deref(),
            accept: request.accept.as_deref(),
            custom_attributes: request.custom_attributes.as_deref(),
            inference_id: request.inference_id.as_deref(),
            session_id: request.session_id.as_deref(),
            target_model: request.target_model.as_deref(),
            request_id: request.request_id.as_deref(),
            time_limit_seconds: request.time_limit.map(|limit| limit.as_secs_f64()),
            ..Self::default()
        }
    }
}

/// The header of an answer.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct ResponseHeader {
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) content_type: Option<String>,
    #[serde(default)]
    pub(crate) custom_attributes: Option<String>,
    #[serde(default)]
    pub(crate) new_session_id: Option<String>,
    #[serde(default)]
    pub(crate) closed_session_id: Option<String>,
    #[serde(default)]
    pub(crate) error: Option<String>,
    /// The number of the worker, in a host of many models.
    #[serde(default)]
    pub(crate) worker: Option<u64>,
    /// What the connection is for there: `invoke` or `load`.
    #[serde(default)]
    pub(crate) role: Option<String>,
    /// How many requests the worker answers together.
    #[serde(default)]
    pub(crate) batch_limit: Option<u32>,
    /// How many requests the worker takes at once to answer them one by one.
    #[serde(default)]
    pub(crate) backlog_limit: Option<u32>,
    /// The memory that a model took or gave back.
    #[serde(default)]
    pub(crate) memory_bytes: Option<u64>,
    /// The container that answered, where a replica has several.
    #[serde(skip)]
    pub(crate) container: Option<String>,
    /// Headers of an answer in the words of a protocol that the replica speaks by itself.
    #[serde(skip)]
    pub(crate) spoken_headers: Option<SpokenHeaders>,
}

/// The lengths at the start of each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) header_bytes: usize,
    pub(crate) body_bytes: u64,
}

/// Lengths and header of a request in one piece, ready to be sent before the body.
pub(crate) fn encode_request(header: &RequestHeader<'_>, body_bytes: usize) -> Bytes {
    let mut frame = Vec::with_capacity(256);
    frame.extend_from_slice(&[0; PREFIX_BYTES]);
    serde_json::to_writer(&mut frame, header).expect("a struct of strings is always JSON");
    let header_bytes = u32::try_from(frame.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&header_bytes.to_be_bytes());
    frame[4..PREFIX_BYTES].copy_from_slice(&(body_bytes as u64).to_be_bytes());
    Bytes::from(frame)
}

/// The header of an invocation as it stands in a batch.
pub(crate) fn header_of(request: &InvokeRequest) -> Vec<u8> {
    serde_json::to_vec(&RequestHeader::of(request)).expect("a struct of strings is always JSON")
}

/// A frame of several invocations, with their bodies.
pub(crate) fn encode_batch<'a>(requests: impl Iterator<Item = &'a BatchRequest> + Clone) -> Bytes {
    let bytes: usize = requests.clone().map(BatchRequest::bytes).sum();
    let mut frame = Vec::with_capacity(PREFIX_BYTES + 64 + bytes + 16 * requests.clone().count());
    frame.extend_from_slice(&[0; PREFIX_BYTES]);
    frame.extend_from_slice(br#"{"kind":"batch","requests":["#);
    let mut body_bytes = 0;
    for (position, request) in requests.clone().enumerate() {
        if position > 0 {
            frame.push(b',');
        }
        frame.extend_from_slice(&request.header);
        body_bytes += request.body.len();
    }
    frame.extend_from_slice(br#"],"body_bytes":["#);
    for (position, request) in requests.clone().enumerate() {
        if position > 0 {
            frame.push(b',');
        }
        frame.extend_from_slice(request.body.len().to_string().as_bytes());
    }
    frame.extend_from_slice(b"]}");
    let header_bytes = u32::try_from(frame.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&header_bytes.to_be_bytes());
    frame[4..PREFIX_BYTES].copy_from_slice(&(body_bytes as u64).to_be_bytes());
    requests.for_each(|request| frame.extend_from_slice(&request.body));
    Bytes::from(frame)
}

/// Takes the lengths off the buffer; `None` while they have not all arrived.
pub(crate) fn take_prefix(buffer: &mut BytesMut) -> Option<Prefix> {
    if buffer.len() < PREFIX_BYTES {
        return None;
    }
    Some(Prefix { header_bytes: buffer.get_u32() as usize, body_bytes: buffer.get_u64() })
}

/// Reads the header of an answer; the error text says what is wrong with it.
pub(crate) fn decode_response_header(header: &[u8]) -> Result<ResponseHeader, String> {
    let header: ResponseHeader = serde_json::from_slice(header)
        .map_err(|error| format!("The model host's header is not valid: {error}."))?;
    if (100..=599).contains(&header.status) {
        Ok(header)
    } else {
        Err(format!("The model host answered with status {}, which is no HTTP status.", header.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_lengths_then_header() {
        let header = RequestHeader { kind: "invoke", accept: Some("text/csv"), ..RequestHeader::default() };
        let frame = encode_request(&header, 7);
        let mut buffer = BytesMut::from(&frame[..]);
        assert_eq!(take_prefix(&mut BytesMut::from(&frame[..11])), None);
        let prefix = take_prefix(&mut buffer).expect("complete");
        assert_eq!(prefix, Prefix { header_bytes: buffer.len(), body_bytes: 7 });
        assert_eq!(&buffer[..], br#"{"kind":"invoke","accept":"text/csv"}"#);
    }

    #[test]
    fn a_batch_is_a_list_of_headers_then_the_bodies() {
        let request = |body: &'static [u8], accept: &str| {
            let request = InvokeRequest {
                body: Bytes::from_static(body),
                accept: Some(accept.into()),
                ..InvokeRequest::default()
            };
            BatchRequest::of(&request, std::time::Duration::from_secs(1), 9)
        };
        let requests = [request(b"one", "a"), request(b"", "b"), request(b"three", "c")];
        let mut buffer = BytesMut::from(&encode_batch(requests.iter())[..]);
        let prefix = take_prefix(&mut buffer).expect("complete");
        assert_eq!(prefix.body_bytes, 8);
        let header: serde_json::Value = serde_json::from_slice(&buffer[..prefix.header_bytes]).expect("JSON");
        let of = |accept: &str| serde_json::json!({"kind": "invoke", "accept": accept});
        let expected = serde_json::json!({
            "kind": "batch", "requests": [of("a"), of("b"), of("c")], "body_bytes": [3, 0, 5],
        });
        assert_eq!(header, expected);
        assert_eq!(&buffer[prefix.header_bytes..], b"onethree");
    }

    #[test]
    fn answer_headers_are_checked() {
        let header =
            decode_response_header(br#"{"status":200,"content_type":"text/csv","extra":1}"#).expect("valid");
        assert_eq!((header.status, header.content_type.as_deref()), (200, Some("text/csv")));
        for broken in [&b"{}"[..], b"", b"[]", br#"{"status":0}"#, br#"{"status":700}"#, br#"{"status":-1}"#]
        {
            assert!(decode_response_header(broken).is_err(), "{broken:?}");
        }
    }
}
