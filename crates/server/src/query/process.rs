//! The process of a query: what it is given, how it is kept in, and what it leaves.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runner::tree::Tree;
use runner::workload::{
    Access, Confinement, Exit, ExitReport, JobUser, Mount, Network, Observation, WorkloadSpec,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::catalogue::Table;
use super::{Answer, ENGINE_IMAGE, Problem, Query, QueryFault};
use crate::app::App;
use crate::job_log::JobLog;
use crate::workloads;

/// The program inside the sandbox, embedded so that one binary is all there is to install.
const PROGRAM: &[(&str, &str)] = &[
    ("query_host.py", include_str!("../../../../python/query_host/query_host.py")),
    ("translate.py", include_str!("../../../../python/query_host/translate.py")),
    ("functions.py", include_str!("../../../../python/query_host/functions.py")),
    ("description.py", include_str!("../../../../python/query_host/description.py")),
    ("tables.py", include_str!("../../../../python/query_host/tables.py")),
    ("results.py", include_str!("../../../../python/query_host/results.py")),
    ("errors.py", include_str!("../../../../python/query_host/errors.py")),
];

/// Where the sandbox shows the folder of the query.
const QUERY_TARGET: &str = "/run/query";
/// Where the sandbox shows the program.
const PROGRAM_TARGET: &str = "/run/query-host";
/// Where the sandbox shows the files of the tables.
const TABLES_TARGET: &str = "/run/tables";
/// Folder of the query's own files below its directory.
const QUERY_FOLDER: &str = "query";
/// Time between SIGTERM and SIGKILL: there is nothing to save.
const STOP_GRACE_SECONDS: u64 = 2;
/// Longest report of the engine.
const MOST_REPORT_BYTES: u64 = 4 * 1024 * 1024;

/// What a query may use.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Memory.
    pub memory_bytes: u64,
    /// CPUs.
    pub cpus: u32,
    /// Space for what it writes.
    pub disk_bytes: Option<u64>,
    /// Time.
    pub time_limit_seconds: u64,
}

/// Folder of the files of a result, below the directory of its query.
pub const OUTPUT_FOLDER: &str = "query/output";
/// Folder of the files of the tables, below the directory of the query that reads them.
pub const TABLES_FOLDER: &str = "tables";

/// Where the process of a query runs.
pub struct Place<'a> {
    /// Id of its workload.
    pub id: &'a str,
    /// Folder of its files.
    pub directory: &'a Path,
    /// The log for what the server says of it.
    pub log: &'a JobLog,
    /// The file of that log, for what the engine says itself.
    pub log_path: &'a Path,
}

/// What the engine is told of a query over tables.
pub fn request(query: &Query, tables: &[Table]) -> Value {
    json!({
        "query": query.text,
        "dialect": query.dialect,
        "database": query.database,
        "tables": tables,
        "output": {"format": query.format, "compression": query.compression},
        "parts": query.parts,
    })
}

/// Starts the process of a request; the files of its tables are in place.
///
/// # Errors
/// What keeps it from being started.
pub async fn begin(app: &Arc<App>, place: &Place<'_>, mut request: Value, room: Room) -> Result<(), Problem> {
    let directory = place.directory;
    let server = |error: &dyn std::fmt::Display| Problem::Server(error.to_string());
    let profile = app.catalogue.resolve(ENGINE_IMAGE).map_err(|error| server(&error))?;
    // There are no requirements but those of the image.
    let nothing = directory.join("none");
    let environment = workloads::environment(app, &profile, &nothing, place.log).await;
    let environment = environment.map_err(|text| server(&format!("the SQL engine cannot be had: {text}")))?;
    request["memory_bytes"] = room.memory_bytes.into();
    request["threads"] = room.cpus.max(1).into();
    let written = write(directory, &request.to_string()).await;
    written.map_err(|error| server(&format!("{}: {error}", directory.display())))?;
    let mut mounts: Vec<Mount> = environment
        .read_only_paths
        .iter()
        .map(|path| Mount { source: path.clone(), target: path.clone(), access: Access::ReadOnly })
        .collect();
    let mount = |folder: &str, target: &str, access: Access| Mount {
        source: directory.join(folder),
        target: PathBuf::from(target),
        access,
    };
    mounts.push(mount(QUERY_FOLDER, QUERY_TARGET, Access::ReadWrite));
    mounts.push(mount("program", PROGRAM_TARGET, Access::ReadOnly));
    mounts.push(mount(TABLES_FOLDER, TABLES_TARGET, Access::ReadOnly));
    let variables = [
        ("PATH", workloads::path_with(&environment)),
        ("HOME", "/tmp".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("TZ", "UTC".to_owned()),
    ];
    let variables: BTreeMap<String, String> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let spec = WorkloadSpec {
        command: vec![
            environment.python.display().to_string(),
            format!("{PROGRAM_TARGET}/query_host.py"),
            QUERY_TARGET.to_owned(),
        ],
        environment: variables,
        working_directory: PathBuf::from(QUERY_TARGET),
        mounts,
        log_path: place.log_path.to_owned(),
        time_limit_seconds: Some(room.time_limit_seconds),
        stop_grace_seconds: STOP_GRACE_SECONDS,
        network: Network::None,
        user: JobUser::Unprivileged,
        confinement: Confinement::Bubblewrap,
        hostname: "query".into(),
        limits: runner::Limits {
            memory_bytes: Some(room.memory_bytes),
            cpus: Some(room.cpus.max(1)),
            disk_bytes: room.disk_bytes,
            ..runner::Limits::default()
        },
        required_locks: app.config.required_locks.clone(),
        ..WorkloadSpec::plain(place.id, Vec::new())
    };
    app.executor.start(&spec).await.map_err(|error| server(&error))
}

async fn write(directory: &Path, request: &str) -> std::io::Result<()> {
    let query = directory.join(QUERY_FOLDER);
    for folder in ["output", "scratch"] {
        tokio::fs::create_dir_all(query.join(folder)).await?;
    }
    tokio::fs::create_dir_all(directory.join(TABLES_FOLDER)).await?;
    let program = directory.join("program");
    tokio::fs::create_dir_all(&program).await?;
    for (name, content) in PROGRAM {
        tokio::fs::write(program.join(name), content).await?;
    }
    tokio::fs::write(query.join("request.json"), request).await
}

/// Whether the process was started already, so that its end is to be awaited.
///
/// # Errors
/// When that cannot be told.
pub fn is_begun(app: &App, id: &str) -> Result<bool, Problem> {
    match app.executor.observe(id) {
        Ok(Observation::Running { .. } | Observation::Exited(_)) => Ok(true),
        Ok(Observation::Unknown) | Err(runner::Error::UnknownWorkload(_)) => Ok(false),
        Err(error) => Err(Problem::Server(format!("the query cannot be observed: {error}"))),
    }
}

/// What the engine leaves as `outcome.json`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    Fault { error: QueryFault },
    Answer(Answer),
}

/// Waits for the end of a query. The time that it took comes with it, in milliseconds.
pub async fn outcome(app: &Arc<App>, id: &str, directory: &Path) -> (Result<Answer, Problem>, i64) {
    let report = match app.executor.wait(id).await {
        Ok(report) => report,
        Err(error) => {
            return (Err(Problem::Server(format!("the query cannot be observed: {error}"))), 0);
        }
    };
    let ran_ms = report.ended_at_ms.saturating_sub(report.started_at_ms);
    let folder = directory.to_owned();
    let read = tokio::task::spawn_blocking(move || read_outcome(&folder)).await;
    let left = read.ok().flatten();
    (judged(&report, left), i64::try_from(ran_ms).unwrap_or(i64::MAX))
}

fn judged(report: &ExitReport, left: Option<Outcome>) -> Result<Answer, Problem> {
    match (&report.exit, left) {
        (Exit::Code(0), Some(Outcome::Answer(answer))) => Ok(answer),
        (Exit::Code(_), Some(Outcome::Fault { error })) => Err(Problem::Query(error.sentence())),
        (Exit::TimeLimit, _) => Err(Problem::TimeLimit),
        _ if report.stop_requested => Err(Problem::Stopped),
        (Exit::SupervisorLost, _) => Err(Problem::Lost),
        (Exit::LaunchFailed(_), _) => Err(Problem::Server(workloads::exit_sentence(report))),
        _ if !report.limit_events.is_empty() => {
            let events = report.limit_events.iter().map(runner::limits::LimitEvent::sentence);
            let events: Vec<String> = events.collect();
            Err(Problem::Query(format!(
                "EXCEEDED_LOCAL_LIMIT: {} Take an instance type or a volume that has more",
                events.join(" ")
            )))
        }
        _ => Err(Problem::Server(format!(
            "the SQL engine ended without an answer; the job's log has what it wrote. {}",
            workloads::exit_sentence(report)
        ))),
    }
}

/// What the engine left; the folder is the sandbox's, so that nothing in it is followed to the outside.
fn read_outcome(directory: &Path) -> Option<Outcome> {
    let tree = Tree::open(directory, Path::new(QUERY_FOLDER)).ok()??;
    let file = tree.file(Path::new("outcome.json")).ok()?;
    let mut text = String::new();
    file.take(MOST_REPORT_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(exit: Exit, stop_requested: bool) -> ExitReport {
        ExitReport::bare(exit, 0, 1, stop_requested)
    }

    fn left(text: &str) -> Option<Outcome> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn the_end_of_a_query_is_told_by_what_it_left() {
        let answer = left(r#"{"rows": 3, "bytes": 9, "files": ["a"], "columns": [], "seconds": 1.0}"#);
        assert_eq!(judged(&report(Exit::Code(0), false), answer).unwrap().rows, 3);
        let fault = r#"{"error": {"code": "SYNTAX_ERROR", "message": "odd", "line": 1, "column": 2}}"#;
        assert_eq!(
            judged(&report(Exit::Code(1), false), left(fault)),
            Err(Problem::Query("SYNTAX_ERROR: line 1:2: odd".into()))
        );
        assert_eq!(judged(&report(Exit::TimeLimit, true), None), Err(Problem::TimeLimit));
        assert_eq!(judged(&report(Exit::Signal(15), true), None), Err(Problem::Stopped));
        assert!(matches!(judged(&report(Exit::Code(0), false), None), Err(Problem::Server(_))));
        assert_eq!(judged(&report(Exit::SupervisorLost, false), None), Err(Problem::Lost));
    }
}
