//! The framing of `application/vnd.amazon.eventstream`: a prelude, typed headers, a payload, and two checksums.
//!
//! A message is `u32` total length, `u32` headers length, `u32` CRC-32 of these eight bytes, the headers, the payload, and
//! `u32` CRC-32 of all before it; all numbers are big-endian. A header is a length byte, its name, the type 7 for a
//! string, a `u16` length and the text.

use bytes::{BufMut, Bytes, BytesMut};

/// Content type of a body made of messages.
pub const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// Longest payload that one message of [`payload_parts`] carries.
const PART_BYTES: usize = 1024 * 1024;

/// Bytes around headers and payload.
const FRAME_BYTES: usize = 16;

/// Type of a header with text.
const STRING_HEADER: u8 = 7;

/// A message with its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Header names and texts in their order.
    pub headers: Vec<(String, String)>,
    /// Payload.
    pub payload: Bytes,
}

/// A message that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// More bytes must come first.
    Incomplete,
    /// Lengths or checksums are wrong, or a header is no text.
    Malformed,
}

/// One message. Names over 255 bytes and texts over 65,535 bytes are cut, at a character.
pub fn message(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut head = BytesMut::new();
    for (name, text) in headers {
        let (name, text) = (cut(name, u8::MAX.into()), cut(text, u16::MAX.into()));
        head.put_u8(name.len() as u8);
        head.put_slice(name.as_bytes());
        head.put_u8(STRING_HEADER);
        head.put_u16(text.len() as u16);
        head.put_slice(text.as_bytes());
    }
    let total = FRAME_BYTES + head.len() + payload.len();
    let mut message = BytesMut::with_capacity(total);
    message.put_u32(total as u32);
    message.put_u32(head.len() as u32);
    let prelude_crc = crc32fast::hash(&message);
    message.put_u32(prelude_crc);
    message.put_slice(&head);
    message.put_slice(payload);
    let crc = crc32fast::hash(&message);
    message.put_u32(crc);
    message.freeze()
}

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// A piece of an answer, as InvokeEndpointWithResponseStream sends it.
pub fn payload_part(bytes: &[u8]) -> Bytes {
    let headers = [
        (":event-type", "PayloadPart"),
        (":content-type", "application/octet-stream"),
        (":message-type", "event"),
    ];
    message(&headers, bytes)
}

/// An answer in pieces that clients accept, however long it is.
pub fn payload_parts(bytes: &[u8]) -> impl Iterator<Item = Bytes> {
    bytes.chunks(PART_BYTES).map(payload_part)
}

/// The end of a stream whose model failed. `code` is `ModelInvocationTimeExceeded`, `StreamBroken` or a like word.
pub fn model_stream_error(code: &str, text: &str) -> Bytes {
    exception("ModelStreamError", &serde_json::json!({"Message": text, "ErrorCode": code}))
}

/// The end of a stream for which the server is at fault.
pub fn internal_stream_failure(text: &str) -> Bytes {
    exception("InternalStreamFailure", &serde_json::json!({"Message": text}))
}

/// An exception of the model with its members.
pub fn exception(name: &str, members: &serde_json::Value) -> Bytes {
    let headers =
        [(":exception-type", name), (":content-type", "application/json"), (":message-type", "exception")];
    message(&headers, members.to_string().as_bytes())
}

/// Reads the message at the start of `bytes`, and how long it is.
///
/// # Errors
/// [`Broken::Incomplete`] when the message goes on beyond `bytes`.
pub fn decode(bytes: &[u8]) -> Result<(Message, usize), Broken> {
    let number = |at: usize| {
        let slice: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(slice))
    };
    let need = |at| number(at).ok_or(Broken::Incomplete);
    let (total, head, prelude_crc) = (need(0)? as usize, need(4)? as usize, need(8)?);
    if prelude_crc != crc32fast::hash(&bytes[..8]) || total < FRAME_BYTES || head > total - FRAME_BYTES {
        return Err(Broken::Malformed);
    }
    if bytes.len() < total {
        return Err(Broken::Incomplete);
    }
    if number(total - 4) != Some(crc32fast::hash(&bytes[..total - 4])) {
        return Err(Broken::Malformed);
    }
    let headers = decode_headers(&bytes[12..12 + head]).ok_or(Broken::Malformed)?;
    Ok((Message { headers, payload: Bytes::copy_from_slice(&bytes[12 + head..total - 4]) }, total))
}

fn decode_headers(mut bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let mut headers = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (kind, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if *kind != STRING_HEADER {
            return None;
        }
        headers.push((String::from_utf8(name.to_vec()).ok()?, String::from_utf8(text.to_vec()).ok()?));
        bytes = rest;
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_message_is_the_sixteen_bytes_of_the_format() {
        // The published example of a message without headers and payload.
        assert_eq!(hex::encode(message(&[], b"")), "000000100000000005c248eb7d98c8ff");
    }

    #[test]
    fn messages_are_read_back_and_damage_is_seen() {
        let part = payload_part(b"some bytes");
        let (message, length) = decode(&part).unwrap();
        assert_eq!(length, part.len());
        assert_eq!(message.payload, "some bytes");
        assert!(message.headers.contains(&(":event-type".into(), "PayloadPart".into())));
        for at in 0..part.len() {
            let mut damaged = part.to_vec();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err(), "a change of byte {at} is not seen");
            assert_eq!(decode(&part[..at]), Err(Broken::Incomplete));
        }
    }

    #[test]
    fn long_answers_come_in_parts_and_errors_as_exceptions() {
        let bytes = vec![7; PART_BYTES * 2 + 1];
        let parts: Vec<Bytes> = payload_parts(&bytes).map(|part| decode(&part).unwrap().0.payload).collect();
        assert_eq!(parts.iter().map(Bytes::len).collect::<Vec<_>>(), [PART_BYTES, PART_BYTES, 1]);
        let (message, _) = decode(&model_stream_error("StreamBroken", "the model ended")).unwrap();
        assert!(message.headers.contains(&(":exception-type".into(), "ModelStreamError".into())));
        assert_eq!(message.payload, r#"{"Message":"the model ended","ErrorCode":"StreamBroken"}"#);
        let (message, _) = decode(&internal_stream_failure("oh")).unwrap();
        assert!(message.headers.contains(&(":message-type".into(), "exception".into())));
    }
}
