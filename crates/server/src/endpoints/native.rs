//! Which engine a replica gets: the native one where the model's file is one that it computes and nothing asks for Python.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use runner::catalogue::{Framework, ImageProfile, Source};
use serde::{Deserialize, Serialize};
use serving::{AnswerSettings, NativeModel};
use tokio::sync::watch;

use super::launcher::code_directory;
use super::onnx::OnnxSource;

/// The variable of a model's environment that chooses its engine.
pub const ENGINE_VARIABLE: &str = "MODELYARD_ENGINE";

/// File in a replica's folder that says which engine it got, for a server that takes the replica up.
const ENGINE_FILE: &str = "engine.json";

/// The model file of XGBoost's containers.
const XGBOOST_MODEL: &str = "xgboost-model";
/// What beside code and text is no XGBoost model; as the model host has it.
const NO_XGBOOST_MODELS: [&str; 4] = [".py", ".txt", ".md", ".csv"];
/// How files end that the other frameworks load without a script.
pub(super) const PYTHON_MODELS: [&str; 5] = [".joblib", ".pkl", ".pickle", ".pt", ".pth"];
/// How models begin in LightGBM's text format.
const LIGHTGBM_START: &[u8] = b"tree\n";

/// What a model's environment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing: the fastest engine that gives the same answers.
    Any,
    /// The native engine, or none.
    Native,
    /// The ONNX Runtime, or none.
    Onnx,
    /// Python.
    Python,
}

impl Wish {
    /// What the environment says.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn of(environment: &BTreeMap<String, String>) -> Result<Wish, String> {
        match environment.get(ENGINE_VARIABLE).map(String::as_str) {
            None | Some("") => Ok(Wish::Any),
            Some("native") => Ok(Wish::Native),
            Some("onnx") => Ok(Wish::Onnx),
            Some("python") => Ok(Wish::Python),
            Some(other) => Err(format!(
                "{ENGINE_VARIABLE}: {other:?} is no engine; say native, onnx or python, or leave it out."
            )),
        }
    }
}

/// Which engine a replica got, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EngineReport {
    /// The variant that the replica serves.
    pub variant_name: String,
    /// `native`, `onnx`, `python` or `container`.
    pub engine: String,
    /// Why, in a clause without its full stop.
    pub reason: String,
}

/// What an engine is chosen for.
pub struct Deployment {
    /// The image.
    pub profile: ImageProfile,
    /// The variables of the model's container.
    pub environment: BTreeMap<String, String>,
    /// The folder of the unpacked model.
    pub model: PathBuf,
}

/// The engine of a deployment.
#[derive(Debug)]
pub struct Choice {
    /// The loaded model, for the native one.
    pub model: Option<NativeModel>,
    /// What the ONNX Runtime is to answer with.
    pub onnx: Option<OnnxSource>,
    /// Its word in an [`EngineReport`].
    pub engine: &'static str,
    /// As there.
    pub reason: String,
}

impl Deployment {
    /// Chooses, and loads the model where the choice is the native engine. Reads files: not to be called where nothing may block.
    ///
    /// # Errors
    /// A sentence for people, when the wish cannot be fulfilled.
    pub fn choose(&self) -> Result<Choice, String> {
        let wish = Wish::of(&self.environment)?;
        let other = if matches!(self.profile.source, Source::Container(_)) { "container" } else { "python" };
        if wish == Wish::Python && other == "python" {
            return Ok(Choice::without(other, format!("{ENGINE_VARIABLE} asks for it")));
        }
        if let Some(source) = self.onnx_source(wish)? {
            return Ok(Choice::of_onnx(source));
        }
        match (self.load(), wish) {
            (Ok((model, reason)), _) => {
                Ok(Choice { model: Some(model), onnx: None, engine: "native", reason })
            }
            (Err(reason), Wish::Native) => {
                Err(format!("{ENGINE_VARIABLE} asks for the native engine, but {reason}."))
            }
            (Err(_), Wish::Python) => {
                Err(format!("{ENGINE_VARIABLE} asks for Python, but the image runs as a container."))
            }
            (Err(reason), Wish::Any | Wish::Onnx) => Ok(Choice::without(other, reason)),
        }
    }

    /// The same where a replica has many models: what runs beside the native engine, which answers for each model that it can.
    ///
    /// # Errors
    /// A sentence for people, when the wish cannot be fulfilled.
    pub fn choose_for_many(&self) -> Result<Choice, String> {
        let is_container = matches!(self.profile.source, Source::Container(_));
        match (Wish::of(&self.environment)?, is_container) {
            (Wish::Any | Wish::Python, true) => {
                Ok(Choice::without("container", "the image runs as a container and loads its models".into()))
            }
            (Wish::Onnx, _) => Err(format!(
                "{ENGINE_VARIABLE} asks for the ONNX engine, which answers for one model and not for many."
            )),
            (Wish::Native, true) => Err(format!(
                "{ENGINE_VARIABLE} asks for the native engine, but the image runs as a container."
            )),
            (Wish::Native, false) => {
                Ok(Choice::without("native", format!("{ENGINE_VARIABLE} asks for it for all models")))
            }
            (Wish::Python, false) => {
                Ok(Choice::without("python", format!("{ENGINE_VARIABLE} asks for it for all models")))
            }
            (Wish::Any, false) => Ok(Choice::without(
                "python",
                "models are loaded by workers, but for those that the native engine computes".into(),
            )),
        }
    }

    /// The model for the native engine, or why it cannot have one.
    fn load(&self) -> Result<(NativeModel, String), String> {
        if matches!(self.profile.source, Source::Container(_)) {
            return Err("the image runs as a container".into());
        }
        self.without_script()?;
        let name = self.model_file()?;
        let loaded = NativeModel::load(&self.model.join(&name), self.answer_settings());
        let model = loaded.map_err(|refusal| format!("{name} is for Python: {refusal}"))?;
        let reason = format!("{name} is {}", model.description());
        Ok((model, reason))
    }

    pub(super) fn without_script(&self) -> Result<(), String> {
        let set = |name: &str| self.environment.get(name).filter(|value| !value.is_empty());
        if let Some(program) = set("SAGEMAKER_PROGRAM") {
            return Err(format!("SAGEMAKER_PROGRAM names an inference script, {program}"));
        }
        if set("SAGEMAKER_SUBMIT_DIRECTORY").is_some_and(|directory| directory.contains("://")) {
            return Err("SAGEMAKER_SUBMIT_DIRECTORY names a place of code".into());
        }
        let code = code_directory(&self.environment, &self.model);
        for folder in [code, self.model.join("code")] {
            if folder.join("inference.py").exists() {
                let shown = folder.strip_prefix(&self.model).unwrap_or(&folder).join("inference.py");
                return Err(format!("the model has an inference script, {}", shown.display()));
            }
        }
        Ok(())
    }

    /// The one file that is the model, as the model host would choose it.
    fn model_file(&self) -> Result<String, String> {
        let names =
            files(&self.model).map_err(|error| format!("the model's folder cannot be read: {error}"))?;
        let ends = |name: &String, endings: &[&str]| {
            let name = name.to_lowercase();
            endings.iter().any(|ending| name.ends_with(ending))
        };
        let pick = |names: Vec<&String>| match names.as_slice() {
            [] => None,
            [only] => Some((*only).clone()),
            several => several.iter().find(|name| ***name == XGBOOST_MODEL).map(|name| (*name).clone()),
        };
        let is_xgboost = self.profile.framework == Framework::Xgboost;
        let candidates: Vec<&String> = names.iter().filter(|name| !ends(name, &NO_XGBOOST_MODELS)).collect();
        if is_xgboost && let Some(name) = pick(candidates) {
            return Ok(name);
        }
        if let Some(python) = names.iter().find(|name| !is_xgboost && ends(name, &PYTHON_MODELS)) {
            return Err(format!("{python} is for Python"));
        }
        let has_start = |name: &&String| begins_like_lightgbm(&self.model.join(name));
        let texts: Vec<&String> = names.iter().filter(has_start).collect();
        if let [only] = texts.as_slice() {
            return Ok((*only).clone());
        }
        let documents = names.iter().filter(|name| *name == XGBOOST_MODEL || ends(name, &[".json", ".ubj"]));
        match pick(documents.collect()) {
            Some(name) if !is_xgboost && texts.is_empty() => Ok(name),
            _ => Err("the model has no single file of XGBoost or LightGBM".into()),
        }
    }

    fn answer_settings(&self) -> AnswerSettings {
        let set = |name: &str| self.environment.get(name).filter(|value| !value.is_empty()).cloned();
        let keys = set("SAGEMAKER_INFERENCE_OUTPUT").map(|keys| keys.replace(' ', "").to_lowercase());
        AnswerSettings {
            default_accept: set("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"),
            line_each: set("SAGEMAKER_BATCH").is_some(),
            selected: keys.map(|keys| keys.split(',').map(str::to_owned).collect()),
        }
    }
}

impl Choice {
    pub(super) fn without(engine: &'static str, reason: String) -> Choice {
        Choice { model: None, onnx: None, engine, reason }
    }

    /// Whether this process answers without any other.
    pub fn needs_no_process(&self) -> bool {
        self.engine == "native"
    }

    /// What is told of it, and of which of several containers.
    pub fn report(&self, variant: &str, container: Option<&str>) -> EngineReport {
        EngineReport {
            variant_name: variant.to_owned(),
            engine: self.engine.to_owned(),
            reason: match container {
                None => self.reason.clone(),
                Some(name) => format!("container {name}: {}", self.reason),
            },
        }
    }
}

/// Names of the files at the top of the model. Links are left out: what they lead to was not in the archive.
pub(super) fn files(model: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(model)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && entry.file_type()?.is_file()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn begins_like_lightgbm(path: &Path) -> bool {
    let mut start = [0; LIGHTGBM_START.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == LIGHTGBM_START
}

/// The replicas that this process answers for.
#[derive(Default)]
pub struct NativeReplicas {
    replicas: Mutex<HashMap<String, NativeReplica>>,
}

struct NativeReplica {
    /// Nothing where it has many, which come later.
    model: Option<Arc<NativeModel>>,
    report: EngineReport,
    /// Dropped when the replica is stopped.
    stopped: watch::Sender<()>,
}

impl NativeReplicas {
    fn replicas(&self) -> MutexGuard<'_, HashMap<String, NativeReplica>> {
        self.replicas.lock().expect("no code that holds this lock can panic")
    }

    /// Puts a replica into service.
    pub fn add(&self, id: &str, model: Option<NativeModel>, report: EngineReport) {
        let replica = NativeReplica { model: model.map(Arc::new), report, stopped: watch::Sender::new(()) };
        self.replicas().insert(id.to_owned(), replica);
    }

    /// The model of a replica.
    pub fn model(&self, id: &str) -> Option<Arc<NativeModel>> {
        self.replicas().get(id).and_then(|replica| replica.model.clone())
    }

    /// Whether there is a replica of this id.
    pub fn has(&self, id: &str) -> bool {
        self.replicas().contains_key(id)
    }

    /// What is told of a replica.
    pub fn report(&self, id: &str) -> Option<EngineReport> {
        self.replicas().get(id).map(|replica| replica.report.clone())
    }

    /// Something that waits until a replica is stopped; `None` when there is no such replica.
    pub fn end(&self, id: &str) -> Option<impl Future<Output = ()> + use<>> {
        let mut stopped = self.replicas().get(id)?.stopped.subscribe();
        Some(async move { while stopped.changed().await.is_ok() {} })
    }

    /// Ends a replica and says whether there was one.
    pub fn stop(&self, id: &str) -> bool {
        // A large model takes a while to be given back, which must not be under the lock.
        let stopped = self.replicas().remove(id);
        stopped.is_some()
    }

    /// The ids of all.
    pub fn ids(&self) -> Vec<String> {
        self.replicas().keys().cloned().collect()
    }
}

/// Keeps the report of a replica beside it.
///
/// # Errors
/// A text for people.
pub async fn keep_report(directory: &Path, report: &EngineReport) -> Result<(), String> {
    let text = serde_json::to_vec(report).map_err(|error| error.to_string())?;
    tokio::fs::write(directory.join(ENGINE_FILE), text).await.map_err(|error| error.to_string())
}

/// The report that was kept beside a replica.
pub async fn kept_report(directory: &Path) -> Option<EngineReport> {
    let text = tokio::fs::read(directory.join(ENGINE_FILE)).await.ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use runner::catalogue::Launcher;

    use super::*;

    const LIGHTGBM: &str = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=1\nobjective=regression\n\n\
        Tree=0\nnum_leaves=1\nnum_cat=0\nleaf_value=3.5\nis_linear=0\nshrinkage=1\n\nend of trees\n";
    const XGBOOST: &str = "{\"learner\": {\"gradient_booster\": {\"name\": \"gblinear\", \"model\": {\"weights\": [1, 2]}}, \
        \"learner_model_param\": {\"base_score\": \"0\", \"num_feature\": \"1\"}, \"objective\": {\"name\": \"reg:squarederror\"}}}";

    fn choose(
        framework: Framework,
        files: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Result<Choice, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let variables = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let profile = ImageProfile {
            name: "test".into(),
            framework,
            launcher: Launcher::default(),
            source: Source::Interpreter("python".into()),
        };
        Deployment { profile, environment: variables.collect(), model: folder.path().to_owned() }.choose()
    }

    fn chosen(framework: Framework, files: &[(&str, &str)], environment: &[(&str, &str)]) -> String {
        let choice = choose(framework, files, environment).unwrap();
        format!("{}: {}", choice.engine, choice.reason)
    }

    #[test]
    fn a_model_file_that_can_be_computed_is_native() {
        let native = chosen(Framework::Xgboost, &[("xgboost-model", XGBOOST), ("notes", "x")], &[]);
        assert!(
            native.starts_with("native: xgboost-model is an XGBoost model of a linear booster"),
            "{native}"
        );
        for framework in [Framework::Xgboost, Framework::ScikitLearn, Framework::Python] {
            let native = chosen(framework, &[("model.txt", LIGHTGBM), ("README.md", "x")], &[]);
            assert!(native.starts_with("native: model.txt is a LightGBM model of 1 trees"), "{native}");
        }
        assert!(chosen(Framework::Python, &[("model.ubj", XGBOOST)], &[]).starts_with("native"));
        assert!(
            chosen(Framework::Xgboost, &[("model.json", XGBOOST)], &[("SAGEMAKER_PROGRAM", "")])
                .starts_with("native")
        );
    }

    #[test]
    fn everything_else_is_python_with_a_reason() {
        let python = |files: &[(&str, &str)], environment: &[(&str, &str)], says: &str| {
            let choice = chosen(Framework::Xgboost, files, environment);
            assert!(choice.starts_with("python: ") && choice.contains(says), "{choice}");
        };
        let model = ("xgboost-model", XGBOOST);
        python(&[model, ("code/inference.py", "")], &[], "inference script, code/inference.py");
        python(&[model], &[("SAGEMAKER_PROGRAM", "serve.py")], "serve.py");
        python(&[model], &[("SAGEMAKER_SUBMIT_DIRECTORY", "s3://bucket/code.tar.gz")], "a place of code");
        let mine = ("lib/inference.py", "");
        python(&[model, mine], &[("SAGEMAKER_SUBMIT_DIRECTORY", "/opt/ml/model/lib")], "lib/inference.py");
        python(&[("xgboost-model", "\u{1}")], &[], "xgboost-model is for Python: it is no format");
        python(&[("a", "x"), ("b", "y")], &[], "no single file");
        python(&[], &[], "no single file");
        python(&[model], &[(ENGINE_VARIABLE, "python")], "MODELYARD_ENGINE asks for it");
        let choice =
            chosen(Framework::ScikitLearn, &[("model.joblib", "x"), ("xgboost-model", XGBOOST)], &[]);
        assert!(choice.starts_with("onnx: model.joblib"), "{choice}");
    }

    #[test]
    fn a_wish_is_fulfilled_or_refused() {
        let wish = |value| [(ENGINE_VARIABLE, value)];
        let refused = choose(Framework::Xgboost, &[("xgboost-model", "\u{1}")], &wish("native")).unwrap_err();
        assert!(
            refused.starts_with("MODELYARD_ENGINE asks for the native engine, but xgboost-model"),
            "{refused}"
        );
        let refused = choose(Framework::Xgboost, &[], &wish("fast")).unwrap_err();
        assert_eq!(
            refused,
            "MODELYARD_ENGINE: \"fast\" is no engine; say native, onnx or python, or leave it out."
        );
        assert!(
            chosen(Framework::Xgboost, &[("xgboost-model", XGBOOST)], &wish("native")).starts_with("native")
        );
    }

    #[tokio::test]
    async fn a_replica_ends_when_it_is_stopped() {
        let replicas = NativeReplicas::default();
        let choice = choose(Framework::Xgboost, &[("model.txt", LIGHTGBM)], &[]).unwrap();
        let report = choice.report("AllTraffic", None);
        replicas.add("id", choice.model, report.clone());
        assert_eq!((replicas.ids(), replicas.report("id")), (vec!["id".to_owned()], Some(report)));
        let end = replicas.end("id").unwrap();
        assert!(replicas.stop("id") && !replicas.stop("id"));
        end.await;
        assert!(replicas.end("id").is_none() && replicas.model("id").is_none());
    }
}
