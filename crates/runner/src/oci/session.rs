//! Commands inside a running container, through the engine.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{container_name, container_of, removal};
use crate::supervisor::directory::WorkloadDirectory;

/// Starts bash where the image has it.
const SHELL: [&str; 3] = ["sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; fi; exec sh"];

/// The engine's command that runs a command (empty for a shell) in the container of the workload whose directory this is, with the
/// caller's standard input, output and error. `None` if the workload is not a container.
///
/// # Errors
/// When the workload's directory cannot be read.
pub fn session(
    workload_directory: &Path,
    command: &[String],
    on_terminal: bool,
) -> io::Result<Option<Command>> {
    let directory = WorkloadDirectory::new(workload_directory.to_owned());
    let Some(spec) = removal::contained(&directory)? else { return Ok(None) };
    let Some(container) = container_of(&spec) else { return Ok(None) };
    let mut session = container.engine.command();
    session.args(["exec", "--interactive"]).stdin(Stdio::inherit());
    if on_terminal {
        session.arg("--tty");
    }
    session.arg(container_name(&spec.id));
    if command.is_empty() {
        session.args(SHELL)
    } else {
        session.args(command)
    };
    Ok(Some(session))
}
