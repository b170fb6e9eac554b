//! Commands inside a running sandbox, for a person who looks for a fault.
//!
//! A client connects to a socket in the workload's directory, which only the server's user can enter. The supervisor hands the
//! connection to the first process in the sandbox, and that starts a session for it: the session inherits the job's user,
//! environment, namespaces, limits and locks, because its parent has nothing else to give. Nothing is entered from outside, so
//! nothing can be brought in.
//!
//! On the connection: a [`Request`] as a line of JSON goes in, with the handles of three pipes unless it asks for a terminal; lines
//! of [`Answer`] come out, the first with the handle of the terminal if one was asked for.

mod client;
mod passing;
mod session;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

pub use client::{Session, open};
pub(crate) use passing::{receive, send};
pub use session::serve_session;

/// Name of the hidden sub-command whose body is [`serve_session`].
pub const SUBCOMMAND: &str = "shell-session";

/// Name of the socket in the workload's directory.
const SOCKET: &str = "shells";

/// Longest message, in bytes.
const MESSAGE_BYTES: usize = 1024 * 1024;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Program and arguments; empty for the shell of the sandbox.
    pub command: Vec<String>,
    /// The terminal to run it on; without one it gets three pipes.
    pub terminal: Option<Terminal>,
}

/// A terminal as the client has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
    /// Value for `TERM`.
    pub name: String,
}

/// What the session says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    /// The command runs.
    Started,
    /// It could not be run, for this reason.
    Failed(String),
    /// It ended with this exit code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl Answer {
    fn encode(&self) -> Vec<u8> {
        // Strings and numbers always serialize.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Makes the socket of a workload.
pub(crate) fn listen(workload_directory: &Path) -> io::Result<UnixListener> {
    let (_directory, path) = short_path(workload_directory)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The socket's path through a handle of its directory: a socket's address must not be longer than 107 bytes, a path may. It
/// holds as long as the handle is kept.
fn short_path(workload_directory: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(workload_directory, flags, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()));
    Ok((directory, path))
}

/// Reads one line of a message, with the handles that came along.
fn receive_line(stream: &UnixStream, buffer: &mut Vec<u8>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut handles = Vec::new();
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = buffer.drain(..=end).collect();
            line.pop();
            return Ok((line, handles));
        }
        if buffer.len() > MESSAGE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
        }
        let mut bytes = [0; 4096];
        let (count, received) = receive(stream, &mut bytes)?;
        handles.extend(received);
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.extend_from_slice(&bytes[..count]);
    }
}
