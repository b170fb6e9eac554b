//! The one listener: plain or TLS connections, HTTP/1.1, graceful stop.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use wire::Body;

use crate::config::TlsConfig;

/// How long a client may take to send its request head, and a TLS client its handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests under way may take once the server is asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves connections until `stop` turns true, then lets the requests under way finish.
pub async fn serve<H, F>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handler: H,
    mut stop: watch::Receiver<bool>,
) where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
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
        let (handler, stop, tls) = (handler.clone(), stop.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => connection(stream, peer, handler, stop).await,
                Some(tls) => match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, peer, handler, stop).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                },
            }
        });
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

async fn connection<S, H, F>(stream: S, peer: SocketAddr, handler: H, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        let mut request = request.map(|body| body.map_err(wire::BoxError::from).boxed());
        request.extensions_mut().insert(wire::Peer(peer));
        async move { Ok::<_, std::convert::Infallible>(handler(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let finished = tokio::select! {
        finished = connection.as_mut() => finished,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = finished {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Loads or makes the certificate. A generated one is kept in `DATA_DIR/tls` and covers the loopback names.
///
/// # Errors
/// A text for the person who starts the server.
pub fn acceptor(config: &TlsConfig, data_dir: &Path) -> Result<TlsAcceptor, String> {
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
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| named(&certificate, &error))?;
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
