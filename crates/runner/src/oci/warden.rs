//! The process between a supervisor and a container: starts it, passes signals on, reports its end, and removes it.
//!
//! It speaks with the supervisor as a sandbox's first process does (see [`crate::exec_as`]): lines go out over its standard
//! input, a socket, and bytes that ask for an end come in. When the supervisor dies it removes the container at once.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::state::{State, exit_of};
use super::{Container, arguments, container_name, container_of, door, removal};
use crate::exec_as::InitMessage;
use crate::supervisor::directory::WorkloadDirectory;
use crate::workload::{Exit, WorkloadSpec};

/// Name of the hidden sub-command whose body is [`run_container`]; its only argument is the workload's directory.
pub const SUBCOMMAND: &str = "run-container";

/// How long the engine may take to make a container.
const CREATE_LIMIT: Duration = Duration::from_secs(600);
/// How long the engine may take to pass a signal on.
const SIGNAL_LIMIT: Duration = Duration::from_secs(30);
/// First and longest pause between looks at a container that is starting.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(800));

/// Runs the container of the workload whose directory is the first argument: the body of the hidden sub-command
/// `run-container`.
pub fn run_container(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(directory) = arguments.next().map(PathBuf::from) else { return ExitCode::from(2) };
    let Ok(channel) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        return ExitCode::FAILURE;
    };
    let directory = WorkloadDirectory::new(directory);
    let ended = match removal::contained(&directory) {
        Ok(Some(spec)) => Warden { directory: &directory, spec: &spec, channel: &channel }.run(),
        Ok(None) => Err("The workload's directory does not describe a container.".to_owned()),
        Err(error) => Err(format!("The workload's description cannot be read: {error}.")),
    };
    match ended {
        Ok(exit) => {
            say(&channel, &InitMessage::Ended(exit));
            ExitCode::SUCCESS
        }
        Err(text) => {
            say(&channel, &InitMessage::Failed(text));
            ExitCode::FAILURE
        }
    }
}

struct Warden<'a> {
    directory: &'a WorkloadDirectory,
    spec: &'a WorkloadSpec,
    channel: &'a UnixStream,
}

/// What a warden waits for.
enum Event {
    /// The container is to get this signal.
    Signal(&'static str),
    /// The supervisor is gone.
    Orphaned,
    /// The door has closed, for this reason, and nobody can reach the container any more.
    DoorClosed(String),
    /// The engine's process that follows the container has ended.
    Followed(io::Result<ExitStatus>),
}

impl Warden<'_> {
    fn run(&self) -> Result<Exit, String> {
        let container = container_of(self.spec).ok_or("The workload has no container.")?;
        let (sender, events) = channel();
        let requests = self
            .channel
            .try_clone()
            .map_err(|error| format!("The control channel cannot be read: {error}."))?;
        let listener = sender.clone();
        spawn("requests", move || listen(requests, &listener))?;

        let name = container_name(&self.spec.id);
        removal::announce(self.directory)
            .map_err(|error| format!("The container cannot be noted: {error}."))?;
        let create = arguments::read(self.directory.path())?;
        if let Err(error) = container.engine.call(&create, CREATE_LIMIT) {
            return Err(self.given_up(format!(
                "{} could not make the container: {error}.",
                container.engine.kind.as_str()
            )));
        }
        let mut start = container.engine.command();
        // Attached before the start, so that no output is lost.
        start.args(["start", "--attach", "--sig-proxy=false", &name]);
        follow(start, &sender)?;
        let watched = Watched {
            warden: self,
            container,
            name: &name,
            events: &events,
            sender: &sender,
            is_running: false,
            door: None,
            failure: None,
        };
        watched.until_the_end()
    }

    /// Removes a container that never ran; a failure to do so is left to the supervisor.
    fn given_up(&self, text: String) -> String {
        match removal::remove(self.directory, self.spec) {
            Ok(()) => text,
            Err(error) => format!("{text} {error}"),
        }
    }
}

/// A container that was started.
struct Watched<'a> {
    warden: &'a Warden<'a>,
    container: &'a Container,
    name: &'a str,
    events: &'a Receiver<Event>,
    sender: &'a Sender<Event>,
    /// Whether the supervisor was told that it runs.
    is_running: bool,
    /// What the door listens to: it closes when this does.
    door: Option<ChildStdin>,
    /// Why the container is ended from here, if it is.
    failure: Option<String>,
}

impl Watched<'_> {
    fn until_the_end(mut self) -> Result<Exit, String> {
        let mut wanted: Option<&'static str> = None;
        let mut pause = LOOKS.0;
        let status = loop {
            let event = if self.is_running && wanted.is_none() {
                self.events.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.events.recv_timeout(pause)
            };
            match event {
                Ok(Event::Signal(signal)) => {
                    // A kill is never taken back by a stop.
                    wanted = wanted.filter(|present| *present == "KILL").or(Some(signal));
                    pause = LOOKS.0;
                }
                Ok(Event::DoorClosed(text)) => {
                    // A container that has ended takes its network along.
                    if State::of(&self.container.engine, self.name).is_ok_and(|state| state.running) {
                        self.failure.get_or_insert(text);
                    }
                }
                Ok(Event::Followed(status)) => {
                    if self.goes_on() {
                        continue;
                    }
                    break status;
                }
                Ok(Event::Orphaned) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.warden.given_up("The supervisor is gone.".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(LOOKS.1),
            }
            if !self.is_running {
                self.look();
            }
            if self.failure.is_some() {
                wanted = Some("KILL");
            }
            if let (Some(signal), true) = (wanted, self.is_running)
                && self.signal(signal)
            {
                wanted = None;
            }
        };
        self.report(status)
    }

    /// Tells the supervisor as soon as the program runs.
    fn look(&mut self) {
        if let Ok(state) = State::of(&self.container.engine, self.name)
            && state.running
            && state.pid > 0
        {
            if self.container.door.is_some()
                && let Err(error) = self.open_door(state.pid)
            {
                self.failure = Some(format!("The door of the container cannot be opened: {error}."));
            }
            say(self.warden.channel, &InitMessage::Pid(state.pid));
            say(self.warden.channel, &InitMessage::Running);
            self.is_running = true;
        }
    }

    /// Starts the process that lets the server into the container's network.
    fn open_door(&mut self, pid: u32) -> io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(door::SUBCOMMAND).arg(self.warden.directory.path()).arg(pid.to_string());
        let mut child = command.env_clear().stdin(Stdio::piped()).spawn()?;
        self.door = child.stdin.take();
        let sender = self.sender.clone();
        let watched = spawn("door", move || {
            let ended = match child.wait() {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            // Nobody listening means that this process is about to end.
            let _ =
                sender.send(Event::DoorClosed(format!("The door of the container has closed ({ended}).")));
        });
        watched.map_err(io::Error::other)
    }

    /// Whether the signal has reached the program, or need not any more.
    fn signal(&self, signal: &str) -> bool {
        let sent = self.container.engine.call(&["kill", "--signal", signal, self.name], SIGNAL_LIMIT);
        sent.is_ok() || !State::of(&self.container.engine, self.name).is_ok_and(|state| state.running)
    }

    /// Whether the container runs although the engine's process that followed it has ended; then another one follows.
    fn goes_on(&self) -> bool {
        if !State::of(&self.container.engine, self.name).is_ok_and(|state| state.running) {
            return false;
        }
        note(
            "the connection to the container's output was lost; what it prints from now on is not in this log",
        );
        let mut wait = self.container.engine.command();
        wait.args(["wait", self.name]).stdout(Stdio::null());
        follow(wait, self.sender).is_ok()
    }

    fn report(mut self, followed: io::Result<ExitStatus>) -> Result<Exit, String> {
        drop(self.door.take());
        if let Some(failure) = self.failure.take() {
            return Err(self.warden.given_up(failure));
        }
        let engine = self.container.engine.kind.as_str();
        let state = State::of(&self.container.engine, self.name);
        if state.as_ref().is_ok_and(|state| !state.has_started()) {
            // What the engine said about it is on the log pipe, which the supervisor reads.
            let text = format!(
                "{engine} could not start the container. A training container is run as `IMAGE train`, a serving one as \
                 `IMAGE serve`, unless the request names its entry point."
            );
            return Err(self.warden.given_up(text));
        }
        if !self.is_running {
            say(self.warden.channel, &InitMessage::Running);
            self.is_running = true;
        }
        let exit = match &state {
            Ok(state) => state.exit(),
            // Somebody removed it by hand: what followed it still tells its code.
            Err(_) => exit_of(followed.ok().and_then(|status| status.code()).unwrap_or(137)),
        };
        if let Err(error) = removal::remove(self.warden.directory, self.warden.spec) {
            // The supervisor tries again.
            let _ = writeln!(io::stderr(), "modelyard: {error}");
        }
        Ok(exit)
    }
}

/// Starts a command of the engine that ends with the container, and tells of its end.
fn follow(mut command: Command, sender: &Sender<Event>) -> Result<(), String> {
    let mut child = command
        .spawn()
        .map_err(|error| format!("{} cannot be run: {error}.", command.get_program().to_string_lossy()))?;
    let sender = sender.clone();
    spawn("follower", move || {
        let status = child.wait();
        // Nobody listening means that this process is about to end.
        let _ = sender.send(Event::Followed(status));
    })
}

/// Turns the supervisor's bytes into events.
fn listen(mut requests: UnixStream, sender: &Sender<Event>) {
    loop {
        let mut byte = [0];
        let event = match requests.read(&mut byte) {
            Ok(1) if byte == [b's'] => Event::Signal("TERM"),
            Ok(1) => Event::Signal("KILL"),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            _ => Event::Orphaned,
        };
        let is_last = matches!(event, Event::Orphaned);
        if sender.send(event).is_err() || is_last {
            return;
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(work);
    spawned.map(drop).map_err(|error| format!("A thread cannot be started: {error}."))
}

/// A line of our own in the job's log.
fn note(text: &str) {
    let _ = writeln!(io::stdout(), "modelyard: {text}");
}

fn say(mut channel: &UnixStream, message: &InitMessage) {
    // If nobody listens any more, the requests thread has seen it too and the container is on its way out.
    let _ = channel.write_all(message.encode().as_bytes());
}
