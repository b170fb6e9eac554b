//! Signed requests: sent, timed, and tried again where that may help.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use store::objects::{Remote, RemoteContent, RemoteCredentials, RemoteProblem};
use store::{Clock, Error, Result};

use crate::dial::{Dialer, Forbidden};
use crate::fault::Fault;
use crate::{address, tls};

/// Longest time in which nothing moves.
pub const QUIET_TIMEOUT: Duration = Duration::from_secs(30);

/// The same while a store joins the parts of a large object, which some do before they say a word.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(300);

/// How often is looked whether something moves.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Pauses before the second try and those after it.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(800), Duration::from_millis(2_000)];

/// No further try begins when the first one began so long ago.
const PATIENCE: Duration = Duration::from_secs(12);

/// Largest body that is read whole; a page of a list has less than a tenth of it.
const MOST_BODY_BYTES: usize = 16 << 20;

/// Bytes of a file that are sent at a time.
const SENT_BYTES: usize = 256 * 1024;

/// Connections that are kept for the next request, and how long.
const IDLE_CONNECTIONS: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// What a request carries.
pub enum Body {
    /// Nothing.
    None,
    /// A document.
    Document(Bytes),
    /// A range of a file.
    Content(RemoteContent),
}

/// A request to a bucket.
pub struct Call {
    /// Its method.
    pub method: Method,
    /// What follows the URL of the bucket: nothing or `/key`, and `?query`.
    pub place: String,
    /// Headers beside those of the signature.
    pub headers: HeaderMap,
    /// What it carries.
    pub body: Body,
    /// Longest time in which nothing moves before it is answered.
    pub quiet_timeout: Duration,
}

/// The way to one remote bucket.
pub struct Transport {
    client: Client<Dialer, UnsyncBoxBody<Bytes, io::Error>>,
    credentials: RemoteCredentials,
    region: String,
    base: String,
    /// The bucket as people write it.
    pub url: String,
    clock: Clock,
}

/// Why there was no answer.
struct NoAnswer {
    text: String,
    is_final: bool,
}

impl Transport {
    /// Makes ready; nothing is sent.
    pub fn new(remote: &Remote, credentials: RemoteCredentials, clock: Clock) -> Result<Transport> {
        let tls = match remote.endpoint.starts_with("https:") {
            false => None,
            true => Some(Arc::new(tls::client_config(remote.ca_bundle.as_deref()).map_err(Error::Invalid)?)),
        };
        let dialer = Dialer { tls, allows_link_local: remote.allows_link_local };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(dialer);
        let (region, base, url) = (remote.region.clone(), address::base(remote), remote.url());
        Ok(Transport { client, credentials, region, base, url, clock })
    }

    /// Sends a request until it is answered by a success, or by a refusal that another try would not change.
    pub async fn call(&self, call: &Call) -> Result<std::result::Result<Response<Incoming>, Fault>> {
        let begun = Instant::now();
        let mut pauses = PAUSES.iter();
        loop {
            let problem = match self.once(call).await {
                Ok(Ok(response)) => return Ok(Ok(response)),
                Ok(Err(fault)) if !fault.is_passing() => return Ok(Err(fault)),
                Ok(Err(fault)) => format!("it answers {}", fault.shown()),
                Err(NoAnswer { text, is_final: true }) => {
                    let text = format!("The remote store {} is not asked: {text}", self.url);
                    return Err(RemoteProblem::Refused(text).into());
                }
                Err(NoAnswer { text, .. }) => text,
            };
            match pauses.next().filter(|_| begun.elapsed() < PATIENCE) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => {
                    let text = format!(
                        "The remote store {} does not do its part: {problem}; try again later",
                        self.url
                    );
                    return Err(RemoteProblem::Unavailable(text).into());
                }
            }
        }
    }

    async fn once(
        &self,
        call: &Call,
    ) -> std::result::Result<std::result::Result<Response<Incoming>, Fault>, NoAnswer> {
        let moved = Arc::new(AtomicU64::new(0));
        let request = self
            .signed(call, &moved)
            .map_err(|error| NoAnswer { text: error.to_string(), is_final: true })?;
        let mut answering = pin!(self.client.request(request));
        let mut quiet = Duration::ZERO;
        let response = loop {
            match tokio::time::timeout(LOOK_INTERVAL, &mut answering).await {
                Ok(Ok(response)) => break response,
                Ok(Err(error)) => return Err(NoAnswer { is_final: is_final(&error), text: chain(&error) }),
                Err(_) if moved.swap(0, Ordering::Relaxed) > 0 => quiet = Duration::ZERO,
                Err(_) if quiet + LOOK_INTERVAL < call.quiet_timeout => quiet += LOOK_INTERVAL,
                Err(_) => {
                    let text = format!("no answer within {} s", call.quiet_timeout.as_secs());
                    return Err(NoAnswer { text, is_final: false });
                }
            }
        };
        if response.status().is_success() {
            return Ok(Ok(response));
        }
        let status = response.status();
        let region = response.headers().get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
        let region = region.map(str::to_owned);
        // What cannot be read of a refusal changes nothing about it.
        let body = read(response).await.unwrap_or_default();
        Ok(Err(Fault::of(status, region, &body)))
    }

    fn signed(
        &self,
        call: &Call,
        moved: &Arc<AtomicU64>,
    ) -> std::result::Result<Request<UnsyncBoxBody<Bytes, io::Error>>, http::Error> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.base, call.place))
            .body(())?;
        *request.headers_mut() = call.headers.clone();
        let signer = wire::sigv4::Signer {
            access_key_id: &self.credentials.access_key_id,
            secret_access_key: &self.credentials.secret_access_key,
            session_token: self.credentials.session_token.as_deref(),
            region: &self.region,
            service: "s3",
        };
        let now_ms = self.clock.now_ms();
        let never = |never: std::convert::Infallible| match never {};
        let body = match &call.body {
            Body::None => {
                signer.sign(&mut request, b"", now_ms);
                Empty::new().map_err(never).boxed_unsync()
            }
            Body::Document(document) => {
                signer.sign(&mut request, document, now_ms);
                Full::new(document.clone()).map_err(never).boxed_unsync()
            }
            Body::Content(content) => {
                request.headers_mut().insert(http::header::CONTENT_LENGTH, content.size.into());
                // Its MD5 is in a header, which is signed.
                signer.sign_without_body(&mut request, now_ms);
                sent(content, moved.clone())
            }
        };
        Ok(request.map(|()| body))
    }
}

/// The bytes of a file, read off the async threads; `moved` grows with what is taken.
fn sent(content: &RemoteContent, moved: Arc<AtomicU64>) -> UnsyncBoxBody<Bytes, io::Error> {
    if content.size == 0 {
        return Empty::new().map_err(|never: std::convert::Infallible| match never {}).boxed_unsync();
    }
    let state = (content.file.clone(), content.start, content.start + content.size, moved);
    let pieces = futures::stream::try_unfold(state, |(file, at, end, moved)| async move {
        if at == end {
            return Ok(None);
        }
        let length = (end - at).min(SENT_BYTES as u64);
        let read = tokio::task::spawn_blocking(move || read_piece(file, at, length as usize)).await;
        let (file, bytes) = read.map_err(io::Error::other)??;
        moved.fetch_add(length, Ordering::Relaxed);
        Ok::<_, io::Error>(Some((Frame::data(bytes), (file, at + length, end, moved))))
    });
    StreamBody::new(pieces).boxed_unsync()
}

fn read_piece(path: PathBuf, at: u64, length: usize) -> io::Result<(PathBuf, Bytes)> {
    let mut bytes = vec![0; length];
    std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(&path)?, &mut bytes, at)?;
    Ok((path, bytes.into()))
}

/// The whole body of an answer, as text.
pub async fn read(response: Response<Incoming>) -> io::Result<String> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = next_frame(&mut body).await? {
        bytes.extend_from_slice(&frame);
        if bytes.len() > MOST_BODY_BYTES {
            return Err(io::Error::other("the answer is too long"));
        }
    }
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// The next bytes of an answer; `None` at its end.
pub async fn next_frame(body: &mut Incoming) -> io::Result<Option<Bytes>> {
    let frame = tokio::time::timeout(QUIET_TIMEOUT, body.frame()).await;
    let frame =
        frame.map_err(|_| io::Error::other(format!("nothing came for {} s", QUIET_TIMEOUT.as_secs())))?;
    let frame = frame.transpose().map_err(|error| io::Error::other(chain(&error)))?;
    Ok(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

/// An error with its causes: the first ones say little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

fn is_final(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if cause.is::<Forbidden>() || inner.is_some_and(|inner| inner.is::<Forbidden>()) {
            return true;
        }
        next = cause.source();
    }
    false
}
