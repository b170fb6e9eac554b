//! The limit of a proxy: a server that passes each request on to another over a kept connection, with nothing between.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

type Sender = SendRequest<Full<Bytes>>;

/// Passes requests on until the process is ended; each connection has one of its own behind it.
pub async fn serve(to: SocketAddr) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    println!("listening on {}", listener.local_addr().map_err(|error| error.to_string())?);
    loop {
        let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let behind = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
        behind.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, driver) = handshake(TokioIo::new(behind)).await.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            let sender = Arc::new(Mutex::new(sender));
            let service = service_fn(move |request| passed(request, sender.clone()));
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // One task drives both connections, so that nothing waits for another thread; either end is the end.
            tokio::select! {
                _ = served => {}
                _ = driver => {}
            }
        });
    }
}

async fn passed(
    request: Request<Incoming>,
    sender: Arc<Mutex<Sender>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut sender = sender.lock().await;
    let answered = async {
        sender.ready().await?;
        let (head, body) =
            sender.send_request(Request::from_parts(head, Full::new(body))).await?.into_parts();
        Ok::<_, hyper::Error>(Response::from_parts(head, Full::new(body.collect().await?.to_bytes())))
    };
    Ok(answered.await.unwrap_or_else(|error| {
        let mut response = Response::new(Full::new(Bytes::from(error.to_string())));
        *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
        response
    }))
}
