//! `modelyard run -- CMD`: one command with the server's environment.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use crate::data_dir::Connection;

/// Flags of `modelyard run`.
#[derive(clap::Args)]
pub struct Flags {
    /// Command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Becomes the command.
///
/// # Errors
/// When no server has used the data directory yet, or the command cannot be started.
pub fn run(data_dir: &Path, flags: &Flags) -> Result<ExitCode, String> {
    let connection = Connection::read(data_dir)?;
    let [program, arguments @ ..] = flags.command.as_slice() else {
        return Err("give a command after --, for example: modelyard run -- python train.py".into());
    };
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    for (name, value) in super::env::variables(data_dir, &connection) {
        if value.is_empty() {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
    }
    let error = command.exec();
    Err(format!("{program} cannot be started: {error}"))
}
