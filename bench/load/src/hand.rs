//! The limit of functions in processes of their own: a server that hands the body of each request to one of them over a Unix socket and
//! answers what comes back, with nothing between.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// Most requests that are written to a process at once.
const MOST_AT_ONCE: usize = 64;
const READ_BYTES: usize = 64 * 1024;

/// A process that answers in the order in which it is asked.
struct Worker {
    asked: mpsc::UnboundedSender<Asked>,
    outstanding: AtomicUsize,
}

struct Asked {
    body: Bytes,
    answer: oneshot::Sender<Bytes>,
}

/// Waits until so many processes have connected to the socket, then serves until this one is ended.
pub async fn serve(socket: &Path, count: usize) -> Result<(), String> {
    let processes = UnixListener::bind(socket).map_err(|error| error.to_string())?;
    println!("waiting for processes");
    let mut workers = Vec::new();
    for _ in 0..count {
        let (stream, _) = processes.accept().await.map_err(|error| error.to_string())?;
        let (asked, to_ask) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            if let Err(error) = ask(stream, to_ask).await {
                eprintln!("a process is lost: {error}");
            }
        });
        workers.push(Worker { asked, outstanding: AtomicUsize::new(0) });
    }
    let workers: Arc<[Worker]> = workers.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    println!("listening on {}", listener.local_addr().map_err(|error| error.to_string())?);
    loop {
        let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let workers = Arc::clone(&workers);
        tokio::spawn(async move {
            let service = service_fn(move |request| answered(request, Arc::clone(&workers)));
            // A client that goes away in the middle of a request is none of our business.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answered(
    request: Request<Incoming>,
    workers: Arc<[Worker]>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let answer = match workers.iter().min_by_key(|worker| worker.outstanding.load(Relaxed)) {
        Some(worker) => {
            worker.outstanding.fetch_add(1, Relaxed);
            let (answer, receiver) = oneshot::channel();
            // One that is lost drops the other end of the answer, too.
            let _ = worker.asked.send(Asked { body, answer });
            let answer = receiver.await.ok();
            worker.outstanding.fetch_sub(1, Relaxed);
            answer
        }
        None => None,
    };
    let mut response = Response::new(Full::default());
    match answer {
        Some(answer) => *response.body_mut() = Full::new(answer),
        None => *response.status_mut() = hyper::StatusCode::BAD_GATEWAY,
    }
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

/// Writes what is asked, all that there is at once, and reads the answers: each is its length in four bytes and as many bytes.
async fn ask(mut stream: UnixStream, mut to_ask: mpsc::UnboundedReceiver<Asked>) -> std::io::Result<()> {
    let (mut read, mut write) = stream.split();
    let (mut asked, mut waiting) = (Vec::new(), VecDeque::new());
    let (mut sent, mut received) = (BytesMut::new(), BytesMut::with_capacity(READ_BYTES));
    loop {
        tokio::select! {
            count = to_ask.recv_many(&mut asked, MOST_AT_ONCE) => {
                if count == 0 {
                    return Ok(());
                }
                for Asked { body, answer } in asked.drain(..) {
                    sent.put_u32(u32::try_from(body.len()).map_err(std::io::Error::other)?);
                    sent.put_slice(&body);
                    waiting.push_back(answer);
                }
                write.write_all_buf(&mut sent).await?;
            }
            count = read.read_buf(&mut received) => {
                if count? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                while let Some(answer) = take(&mut received) {
                    if let Some(waiting) = waiting.pop_front() {
                        // Who asked may have gone away.
                        let _ = waiting.send(answer);
                    }
                }
                received.reserve(READ_BYTES / 2);
            }
        }
    }
}

fn take(received: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(received.get(..4)?.try_into().ok()?) as usize;
    if received.len() < 4 + length {
        return None;
    }
    received.advance(4);
    Some(Bytes::copy_from_slice(&received.split_to(length)))
}
