//! Models of scikit-learn as graphs: converted once by a process in a sandbox, which also proves that both answer the same.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runner::catalogue::{ImageProfile, Source};
use runner::environment::Environment;
use runner::executor::Executor;
use runner::tree::Tree;
use runner::workload::{Access, Exit, Mount, Network, WorkloadSpec};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::converted;
use super::launcher::code_directory;
use super::native::{Choice, ENGINE_VARIABLE, Wish};
use super::onnx::{self, GraphPlace, OnnxGraph, OnnxSource};
use super::record::DeployedVariant;
use crate::app::App;
use crate::job_log::JobLog;
use crate::workloads;

/// The program inside the sandbox, embedded so that one binary is all there is to install.
const PROGRAM: &[(&str, &str)] = &[
    ("convert.py", include_str!("../../../../python/onnx_converter/convert.py")),
    ("columns.py", include_str!("../../../../python/onnx_converter/columns.py")),
    ("rows.py", include_str!("../../../../python/onnx_converter/rows.py")),
    ("comparison.py", include_str!("../../../../python/onnx_converter/comparison.py")),
];
/// What it needs beside what the image has.
const REQUIREMENTS: &str = "skl2onnx\nonnxruntime\n";
/// The graph in the folder of a conversion.
pub const GRAPH_FILE: &str = "graph.onnx";
/// What came of a conversion, beside the graph; the graph's host reads it too.
pub const OUTCOME_FILE: &str = "outcome.json";
/// Where the sandbox shows the program.
const PROGRAM_TARGET: &str = "/run/convert/program";
/// Where the sandbox shows the folder for what comes of it.
const WORK_TARGET: &str = "/run/convert/work";
/// What the ids of conversions begin with.
const PREFIX: &str = "convert-";
/// How long a conversion may take.
const TIME_LIMIT_SECONDS: u64 = 300;
/// Time between SIGTERM and SIGKILL: there is nothing to save.
const STOP_GRACE_SECONDS: u64 = 2;
/// How long it is remembered that the converter could not be installed.
const PATIENCE: Duration = Duration::from_secs(600);
/// Longest report of a conversion.
const MOST_OUTCOME_BYTES: u64 = 1024 * 1024;
/// Largest graph.
const MOST_GRAPH_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// One model is converted at a time, be it for an endpoint or for a transform job.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Converts models.
#[derive(Default)]
pub struct Conversions {
    /// Images for which the converter could not be installed, and why.
    refused: Mutex<HashMap<String, (Instant, String)>>,
}

/// Where a replica is made ready.
pub struct Place<'a> {
    /// Its folder.
    pub directory: &'a Path,
    /// The folder of its model.
    pub model: &'a Path,
    /// Its log.
    pub log: &'a JobLog,
    /// The file of that log.
    pub log_path: &'a Path,
}

/// What a conversion leaves.
#[derive(Debug, Deserialize)]
struct Outcome {
    /// Why there is no graph, in a clause.
    #[serde(default)]
    refused: Option<String>,
    /// What was converted, in a few words.
    #[serde(default)]
    model: String,
    /// Rows on which both were compared.
    #[serde(default)]
    rows: u64,
    /// The largest difference of two numbers, relative to their size.
    #[serde(default)]
    difference: f64,
    /// Size of the graph.
    #[serde(default)]
    graph_bytes: u64,
}

impl Conversions {
    fn refused(&self) -> MutexGuard<'_, HashMap<String, (Instant, String)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a source ready for its host, and says in the choice what came of it; `None` leaves the replica to Python.
    ///
    /// # Errors
    /// A sentence for people, when the ONNX engine cannot be had and nothing else can answer, or is wished for.
    pub async fn furnish(
        &self,
        app: &Arc<App>,
        profile: &ImageProfile,
        variant: &DeployedVariant,
        source: OnnxSource,
        choice: &mut Choice,
        place: &Place<'_>,
    ) -> Result<Option<OnnxGraph>, String> {
        let nothing = place.directory.join("none");
        let name = match source {
            OnnxSource::Graph(name) => {
                let library = onnx::library(app, &nothing, place.log).await?;
                return Ok(Some(OnnxGraph { library, place: GraphPlace::Model(name) }));
            }
            OnnxSource::ScikitLearn(name) => name,
        };
        let converted = self.converted(app, profile, variant, &name, place).await;
        let ready = match converted {
            Ok((folder, reason)) => {
                let library = onnx::library(app, &nothing, place.log).await;
                library.map(|library| (OnnxGraph { library, place: GraphPlace::Converted(folder) }, reason))
            }
            Err(reason) => Err(reason),
        };
        match ready {
            Ok((graph, reason)) => {
                choice.reason = format!("{name} is {reason}");
                Ok(Some(graph))
            }
            Err(reason) => {
                let reason = format!("{name} is for Python: {}", reason.trim_end_matches('.'));
                if Wish::of(&variant.environment)? == Wish::Onnx {
                    return Err(format!("{ENGINE_VARIABLE} asks for the ONNX engine, but {reason}."));
                }
                *choice = Choice::without("python", reason);
                Ok(None)
            }
        }
    }

    /// The folder of the graph of a model with what is to be said of it, or why there is none.
    async fn converted(
        &self,
        app: &Arc<App>,
        profile: &ImageProfile,
        variant: &DeployedVariant,
        name: &str,
        place: &Place<'_>,
    ) -> Result<(PathBuf, String), String> {
        let code = code_directory(&variant.environment, place.model);
        let base = workloads::environment(app, profile, &code, place.log).await?;
        if !has_package(&base, "sklearn") {
            return Err("the image's environment has no scikit-learn".into());
        }
        let file = place.model.join(name);
        let is_interpreter = matches!(profile.source, Source::Interpreter(_));
        let key = tokio::task::spawn_blocking(move || key(&file, &base, is_interpreter));
        let key = key.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let folder = converted::directory(&app.config).join(&key);
        if let Some(outcome) = kept(&folder) {
            converted::note_use(&folder, app.clock.now_ms());
            return judged(outcome, folder);
        }
        let _turn = TURN.lock().await;
        // Perhaps it was somebody else's turn for the same model.
        if let Some(outcome) = kept(&folder) {
            return judged(outcome, folder);
        }
        let requirements = place.directory.join("convert");
        let environment = self.environment(app, profile, &code, &requirements, place.log).await?;
        place.log.line("modelyard: converting the model for the ONNX engine, once").await;
        let spec = spec(app, &environment, name, place).await.map_err(|error| error.to_string())?;
        let (running, directory, target) = (app.clone(), place.directory.to_owned(), folder.clone());
        // It is seen to its end even when the endpoint goes meanwhile.
        let outcome = tokio::spawn(async move { run(&running, &spec, &directory, &target).await });
        judged(outcome.await.map_err(|error| error.to_string())??, folder)
    }

    /// The image's environment with the converter over it.
    async fn environment(
        &self,
        app: &App,
        profile: &ImageProfile,
        code: &Path,
        folder: &Path,
        log: &JobLog,
    ) -> Result<Environment, String> {
        let own = tokio::fs::read_to_string(code.join("requirements.txt")).await.unwrap_or_default();
        let text = format!("{own}\n{REQUIREMENTS}");
        let remembered = format!("{profile:?}{text}");
        if let Some((at, reason)) = self.refused().get(&remembered)
            && at.elapsed() < PATIENCE
        {
            return Err(reason.clone());
        }
        let write = async {
            tokio::fs::create_dir_all(folder).await?;
            tokio::fs::write(folder.join("requirements.txt"), text).await
        };
        write.await.map_err(|error| format!("{}: {error}", folder.display()))?;
        let built = workloads::environment(app, profile, folder, log).await;
        built.map_err(|problem| {
            let line = problem.lines().next().unwrap_or_default();
            let reason = format!("the converter skl2onnx cannot be had: {line}");
            self.refused().insert(remembered, (Instant::now(), reason.clone()));
            reason
        })
    }

    /// Ends what an earlier server was converting.
    pub async fn end_leftovers(&self, executor: &Arc<dyn Executor>) {
        let ids = executor.list().unwrap_or_default();
        for id in ids.iter().filter(|id| id.starts_with(PREFIX)) {
            end(executor.as_ref(), id).await;
        }
    }
}

async fn end(executor: &dyn Executor, id: &str) {
    let ended = async {
        executor.stop(id)?;
        executor.wait(id).await?;
        executor.remove(id)
    };
    if let Err(error) = ended.await {
        tracing::warn!(workload = id, %error, "a conversion could not be removed");
    }
}

fn has_package(environment: &Environment, name: &str) -> bool {
    let own = [environment.directory.as_path(), environment.interpreter.prefix.as_path()];
    let paths = environment.read_only_paths.iter().map(PathBuf::as_path).chain(own);
    paths.flat_map(onnx::package_folders).any(|folder| folder.join(name).is_dir())
}

/// What a conversion depends on.
fn key(file: &Path, environment: &Environment, is_interpreter: bool) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut std::fs::File::open(file)?, &mut HashWriter(&mut hash))?;
    hash.update(environment.content_key.as_bytes());
    if is_interpreter {
        // Its user installs what they like; each installation changes the folder.
        for folder in onnx::package_folders(&environment.interpreter.prefix) {
            if let Ok(changed_at) = std::fs::metadata(&folder).and_then(|folder| folder.modified()) {
                hash.update(format!("{}{changed_at:?}", folder.display()));
            }
        }
    }
    PROGRAM.iter().for_each(|(_, text)| hash.update(text));
    Ok(hex::encode(&hash.finalize()[..16]))
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What an earlier conversion left, if it is whole.
fn kept(folder: &Path) -> Option<Outcome> {
    let outcome: Outcome = serde_json::from_slice(&std::fs::read(folder.join(OUTCOME_FILE)).ok()?).ok()?;
    let is_whole = |graph: std::fs::Metadata| graph.len() == outcome.graph_bytes;
    let is_there =
        outcome.refused.is_some() || std::fs::metadata(folder.join(GRAPH_FILE)).is_ok_and(is_whole);
    is_there.then_some(outcome)
}

fn judged(outcome: Outcome, folder: PathBuf) -> Result<(PathBuf, String), String> {
    match outcome.refused {
        Some(reason) => Err(reason),
        None => {
            let numbers = if outcome.difference > 0.0 {
                format!("numbers within {:.0e}", outcome.difference)
            } else {
                "every number".into()
            };
            Ok((
                folder,
                format!(
                    "{}, whose ONNX graph gave the same answers on {} rows, {numbers}",
                    outcome.model, outcome.rows
                ),
            ))
        }
    }
}

/// The workload of a conversion, with its files in place.
async fn spec(
    app: &App,
    environment: &Environment,
    name: &str,
    place: &Place<'_>,
) -> std::io::Result<WorkloadSpec> {
    let folder = place.directory.join("convert");
    let (program, work) = (folder.join("program"), folder.join("work"));
    tokio::fs::create_dir_all(&work).await?;
    tokio::fs::create_dir_all(&program).await?;
    for (name, text) in PROGRAM {
        tokio::fs::write(program.join(name), text).await?;
    }
    let mut mounts: Vec<Mount> = environment
        .read_only_paths
        .iter()
        .map(|path| Mount { source: path.clone(), target: path.clone(), access: Access::ReadOnly })
        .collect();
    let mount =
        |source: PathBuf, target: &str, access| Mount { source, target: PathBuf::from(target), access };
    mounts.push(mount(program, PROGRAM_TARGET, Access::ReadOnly));
    mounts.push(mount(work, WORK_TARGET, Access::ReadWrite));
    mounts.push(mount(place.directory.join("opt-ml"), "/opt/ml", Access::ReadWrite));
    mounts.push(mount(place.model.to_owned(), "/opt/ml/model", Access::ReadOnly));
    let variables = [
        ("PATH", workloads::path_with(environment)),
        ("HOME", "/tmp".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("PYTHONPATH", "/opt/ml/model/code".to_owned()),
    ];
    let id = format!("{PREFIX}{}", uuid::Uuid::now_v7().simple());
    Ok(WorkloadSpec {
        command: vec![
            environment.python.display().to_string(),
            format!("{PROGRAM_TARGET}/convert.py"),
            format!("/opt/ml/model/{name}"),
            WORK_TARGET.to_owned(),
        ],
        environment: variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<BTreeMap<_, _>>(),
        working_directory: PathBuf::from("/opt/ml/model"),
        mounts,
        log_path: place.log_path.to_owned(),
        time_limit_seconds: Some(TIME_LIMIT_SECONDS),
        stop_grace_seconds: STOP_GRACE_SECONDS,
        network: Network::None,
        hostname: "convert".into(),
        required_locks: app.config.required_locks.clone(),
        ..WorkloadSpec::plain(&id, Vec::new())
    })
}

/// Runs a conversion to its end and keeps what it leaves.
async fn run(app: &App, spec: &WorkloadSpec, directory: &Path, folder: &Path) -> Result<Outcome, String> {
    app.executor.start(spec).await.map_err(|error| error.to_string())?;
    let report = app.executor.wait(&spec.id).await.map_err(|error| error.to_string());
    if let Err(error) = app.executor.remove(&spec.id) {
        tracing::warn!(workload = spec.id, %error, "a conversion could not be removed");
    }
    let report = report?;
    let (directory, folder) = (directory.to_owned(), folder.to_owned());
    if report.exit != Exit::Code(0) {
        let reason = format!("its conversion failed: {}", workloads::exit_sentence(&report));
        // The same would happen again; a signal may have been somebody's or a full machine's.
        if matches!(report.exit, Exit::Code(_) | Exit::TimeLimit) && !report.stop_requested {
            let outcome = serde_json::json!({"refused": reason}).to_string();
            let noting = tokio::task::spawn_blocking(move || note(&folder, &outcome));
            if let Ok(Err(error)) = noting.await {
                tracing::warn!(%error, "a conversion's end could not be noted");
            }
        }
        return Err(reason);
    }
    let keeping = tokio::task::spawn_blocking(move || {
        keep(&directory, &folder)?;
        kept(&folder).ok_or_else(|| std::io::Error::other("it left no report"))
    });
    let outcome = keeping.await.map_err(|error| error.to_string())?;
    outcome.map_err(|error| format!("its conversion left nothing that can be used: {error}"))
}

/// Keeps what there is to say of a model without a graph.
fn note(folder: &Path, outcome: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(OUTCOME_FILE), outcome)
}

/// Copies what a conversion left; the folder is the sandbox's, so that nothing in it is followed to the outside. The report comes last:
/// without it the conversion is not there.
fn keep(directory: &Path, folder: &Path) -> std::io::Result<()> {
    let missing = || std::io::Error::other("it left no folder");
    let tree = Tree::open(directory, Path::new("convert/work"))?.ok_or_else(missing)?;
    let copy = |name: &str, most: u64| -> std::io::Result<()> {
        let target = folder.join(name);
        let mut file = std::fs::File::create(&target)?;
        let copied = std::io::copy(&mut tree.file(Path::new(name))?.take(most + 1), &mut file)?;
        if copied > most {
            return Err(std::io::Error::other(format!("{name} is larger than {most} bytes")));
        }
        // The user of sandboxes reads it.
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644))
    };
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    match copy(GRAPH_FILE, MOST_GRAPH_BYTES) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    copy(OUTCOME_FILE, MOST_OUTCOME_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_counts_when_its_graph_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert!(kept(folder.path()).is_none());
        write(OUTCOME_FILE, "{\"refused\": \"it cannot be converted\"}");
        let refused = kept(folder.path()).unwrap();
        assert_eq!(judged(refused, folder.path().into()).unwrap_err(), "it cannot be converted");
        write(
            OUTCOME_FILE,
            "{\"model\": \"a LinearRegression of scikit-learn 1.9.1\", \"rows\": 4096, \"difference\": 2.5e-7, \"graph_bytes\": 3}",
        );
        assert!(kept(folder.path()).is_none());
        write(GRAPH_FILE, "abc");
        let (_, reason) = judged(kept(folder.path()).unwrap(), folder.path().into()).unwrap();
        assert_eq!(
            reason,
            "a LinearRegression of scikit-learn 1.9.1, whose ONNX graph gave the same answers on 4096 rows, numbers within 2e-7"
        );
        write(OUTCOME_FILE, "{\"model\": \"a");
        assert!(kept(folder.path()).is_none());
    }

    #[test]
    fn what_a_sandbox_left_is_copied_without_following_links() {
        let base = tempfile::tempdir().unwrap();
        let work = base.path().join("convert/work");
        std::fs::create_dir_all(&work).unwrap();
        let folder = base.path().join("converted/key");
        std::os::unix::fs::symlink("/etc/passwd", work.join(OUTCOME_FILE)).unwrap();
        assert!(keep(base.path(), &folder).is_err());
        std::fs::remove_file(work.join(OUTCOME_FILE)).unwrap();
        std::fs::write(work.join(OUTCOME_FILE), "{\"refused\": \"no\"}").unwrap();
        keep(base.path(), &folder).unwrap();
        assert!(kept(&folder).is_some());
    }
}
