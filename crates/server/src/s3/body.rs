//! Watches the bodies of requests on their way into `s3s`.
//!
//! When a body that `s3s` reads whole is cut off or is not what was signed, `s3s` says that the server failed. It is the
//! client that did, and it must hear so. And a client whose body was not read to its end must hear that the connection
//! closes, or it sends its next request into it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use sha2::{Digest, Sha256};
use wire::Body;

/// What was wrong with a body.
#[derive(Clone, Copy)]
enum Fault {
    CutOff,
    OtherHash,
}

/// What is known of a body so far.
#[derive(Default)]
struct Seen {
    ended: bool,
    fault: Option<Fault>,
}

/// The body of one request, as it is read.
pub struct Watched(Arc<Mutex<Seen>>);

/// Watches the body of a request. Its hash is compared when the operation is described in it; those of objects are
/// checked on their way to the file.
pub fn watch(request: Request<Body>) -> (Request<Body>, Watched) {
    let seen = Arc::new(Mutex::new(Seen { ended: request.body().is_end_stream(), fault: None }));
    let watched = Watched(seen.clone());
    let declared = request.headers().get("x-amz-content-sha256").and_then(|value| value.to_str().ok());
    let declared = declared.filter(|_| is_description(&request)).and_then(|text| hex::decode(text).ok());
    let digest = declared.is_some().then(Sha256::new);
    let request = request.map(|inner| Watch { inner, seen, declared, digest }.boxed());
    (request, watched)
}

fn is_description(request: &Request<Body>) -> bool {
    let names = request.uri().query().unwrap_or_default().split('&');
    let mut names = names.map(|pair| pair.split('=').next().unwrap_or_default());
    match *request.method() {
        Method::POST => true,
        Method::PUT => {
            let of_bucket = !request.uri().path().trim_matches('/').contains('/');
            of_bucket || names.any(|name| name == "tagging")
        }
        _ => false,
    }
}

impl Watched {
    /// Replaces the answer of `s3s` when the body was at fault, and says so when the connection will close.
    pub fn mend(self, mut response: Response<Body>) -> Response<Body> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.ended {
            let close = http::HeaderValue::from_static("close");
            response.headers_mut().insert(http::header::CONNECTION, close);
        }
        let Some(fault) = seen.fault.filter(|_| response.status() == StatusCode::INTERNAL_SERVER_ERROR)
        else {
            return response;
        };
        let (code, text) = match fault {
            Fault::CutOff => ("IncompleteBody", "The body could not be read to its end."),
            Fault::OtherHash => (
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ),
        };
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{text}</Message></Error>"
        );
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
        *response.body_mut() = wire::full(Bytes::from(body));
        response
    }
}

struct Watch {
    inner: Body,
    seen: Arc<Mutex<Seen>>,
    declared: Option<Vec<u8>>,
    digest: Option<Sha256>,
}

impl Watch {
    /// Compares the hash of the whole body, once.
    fn end(&mut self) {
        self.seen().ended = true;
        let computed = self.digest.take().map(|digest| digest.finalize().to_vec());
        if computed.is_some() && self.declared.is_some() && self.declared != computed {
            self.seen().fault = Some(Fault::OtherHash);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl hyper::body::Body for Watch {
    type Data = Bytes;
    type Error = wire::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, wire::BoxError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(digest), Some(data)) = (&mut self.digest, frame.data_ref()) {
                    digest.update(data);
                }
                // The reader may stop at the last frame that the length promises.
                if self.inner.is_end_stream() {
                    self.end();
                }
            }
            Poll::Ready(Some(Err(_))) => self.seen().fault = Some(Fault::CutOff),
            Poll::Ready(None) => self.end(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
