//! One HTTP/1.1 connection to a replica. Whoever waits for an answer also drives the connection: no task of its own stands between.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What moves bytes between the connection and its requests; `None` once it is closed.
type Driver = Option<Pin<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>>;

/// A connection that carries one request at a time.
#[derive(Debug)]
pub(crate) struct HttpConnection {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    /// Since when it carries none.
    pub(crate) idle_since: Instant,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The server closed the connection without having read the request whole.
    NotRead(String),
    /// The server went away while it had the request, or answered against the protocol.
    Lost(String),
}

impl SendError {
    fn of(error: &hyper::Error) -> Self {
        let mut source = error.source();
        while let Some(inner) = source {
            // The kernel says so, and not that the end was reached, when the peer left data unread.
            if let Some(error) = inner.downcast_ref::<io::Error>()
                && matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
            {
                return Self::NotRead(error.to_string());
            }
            source = inner.source();
        }
        if error.is_canceled() {
            return Self::NotRead(error.to_string());
        }
        if error.is_incomplete_message() {
            return Self::Lost("The container closed the connection before it had answered.".to_owned());
        }
        Self::Lost(error.to_string())
    }
}

impl HttpConnection {
    /// Begins to speak HTTP over a connection that was just made.
    pub(crate) async fn over(stream: TcpStream) -> io::Result<Self> {
        // A request must not wait for the acknowledgement of the last one.
        stream.set_nodelay(true)?;
        let made = Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await;
        let (sender, driver) = made.map_err(io::Error::other)?;
        Ok(Self { sender, driver: Some(Box::pin(driver)), idle_since: Instant::now() })
    }

    /// Sends a request and gives the head of its answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, SendError> {
        let answer = self.sender.send_request(request);
        driven(&mut self.driver, answer).await.map_err(|error| SendError::of(&error))
    }

    /// The next piece of an answer's body.
    pub(crate) async fn frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        driven(&mut self.driver, body.frame()).await
    }

    /// Whether it can carry another request: the last answer was read to its end, and the server keeps it open.
    pub(crate) async fn is_free(&mut self) -> bool {
        driven(&mut self.driver, std::future::ready(())).await;
        self.driver.is_some() && self.sender.is_ready()
    }
}

/// Waits for `wanted`, and moves the bytes on meanwhile.
async fn driven<F: Future>(driver: &mut Driver, wanted: F) -> F::Output {
    let mut wanted = pin!(wanted);
    poll_fn(|context| {
        if let Some(connection) = driver
            && connection.as_mut().poll(context).is_ready()
        {
            // An error reaches whoever waits for an answer.
            *driver = None;
        }
        wanted.as_mut().poll(context)
    })
    .await
}
