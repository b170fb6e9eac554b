//! A session: one command inside the sandbox, on a terminal of the sandbox or on the client's pipes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::{Answer, Request, Terminal, receive_line, send};

/// Shells, the first one that there is.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// Runs what the client behind standard input asks for: the body of the hidden sub-command `shell-session`. It runs inside the
/// sandbox, as a child of its first process.
pub fn serve_session() -> ExitCode {
    let connection = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(connection) => UnixStream::from(connection),
        Err(_) => return ExitCode::FAILURE,
    };
    let answer = match serve(&connection) {
        Ok(answer) => answer,
        Err(text) => Answer::Failed(text),
    };
    // A client that went away wants no answer.
    let _ = send(&connection, &answer.encode(), &[]);
    ExitCode::SUCCESS
}

fn serve(connection: &UnixStream) -> Result<Answer, String> {
    let (line, handles) = receive_line(connection, &mut Vec::new())
        .map_err(|error| format!("the request cannot be read: {error}"))?;
    let request: Request =
        serde_json::from_slice(&line).map_err(|error| format!("the request is not understood: {error}"))?;
    // A session of its own: signals for it reach nobody else, and it can have a terminal.
    rustix::process::setsid().map_err(|error| format!("a session cannot be made: {error}"))?;
    let (mut command, shown) = command(&request);
    let terminal = match &request.terminal {
        Some(terminal) => {
            let (master, slave) =
                open_terminal(terminal).map_err(|error| format!("there is no terminal: {error}"))?;
            let copy = || slave.try_clone().map(Stdio::from).map_err(|error| error.to_string());
            command.env("TERM", &terminal.name).stdin(copy()?).stdout(copy()?).stderr(copy()?);
            Some(master)
        }
        None => {
            let Ok([input, output, error]) = <[OwnedFd; 3]>::try_from(handles) else {
                return Err("the request needs a terminal or three pipes".to_owned());
            };
            command.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::from(error));
            // Not on a terminal, where the group of the session's leader is the one in front.
            command.process_group(0);
            None
        }
    };
    let child = command.spawn().map_err(|error| format!("{shown:?} cannot be run: {error}"))?;
    // The command's ends must be open in the command alone, or their closing would not be seen.
    drop(command);
    let handles: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
    let has_gone = send(connection, &Answer::Started.encode(), &handles).is_err();
    drop(terminal);
    wait(connection, child, request.terminal.is_none(), has_gone)
}

fn command(request: &Request) -> (Command, String) {
    let shell = || SHELLS.iter().find(|path| Path::new(path).exists()).unwrap_or(&"sh");
    let program = request.command.first().cloned().unwrap_or_else(|| (*shell()).to_owned());
    let mut command = Command::new(&program);
    command.args(request.command.iter().skip(1));
    (command, program)
}

/// A terminal of the sandbox, the controlling one of this session: the client's end and the command's.
fn open_terminal(terminal: &Terminal) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let size = Winsize { ws_row: terminal.rows, ws_col: terminal.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size)?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    Ok((master, slave))
}

/// Waits for the command; a client that goes away takes it along.
fn wait(
    connection: &UnixStream,
    mut child: Child,
    has_group: bool,
    has_gone: bool,
) -> Result<Answer, String> {
    let pid = Pid::from_child(&child);
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|error| format!("the command cannot be watched: {error}"))?;
    let client =
        connection.try_clone().map_err(|error| format!("the connection cannot be watched: {error}"))?;
    std::thread::Builder::new()
        .name("client".to_owned())
        .spawn(move || {
            let mut byte = [0];
            while !has_gone && matches!(super::receive(&client, &mut byte), Ok((1.., _))) {}
            // Errors say that it has ended. What it started ends with its terminal or its group.
            let hung_up = rustix::process::pidfd_send_signal(&handle, Signal::HUP).is_ok();
            if hung_up && has_group {
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
        })
        .map_err(|error| format!("the connection cannot be watched: {error}"))?;
    let status = child.wait().map_err(|error| format!("the command cannot be waited for: {error}"))?;
    Ok(match status.signal() {
        Some(signal) => Answer::Signal(signal),
        None => Answer::Code(status.code().unwrap_or(1)),
    })
}
