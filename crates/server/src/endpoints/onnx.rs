//! Models that the ONNX Runtime answers for: which they are, and the process that holds one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runner::catalogue::{Framework, Source};
use runner::workload::{Access, Mount, Network, WorkloadSpec};
use serving::{ONNX_HOST_SUBCOMMAND, OnnxHostOptions, OnnxJoins, ReplicaSpec};

use super::launcher::code_directory;
use super::native::{Choice, Deployment, ENGINE_VARIABLE, Wish, files};
use crate::app::App;
use crate::job_log::JobLog;
use crate::workloads;

/// The image whose environment has the runtime's library; no job names it.
const RUNTIME_IMAGE: &str = "modelyard/onnx-runtime";
/// Where the sandbox shows the library's folder.
const LIBRARY_TARGET: &str = "/run/onnx-runtime";
/// Where the sandbox shows this program.
const PROGRAM_TARGET: &str = "/run/onnx-host/modelyard";
/// Where the sandbox shows a graph that was made from another model.
const GRAPH_TARGET: &str = "/run/graph";
/// Whether requests are answered together, and how many.
const BATCH_VARIABLE: &str = "MODEL_HOST_BATCH";
const BATCH_LIMIT_VARIABLE: &str = "MODEL_HOST_BATCH_LIMIT";
const MOST_IN_A_BATCH: u32 = 1024;
/// How graphs end.
const GRAPH_ENDING: &str = ".onnx";
/// How files end that scikit-learn's models come in; as the model host has it.
const PICKLE_ENDINGS: [&str; 3] = [".joblib", ".pkl", ".pickle"];
/// What a script may define and still only load.
const LOADING: &str = "model_fn";
/// The functions of inference scripts.
const FUNCTIONS: [&str; 7] =
    ["model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn", "pre_model_fn", "model_warmup_fn"];

/// What the runtime could answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnnxSource {
    /// A graph, in this file of the model.
    Graph(String),
    /// A model of scikit-learn in this file, if it can be converted.
    ScikitLearn(String),
}

/// A graph that is ready to be held.
#[derive(Debug)]
pub struct OnnxGraph {
    /// The runtime's library on the host.
    pub library: PathBuf,
    /// Where the graph is.
    pub place: GraphPlace,
}

/// Where a graph is.
#[derive(Debug)]
pub enum GraphPlace {
    /// In this file of the model.
    Model(String),
    /// In this folder of the host, with its description.
    Converted(PathBuf),
}

impl Deployment {
    /// What the runtime could answer with; `None` when another engine is to be asked.
    ///
    /// # Errors
    /// A sentence for people, when the ONNX engine is wished for and cannot be had.
    pub fn onnx_source(&self, wish: Wish) -> Result<Option<OnnxSource>, String> {
        let found = match wish {
            Wish::Native | Wish::Python => return Ok(None),
            Wish::Any | Wish::Onnx => self.find_onnx_source(wish),
        };
        match (found, wish) {
            (Ok(source), _) => Ok(Some(source)),
            (Err(reason), Wish::Onnx) => {
                Err(format!("{ENGINE_VARIABLE} asks for the ONNX engine, but {reason}."))
            }
            (Err(_), _) => Ok(None),
        }
    }

    fn find_onnx_source(&self, wish: Wish) -> Result<OnnxSource, String> {
        if matches!(self.profile.source, Source::Container(_)) {
            return Err("the image runs as a container".into());
        }
        self.without_script().or_else(|reason| self.only_loads(wish).then_some(()).ok_or(reason))?;
        let names =
            files(&self.model).map_err(|error| format!("the model's folder cannot be read: {error}"))?;
        let ending = |name: &&String, endings: &[&str]| {
            let name = name.to_lowercase();
            endings.iter().any(|ending| name.ends_with(ending))
        };
        let graphs: Vec<&String> = names.iter().filter(|name| ending(name, &[GRAPH_ENDING])).collect();
        let other = names.iter().find(|name| ending(name, &super::native::PYTHON_MODELS));
        match (graphs.as_slice(), other) {
            ([graph], None) => return Ok(OnnxSource::Graph((*graph).clone())),
            ([graph], Some(_)) if wish == Wish::Onnx => return Ok(OnnxSource::Graph((*graph).clone())),
            ([graph], Some(other)) => return Err(format!("{other} lies beside {graph}")),
            ([], _) => {}
            (several, _) => return Err(format!("the model has {} files in {GRAPH_ENDING}", several.len())),
        }
        if self.profile.framework != Framework::ScikitLearn {
            return Err(format!("the model has no file in {GRAPH_ENDING}"));
        }
        let pickles: Vec<&String> = names.iter().filter(|name| ending(name, &PICKLE_ENDINGS)).collect();
        let named = pickles.iter().find(|name| **name == "model.joblib");
        match (named, pickles.as_slice()) {
            (Some(name), _) | (None, [name]) => Ok(OnnxSource::ScikitLearn((*name).clone())),
            (None, _) => Err(format!("the model has no single file of {}", PICKLE_ENDINGS.join(", "))),
        }
    }

    /// Whether the ONNX engine is wished for and the script has nothing but a function that loads the model.
    fn only_loads(&self, wish: Wish) -> bool {
        let name = self.environment.get("SAGEMAKER_PROGRAM").filter(|name| !name.is_empty());
        let name = name.map_or("inference.py", String::as_str);
        let script = code_directory(&self.environment, &self.model).join(name);
        wish == Wish::Onnx && std::fs::read_to_string(script).is_ok_and(|text| defines_only_loading(&text))
    }
}

fn defines_only_loading(script: &str) -> bool {
    let defined = FUNCTIONS.into_iter().filter(|name| {
        script.lines().any(|line| {
            let rest = line.strip_prefix("async ").unwrap_or(line);
            let rest = rest.strip_prefix("def ").unwrap_or(rest).trim_start();
            rest.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(['(', '=']))
        }) || script.lines().any(|line| line.contains("import") && line.contains(name))
    });
    defined.eq([LOADING])
}

/// The runtime's library: what the catalogue has for it, installed on first use.
///
/// # Errors
/// A sentence for people.
pub async fn library(app: &App, nothing: &Path, log: &JobLog) -> Result<PathBuf, String> {
    let profile = app.catalogue.resolve(RUNTIME_IMAGE).map_err(|error| error.to_string())?;
    let environment = workloads::environment(app, &profile, nothing, log).await.map_err(|problem| {
        format!(
            "The ONNX Runtime cannot be had: {} Let the machine reach a package index once, or name a Python that has onnxruntime \
             under the pattern {RUNTIME_IMAGE} in the image catalogue.",
            sentence(&problem)
        )
    })?;
    let found = find_library(&environment.directory);
    found.ok_or_else(|| {
        format!(
            "The package onnxruntime in {} has no libonnxruntime.so; install a newer release of it.",
            environment.directory.display()
        )
    })
}

/// The problem with a full stop at its end.
fn sentence(problem: &str) -> String {
    format!("{}.", problem.trim_end().trim_end_matches('.'))
}

/// The folders of packages of an environment.
pub fn package_folders(environment: &Path) -> Vec<PathBuf> {
    let versions = std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    let versions = versions.filter(|entry| entry.file_name().to_string_lossy().starts_with("python"));
    versions.map(|entry| entry.path().join("site-packages")).collect()
}

fn find_library(environment: &Path) -> Option<PathBuf> {
    let folders = package_folders(environment).into_iter().map(|folder| folder.join("onnxruntime/capi"));
    let mut libraries: Vec<PathBuf> = folders
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("libonnxruntime.so"))
        .map(|entry| entry.path())
        .collect();
    libraries.sort();
    libraries.pop()
}

impl OnnxGraph {
    /// The workload that holds it, for a replica whose model is in the folder `model`.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn spec(
        &self,
        replica: &ReplicaSpec,
        variables: &BTreeMap<String, String>,
        model: &Path,
        workload: WorkloadSpec,
    ) -> Result<WorkloadSpec, String> {
        let set = |name: &str| variables.get(name).filter(|value| !value.is_empty()).cloned();
        let sockets = replica.socket.parent().ok_or("The socket has no folder.")?;
        let socket = replica.socket.file_name().ok_or("The socket has no name.")?;
        let (libraries, library) = (self.library.parent(), self.library.file_name());
        let (libraries, library) = libraries.zip(library).ok_or("The ONNX Runtime has no folder.")?;
        let mount = |source: &Path, target: &str, access| Mount {
            source: source.to_owned(),
            target: PathBuf::from(target),
            access,
        };
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut mounts = vec![
            mount(&program, PROGRAM_TARGET, Access::ReadOnly),
            mount(sockets, workloads::SOCKET_TARGET, Access::ReadWrite),
            mount(libraries, LIBRARY_TARGET, Access::ReadOnly),
        ];
        let (graph, description) = match &self.place {
            GraphPlace::Model(name) => {
                mounts.push(mount(model, "/opt/ml/model", Access::ReadOnly));
                (Path::new("/opt/ml/model").join(name), None)
            }
            GraphPlace::Converted(folder) => {
                mounts.push(mount(folder, GRAPH_TARGET, Access::ReadOnly));
                let inside = |name: &str| Path::new(GRAPH_TARGET).join(name);
                (inside(super::conversion::GRAPH_FILE), Some(inside(super::conversion::OUTCOME_FILE)))
            }
        };
        let selected = set("SAGEMAKER_INFERENCE_OUTPUT").map(|keys| keys.replace(' ', "").to_lowercase());
        let (joins, batch_limit) = joins(variables)?;
        let options = OnnxHostOptions {
            joins,
            batch_limit,
            socket: Path::new(workloads::SOCKET_TARGET).join(socket),
            workers: replica.workers as usize,
            library: Path::new(LIBRARY_TARGET).join(library),
            graph,
            description,
            time_limit: Duration::try_from_secs_f64(replica.model_timeout_seconds)
                .map_err(|error| error.to_string())?,
            default_accept: set("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"),
            selected: selected.map(|keys| keys.split(',').map(str::to_owned).collect()),
        };
        let command = [PROGRAM_TARGET.to_owned(), ONNX_HOST_SUBCOMMAND.to_owned()];
        Ok(WorkloadSpec {
            command: command.into_iter().chain(options.to_words()).collect(),
            environment: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
            working_directory: PathBuf::from("/tmp"),
            mounts,
            // It runs no code of the user's, and asks nobody.
            network: Network::None,
            ..workload
        })
    }
}

/// Whether requests are answered together, and how many; as the model host reads it.
fn joins(variables: &BTreeMap<String, String>) -> Result<(OnnxJoins, u32), String> {
    let set = |name: &str| variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let joins = match set(BATCH_VARIABLE).unwrap_or("auto") {
        "auto" => OnnxJoins::Exact,
        "rows" => OnnxJoins::Rows,
        "off" => OnnxJoins::Never,
        other => return Err(format!("{BATCH_VARIABLE} must be rows, off or auto, and is {other:?}.")),
    };
    let limit = set(BATCH_LIMIT_VARIABLE).map_or(Some(MOST_IN_A_BATCH), |limit| limit.parse().ok());
    match limit.filter(|limit| (1..=MOST_IN_A_BATCH).contains(limit)) {
        Some(limit) => Ok((joins, limit)),
        None => Err(format!("{BATCH_LIMIT_VARIABLE} must be a number from 1 to {MOST_IN_A_BATCH}.")),
    }
}

impl Choice {
    /// The choice of the ONNX engine for a source that was found.
    pub fn of_onnx(source: OnnxSource) -> Choice {
        let reason = match &source {
            OnnxSource::Graph(name) => format!("{name} is an ONNX graph"),
            OnnxSource::ScikitLearn(name) => format!("{name} was converted"),
        };
        Choice { model: None, onnx: Some(source), engine: "onnx", reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_only_loads_is_told_from_others() {
        let loads =
            "import joblib\n\ndef model_fn(model_dir):\n    return joblib.load(model_dir + '/m.joblib')\n";
        assert!(defines_only_loading(loads));
        for more in [
            "def predict_fn(data, model):\n    pass\n",
            "output_fn = str\n",
            "from mine import input_fn\n",
            "transform_fn=1",
        ] {
            assert!(!defines_only_loading(&format!("{loads}{more}")), "{more}");
        }
        assert!(!defines_only_loading("import mine\n"));
    }

    fn chosen(framework: Framework, names: &[&str], variables: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "def model_fn(model_dir):\n    pass\n").unwrap();
        }
        let deployment = Deployment {
            profile: runner::catalogue::ImageProfile {
                name: "test".into(),
                framework,
                launcher: runner::catalogue::Launcher::default(),
                source: Source::Interpreter("python".into()),
            },
            environment: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            model: folder.path().to_owned(),
        };
        match deployment.choose() {
            Ok(choice) => format!("{} {:?}", choice.engine, choice.onnx),
            Err(problem) => problem,
        }
    }

    #[test]
    fn graphs_and_models_of_scikit_learn_are_found() {
        let (python, scikit_learn) = (Framework::Python, Framework::ScikitLearn);
        let wish = [(ENGINE_VARIABLE, "onnx")];
        let graph = "onnx Some(Graph(\"m.onnx\"))";
        let pickle = "onnx Some(ScikitLearn(\"model.joblib\"))";
        for framework in [python, scikit_learn, Framework::Xgboost] {
            assert_eq!(chosen(framework, &["m.onnx", "m.onnx.data", "README.md"], &[]), graph);
        }
        assert_eq!(chosen(python, &["m.onnx", "m.pt"], &wish), graph);
        assert_eq!(chosen(scikit_learn, &["model.joblib", "other.pkl"], &[]), pickle);
        assert_eq!(chosen(scikit_learn, &["model.joblib", "code/inference.py"], &wish), pickle);
        for (framework, names, variables) in [
            (python, &["m.onnx", "m.pt"][..], &[][..]),
            (python, &["m.onnx", "n.onnx"], &[]),
            (python, &["m.onnx", "code/inference.py"], &[]),
            (python, &["m.onnx"], &[(ENGINE_VARIABLE, "python")]),
            (python, &["model.joblib"], &[]),
            (scikit_learn, &["a.joblib", "b.joblib"], &[]),
            (scikit_learn, &["model.joblib", "code/inference.py"], &[]),
        ] {
            assert_eq!(chosen(framework, names, variables), "python None", "{names:?}");
        }
        let refused = chosen(python, &["m.onnx", "n.onnx"], &wish);
        assert_eq!(refused, "MODELYARD_ENGINE asks for the ONNX engine, but the model has 2 files in .onnx.");
        let refused = chosen(python, &["m.onnx"], &[(ENGINE_VARIABLE, "native")]);
        assert!(refused.starts_with("MODELYARD_ENGINE asks for the native engine, but"), "{refused}");
    }

    #[test]
    fn the_environment_says_which_requests_are_answered_together() {
        let joins = |variables: &[(&str, &str)]| {
            joins(&variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
        };
        assert_eq!(joins(&[]), Ok((OnnxJoins::Exact, 1024)));
        let wish = [("MODEL_HOST_BATCH", "rows"), ("MODEL_HOST_BATCH_LIMIT", "8")];
        assert_eq!(joins(&wish), Ok((OnnxJoins::Rows, 8)));
        assert_eq!(joins(&[("MODEL_HOST_BATCH", "off")]), Ok((OnnxJoins::Never, 1024)));
        assert!(joins(&[("MODEL_HOST_BATCH", "yes")]).unwrap_err().contains("rows, off or auto"));
        assert!(joins(&[("MODEL_HOST_BATCH_LIMIT", "0")]).is_err());
    }

    #[test]
    fn the_library_is_found_in_an_environment() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find_library(folder.path()), None);
        let capi = folder.path().join("lib/python3.11/site-packages/onnxruntime/capi");
        std::fs::create_dir_all(&capi).unwrap();
        for name in ["libonnxruntime_providers_shared.so", "libonnxruntime.so.1.31.1", "_pybind_state.py"] {
            std::fs::write(capi.join(name), "").unwrap();
        }
        assert_eq!(find_library(folder.path()), Some(capi.join("libonnxruntime.so.1.31.1")));
    }
}
