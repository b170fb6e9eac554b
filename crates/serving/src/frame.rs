//! The frames between the data plane and a model host, as `python/model_host/PROTOCOL.md` describes them.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

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
