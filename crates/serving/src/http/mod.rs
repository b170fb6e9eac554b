//! A replica that answers over HTTP, as a container does: its requests, and the connections over which they go.
//!
//! Connections are opened when they are wanted and kept for the next request for a moment only: a server that serves one
//! connection at a time must not be held up by one that is idle.

mod connection;
mod sockets;
mod speaking;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use self::connection::{HttpConnection, SendError};
use self::sockets::Sockets;
use crate::connection::{AnswerBody, Chunk, ExchangeError};
use crate::frame::ResponseHeader;
use crate::invocation::InvokeRequest;
use crate::spoken::{Spoken, SpokenProtocol};

/// Where a replica says whether it is ready.
pub(crate) const PING_PATH: &str = "/ping";
/// Where it answers requests.
const INVOCATIONS_PATH: &str = "/invocations";
/// How long a connection is kept without a request; common servers close theirs after 2 seconds.
const KEPT_FOR: Duration = Duration::from_millis(1500);
/// Pause before a request goes out again that a server has not read.
const UNREAD_PAUSE: Duration = Duration::from_millis(20);
/// The longest answer to a question that is no invocation.
const SMALL_ANSWER_BYTES: u64 = 1024 * 1024;
/// The media type of a request that names none.
const ANY_MEDIA_TYPE: HeaderValue = HeaderValue::from_static("*/*");

/// A whole answer: status and body.
pub(crate) type SmallAnswer = (u16, Bytes);

/// One replica that speaks HTTP.
#[derive(Debug)]
pub(crate) struct HttpReplica {
    sockets: Sockets,
    host: HeaderValue,
    names: Names,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The one that was used last is used next, so that the others grow old.
    idle: Vec<HttpConnection>,
    last_answer_at: Instant,
    /// Protocols that it was asked for.
    spoken: HashMap<SpokenProtocol, Option<Spoken>>,
}

/// Names of headers beyond the common ones.
#[derive(Debug)]
struct Names {
    custom_attributes: HeaderName,
    inference_id: HeaderName,
    session_id: HeaderName,
    target_model: HeaderName,
    new_session_id: HeaderName,
    closed_session_id: HeaderName,
}

impl Names {
    fn with(prefix: &str) -> Self {
        let name = |rest: &str| {
            HeaderName::try_from(format!("{prefix}{rest}")).expect("the prefix is part of a header's name")
        };
        Self {
            custom_attributes: name("custom-attributes"),
            inference_id: name("inference-id"),
            session_id: name("session-id"),
            target_model: name("target-model"),
            new_session_id: name("new-session-id"),
            closed_session_id: name("closed-session-id"),
        }
    }
}

/// A streamed answer under way.
#[derive(Debug)]
pub(crate) struct Answering {
    connection: HttpConnection,
    body: Incoming,
}

impl HttpReplica {
    /// The replica whose door listens at `socket`, and which answers at `port` behind it.
    pub(crate) fn new(socket: PathBuf, port: u16, header_prefix: &str) -> Self {
        Self {
            sockets: Sockets::new(socket, port),
            host: HeaderValue::try_from(format!("localhost:{port}")).expect("a number is plain text"),
            names: Names::with(header_prefix),
            state: Mutex::new(State {
                idle: Vec::new(),
                last_answer_at: Instant::now(),
                spoken: HashMap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds this lock can panic")
    }

    /// How long ago it last answered an invocation.
    pub(crate) fn silent_for(&self) -> Duration {
        self.state().last_answer_at.elapsed()
    }

    /// Closes the connections that have had no request for a while.
    pub(crate) fn close_old(&self) {
        let old: Vec<HttpConnection>;
        {
            let mut state = self.state();
            let kept = state.idle.partition_point(|connection| connection.idle_since.elapsed() > KEPT_FOR);
            old = state.idle.drain(..kept).collect();
        }
        // Closed without the lock.
        drop(old);
    }

    /// Sends an invocation and reads its answer up to the end of its body, or, for a streamed one, up to the first piece.
    pub(crate) async fn invoke(
        &self,
        request: &InvokeRequest,
        max_body_bytes: u64,
    ) -> Result<(ResponseHeader, AnswerBody, Option<Answering>), ExchangeError> {
        let (request, asked_headers) = match self.in_own_words(request).await? {
            Some((sent, words)) => (sent, Some(words.answer_headers)),
            None => (self.invocation(INVOCATIONS_PATH, request)?, None),
        };
        self.answered(request, asked_headers, max_body_bytes).await
    }

    /// The same, to a path of its own.
    pub(crate) async fn invoke_at(
        &self,
        path: &str,
        request: &InvokeRequest,
        max_body_bytes: u64,
    ) -> Result<(ResponseHeader, AnswerBody, Option<Answering>), ExchangeError> {
        self.answered(self.invocation(path, request)?, None, max_body_bytes).await
    }

    async fn answered(
        &self,
        request: Request<Full<Bytes>>,
        asked_headers: Option<&'static [&'static str]>,
        max_body_bytes: u64,
    ) -> Result<(ResponseHeader, AnswerBody, Option<Answering>), ExchangeError> {
        let (mut connection, answer) = self.send(&request).await?;
        let (head, mut body) = answer.into_parts();
        let text = |name: &HeaderName| {
            head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let header = ResponseHeader {
            status: head.status.as_u16(),
            content_type: text(&CONTENT_TYPE),
            custom_attributes: text(&self.names.custom_attributes),
            new_session_id: text(&self.names.new_session_id),
            closed_session_id: text(&self.names.closed_session_id),
            spoken_headers: asked_headers.map(|names| speaking::chosen(&head.headers, names)),
            ..ResponseHeader::default()
        };
        match body.size_hint().exact() {
            None => Ok((header, AnswerBody::Chunked, Some(Answering { connection, body }))),
            Some(bytes) if bytes > max_body_bytes => Err(ExchangeError::TooLarge(bytes)),
            Some(_) => {
                let body = whole(&mut connection, &mut body, max_body_bytes).await?;
                self.keep(connection, true).await;
                Ok((header, AnswerBody::Whole(body), None))
            }
        }
    }

    /// The next piece of a streamed answer; at its end the connection is kept.
    pub(crate) async fn next_chunk(
        &self,
        answering: &mut Option<Answering>,
        max_chunk_bytes: u64,
    ) -> Result<Chunk, ExchangeError> {
        loop {
            let Some(Answering { connection, body }) = answering else { return Ok(Chunk::End) };
            match connection.frame(body).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.len() as u64 > max_chunk_bytes => {
                        return Err(ExchangeError::TooLarge(data.len() as u64));
                    }
                    Ok(data) if !data.is_empty() => return Ok(Chunk::Data(data)),
                    // Nothing, or trailers, for which callers have no place.
                    Ok(_) | Err(_) => {}
                },
                Some(Err(error)) => return Err(ExchangeError::Lost(error.to_string())),
                None => {
                    if let Some(Answering { connection, .. }) = answering.take() {
                        self.keep(connection, true).await;
                    }
                    return Ok(Chunk::End);
                }
            }
        }
    }

    /// Asks for what a path has.
    pub(crate) async fn get(&self, path: &'static str) -> Result<SmallAnswer, ExchangeError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Asks a question that is no invocation.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<SmallAnswer, ExchangeError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request =
            request.body(Full::new(body)).map_err(|error| ExchangeError::Lost(error.to_string()))?;
        let (mut connection, answer) = self.send(&request).await?;
        let status = answer.status().as_u16();
        let body = whole(&mut connection, &mut answer.into_body(), SMALL_ANSWER_BYTES).await?;
        self.keep(connection, false).await;
        Ok((status, body))
    }

    fn invocation(&self, path: &str, request: &InvokeRequest) -> Result<Request<Full<Bytes>>, ExchangeError> {
        let names = &self.names;
        let mut sent = Request::new(Full::new(request.body.clone()));
        *sent.method_mut() = Method::POST;
        *sent.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| {
            ExchangeError::Lost(format!("{path:?} is no path of a container: {error}."))
        })?;
        let headers = sent.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(ACCEPT, ANY_MEDIA_TYPE);
        // Servers may ask for it even where there is no body.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(request.body.len()));
        for (name, value) in [
            (&CONTENT_TYPE, &request.content_type),
            (&ACCEPT, &request.accept),
            (&names.custom_attributes, &request.custom_attributes),
            (&names.inference_id, &request.inference_id),
            (&names.session_id, &request.session_id),
            (&names.target_model, &request.target_model),
        ] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
                    ExchangeError::Lost(format!("{value:?} cannot be sent as the header {name}."))
                })?;
                headers.insert(name, value);
            }
        }
        Ok(sent)
    }

    /// Sends a request over a kept connection or a new one.
    async fn send(
        &self,
        request: &Request<Full<Bytes>>,
    ) -> Result<(HttpConnection, Response<Incoming>), ExchangeError> {
        let mut kept = self.take_kept().await;
        let mut tries_left = if kept.is_some() { 3 } else { 2 };
        loop {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.sockets.connect().await.map_err(ExchangeError::Unreachable)?,
            };
            tries_left -= 1;
            match connection.send(request.clone()).await {
                Ok(answer) => return Ok((connection, answer)),
                // A server closes a connection that was kept just when it is to be used again, or one that was just made because
                // it ends: by the next try nobody listens any more. But a server may also end of this very request.
                Err(SendError::NotRead(_)) if tries_left > 0 => tokio::time::sleep(UNREAD_PAUSE).await,
                Err(SendError::NotRead(text) | SendError::Lost(text)) => {
                    return Err(ExchangeError::Lost(text));
                }
            }
        }
    }

    async fn take_kept(&self) -> Option<HttpConnection> {
        loop {
            let mut connection = self.state().idle.pop()?;
            if connection.idle_since.elapsed() <= KEPT_FOR && connection.is_free().await {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request, if the server does.
    async fn keep(&self, mut connection: HttpConnection, has_invoked: bool) {
        let is_free = connection.is_free().await;
        connection.idle_since = Instant::now();
        let mut state = self.state();
        if has_invoked {
            state.last_answer_at = connection.idle_since;
        }
        if is_free {
            state.idle.push(connection);
        }
    }
}

/// Reads a body of which the length is known, or which is short.
async fn whole(
    connection: &mut HttpConnection,
    body: &mut Incoming,
    max_bytes: u64,
) -> Result<Bytes, ExchangeError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = connection.frame(body).await {
        let frame = frame.map_err(|error| ExchangeError::Lost(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if (first.len() + all.len() + data.len()) as u64 > max_bytes {
            return Err(ExchangeError::TooLarge((first.len() + all.len() + data.len()) as u64));
        }
        // Most answers come in one piece, which needs no copy.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}
