//! A held workload: all is ready, and its program runs once the server lets it go.

use std::io::Write;
use std::os::fd::BorrowedFd;

use super::Watch;
use crate::exec_as::{GO, START};
use crate::supervisor::directory::now_ms;

/// How far a held workload is.
pub(super) struct Hold {
    /// Its first process waits for the word.
    is_ready: bool,
    /// The server has let it go.
    is_let_go: bool,
    /// Whether the server that holds it still lives.
    has_holder: bool,
}

impl Hold {
    /// Of a workload that is only starting, and may have been let go already.
    pub fn new(is_let_go: bool) -> Self {
        Self { is_ready: false, is_let_go, has_holder: true }
    }

    /// What ends with the server that holds it: the standard input of this process, into which nothing is ever written.
    pub fn holder(&self) -> Option<BorrowedFd<'static>> {
        (self.has_holder && !self.is_let_go).then(rustix::stdio::stdin)
    }
}

impl Watch<'_> {
    /// Called when the first process is ready: lets it go on, unless it is held.
    pub(super) fn go_unless_held(&mut self) {
        match &mut self.hold {
            Some(hold) if !hold.is_let_go => {
                hold.is_ready = true;
                if self.spec.starts_while_held {
                    // If it is gone, its end says so.
                    let _ = self.init.write_all(&[START]);
                }
            }
            _ => self.go(),
        }
    }

    /// Called when the server may have let it go.
    pub(super) fn end_hold(&mut self) {
        let Some(hold) = &mut self.hold else { return };
        if !matches!(self.directory.has_go(), Ok(true)) {
            return;
        }
        hold.is_let_go = true;
        if hold.is_ready {
            self.attempt.started_at_ms = now_ms();
            self.record_running();
            self.go();
        }
    }

    /// The server is gone. Unless its last word was to let the workload go, nobody will: the next server starts afresh.
    pub(super) fn holder_is_gone(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.has_holder = false;
        }
        self.end_hold();
        if self.hold.as_ref().is_some_and(|hold| !hold.is_let_go) {
            self.stop_requested = true;
            self.kill();
        }
    }

    fn go(&mut self) {
        self.hold = None;
        // If it is gone, its end says so.
        let _ = self.init.write_all(&[GO]);
    }
}
