//! Python environments: built once per content, shared by jobs, found again in no time.

mod build;
mod python;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::catalogue::{ImageProfile, Source};

pub use python::Tools;

/// File that stands in a finished environment; its content is the interpreter's base prefix.
const MARKER: &str = "modelyard-ready";

/// `requirements.txt` of a job.
#[derive(Clone, Debug)]
pub struct Requirements {
    /// Its text.
    pub text: String,
    /// The folder it lies in, for requirements that are local paths.
    pub directory: Option<PathBuf>,
}

/// A finished environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its folder, with `bin` below.
    pub directory: PathBuf,
    /// The interpreter to run.
    pub python: PathBuf,
    /// All host paths that a sandbox must show at their own places.
    pub read_only_paths: Vec<PathBuf>,
    /// What it was built from.
    pub content_key: String,
}

/// Why an environment cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{step} failed: {detail}")]
pub struct EnvironmentError {
    /// What was being done.
    pub step: String,
    /// The end of the output of the program that failed, or what is missing.
    pub detail: String,
}

type Slot = Arc<tokio::sync::Mutex<Option<Environment>>>;

/// The environments of one data directory.
pub struct Environments {
    root: PathBuf,
    tools: Tools,
    settings: BTreeMap<String, String>,
    known: Mutex<HashMap<String, Slot>>,
}

impl Environments {
    /// Environments under `root`; `settings` are the variables that installers see, such as `PIP_INDEX_URL`.
    pub fn new(root: PathBuf, tools: Tools, settings: BTreeMap<String, String>) -> Environments {
        Environments { root, tools, settings, known: Mutex::default() }
    }

    /// Finds or builds the environment of an image with a job's requirements; `progress` gets lines for the job's log.
    ///
    /// # Errors
    /// Which step failed, with the end of its output.
    pub async fn ensure(
        &self,
        profile: &ImageProfile,
        requirements: Option<Requirements>,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Environment, EnvironmentError> {
        let (python, exact, packages) = match &profile.source {
            Source::Interpreter(interpreter) if requirements.is_none() => {
                return python::existing(interpreter, &self.settings).await;
            }
            Source::Interpreter(interpreter) => {
                let detail = format!(
                    "the image {} is the interpreter {} as it is; install the job's requirements there, or take \
                     requirements.txt out of the source",
                    profile.name,
                    interpreter.display()
                );
                return Err(EnvironmentError { step: "installing requirements.txt".into(), detail });
            }
            Source::Packages { python, exact, packages } => (python, *exact, packages),
        };
        let recipe = Recipe { python: python.clone(), exact, packages: packages.clone(), requirements };
        let key = recipe.content_key();
        let slot = {
            // A poisoned lock only says that another thread panicked; the map is still a map.
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(key.clone()).or_default().clone()
        };
        // Whoever comes first builds; the others wait for the same environment.
        let mut built = slot.lock().await;
        if let Some(environment) = &*built
            && environment.directory.join(MARKER).exists()
        {
            return Ok(environment.clone());
        }
        let directory = self.root.join(&key);
        let environment = match finished(&directory, &key) {
            Some(environment) => environment,
            None => {
                build::build(&directory, &recipe, &self.tools, &self.settings, progress).await?;
                finished(&directory, &key).ok_or_else(|| EnvironmentError {
                    step: "building the environment".into(),
                    detail: format!("{} is not complete", directory.display()),
                })?
            }
        };
        *built = Some(environment.clone());
        Ok(environment)
    }
}

/// What an environment is built from.
struct Recipe {
    python: Option<String>,
    exact: bool,
    packages: Vec<String>,
    requirements: Option<Requirements>,
}

impl Recipe {
    /// Sixteen bytes of a digest over everything that decides the content.
    fn content_key(&self) -> String {
        let mut digest = Sha256::new();
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        part(b"environment 1");
        part(self.python.as_deref().unwrap_or_default().as_bytes());
        part(&[u8::from(self.exact)]);
        let mut packages = self.packages.clone();
        packages.sort();
        for package in &packages {
            part(package.as_bytes());
        }
        part(b"requirements");
        if let Some(requirements) = &self.requirements {
            part(requirements.text.as_bytes());
            if let Some(directory) =
                requirements.directory.as_deref().filter(|_| requirements.has_local_paths())
            {
                for (name, content) in files_below(directory) {
                    part(name.as_bytes());
                    part(&content);
                }
            }
        }
        hex::encode(&digest.finalize()[..16])
    }
}

impl Requirements {
    /// Whether a line installs from, or reads, a file beside it.
    fn has_local_paths(&self) -> bool {
        self.text.lines().map(str::trim).any(|line| {
            line.starts_with(['.', '/', '-'])
                || line.ends_with(".whl")
                || line.ends_with(".tar.gz")
                || line.contains("file:")
        })
    }
}

/// Digests of all files of a folder by relative name, in order. What cannot be read has no influence: the build will say so.
fn files_below(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() => {
                    let name = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
                    let content =
                        std::fs::read(&path).map(|bytes| Sha256::digest(&bytes).to_vec()).unwrap_or_default();
                    found.push((name, content));
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The environment in `directory`, when its build was finished.
fn finished(directory: &Path, key: &str) -> Option<Environment> {
    let base_prefix = std::fs::read_to_string(directory.join(MARKER)).ok()?;
    Some(Environment {
        directory: directory.to_owned(),
        python: directory.join("bin/python"),
        read_only_paths: python::visible_paths(directory, Path::new(base_prefix.trim())),
        content_key: key.to_owned(),
    })
}
