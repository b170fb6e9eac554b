//! Listeners: plain or TLS connections, HTTP/1.1 and, where it is wanted, HTTP/2, graceful stop.

mod handover;
mod patience;
mod threads;

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use wire::{Body, Peer};

use self::patience::{PatientBody, PatientStream, PatientTimer};
use self::threads::Place;
use crate::config::TlsConfig;

pub use self::handover::divided;
pub use self::patience::Patience;
pub use self::threads::Threads;

/// How long requests under way may take once the server is asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Most requests that one HTTP/2 connection carries at once.
const STREAMS_AT_ONCE: u32 = 256;

/// How often a silent HTTP/2 connection is asked whether its client is still there, and how long that may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// What clients may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// Both: over TLS as the handshake says, else as the first bytes do.
    Http1And2,
}

/// What one client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// Serves connections until `stop` turns true, then lets the requests under way finish.
pub async fn serve<H, F>(
    listener: TcpListener,
    threads: Arc<Threads>,
    tls: Option<TlsAcceptor>,
    handler: H,
    patience: Patience,
    stop: watch::Receiver<bool>,
) where
    H: Fn(Request<Body>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    serve_speaking(Speaks::Http1, listener, threads, tls, handler, patience, stop).await;
}

/// As [`serve`], for clients that speak what `speaks` allows.
pub async fn serve_speaking<H, F>(
    speaks: Speaks,
    listener: TcpListener,
    threads: Arc<Threads>,
    tls: Option<TlsAcceptor>,
    handler: H,
    patience: Patience,
    mut stop: watch::Receiver<bool>,
) where
    H: Fn(Request<Body>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a client that went away: the next accept may do better.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // Small answers must not wait for an acknowledgement of the last packet.
        let _ = stream.set_nodelay(true);
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%peer, %error, "a connection could not be handed over");
                continue;
            }
        };
        let (handler, stop, tls) = (handler.clone(), stop.clone(), tls.clone());
        let Place { runtime, held } = threads.place();
        let served = async move {
            let _held = held;
            // Only here does the thread that serves it wait for it.
            let stream = match TcpStream::from_std(stream) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%peer, %error, "a connection could not be waited for");
                    return;
                }
            };
            match tls {
                None => {
                    if let Some(version) = plain_version(&stream, speaks, patience.head).await {
                        connection(stream, peer, version, handler, patience, stop).await;
                    }
                }
                Some(tls) => match tokio::time::timeout(patience.head, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let version = match stream.get_ref().1.alpn_protocol() {
                            Some(b"h2") => Version::Http2,
                            _ => Version::Http1,
                        };
                        connection(stream, peer, version, handler, patience, stop).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                },
            }
        };
        connections.spawn_on(served, &runtime);
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("some requests did not finish in time and were cut off");
    }
}

/// Returns once a stop is asked for, or nobody is left to ask.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// What a client without TLS speaks, by its first bytes; `None` when they do not come.
async fn plain_version(stream: &TcpStream, speaks: Speaks, limit: Duration) -> Option<Version> {
    if speaks == Speaks::Http1 {
        return Some(Version::Http1);
    }
    let mut first = [0; 3];
    let read = tokio::time::timeout(limit, stream.peek(&mut first)).await.ok()?.ok()?;
    // No method of HTTP/1.1 that anything here answers begins like this.
    Some(if first[..read] == *b"PRI" { Version::Http2 } else { Version::Http1 })
}

async fn connection<S, H, F>(
    stream: S,
    peer: SocketAddr,
    version: Version,
    handler: H,
    patience: Patience,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Body>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        let request = request.map(|body| PatientBody::new(body, patience).boxed());
        async move { Ok::<_, std::convert::Infallible>(handler(request, Peer(peer)).await) }
    });
    macro_rules! finished {
        ($connection:expr) => {{
            let connection = $connection;
            tokio::pin!(connection);
            // Looked at only when it has news, unlike a branch of its own, which is looked at with each request.
            let mut stopping = FuturesUnordered::from_iter([stopped(&mut stop)]);
            tokio::select! {
                biased;
                finished = connection.as_mut() => finished,
                Some(()) = stopping.next() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }};
    }
    let finished = match version {
        Version::Http1 => finished!(
            hyper::server::conn::http1::Builder::new()
                .timer(PatientTimer::default())
                .header_read_timeout(patience.head)
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(PatientStream::new(stream, patience)), service)
        ),
        Version::Http2 => finished!(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS_AT_ONCE)
                .keep_alive_interval(Some(KEEP_ALIVE.0))
                .keep_alive_timeout(KEEP_ALIVE.1)
                .serve_connection(TokioIo::new(PatientStream::new(stream, patience)), service)
        ),
    };
    if let Err(error) = finished {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Loads or makes the certificate. A generated one is kept in `DATA_DIR/tls` and covers the loopback names.
///
/// # Errors
/// A text for the person who starts the server.
pub fn acceptor(config: &TlsConfig, data_dir: &Path, speaks: Speaks) -> Result<TlsAcceptor, String> {
    let (certificate, key) = match config {
        TlsConfig::Files { certificate, key } => (certificate.clone(), key.clone()),
        TlsConfig::Generated => generated(&data_dir.join("tls"))?,
    };
    let named = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(&certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| named(&certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|error| named(&key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| named(&certificate, &error))?;
    if speaks == Speaks::Http1And2 {
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// Path of the certificate that clients must trust (`AWS_CA_BUNDLE`) when it was generated.
pub fn generated_certificate(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("tls/certificate.pem")
}

fn generated(directory: &Path) -> Result<(std::path::PathBuf, std::path::PathBuf), String> {
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    if !(certificate.exists() && key.exists()) {
        let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
        let made = rcgen::generate_simple_self_signed(names).map_err(|error| error.to_string())?;
        let write = || {
            std::fs::create_dir_all(directory)?;
            crate::data_dir::write_private(&key, made.signing_key.serialize_pem().as_bytes())?;
            crate::data_dir::write_private(&certificate, made.cert.pem().as_bytes())?;
            // Jobs, which have a user of their own, check the server by it.
            std::fs::set_permissions(&certificate, std::fs::Permissions::from_mode(0o644))
        };
        write().map_err(|error: std::io::Error| format!("{}: {error}", directory.display()))?;
    }
    Ok((certificate, key))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// Reads the body and says how that went, with an answer of so many bytes after it.
    async fn answer(request: Request<Body>, answer_bytes: usize) -> Response<Body> {
        let read = match request.into_body().collect().await {
            Ok(body) => format!("{} bytes", body.to_bytes().len()),
            Err(error) => error.to_string(),
        };
        Response::new(wire::full(read + &"x".repeat(answer_bytes)))
    }

    /// A client's end of a connection that is served with little patience, and the task that serves it.
    fn served(answer_bytes: usize) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let short = Duration::from_millis(40);
        let patience = Patience {
            head: short,
            pause: short,
            grace: short * 4,
            least_bytes_per_second: 1_000_000_000,
            untaken: short,
        };
        let (client, server) = tokio::io::duplex(1024);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let handler = move |request, _| answer(request, answer_bytes);
        let (sender, stop) = watch::channel(false);
        let task = tokio::spawn(async move {
            connection(server, peer, Version::Http1, handler, patience, stop).await;
            drop(sender);
        });
        (client, task)
    }

    async fn rest(mut client: DuplexStream) -> String {
        let mut text = Vec::new();
        client.read_to_end(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 10\r\n\r\n";

    #[tokio::test]
    async fn a_head_that_does_not_come_is_not_waited_for() {
        let (mut client, task) = served(0);
        client.write_all(&HEAD[..20]).await.unwrap();
        assert!(!rest(client).await.contains("200 OK"));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_is_silent_after_an_answer_is_cut_off() {
        let (mut client, task) = served(0);
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab").await.unwrap();
        let mut answered = Vec::new();
        while !answered.ends_with(b"2 bytes") {
            assert_ne!(client.read_buf(&mut answered).await.unwrap(), 0, "the connection is kept");
        }
        assert_eq!(rest(client).await, "", "then nothing comes, and it ends");
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_pauses_or_drips_is_given_up() {
        let (mut client, task) = served(0);
        client.write_all(HEAD).await.unwrap();
        client.write_all(b"12345").await.unwrap();
        assert!(rest(client).await.ends_with("too slowly"));
        task.await.unwrap();

        let (client, task) = served(0);
        let (mut reader, mut writer) = tokio::io::split(client);
        let dripping = tokio::spawn(async move {
            writer.write_all(HEAD).await.unwrap();
            let mut drops = tokio::time::interval(Duration::from_millis(25));
            // No pause is too long; the body as a whole is. The loop ends when the connection does.
            for _ in 0..9 {
                drops.tick().await;
                if writer.write_all(b"1").await.is_err() {
                    break;
                }
            }
            writer
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("too slowly"), "{text}");
        dripping.await.unwrap();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_body_in_time_is_read_and_one_that_ends_early_is_bounded() {
        let (mut client, task) = served(0);
        client.write_all(HEAD).await.unwrap();
        client.write_all(b"0123456789").await.unwrap();
        let answered = rest(client).await;
        assert!(answered.ends_with("10 bytes"), "{answered}");
        task.await.unwrap();

        // Half closed in the middle of its body.
        let (mut client, task) = served(0);
        client.write_all(HEAD).await.unwrap();
        client.write_all(b"01234").await.unwrap();
        client.shutdown().await.unwrap();
        assert!(!rest(client).await.contains("10 bytes"));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_cut_off() {
        let (mut client, task) = served(1_000_000);
        client.write_all(HEAD).await.unwrap();
        client.write_all(b"0123456789").await.unwrap();
        // The client reads nothing, and the connection ends all the same.
        task.await.unwrap();
        assert!(rest(client).await.len() < 1_000_000);
    }
}
