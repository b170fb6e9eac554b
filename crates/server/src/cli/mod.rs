//! The command line.

mod accounts;
mod alarms;
mod buckets;
mod clean;
mod client;
mod components;
mod deployment;
mod doctor;
mod endpoint_models;
mod endpoint_queue;
mod env;
mod events;
mod inference_key;
mod job_kind;
mod jobs;
mod lineage;
mod logs;
mod output;
mod pipelines;
mod registry;
mod remotes;
mod replay;
mod resources;
mod run;
mod run_facts;
mod scaling;
mod serve;
mod shadow;
mod shell;
mod tables;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{DataDirFlag, ServeFlags};

/// The self-hosted machine-learning platform that speaks SageMaker.
///
/// Start it with `modelyard serve`, point a shell at it with `eval "$(modelyard env)"`, and run SageMaker scripts unchanged.
#[derive(Parser)]
#[command(name = "modelyard", version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    data_dir: DataDirFlag,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the server; it listens on loopback unless told otherwise
    Serve(ServeFlags),
    /// Print the lines that point a shell's SDKs and tools at the server
    ///
    /// Use it as: eval "$(modelyard env)"
    Env(env::Flags),
    /// Run one command with the environment that `modelyard env` prints
    ///
    /// For example: modelyard run -- python train.py
    Run(run::Flags),
    /// Say what works on this machine and how to mend what does not
    Doctor(doctor::Flags),
    /// List training jobs, show one, say why it failed or waits, open a shell in it, interrupt it, stop it
    Jobs(jobs::Flags),
    /// Print the log of a training job or an endpoint
    Logs(logs::Flags),
    /// Print what happened to training jobs and objects, in the shape of EventBridge
    Events(events::Flags),
    /// List the alarms over metrics with their states, say what happened to them
    Alarms(alarms::Flags),
    /// Say which jobs, models and endpoints saw an object of S3
    ///
    /// For example: modelyard lineage s3://bucket/data/train.csv
    Lineage(lineage::Flags),
    /// List or show endpoints, show what scales one or who waits at one, delete one, replay captured traffic of one against another,
    /// print a key for clients of the open inference protocols
    Endpoints(resources::EndpointFlags),
    /// List or show models, delete one
    Models(resources::ModelFlags),
    /// List model package groups, show the versions of one with who approved them and why
    Registry(registry::Flags),
    /// Show the steps of a pipeline's execution and what they wait for, compare two executions
    Pipelines(pipelines::Flags),
    /// List the tables of the catalogue, add one for files in S3
    ///
    /// For example: modelyard tables add shop.orders s3://bucket/orders/
    Tables(tables::Flags),
    /// Add accounts and keys
    Accounts(accounts::Flags),
    /// Remove what is older than the settings keep it, or say what would go
    Clean(clean::Flags),
    /// Use folders of this machine and buckets of other S3 stores as buckets: add, list, remove
    Bucket(buckets::Flags),
    /// Print completions for a shell
    ///
    /// For example: modelyard completions bash > /etc/bash_completion.d/modelyard
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    #[command(hide = true)]
    Supervise {
        /// Folder of the workload
        directory: std::path::PathBuf,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os();
    // These run inside jobs, where each millisecond counts and no argument parser is needed.
    match words.nth(1).as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("supervise") => {
            return match words.next() {
                Some(directory) => runner::supervisor::supervise(std::path::Path::new(&directory)),
                None => ExitCode::from(2),
            };
        }
        Some("exec-as") => runner::exec_as::exec_as(words),
        Some("run-container") => return runner::oci::run_container(words),
        Some(runner::oci::DOOR_SUBCOMMAND) => return runner::oci::open_door(words),
        Some(serving::ONNX_HOST_SUBCOMMAND) => return serving::run_onnx_host(words),
        Some(runner::shell::SUBCOMMAND) => return runner::shell::serve_session(),
        _ => {}
    }
    let arguments = Arguments::parse();
    match run_command(arguments) {
        Ok(code) => code,
        Err(text) => {
            output::error(&text);
            ExitCode::FAILURE
        }
    }
}

fn run_command(arguments: Arguments) -> Result<ExitCode, String> {
    if let Command::Completions { shell } = arguments.command {
        clap_complete::generate(shell, &mut Arguments::command(), "modelyard", &mut std::io::stdout());
        return Ok(ExitCode::SUCCESS);
    }
    let data_dir = crate::config::data_dir(&arguments.data_dir).map_err(|error| error.to_string())?;
    let done = |result: Result<(), String>| result.map(|()| ExitCode::SUCCESS);
    match arguments.command {
        Command::Serve(flags) => done(serve::serve(data_dir, &flags)),
        Command::Env(flags) => done(env::env(&data_dir, &flags)),
        Command::Run(flags) => run::run(&data_dir, &flags),
        Command::Doctor(flags) => doctor::doctor(&data_dir, &flags),
        Command::Jobs(flags) => jobs::jobs(&data_dir, flags),
        Command::Logs(flags) => done(logs::logs(&data_dir, &flags)),
        Command::Events(flags) => done(events::events(&data_dir, &flags)),
        Command::Alarms(flags) => done(alarms::alarms(&data_dir, flags)),
        Command::Lineage(flags) => done(lineage::lineage(&data_dir, &flags)),
        Command::Endpoints(flags) => resources::endpoints(&data_dir, flags),
        Command::Models(flags) => done(resources::models(&data_dir, flags)),
        Command::Registry(flags) => done(registry::registry(&data_dir, flags)),
        Command::Pipelines(flags) => done(pipelines::pipelines(&data_dir, flags)),
        Command::Tables(flags) => done(tables::tables(&data_dir, flags)),
        Command::Accounts(flags) => done(accounts::accounts(&data_dir, flags)),
        Command::Clean(flags) => done(clean::clean(&data_dir, &flags)),
        Command::Bucket(flags) => done(buckets::buckets(&data_dir, flags)),
        Command::Completions { .. } | Command::Supervise { .. } => Ok(ExitCode::SUCCESS),
    }
}

/// Runs a future on a small runtime: client commands do one thing at a time.
fn block_on<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
