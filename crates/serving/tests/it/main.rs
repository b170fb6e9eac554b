//! Drives the data plane with real model hosts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by its panic")]

mod adoption;
mod backlogs;
mod batches;
mod captures;
mod chains;
mod containers;
mod faults;
mod invocations;
mod local_launcher;
mod many_models;
mod native;
mod on_demand;
mod own_words;
mod scene;
mod sessions;
mod shadows;
mod shifts;
mod standbys;
mod updates;
mod zero;
