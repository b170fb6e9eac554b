//! Warm starts: while a warm pool waits for its next job, a fresh sandbox is made, in which an interpreter has imported what
//! the last job imported. Nothing but the names of those modules comes from the last job.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runner::environment::Environment;
use runner::prepared::{self, Task};
use runner::workload::{Exit, ExitReport, Observation, WorkloadSpec};
use store::resources::ResourceKey;

use super::addresses::{AddressRange, Lease};
use super::attempt::Attempt;
use super::prepare::{job_directory, opt_ml};
use super::record::HostRecord;
use super::warm_pool;
use crate::app::App;
use crate::workloads;

/// The layer of a job's interpreter, in `/opt/ml`.
const LAYER: &str = ".environment";

/// The interpreter of a job's script.
const PYTHON: &str = "/opt/ml/.environment/bin/python";

/// Where the names of imported modules stand, in the interpreter's prefix; jobs write it only where it is there.
const IMPORTED_MODULES: &str = ".environment/imported-modules";

/// More names than that are no list of modules.
const MOST_NAME_BYTES: u64 = 512 * 1024;

/// A sandbox that no job takes ends this long after its pool.
const MARGIN_SECONDS: u64 = 60;

/// Variables that differ from job to job.
const OF_ONE_JOB: [&str; 4] = ["CURRENT_HOST", "MASTER_ADDR", "MASTER_PORT", "S3_ENDPOINT_URL"];
const PREFIXES_OF_ONE_JOB: [&str; 4] = ["SM_", "AWS_", "TRAINING_JOB_", "SAGEMAKER_"];

/// The sandboxes that wait for a job, by the job whose pool they belong to.
#[derive(Default)]
pub struct WarmStarts {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<ResourceKey, Prepared>,
    /// What the jobs that run, and keep a pool, run in.
    environments: HashMap<ResourceKey, Environment>,
}

/// A sandbox that waits for a job.
pub struct Prepared {
    spec: WorkloadSpec,
    lease: Lease,
}

/// What the next sandbox of a pool is made after.
pub struct Pattern {
    spec: WorkloadSpec,
    environment: Environment,
    names: String,
}

impl WarmStarts {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses that the sandbox of a job knows.
    pub fn addresses(&self, key: &ResourceKey) -> Option<AddressRange> {
        Some(self.lock().waiting.get(key)?.lease.range())
    }

    /// The pool went from one job to another, and its sandbox with it.
    pub fn pass_on(&self, from: &ResourceKey, to: &ResourceKey) {
        let waiting = &mut self.lock().waiting;
        if let Some(prepared) = waiting.remove(from) {
            waiting.insert(to.clone(), prepared);
        }
    }

    /// A job that kept a pool has ended without leaving a pattern.
    pub fn forget_environment(&self, key: &ResourceKey) {
        self.lock().environments.remove(key);
    }

    /// Takes the sandbox that the job was given, if it was.
    pub fn take(&self, key: &ResourceKey) -> Option<Prepared> {
        self.lock().waiting.remove(key)
    }
}

impl Prepared {
    /// Id of the workload.
    pub fn id(&self) -> &str {
        &self.spec.id
    }

    /// Lets it become the job of `wanted`, where it is what that asks for; else `wanted` is started afresh under the same id.
    ///
    /// # Errors
    /// When that cannot be started.
    pub async fn become_job(&self, app: &App, wanted: &WorkloadSpec) -> runner::Result<()> {
        let id = self.id();
        let is_there = matches!(app.executor.observe(id), Ok(Observation::Running { .. }));
        if is_there && runs_script(&wanted.command) && prepared::serves(&self.spec, wanted) {
            match app.executor.assign(id, &Task::of(wanted)) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(workload = id, %error, "a prepared sandbox could not be used"),
            }
        }
        forget(app, id).await;
        app.executor.start(wanted).await
    }
}

/// Whether a job did not begin for the reason that the sandbox which was prepared for it ended just as it got its task.
pub fn was_lost(app: &App, host: &HostRecord, report: &ExitReport) -> bool {
    matches!(report.exit, Exit::LaunchFailed(_)) && app.executor.was_prepared(&host.workload).unwrap_or(false)
}

/// Ends and forgets a workload, but not its files.
async fn forget(app: &App, id: &str) {
    // One that has ended cannot be killed any more.
    let _ = app.executor.kill(id);
    match app.executor.wait(id).await {
        Ok(_) | Err(runner::Error::UnknownWorkload(_)) => {}
        Err(error) => tracing::warn!(workload = id, %error, "a prepared sandbox's end could not be awaited"),
    }
    if let Err(error) = app.executor.remove(id) {
        tracing::warn!(workload = id, %error, "a prepared sandbox could not be removed");
    }
}

/// Ends the sandbox and removes its files.
pub async fn discard(app: &App, prepared: Prepared) {
    forget(app, prepared.id()).await;
    workloads::remove_directory(&job_directory(app, prepared.id())).await;
}

/// Ends what an earlier server had prepared; call it before any job is taken up.
pub async fn sweep(app: &App) {
    for id in app.executor.list().unwrap_or_default() {
        if app.executor.awaits_task(&id).unwrap_or(false) {
            forget(app, &id).await;
            workloads::remove_directory(&job_directory(app, &id)).await;
        }
    }
}

/// Whether this is a script of the interpreter of the job.
fn runs_script(command: &[String]) -> bool {
    matches!(command, [python, script, ..] if python == PYTHON && script.ends_with(".py"))
}

/// Notes what the job runs in, and asks its interpreter for the names of the modules that it imports; called when its folder
/// is complete.
///
/// # Errors
/// What the disk says.
pub fn begin(attempt: &Attempt<'_>, opt_ml: &Path, environment: &Environment) -> std::io::Result<()> {
    if warm_pool::keep_alive_seconds(&attempt.request) == 0 {
        return Ok(());
    }
    let starts = attempt.app.training.warm_starts();
    starts.lock().environments.insert(attempt.work.key.clone(), environment.clone());
    // In a prepared sandbox it is there, and perhaps still being read.
    std::fs::OpenOptions::new().append(true).create(true).open(opt_ml.join(IMPORTED_MODULES)).map(drop)
}

/// What the sandbox for the next job is made after; `None` where none is made. Call it before the job is cleaned up.
pub fn pattern(app: &App, key: &ResourceKey, hosts: &[HostRecord]) -> Option<Pattern> {
    let environment = app.training.warm_starts().lock().environments.remove(key)?;
    let [host] = hosts else { return None };
    let spec = app.executor.spec(&host.workload).ok()??;
    if !prepared::can_be_prepared(&spec) || !runs_script(&spec.command) {
        return None;
    }
    let own = job_directory(app, &host.workload);
    let is_general = |source: &Path| {
        !source.starts_with(&own) || source == own.join("opt-ml") || source.starts_with(own.join("channels"))
    };
    // What else is mounted is put in place when the job comes, which the sandbox would not see.
    if !spec.mounts.iter().all(|mount| is_general(&mount.source)) {
        return None;
    }
    let names = read_names(&opt_ml(app, &host.workload)).unwrap_or_default();
    Some(Pattern { spec, environment, names })
}

/// The names that a job has left. It may have put anything there.
fn read_names(opt_ml: &Path) -> std::io::Result<String> {
    let text = prepared::read_beneath(opt_ml, Path::new(IMPORTED_MODULES), MOST_NAME_BYTES)?;
    let is_of_a_name = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '.';
    let is_name = |line: &&str| !line.is_empty() && line.chars().all(is_of_a_name);
    Ok(text.lines().filter(is_name).collect::<Vec<_>>().join("\n"))
}

fn is_of_one_job(name: &str) -> bool {
    OF_ONE_JOB.contains(&name) || PREFIXES_OF_ONE_JOB.iter().any(|prefix| name.starts_with(prefix))
}

/// Makes the sandbox for the next job of the pool, which is kept for `seconds`.
pub async fn prepare(app: &Arc<App>, key: &ResourceKey, pattern: Pattern, seconds: i64) {
    let Pattern { spec, environment, names } = pattern;
    let id = format!("job-{}", uuid::Uuid::new_v4());
    let (before, directory) = (job_directory(app, &spec.id), job_directory(app, &id));
    let [high, low, ..] = uuid::Uuid::new_v4().into_bytes();
    let lease = app.training.addresses().take(key, u16::from_be_bytes([high, low]));
    let mut spec = WorkloadSpec { id, ..spec };
    for mount in &mut spec.mounts {
        if let Ok(inner) = mount.source.strip_prefix(&before) {
            mount.source = directory.join(inner);
        }
    }
    spec.hosts =
        spec.hosts.into_keys().enumerate().map(|(at, name)| (name, lease.range().host(at))).collect();
    spec.environment.retain(|name, _| !is_of_one_job(name));
    spec.command = [PYTHON, "/opt/modelyard/hook/warm_start.py"].map(str::to_owned).into();
    spec.working_directory = PathBuf::from("/");
    spec.log_path = PathBuf::from("/dev/null");
    spec.time_limit_seconds = Some(seconds.max(0) as u64 + MARGIN_SECONDS);
    let own = spec.mounts.iter().map(|mount| mount.source.clone());
    let folders: Vec<PathBuf> = own.filter(|source| source.starts_with(&directory)).collect();
    let opt_ml = opt_ml(app, &spec.id);
    let furnished =
        tokio::task::spawn_blocking(move || furnish(&folders, &opt_ml, &environment, &names)).await;
    let prepared = Prepared { spec, lease };
    let failure = match furnished.map_err(|error| error.to_string()) {
        Ok(Ok(())) => app.executor.prepare(&prepared.spec).await.err().map(|error| error.to_string()),
        Ok(Err(error)) => Some(error.to_string()),
        Err(text) => Some(text),
    };
    match failure {
        None => drop(app.training.warm_starts().lock().waiting.insert(key.clone(), prepared)),
        Some(text) => {
            tracing::warn!(
                pool = key.name,
                text,
                "no sandbox could be prepared; the next job starts without"
            );
            discard(app, prepared).await;
        }
    }
}

/// Makes what is mounted: empty folders, and the layer of the interpreter.
fn furnish(
    folders: &[PathBuf],
    opt_ml: &Path,
    environment: &Environment,
    names: &str,
) -> std::io::Result<()> {
    for folder in folders {
        std::fs::create_dir_all(folder)?;
    }
    environment.write_layer(&opt_ml.join(LAYER), &Path::new("/opt/ml").join(LAYER))?;
    std::fs::write(opt_ml.join(IMPORTED_MODULES), names)
}
