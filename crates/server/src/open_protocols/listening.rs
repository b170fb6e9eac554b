//! The address at whose root the open protocols are spoken: clients of Triton and gRPC know no paths before their own.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use wire::{Body, Peer};

use super::Door;
use crate::app::App;
use crate::config::Config;
use crate::listener::{self, Speaks, Threads};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenListener {
    /// The address; port 0 picks a free one.
    pub address: SocketAddr,
    /// Whether programs of this machine need no key.
    pub opens_without_key: bool,
}

impl OpenListener {
    /// The settings together.
    ///
    /// # Errors
    /// When they would let others than this machine in without a key.
    pub fn resolve(
        address: Option<SocketAddr>,
        opens_without_key: bool,
    ) -> Result<Option<OpenListener>, String> {
        match address {
            None if opens_without_key => {
                Err("open_protocols_without_key needs open_protocols, an address of this machine".into())
            }
            Some(address) if opens_without_key && !address.ip().is_loopback() => Err(format!(
                "open_protocols_without_key: {address} can be reached from other machines; listen on 127.0.0.1, or let clients send keys"
            )),
            address => Ok(address.map(|address| OpenListener { address, opens_without_key })),
        }
    }
}

/// A listener that is bound and does not accept yet.
pub struct Bound {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    door: Door,
    /// How clients reach it.
    pub url: String,
}

impl Bound {
    /// Binds the address of the settings, if there is one.
    ///
    /// # Errors
    /// A text for the person who starts the server.
    pub async fn bind(config: &Config) -> Result<Option<Bound>, String> {
        let Some(open) = &config.open_protocols else { return Ok(None) };
        let tls = config.tls.as_ref();
        let tls = tls.map(|tls| listener::acceptor(tls, &config.data_dir, Speaks::Http1And2)).transpose()?;
        let named = |error: std::io::Error| format!("open_protocols {}: {error}", open.address);
        let listener = TcpListener::bind(open.address).await.map_err(named)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().map_err(named)?);
        let door = Door { opens_without_key: open.opens_without_key };
        Ok(Some(Bound { listener, tls, door, url }))
    }

    /// Answers requests until `stop` turns true.
    pub async fn serve(self, app: Arc<App>, stop: watch::Receiver<bool>) {
        let door = self.door;
        let handler = move |mut request: Request<Body>, peer: Peer| {
            request.extensions_mut().insert(peer);
            super::answer_at_root(app.clone(), request, door)
        };
        listener::serve_speaking(
            Speaks::Http1And2,
            self.listener,
            Arc::new(Threads::of_caller()),
            self.tls,
            handler,
            listener::Patience::default(),
            stop,
        )
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_keys_only_loopback_is_listened_on() {
        let resolve = |address: &str, without_key| OpenListener::resolve(address.parse().ok(), without_key);
        assert_eq!(resolve("", false), Ok(None));
        assert!(resolve("0.0.0.0:8000", false).unwrap().is_some());
        assert!(resolve("127.0.0.1:8000", true).unwrap().unwrap().opens_without_key);
        assert!(resolve("0.0.0.0:8000", true).unwrap_err().contains("0.0.0.0:8000"));
        assert!(resolve("", true).is_err());
    }
}
