//! Replays recorded HTTP requests at full speed, or serves a fixed answer as fast as hyper can.

mod bare;
mod hand;
mod proxy;
mod recording;
mod replay;
mod report;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

#[derive(Parser)]
#[command(about = "Load generator and bare HTTP server of the benchmarks")]
enum Command {
    /// Send the requests of a file over kept-alive connections; print one JSON object with rates and latencies
    Replay {
        /// Where to send them
        address: SocketAddr,
        /// One JSON object per line: method, target, headers, body
        requests: PathBuf,
        /// Connections, each with one request under way at a time
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// Stop after this time
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Send each request at most once; without it the file is repeated until the time is up
        #[arg(long)]
        once: bool,
    },
    /// Answer every request with the same body until killed; the address is printed
    Bare {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// The body of every answer
        #[arg(long, default_value = "[0.0]")]
        body: String,
    },
    /// Pass every request on to another server until killed; the address is printed
    Proxy {
        /// Where to
        to: SocketAddr,
    },
    /// Hand the body of every request to one of several processes until killed; the address is printed once they have connected
    Hand {
        /// The Unix socket that they connect to; it is made
        socket: PathBuf,
        /// How many they are
        #[arg(long, default_value_t = 2)]
        processes: usize,
    },
}

fn main() -> Result<(), String> {
    match Command::parse() {
        Command::Replay { address, requests, connections, seconds, once } => {
            let recorded = recording::read(&requests)?;
            let plan = replay::Plan { address, connections, time: Duration::from_secs_f64(seconds), once };
            // One thread: the generator must leave the other cores to what it measures.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome =
                runtime.map_err(|error| error.to_string())?.block_on(replay::replay(&plan, recorded))?;
            let printed = serde_json::to_string(&outcome.report()).map_err(|error| error.to_string())?;
            println!("{printed}");
            Ok(())
        }
        Command::Bare { listen, body } => serving(bare::serve(listen, body.into())),
        Command::Proxy { to } => serving(proxy::serve(to)),
        Command::Hand { socket, processes } => serving(hand::serve(&socket, processes)),
    }
}

/// Runs a server on threads of its own.
fn serving(server: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(server)
}
