//! The process of an ONNX graph: it listens for the data plane and answers in frames, as `python/model_host` does.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::answering::{AnswerWishes, Answering, Asked, Description};
use super::graph::Graph;
use super::operators;
use super::options::{Joins, Options};
use super::together::Answered;
use super::wire::{Answer, Asking, Header, Wire};

/// How often the host looks for requests whose time is up.
const LOOK: Duration = Duration::from_millis(200);
/// A computation that goes on for so long after its time is up ends the host: there is no other way to stop it.
const MOST_OVERDUE: Duration = Duration::from_secs(10);
/// How long a host that gives up waits for somebody to tell the reason to.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A graph whose file is larger is not looked at for operators.
const MOST_LOOKED_AT_BYTES: u64 = 256 * 1024 * 1024;
/// How often a host that is to end looks whether all is answered.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// What the threads of a host share.
struct Host {
    answering: Answering,
    /// How many requests are answered together, if they are.
    batch_limit: Option<u32>,
    time_limit: Duration,
    /// Set once no more requests are to be read.
    draining: AtomicBool,
    /// Requests that are being read or answered.
    busy: AtomicUsize,
}

/// Runs a host until it is told to end; gives its exit code.
pub(super) fn run(options: &Options) -> ExitCode {
    let listener = match listen(&options.socket) {
        Ok(listener) => listener,
        Err(error) => {
            say(&format!("ERROR: {} cannot be listened at: {error}.", options.socket.display()));
            return ExitCode::FAILURE;
        }
    };
    let answering = match load(options) {
        Ok(answering) => answering,
        Err(reason) => {
            say(&format!("ERROR: {reason}"));
            tell(&listener, options.workers, &reason);
            return ExitCode::FAILURE;
        }
    };
    let host = Arc::new(Host {
        batch_limit: batch_limit(options, &answering),
        answering,
        time_limit: options.time_limit,
        draining: AtomicBool::new(false),
        busy: AtomicUsize::new(0),
    });
    let accepting = Arc::clone(&host);
    let spawned =
        std::thread::Builder::new().name("accept".into()).spawn(move || accept(&listener, &accepting));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match (spawned, runtime) {
        (Ok(_), Ok(runtime)) => runtime.block_on(watch(&host)),
        (Err(error), _) | (_, Err(error)) => {
            say(&format!("ERROR: the host cannot be started: {error}."));
            ExitCode::FAILURE
        }
    }
}

fn load(options: &Options) -> Result<Answering, String> {
    let graph = Graph::load(&options.library, &options.graph, options.workers)?;
    let description = options.description.as_deref().map(Description::read).transpose()?;
    let wishes =
        AnswerWishes { default_accept: options.default_accept.clone(), selected: options.selected.clone() };
    Answering::new(graph, description.as_ref(), wishes)
}

/// How many requests may be put together, where the graph takes them and the deployment wants it.
fn batch_limit(options: &Options, answering: &Answering) -> Option<u32> {
    let is_exact = || std::fs::read(&options.graph).is_ok_and(|graph| operators::are_exact(&graph));
    let is_small = || std::fs::metadata(&options.graph).is_ok_and(|file| file.len() <= MOST_LOOKED_AT_BYTES);
    let is_wanted = match options.joins {
        Joins::Never => false,
        Joins::Rows => true,
        Joins::Exact => is_small() && is_exact(),
    };
    (is_wanted && options.batch_limit > 1 && answering.graph().takes_rows()).then_some(options.batch_limit)
}

/// A line of the log.
fn say(line: &str) {
    // Nobody is left to be told that the log cannot be written.
    let _ = writeln!(io::stderr(), "{line}");
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// Tells the data plane the reason on every connection that waits.
fn tell(listener: &UnixListener, workers: usize, reason: &str) {
    let told = || -> io::Result<()> {
        for _ in 0..workers {
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: LAST_WORDS.subsec_nanos().into() };
            let mut ready = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
            if rustix::io::retry_on_intr(|| rustix::event::poll(&mut ready, Some(&wait)))? == 0 {
                break;
            }
            let (stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(LAST_WORDS))?;
            let mut wire = Wire::new(stream);
            if wire.read()?.is_some() {
                wire.answer(&Answer::failed_ping(reason))?;
            }
        }
        Ok(())
    };
    // Nobody waits any more; the log has the reason too.
    let _ = told();
}

fn accept(listener: &UnixListener, host: &Arc<Host>) {
    for stream in listener.incoming() {
        let serving = Arc::clone(host);
        let spawned = stream.and_then(|stream| {
            std::thread::Builder::new().name("worker".into()).spawn(move || serve(stream, &serving))
        });
        if let Err(error) = spawned {
            say(&format!("WARNING: a connection was not taken: {error}"));
            if host.draining.load(Ordering::SeqCst) {
                return;
            }
        }
    }
}

/// Answers the requests of one connection until the data plane closes it.
fn serve(stream: UnixStream, host: &Host) {
    let mut wire = Wire::new(stream);
    loop {
        if wire.wait().is_err() {
            return;
        }
        let _busy = Busy::begin(&host.busy);
        // What has not been read is sent to another replica.
        if host.draining.load(Ordering::SeqCst) {
            return;
        }
        match wire.read() {
            Ok(Some(request)) => {
                let answered = match request.asking {
                    Asking::Ping => wire.answer(&Answer::ready(host.batch_limit)),
                    Asking::Invoke => wire.answer(&invoke(host, &request.header, &request.body)),
                    Asking::Batch => match request.bodies() {
                        Some(bodies) => {
                            wire.answers(&invoke_together(host, &request.header.requests, &bodies))
                        }
                        None => {
                            say("WARNING: a connection was closed: the batch does not say what is in it");
                            return;
                        }
                    },
                };
                if answered.is_err() {
                    return; // the data plane gave the request up
                }
            }
            Ok(None) => return,
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    say(&format!("WARNING: a connection was closed: {error}"));
                }
                return;
            }
        }
    }
}

fn invoke(host: &Host, header: &Header, body: &[u8]) -> Answer {
    told(host.answering.answer(&asked(host, header, body)))
}

fn invoke_together(host: &Host, headers: &[Header], bodies: &[&[u8]]) -> Vec<Answer> {
    let asked: Vec<Asked<'_>> =
        headers.iter().zip(bodies).map(|(header, body)| asked(host, header, body)).collect();
    host.answering.answer_together(&asked).into_iter().map(told).collect()
}

fn asked<'a>(host: &Host, header: &'a Header, body: &'a [u8]) -> Asked<'a> {
    let limit = header.time_limit_seconds.filter(|seconds| *seconds > 0.0 && *seconds < 1e9);
    Asked {
        content_type: header.content_type.as_deref(),
        accept: header.accept.as_deref(),
        body,
        time_limit: limit.map_or(host.time_limit, Duration::from_secs_f64),
    }
}

fn told(answered: Answered) -> Answer {
    match answered {
        Ok((answer_type, body)) => Answer::new(200, answer_type.name(), body),
        Err(error) => {
            say(&format!("WARNING: a request was answered with status {}: {}", error.status, error.text));
            Answer::new(error.status, "text/plain", error.text.into_bytes())
        }
    }
}

/// Counts a request as long as it lives.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ends what overruns its time, and the host when it is told to end.
async fn watch(host: &Host) -> ExitCode {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        say("ERROR: the host cannot be told to end.");
        return ExitCode::FAILURE;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        if host.answering.graph().end_overdue() > MOST_OVERDUE {
            say("ERROR: a computation did not stop when its time was up; the host ends.");
            return ExitCode::FAILURE;
        }
    }
    host.draining.store(true, Ordering::SeqCst);
    while host.busy.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    ExitCode::SUCCESS
}
