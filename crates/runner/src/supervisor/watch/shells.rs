//! Shells into a running job: where clients ask for them, and how they are handed on.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use super::Watch;
use crate::exec_as::SHELL;
use crate::shell;
use crate::supervisor::directory::WorkloadDirectory;

impl Watch<'_> {
    /// Hands a client's connection to the first process in the sandbox, which starts a session for it.
    pub(super) fn pass_shell_on(&mut self) {
        match self.shells.as_ref().map(UnixListener::accept) {
            Some(Ok((client, _))) => {
                // If it cannot take it, the connection closes here, and the client says so.
                let _ = shell::send(&self.init, &[SHELL], &[client.as_fd()]);
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Listening on would only turn in circles.
            _ => self.shells = None,
        }
    }
}

/// A job runs as well without: only shells are then refused.
pub(super) fn listen(directory: &WorkloadDirectory) -> Option<UnixListener> {
    match shell::listen(directory.path()) {
        Ok(listener) => Some(listener),
        Err(error) => {
            let _ = writeln!(io::stderr(), "shells cannot be opened: {error}");
            None
        }
    }
}
