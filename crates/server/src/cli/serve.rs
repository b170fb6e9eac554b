//! `modelyard serve`: start, say how to use it, run until asked to stop.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::output;
use crate::app::{App, Parts};
use crate::config::{Config, ServeFlags, TlsConfig, variable};
use crate::listener::Speaks;
use crate::{data_dir, listener};

/// Runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// A text that says why it cannot start.
pub fn serve(data_directory: PathBuf, flags: &ServeFlags) -> Result<(), String> {
    let config = Config::resolve(data_directory, flags).map_err(|error| error.to_string())?;
    let filter = variable("MODELYARD_LOG").unwrap_or_else(|| {
        // `s3s` logs every refusal of a client as an error of its own; ours are logged where they are made.
        "info,s3s=off".into()
    });
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let served = runtime.block_on(run(config));
    // Blocking work that is still under way (a download, a build) is repeated by the next start.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    served
}

async fn run(config: Config) -> Result<(), String> {
    // Before anybody can know that the server runs: a signal from then on is a clean stop.
    let mut stops = Stops::listen().map_err(|error| error.to_string())?;
    let _owner = data_dir::take(&config.data_dir)?;
    let tls = config.tls.as_ref();
    let tls = tls.map(|tls| listener::acceptor(tls, &config.data_dir, Speaks::Http1)).transpose()?;
    let open = crate::open_protocols::Bound::bind(&config).await?;
    let bound =
        TcpListener::bind(config.listen).await.map_err(|error| format!("{}: {error}", config.listen))?;
    let address = bound.local_addr().map_err(|error| error.to_string())?;
    // A wildcard address is no address to connect to.
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let ca_bundle = match &config.tls {
        Some(TlsConfig::Generated) => Some(listener::generated_certificate(&config.data_dir)),
        Some(TlsConfig::Files { certificate, .. }) => Some(certificate.clone()),
        None => None,
    };
    let executor = crate::workloads::executor(&config).map_err(|error| error.to_string())?;
    let parts = Parts {
        clock: store::Clock::system(),
        executor,
        endpoint: format!("{scheme}://{reachable}"),
        ca_bundle,
        machine: crate::capacity::Machine::from(runner::inventory::Inventory::of_this_machine()),
    };
    let app = App::open(config, parts).await.map_err(|error| error.to_string())?;
    let router = crate::router(&app);
    let (stop_sender, stop) = watch::channel(false);
    let open_address = open.as_ref().map(|open| open.url.clone());
    let open = open.map(|open| tokio::spawn(open.serve(app.clone(), stop.clone())));
    let threads = listener::Threads::start().map_err(|error| format!("threads for connections: {error}"))?;
    // Held here too: what is left of them is waited for after all else has been put down.
    let threads = Arc::new(threads);
    let serving = tokio::spawn(listener::serve(
        bound,
        threads.clone(),
        tls,
        listener::divided(
            move |request, peer| router(request, Some(peer)),
            tokio::runtime::Handle::current(),
        ),
        listener::Patience::default(),
        stop,
    ));
    app.connection.write(&app.config.data_dir).map_err(|error| error.to_string())?;
    announce(&app, open_address.as_deref());
    stops.wait().await;
    tracing::info!("stopping; jobs and endpoints go on and are taken up by the next start");
    // The receiver lives as long as the listener does.
    let _ = stop_sender.send(true);
    let _ = serving.await;
    if let Some(open) = open {
        let _ = open.await;
    }
    if let Some(capture) = app.endpoints.capture() {
        capture.flush().await;
    }
    app.endpoints.shadows.save(&app).await;
    app.database.close();
    Ok(())
}

fn announce(app: &Arc<App>, open_address: Option<&str>) {
    let shown = app.config.data_dir.display();
    output::line(&format!("Modelyard {} is ready at {}", env!("CARGO_PKG_VERSION"), app.connection.endpoint));
    if let Some(address) = open_address {
        output::line(&format!("Open inference protocols at {address}"));
    }
    output::line(&format!("Data directory: {shown}"));
    output::line("Point a shell at it:");
    output::line(&format!("    eval \"$(modelyard env --data-dir '{shown}')\""));
    output::line("Run one command against it:");
    output::line(&format!("    modelyard run --data-dir '{shown}' -- python your_script.py"));
}

/// The signals that end the server.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
