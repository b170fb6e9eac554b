//! The integration tests of the runner, one binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod archive;
mod bench;
mod catalogue;
mod confinement;
mod contract;
mod environment;
mod executor;
mod faults;
mod feed;
mod held;
mod hostile;
mod hosts;
mod oci;
mod output;
mod prepared;
mod shell;
mod supervision;
mod usage;
