//! Connections to remote stores, with a limit on time and on where they may lead.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time for a connection, with its name looked up and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The address is one that may not be asked; another try does not help.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is an address of this link or of a cloud's metadata, where credentials are given out; --allow-link-local allows it"
)]
pub struct Forbidden(IpAddr);

/// Opens connections.
#[derive(Clone)]
pub struct Dialer {
    /// TLS, for addresses that want it.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Whether link-local addresses may be asked.
    pub allows_link_local: bool,
}

impl tower_service::Service<Uri> for Dialer {
    type Response = Link;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Link>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let dialled = tokio::time::timeout(CONNECT_TIMEOUT, dialer.dial(&uri)).await;
            dialled.unwrap_or_else(|_| {
                let seconds = CONNECT_TIMEOUT.as_secs();
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {seconds} s")))
            })
        })
    }
}

impl Dialer {
    async fn dial(&self, uri: &Uri) -> io::Result<Link> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        // The addresses are judged that are dialled: a name may lead elsewhere from one look to the next.
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port)).await?.collect();
        let (forbidden, allowed): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|address| !self.allows_link_local && is_link_local(address.ip()));
        if let (Some(first), true) = (forbidden.first(), allowed.is_empty()) {
            return Err(io::Error::other(Forbidden(first.ip())));
        }
        let stream = TcpStream::connect(allowed.as_slice()).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Link(TokioIo::new(Box::new(stream)))) };
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
        Ok(Link(TokioIo::new(Box::new(stream))))
    }
}

/// Addresses of this link alone, and the ones outside of them where clouds answer with credentials.
fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local() || address == Ipv4Addr::new(100, 100, 100, 200),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection.
pub struct Link(TokioIo<Box<dyn Io>>);

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_give_out_credentials_are_known() {
        for address in
            ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "100.100.100.200", "fd00:ec2::254"]
        {
            assert!(is_link_local(address.parse().unwrap()), "{address}");
        }
        for address in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00::1", "8.8.8.8"] {
            assert!(!is_link_local(address.parse().unwrap()), "{address}");
        }
    }
}
