//! The host's side of the frames that `python/model_host/PROTOCOL.md` describes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use crate::frame::{self, MAX_HEADER_BYTES, PREFIX_BYTES};

/// Far more than any caller may send; a length that is nonsense must not take all memory.
const MOST_BODY_BYTES: u64 = 4 * 1024 * 1024 * 1024;
const FIRST_READ_BYTES: usize = 64 * 1024;

/// One connection from the data plane. It carries one request at a time.
pub(super) struct Wire {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// The header of a request, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    kind: String,
    #[serde(default)]
    pub(super) content_type: Option<String>,
    #[serde(default)]
    pub(super) accept: Option<String>,
    #[serde(default)]
    pub(super) time_limit_seconds: Option<f64>,
    /// Of a batch: the headers of its requests, and how long their bodies are.
    #[serde(default)]
    pub(super) requests: Vec<Header>,
    #[serde(default)]
    body_bytes: Vec<usize>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    Ping,
    Invoke,
    Batch,
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) asking: Asking,
    pub(super) header: Header,
    pub(super) body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_limit: Option<u32>,
    #[serde(skip)]
    body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type: Some(content_type), error: None, batch_limit: None, body }
    }

    /// Of a ping, with how many requests are answered together, if they are.
    pub(super) fn ready(batch_limit: Option<u32>) -> Self {
        Self { status: 200, content_type: None, error: None, batch_limit, body: Vec::new() }
    }

    /// Of a ping, when the graph cannot be loaded.
    pub(super) fn failed_ping(reason: &str) -> Self {
        let error = Some(reason.to_owned());
        Self { status: 503, content_type: None, error, batch_limit: None, body: Vec::new() }
    }
}

impl Request {
    /// The bodies of a batch.
    pub(super) fn bodies(&self) -> Option<Vec<&[u8]>> {
        let sizes = &self.header.body_bytes;
        let mut rest = self.body.as_slice();
        let mut bodies = Vec::with_capacity(sizes.len());
        for size in sizes {
            let (body, after) = rest.split_at_checked(*size)?;
            bodies.push(body);
            rest = after;
        }
        (rest.is_empty() && bodies.len() == self.header.requests.len()).then_some(bodies)
    }
}

fn broken(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_owned())
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Waits until something has arrived, without reading it.
    pub(super) fn wait(&self) -> io::Result<()> {
        let mut ready = [rustix::event::PollFd::new(&self.stream, rustix::event::PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut ready, None))?;
        Ok(())
    }

    /// Reads a request; `None` when the data plane has closed the connection.
    pub(super) fn read(&mut self) -> io::Result<Option<Request>> {
        self.buffer.resize(FIRST_READ_BYTES, 0);
        let mut have = 0;
        while have < PREFIX_BYTES {
            match self.stream.read(&mut self.buffer[have..])? {
                0 if have == 0 => return Ok(None),
                0 => return Err(broken("the request ends in its middle")),
                count => have += count,
            }
        }
        let mut start = BytesMut::from(&self.buffer[..PREFIX_BYTES]);
        let prefix = frame::take_prefix(&mut start).ok_or_else(|| broken("there are no lengths"))?;
        if prefix.header_bytes > MAX_HEADER_BYTES {
            return Err(broken("the header is too long"));
        }
        if prefix.body_bytes > MOST_BODY_BYTES {
            return Err(broken("the body is too long"));
        }
        let mut rest = io::Cursor::new(&self.buffer[PREFIX_BYTES..have]).chain(&self.stream);
        let mut header = vec![0; prefix.header_bytes];
        rest.read_exact(&mut header)?;
        let header: Header = serde_json::from_slice(&header)
            .map_err(|error| broken(&format!("the header is not valid: {error}")))?;
        let asking = match header.kind.as_str() {
            "ping" => Asking::Ping,
            "invoke" => Asking::Invoke,
            "batch" => Asking::Batch,
            other => return Err(broken(&format!("there is no kind of request called {other:?}"))),
        };
        let mut body = Vec::new();
        // Memory is taken as the body arrives, not as its length says.
        rest.by_ref().take(prefix.body_bytes).read_to_end(&mut body)?;
        if body.len() as u64 != prefix.body_bytes {
            return Err(broken("the request ends in its middle"));
        }
        let (arrived, _) = rest.into_inner();
        if arrived.position() < arrived.get_ref().len() as u64 {
            return Err(broken("bytes follow the request"));
        }
        Ok(Some(Request { asking, header, body }))
    }

    /// Sends an answer.
    pub(super) fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        self.answers(std::slice::from_ref(answer))
    }

    /// Sends answers, short ones together.
    pub(super) fn answers(&mut self, answers: &[Answer]) -> io::Result<()> {
        let mut frames = Vec::new();
        for answer in answers {
            let start = frames.len();
            frames.extend_from_slice(&[0; PREFIX_BYTES]);
            serde_json::to_writer(&mut frames, answer)?;
            let header_bytes = u32::try_from(frames.len() - start - PREFIX_BYTES)
                .map_err(|_| broken("the header is too long"))?;
            frames[start..start + 4].copy_from_slice(&header_bytes.to_be_bytes());
            frames[start + 4..start + PREFIX_BYTES]
                .copy_from_slice(&(answer.body.len() as u64).to_be_bytes());
            if answer.body.len() <= FIRST_READ_BYTES {
                frames.extend_from_slice(&answer.body);
                continue;
            }
            self.stream.write_all(&frames)?;
            self.stream.write_all(&answer.body)?;
            frames.clear();
        }
        self.stream.write_all(&frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{RequestHeader, encode_request};

    fn pair() -> (Wire, UnixStream) {
        let (one, other) = UnixStream::pair().unwrap();
        (Wire::new(one), other)
    }

    #[test]
    fn requests_are_read_in_whatever_pieces_they_come() {
        let (mut wire, mut peer) = pair();
        let header = RequestHeader { kind: "invoke", accept: Some("text/csv"), ..RequestHeader::default() };
        let body = vec![7; 300_000];
        let head = encode_request(&header, body.len());
        let sent = body.clone();
        let sending = std::thread::spawn(move || {
            peer.write_all(&head[..5]).unwrap();
            peer.write_all(&head[5..]).unwrap();
            peer.write_all(&sent).unwrap();
            peer
        });
        wire.wait().unwrap();
        let request = wire.read().unwrap().unwrap();
        assert_eq!((request.asking, request.header.accept.as_deref()), (Asking::Invoke, Some("text/csv")));
        assert_eq!(request.body, body);
        let mut peer = sending.join().unwrap();
        wire.answer(&Answer::new(200, "text/csv", vec![1, 2])).unwrap();
        drop(wire);
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).unwrap();
        let mut prefix = BytesMut::from(&answer[..PREFIX_BYTES]);
        let prefix = frame::take_prefix(&mut prefix).unwrap();
        assert_eq!((prefix.header_bytes, prefix.body_bytes), (answer.len() - PREFIX_BYTES - 2, 2));
        let header = &answer[PREFIX_BYTES..PREFIX_BYTES + prefix.header_bytes];
        let header = frame::decode_response_header(header).unwrap();
        assert_eq!((header.status, header.content_type.as_deref()), (200, Some("text/csv")));
    }

    #[test]
    fn a_connection_that_is_closed_has_no_request() {
        let (mut wire, peer) = pair();
        drop(peer);
        wire.wait().unwrap();
        assert!(wire.read().unwrap().is_none());
    }

    #[test]
    fn what_is_no_request_closes_the_connection() {
        let head = |kind: &'static str| {
            encode_request(&RequestHeader { kind, ..RequestHeader::default() }, 0).to_vec()
        };
        let mut long = head("ping");
        long[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        for (bytes, says) in [
            (head("dance"), "no kind of request"),
            (long, "too long"),
            ([head("ping"), vec![1]].concat(), "bytes follow"),
            (vec![0; 5], "in its middle"),
        ] {
            let (mut wire, mut peer) = pair();
            peer.write_all(&bytes).unwrap();
            drop(peer);
            let error = wire.read().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
