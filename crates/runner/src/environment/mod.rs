//! Python environments: built once per content, shared by jobs, found again in no time.

mod build;
mod confinement;
mod layer;
mod lock;
mod marker;
mod process;
mod python;
mod recipe;
mod settings;
mod unused;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::catalogue::{Framework, ImageProfile, Launcher, Source};
use build::Builder;
use confinement::Confinement;
use lock::BuildLock;
use marker::Marker;
use recipe::Recipe;

pub use marker::Interpreter;
pub use python::Tools;
pub use recipe::Requirements;
pub use unused::Unused;

/// Time for one step of a build, unless set: a framework of some GB over a slow line.
const TIME_LIMIT: Duration = Duration::from_secs(3600);

/// A finished environment, as an image's jobs use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Its folder, with `bin` below.
    pub directory: PathBuf,
    /// The interpreter to run.
    pub python: PathBuf,
    /// What that interpreter is.
    pub interpreter: Interpreter,
    /// All host paths that a sandbox must show at their own places, read-only.
    pub read_only_paths: Vec<PathBuf>,
    /// What it was built from.
    pub content_key: String,
    /// How it differs from what the image asks for, in sentences.
    pub notes: Vec<String>,
    /// Folder with its scripts as layers of jobs have them; `None` when each layer writes its own.
    pub job_scripts: Option<PathBuf>,
    /// Variables with which pip in a job finds the same packages as the server.
    pub pip_settings: BTreeMap<String, String>,
    /// Of the image.
    pub framework: Framework,
    /// Of the image.
    pub launcher: Launcher,
}

impl Environment {
    /// Writes a layer of its own for one job into `directory`: an environment that sees this one, that takes what the job
    /// installs, and that works where the job sees it at `shown_at`. Costs milliseconds; blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_layer(&self, directory: &Path, shown_at: &Path) -> std::io::Result<PathBuf> {
        layer::write(directory, shown_at, self)?;
        Ok(shown_at.to_owned())
    }
}

/// Why an environment cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step} failed: {detail}")]
pub struct EnvironmentError {
    /// What was being done.
    pub step: String,
    /// The command that failed; empty when it was none.
    pub command: String,
    /// The end of the output of the program that failed, or what is missing.
    pub detail: String,
}

impl EnvironmentError {
    fn new(step: &str, detail: impl Into<String>) -> EnvironmentError {
        EnvironmentError { step: step.to_owned(), command: String::new(), detail: detail.into() }
    }

    /// The line of the output that says most.
    fn summary(&self) -> &str {
        let lines = || self.detail.lines().map(str::trim).filter(|line| !line.is_empty());
        let telling =
            |line: &&str| line.contains("error") || line.contains("ERROR") || line.contains("Because");
        lines().find(telling).or_else(|| lines().next()).unwrap_or_default()
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Environment>>>;

/// The environments of one data directory.
pub struct Environments {
    root: PathBuf,
    tools: Tools,
    settings: BTreeMap<String, String>,
    time_limit: Duration,
    known: Mutex<HashMap<String, Slot>>,
    confinement: OnceCell<Option<Confinement>>,
    swept: OnceCell<()>,
}

impl Environments {
    /// Environments under `root`; `settings` are the variables that installers see, such as `PIP_INDEX_URL`.
    pub fn new(root: PathBuf, tools: Tools, settings: BTreeMap<String, String>) -> Environments {
        Environments {
            root,
            tools,
            settings,
            time_limit: TIME_LIMIT,
            known: Mutex::default(),
            confinement: OnceCell::new(),
            swept: OnceCell::new(),
        }
    }

    /// With another limit for each step of a build than an hour.
    #[must_use]
    pub fn with_time_limit(self, time_limit: Duration) -> Environments {
        Environments { time_limit, ..self }
    }

    /// Finds or builds the environment of an image with a job's requirements; `progress` gets lines for the job's log. Who asks
    /// for the same content waits for one build. Dropping the future ends what it builds.
    ///
    /// # Errors
    /// Which step failed, with the end of its output.
    pub async fn ensure(
        &self,
        profile: &ImageProfile,
        requirements: Option<Requirements>,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Environment, EnvironmentError> {
        let below = match &profile.source {
            Source::Interpreter(interpreter) => self.existing(interpreter).await?,
            Source::Container(image) => {
                let detail = format!("{} is run as a container, which has its own Python.", image.reference);
                return Err(EnvironmentError::new("building the environment", detail));
            }
            Source::Packages { python, exact, packages } => {
                let recipe = Recipe { python: python.clone(), exact: *exact, packages: packages.clone() };
                self.built(&recipe.content_key(), &Plan::Image(&recipe), progress).await?
            }
        };
        let environment = match requirements {
            None => below,
            Some(requirements) => {
                let key = requirements.content_key(&below.content_key);
                self.built(&key, &Plan::Layer(&below, &requirements), progress).await?
            }
        };
        Ok(Environment { framework: profile.framework, launcher: profile.launcher, ..environment })
    }

    fn slot(&self, key: &str) -> Slot {
        // A poisoned lock only says that another thread panicked; the map is still a map.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(key.to_owned()).or_default().clone()
    }

    /// An interpreter of the user's as an environment.
    async fn existing(&self, interpreter: &Path) -> Result<Environment, EnvironmentError> {
        let key = interpreter.display().to_string();
        let slot = self.slot(&key);
        let mut known = slot.lock().await;
        if let Some(environment) = known.as_ref().filter(|environment| environment.python.exists()) {
            // Its user may have installed something meanwhile.
            return Ok(self.with_scripts(environment.clone(), &self.root.join(SCRIPTS)));
        }
        let answer = python::interpreter(interpreter, &self.settings).await;
        let step = format!("starting {}", interpreter.display());
        let answer = answer.map_err(|detail| EnvironmentError::new(&step, detail))?;
        let directory = answer.prefix.clone();
        let environment =
            Environment { python: interpreter.to_owned(), ..self.environment(directory, key, answer) };
        *known = Some(environment.clone());
        Ok(self.with_scripts(environment, &self.root.join(SCRIPTS)))
    }

    /// The environment of a key, built unless it is there.
    async fn built(
        &self,
        key: &str,
        plan: &Plan<'_>,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Environment, EnvironmentError> {
        let slot = self.slot(key);
        // Whoever comes first builds; the others wait for the same environment.
        let mut known = slot.lock().await;
        let directory = self.root.join(key);
        if let Some(environment) = &*known
            && Marker::is_in(&directory)
            && environment.python.exists()
        {
            unused::note_use(&directory);
            environment.notes.iter().for_each(|note| progress(note));
            return Ok(environment.clone());
        }
        let environment = match self.finished(&directory, key, plan) {
            Some(environment) => {
                unused::note_use(&directory);
                environment.notes.iter().for_each(|note| progress(note));
                environment
            }
            None => self.build(&directory, key, plan, progress).await?,
        };
        *known = Some(environment.clone());
        Ok(environment)
    }

    async fn build(
        &self,
        directory: &Path,
        key: &str,
        plan: &Plan<'_>,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Environment, EnvironmentError> {
        let io = |error: std::io::Error| {
            EnvironmentError::new("preparing the folder of environments", error.to_string())
        };
        std::fs::create_dir_all(&self.root).map_err(io)?;
        let lock_path = lock_path(directory);
        let lock = match BuildLock::try_acquire(&lock_path).map_err(io)? {
            Some(lock) => lock,
            None => {
                progress("another build of this environment is going on: waiting for it");
                BuildLock::acquire(&lock_path).await.map_err(io)?
            }
        };
        if let Some(environment) = self.finished(directory, key, plan) {
            return Ok(environment);
        }
        self.swept.get_or_init(|| sweep(self.root.clone(), key.to_owned())).await;
        remove(directory).await.map_err(io)?;
        let builder = Builder {
            tools: &self.tools,
            settings: &self.settings,
            time_limit: self.time_limit,
            lock: &lock,
        };
        let built = match plan {
            Plan::Image(recipe) => builder.image(directory, recipe, progress).await,
            Plan::Layer(below, requirements) => {
                let confinement = self.confinement().await;
                builder.requirements(directory, below, requirements, confinement, progress).await
            }
        };
        if let Err(error) = built {
            // The next attempt, or the next start, removes what stays.
            if let Err(error) = remove(directory).await {
                tracing::warn!(directory = %directory.display(), %error, "a failed build could not be removed");
            }
            return Err(error);
        }
        self.finished(directory, key, plan).ok_or_else(|| {
            EnvironmentError::new(
                "building the environment",
                format!("{} is not complete.", directory.display()),
            )
        })
    }

    async fn confinement(&self) -> Option<&Confinement> {
        let probe = || async {
            match &self.tools.bubblewrap {
                Some(bubblewrap) => Confinement::probe(bubblewrap).await,
                None => None,
            }
        };
        self.confinement.get_or_init(probe).await.as_ref()
    }

    /// The environment in `directory`, when its build was finished and its Python is still there.
    fn finished(&self, directory: &Path, key: &str, plan: &Plan<'_>) -> Option<Environment> {
        let marker = Marker::read(directory)?;
        let mut environment = self.environment(directory.to_owned(), key.to_owned(), marker.interpreter);
        if let Plan::Layer(below, _) = plan {
            let paths = below.read_only_paths.iter().chain(&environment.read_only_paths);
            environment.read_only_paths = python::visible_paths(paths.map(PathBuf::as_path));
        }
        environment.notes = marker.notes;
        Some(self.with_scripts(environment, directory))
    }

    /// With its scripts written once for all jobs, below `parent`.
    fn with_scripts(&self, mut environment: Environment, parent: &Path) -> Environment {
        match layer::share_scripts(parent, &environment) {
            Ok(scripts) => {
                let paths = environment.read_only_paths.iter().chain([&scripts]);
                environment.read_only_paths = python::visible_paths(paths.map(PathBuf::as_path));
                environment.job_scripts = Some(scripts);
            }
            // Each layer writes its own.
            Err(error) => {
                tracing::warn!(parent = %parent.display(), %error, "scripts cannot be shared by jobs")
            }
        }
        environment
    }

    fn environment(&self, directory: PathBuf, key: String, interpreter: Interpreter) -> Environment {
        let installation =
            interpreter.base_executable.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
        let links = settings::shown_to_jobs(&self.settings);
        let paths =
            [interpreter.base_prefix.as_path(), installation, interpreter.prefix.as_path(), &directory];
        let paths = paths.into_iter().chain(links.iter().map(PathBuf::as_path));
        Environment {
            python: directory.join("bin/python"),
            read_only_paths: python::visible_paths(paths),
            content_key: key,
            notes: Vec::new(),
            job_scripts: None,
            pip_settings: settings::for_jobs(&self.settings),
            framework: Framework::default(),
            launcher: Launcher::default(),
            interpreter,
            directory,
        }
    }
}

/// Folder with the scripts of the users' interpreters, beside the environments.
const SCRIPTS: &str = "scripts";

/// What to build.
enum Plan<'a> {
    /// The environment of an image.
    Image(&'a Recipe),
    /// Requirements over an environment.
    Layer(&'a Environment, &'a Requirements),
}

fn lock_path(directory: &Path) -> PathBuf {
    directory.with_extension("lock")
}

async fn remove(directory: &Path) -> std::io::Result<()> {
    match tokio::fs::remove_dir_all(directory).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what builds that were cut off left behind, except of `current`, which the caller has locked.
async fn sweep(root: PathBuf, current: String) {
    let work = move || {
        for entry in std::fs::read_dir(&root).into_iter().flatten().flatten() {
            let directory = entry.path();
            let is_leftover = entry.file_type().is_ok_and(|kind| kind.is_dir())
                && entry.file_name() != current.as_str()
                && entry.file_name() != SCRIPTS
                && !Marker::is_in(&directory);
            if !is_leftover {
                continue;
            }
            // A lock that cannot be had belongs to a build that goes on.
            if let Ok(Some(_lock)) = BuildLock::try_acquire(&lock_path(&directory))
                && !Marker::is_in(&directory)
                && let Err(error) = std::fs::remove_dir_all(&directory)
            {
                tracing::warn!(directory = %directory.display(), %error, "an interrupted build could not be removed");
            }
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::warn!(%error, "interrupted builds could not be looked for");
    }
}
