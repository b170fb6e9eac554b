//! Stands in for the product's binary in this crate's tests: sub-commands `supervise`, `exec-as`, `run-container`,
//! `open-door` and `shell-session`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|name| name.to_str()) {
        Some(runner::supervisor::SUBCOMMAND) => match arguments.next() {
            Some(directory) => runner::supervise(Path::new(&directory)),
            None => ExitCode::from(2),
        },
        Some(runner::oci::SUBCOMMAND) => runner::oci::run_container(arguments),
        Some(runner::oci::DOOR_SUBCOMMAND) => runner::oci::open_door(arguments),
        Some(runner::exec_as::SUBCOMMAND) => runner::exec_as(arguments),
        Some(runner::shell::SUBCOMMAND) => runner::shell::serve_session(),
        _ => ExitCode::from(2),
    }
}
