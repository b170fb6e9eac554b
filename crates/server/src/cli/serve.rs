//! `modelyard serve`: start, say how to use it, run until asked to stop.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::output;
use crate::app::{App, Parts};
use crate::config::{Config, ServeFlags, TlsConfig, variable};
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
    let _owner = data_dir::take(&config.data_dir)?;
    let tls = config.tls.as_ref().map(|tls| listener::acceptor(tls, &config.data_dir)).transpose()?;
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
    let serving = tokio::spawn(listener::serve(bound, tls, move |request| router(request), stop));
    app.connection.write(&app.config.data_dir).map_err(|error| error.to_string())?;
    announce(&app);
    wait_for_stop().await?;
    tracing::info!("stopping; jobs and endpoints go on and are taken up by the next start");
    // The receiver lives as long as the listener does.
    let _ = stop_sender.send(true);
    let _ = serving.await;
    app.database.close();
    Ok(())
}

fn announce(app: &Arc<App>) {
    let shown = app.config.data_dir.display();
    output::line(&format!("Modelyard {} is ready at {}", env!("CARGO_PKG_VERSION"), app.connection.endpoint));
    output::line(&format!("Data directory: {shown}"));
    output::line("Point a shell at it:");
    output::line(&format!("    eval \"$(modelyard env --data-dir '{shown}')\""));
    output::line("Run one command against it:");
    output::line(&format!("    modelyard run --data-dir '{shown}' -- python your_script.py"));
}

async fn wait_for_stop() -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
