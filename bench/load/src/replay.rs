//! Sends recorded requests: each connection has one request under way, as a client without pipelining.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::report::Outcome;

/// What to send where, and for how long.
pub struct Plan {
    /// Where to send the requests.
    pub address: SocketAddr,
    /// Connections, each with one request under way at a time.
    pub connections: usize,
    /// When to stop.
    pub time: Duration,
    /// Send each request at most once.
    pub once: bool,
}

/// The requests and which of them is next; shared by the connections.
struct Queue {
    requests: Vec<Request<Full<Bytes>>>,
    next: Cell<usize>,
    once: bool,
}

impl Queue {
    fn take(&self) -> Option<Request<Full<Bytes>>> {
        let index = self.next.get();
        if self.once && index >= self.requests.len() {
            return None;
        }
        self.next.set(index + 1);
        Some(self.requests[index % self.requests.len()].clone())
    }
}

/// Runs the plan; fails when the server cannot be reached or breaks a connection twice for one request.
pub async fn replay(plan: &Plan, requests: Vec<Request<Full<Bytes>>>) -> Result<Outcome, String> {
    let queue = Rc::new(Queue { requests, next: Cell::new(0), once: plan.once });
    let local = LocalSet::new();
    let (address, started) = (plan.address, Instant::now());
    let end = started + plan.time;
    let clients: Vec<_> =
        (0..plan.connections).map(|_| local.spawn_local(client(address, queue.clone(), end))).collect();
    local
        .run_until(async move {
            let mut outcome = Outcome::default();
            for client in clients {
                outcome.add(client.await.map_err(|error| error.to_string())??);
            }
            outcome.elapsed = started.elapsed();
            Ok(outcome)
        })
        .await
}

async fn client(address: SocketAddr, queue: Rc<Queue>, end: Instant) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let mut sender = connect(address).await?;
    while Instant::now() < end {
        let Some(request) = queue.take() else { break };
        let started = Instant::now();
        let answer = match send(&mut sender, request.clone()).await {
            Ok(answer) => answer,
            // A server may close a kept-alive connection at any time: a new one is part of the request's latency.
            Err(_) => {
                outcome.reconnects += 1;
                sender = connect(address).await?;
                send(&mut sender, request).await.map_err(|error| format!("{address}: {error}"))?
            }
        };
        outcome.answered(started.elapsed(), answer.status, &answer.body);
        if answer.closes {
            sender = connect(address).await?;
        }
    }
    Ok(outcome)
}

struct Answer {
    status: u16,
    body: Bytes,
    closes: bool,
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, hyper::Error> {
    sender.ready().await?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    let closes =
        head.headers.get("connection").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    Ok(Answer { status: head.status.as_u16(), body, closes })
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Its errors reach the sender.
    tokio::task::spawn_local(connection);
    Ok(sender)
}
