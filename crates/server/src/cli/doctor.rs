//! `modelyard doctor`: what works on this machine, and the line that mends what does not.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::output::{self, Format};
use crate::config;
use crate::data_dir::Connection;

/// Flags of `modelyard doctor`.
#[derive(clap::Args)]
pub struct Flags {
    /// Table for people, or JSON
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// One finding.
struct Check {
    what: &'static str,
    works: bool,
    /// What was found.
    found: String,
    /// The line to run, or what to change; empty when it works.
    mend: String,
}

/// Prints all findings; the exit code is 1 when something that jobs need does not work.
///
/// # Errors
/// Never; the signature is that of the other commands.
pub fn doctor(data_dir: &Path, flags: &Flags) -> Result<ExitCode, String> {
    let search_path = config::search_path();
    let checks = [
        sandbox(&search_path),
        locks(data_dir, &search_path),
        containers(data_dir, &search_path),
        python(&search_path),
        installer(&search_path),
        folder(data_dir),
        server(data_dir),
    ];
    if flags.output == Format::Json {
        let shown: Vec<_> = checks
            .iter()
            .map(|check| json!({"check": check.what, "works": check.works, "found": check.found, "mend": check.mend}))
            .collect();
        output::json(&shown.into());
    } else {
        for check in &checks {
            output::line(&format!(
                "{} {:<20} {}",
                if check.works { "ok  " } else { "FAIL" },
                check.what,
                check.found
            ));
            if !check.mend.is_empty() {
                output::line(&format!("     to mend it: {}", check.mend));
            }
        }
    }
    Ok(if checks.iter().all(|check| check.works) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sandbox(search_path: &[PathBuf]) -> Check {
    let report = runner::sandbox::probe(&crate::workloads::executor_settings(
        search_path,
        config::DEFAULT_JOB_USER_ID,
    ));
    Check {
        what: "sandbox",
        works: report.state == runner::sandbox::SandboxState::Works,
        found: report.detail,
        mend: report.remedy.unwrap_or_default(),
    }
}

/// Runs a job that does nothing, and tells which locks held it.
fn locks(data_dir: &Path, search_path: &[PathBuf]) -> Check {
    let config = config::Config::resolve(data_dir.to_owned(), &config::ServeFlags::default());
    let (job_user_id, required) = match &config {
        Ok(config) => (config.job_user_id, config.required_locks.clone()),
        Err(_) => (config::DEFAULT_JOB_USER_ID, Vec::new()),
    };
    let settings = crate::workloads::executor_settings(search_path, job_user_id);
    let check = |works, found, mend: &str| Check { what: "locks", works, found, mend: mend.into() };
    let probed = try_locks(settings);
    let reports = match (probed, config) {
        (Ok(containment), Ok(_)) => containment.locks,
        (Err(text), _) => return check(false, text, ""),
        (_, Err(error)) => return check(false, error.to_string(), ""),
    };
    let names = |held| {
        let chosen = reports.iter().filter(move |report| report.held == held);
        chosen.map(move |report| match (held, report.detail.as_str()) {
            (true, _) | (_, "") => report.lock.to_string(),
            (false, why) => format!("{} ({why})", report.lock),
        })
    };
    let mut found = format!("held: {}", names(true).collect::<Vec<_>>().join(", "));
    let missing = names(false).collect::<Vec<_>>().join("; ");
    if !missing.is_empty() {
        found = format!("{found}; not here: {missing}");
    }
    match runner::locks::unmet(&required, &reports) {
        None => check(true, found, ""),
        Some(_) => {
            let mend = "make the locks in required_locks of modelyard.toml hold, or take them out there";
            check(false, found, mend)
        }
    }
}

fn try_locks(settings: runner::ExecutorSettings) -> Result<runner::Containment, String> {
    let directory = std::env::temp_dir().join(format!("modelyard-doctor-{}", std::process::id()));
    let command = crate::workloads::supervisor_command().map_err(|error| error.to_string())?;
    std::fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let probed = super::block_on(async {
        let probed = runner::sandbox::probe_locks(&directory, command, settings).await;
        probed.map_err(|error| error.to_string())
    });
    let removed = std::fs::remove_dir_all(&directory);
    removed.map_err(|error| format!("{}: {error}", directory.display()))?;
    probed
}

/// Runs a tiny container.
fn containers(data_dir: &Path, search_path: &[PathBuf]) -> Check {
    let check = |works, found, mend: String| Check { what: "container engine", works, found, mend };
    let config = match config::containers_of(data_dir) {
        Ok(config) => config,
        Err(error) => return check(false, error.to_string(), "correct the settings file".into()),
    };
    let Some(engine) = &config.engine else {
        let found = "none; images of the catalogue run in sandboxes, others do not run";
        return check(true, found.into(), "sudo apt-get install podman".into());
    };
    let report = runner::oci::probe(engine, search_path);
    match report.state {
        runner::oci::EngineState::Works => check(true, report.detail, String::new()),
        // One that only lies around is not needed.
        runner::oci::EngineState::Broken => {
            let found = format!("images outside the catalogue do not run: {}", report.detail);
            check(!config.is_named, found, report.remedy.unwrap_or_default())
        }
    }
}

fn program(search_path: &[PathBuf], name: &str) -> Option<PathBuf> {
    search_path.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn python(search_path: &[PathBuf]) -> Check {
    match program(search_path, "python3") {
        Some(path) => Check {
            what: "Python",
            works: true,
            found: format!("{} runs jobs", path.display()),
            mend: String::new(),
        },
        None => Check {
            what: "Python",
            works: false,
            found: "python3 is not on PATH; framework images cannot be built".into(),
            mend: "sudo apt-get install python3 python3-venv".into(),
        },
    }
}

fn installer(search_path: &[PathBuf]) -> Check {
    let (found, mend) = match program(search_path, "uv") {
        Some(path) => (format!("{} builds environments", path.display()), ""),
        None => ("uv is not on PATH; pip builds environments, several times slower".into(), "pip install uv"),
    };
    Check { what: "package installer", works: true, found, mend: mend.into() }
}

fn folder(data_dir: &Path) -> Check {
    let existing = data_dir.ancestors().find(|path| path.exists()).unwrap_or(data_dir);
    let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_ok();
    let free_bytes = rustix::fs::statvfs(existing).map(|disk| disk.f_bavail * disk.f_frsize).unwrap_or(0);
    let gigabytes = free_bytes as f64 / 1e9;
    let shown = data_dir.display();
    let mend = match (writable, gigabytes < 5.0) {
        (false, _) => "choose another folder with --data-dir DIR",
        (true, true) => "free some space: framework environments take several GB",
        (true, false) => "",
    };
    Check {
        what: "data directory",
        works: writable,
        found: format!(
            "{shown}: {}, {gigabytes:.1} GB free",
            if writable { "writable" } else { "not writable" }
        ),
        mend: mend.into(),
    }
}

fn server(data_dir: &Path) -> Check {
    let running = std::fs::File::open(data_dir.join("server.lock")).is_ok_and(|file| {
        // Only a running server holds the lock.
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
    });
    let found = match (running, Connection::read(data_dir)) {
        (true, Ok(connection)) => format!("runs at {}", connection.endpoint),
        (true, Err(text)) => text,
        (false, _) => "does not run on this data directory".into(),
    };
    let mend =
        if running { String::new() } else { format!("modelyard serve --data-dir '{}'", data_dir.display()) };
    Check { what: "server", works: true, found, mend }
}
