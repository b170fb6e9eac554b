//! The client's side of a session.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{Answer, Request, receive_line, send, short_path};
use crate::workload::Exit;

/// A command that runs in a sandbox.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// The client's end of the terminal, if one was asked for.
    pub terminal: Option<OwnedFd>,
}

/// Runs a command in the sandbox of the workload whose directory this is. Without a terminal, `pipes` are its standard input,
/// output and error; they should be pipes made for it, since the command can use them in any way.
///
/// # Errors
/// A sentence for the user.
pub fn open(
    workload_directory: &Path,
    request: &Request,
    pipes: &[BorrowedFd<'_>],
) -> Result<Session, String> {
    let stream = connect(workload_directory)?;
    let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    line.push(b'\n');
    let lost = |error: io::Error| format!("The job cannot be reached any more: {error}.");
    send(&stream, &line, pipes).map_err(lost)?;
    let mut buffer = Vec::new();
    let (answer, mut handles) = receive_line(&stream, &mut buffer).map_err(lost)?;
    match serde_json::from_slice(&answer).map_err(|error| error.to_string())? {
        Answer::Failed(text) => Err(format!("The command could not be run in the job: {text}.")),
        Answer::Started | Answer::Code(_) | Answer::Signal(_) => {
            Ok(Session { stream, buffer, terminal: handles.pop() })
        }
    }
}

fn connect(workload_directory: &Path) -> Result<UnixStream, String> {
    let connected = short_path(workload_directory).and_then(|(_directory, path)| UnixStream::connect(path));
    connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "There is no running job in {}: a shell can be opened on the machine of the server only, while the job's program runs.",
            workload_directory.display()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "{} cannot be entered: run the command as the user that the server runs as.",
            workload_directory.display()
        ),
        io::ErrorKind::ConnectionRefused => "The job has ended.".to_owned(),
        _ => format!("The job cannot be reached: {error}."),
    })
}

impl Session {
    /// Waits for the command's end.
    ///
    /// # Errors
    /// A sentence for the user: the job has ended, and the command with it.
    pub fn wait(&mut self) -> Result<Exit, String> {
        let (answer, _) = receive_line(&self.stream, &mut self.buffer)
            .map_err(|_| "The job has ended, and the command with it.".to_owned())?;
        match serde_json::from_slice(&answer).map_err(|error| error.to_string())? {
            Answer::Signal(signal) => Ok(Exit::Signal(signal)),
            Answer::Code(code) => Ok(Exit::Code(code)),
            Answer::Failed(text) => Err(format!("The command was lost: {text}.")),
            Answer::Started => Err("The session said something unexpected.".to_owned()),
        }
    }
}
