//! Drives the data plane with real model hosts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by its panic")]

mod adoption;
mod faults;
mod invocations;
mod local_launcher;
mod scene;
mod updates;
