//! ONNX graphs. The runtime is C++ that reads files of strangers, so that it never runs in the server: a graph has a process of its own in
//! a sandbox, this program again, which speaks to the data plane as `python/model_host` does.

mod answer;
mod answering;
mod cells;
mod graph;
mod host;
mod operators;
mod options;
mod outputs;
mod placing;
mod reading;
mod tensors;
mod together;
mod wire;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

pub use self::options::{Joins as OnnxJoins, Options as OnnxHostOptions};

/// The hidden sub-command that runs a host.
pub const ONNX_HOST_SUBCOMMAND: &str = "onnx-host";

/// Runs the host of a graph: the body of the hidden sub-command, with the words that follow it.
pub fn run_onnx_host(words: impl Iterator<Item = OsString>) -> ExitCode {
    match OnnxHostOptions::read(words) {
        Ok(options) => host::run(&options),
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "ERROR: {problem}");
            ExitCode::from(2)
        }
    }
}
