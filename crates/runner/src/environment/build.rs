//! Building: the environment of an image, and the layer of a job's requirements over it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::confinement::{Confinement, View};
use super::lock::BuildLock;
use super::marker::Marker;
use super::process::{Step, Variables};
use super::python::{self, Tools};
use super::recipe::{Recipe, Requirements};
use super::{Environment, EnvironmentError, layer, settings};
use crate::catalogue::without_version;
use crate::contract::copy_tree;

/// Oldest minor version of Python that uv works with.
const OLDEST_FOR_UV: u32 = 8;

/// Where the source seems to be while its requirements are installed, as in the job.
const SOURCE_TARGET: &str = "/opt/ml/code";

/// Packages that have no wheels in any version, and whose build only packs files.
const WITHOUT_WHEELS: &[&str] = &["pyspark"];

/// Folder inside a layer for what only its build needs.
const SCRATCH: &str = ".build";

type Progress<'a> = &'a mut (dyn FnMut(&str) + Send);

/// What all builds share.
pub struct Builder<'a> {
    /// Programs.
    pub tools: &'a Tools,
    /// Variables of the programs.
    pub settings: &'a Variables,
    /// Limit of each step.
    pub time_limit: Duration,
    /// Held by the programs that are run.
    pub lock: &'a BuildLock,
}

impl Builder<'_> {
    /// Builds the environment of an image into `directory`, which must not exist.
    ///
    /// # Errors
    /// Which step failed, with the end of its output.
    pub async fn image(
        &self,
        directory: &Path,
        recipe: &Recipe,
        progress: Progress<'_>,
    ) -> Result<(), EnvironmentError> {
        let wanted = recipe.python.as_deref();
        let found = self.tools.python(wanted, recipe.exact, self.settings).await.ok_or_else(|| {
            let detail = match wanted.filter(|_| recipe.exact) {
                Some(wanted) => {
                    format!("the image asks for Python {wanted} exactly, which is not installed here.")
                }
                None => {
                    "no usable Python 3 is installed here: install one, and start the server with it on PATH."
                        .to_owned()
                }
            };
            EnvironmentError::new("looking for Python", detail)
        })?;
        let mut notes = Vec::new();
        if let Some(wanted) = wanted.filter(|wanted| python::minor(wanted) != python::minor(&found.version)) {
            notes.push(format!(
                "the image asks for Python {wanted}, which is not installed here; Python {} serves",
                found.version
            ));
        }
        notes.iter().for_each(|note| progress(note));
        let packages =
            if recipe.packages.is_empty() { "no packages".to_owned() } else { recipe.packages.join(", ") };
        progress(&format!("building the environment, once: Python {}, {packages}", found.version));

        let uv = self.tools.uv.as_deref().filter(|_| python::minor(&found.version) >= Some(OLDEST_FOR_UV));
        let place = directory.display().to_string();
        let base = found.base_executable.display().to_string();
        let command = match uv {
            Some(uv) => [&uv.display().to_string(), "venv", "--quiet", "--seed", "--python", &base, &place]
                .map(str::to_owned)
                .to_vec(),
            None => [&base, "-m", "venv", &place].map(str::to_owned).to_vec(),
        };
        self.step("making the environment", command, progress).await?;
        if let Err(error) = self.install(directory, uv, &recipe.packages, true, progress).await {
            if recipe.exact {
                // Perhaps there is source where there is no wheel.
                progress(&format!("no wheels for all of it: {}", error.summary()));
                self.install(directory, uv, &recipe.packages, false, progress).await?;
            } else {
                let relaxed: Vec<String> =
                    recipe.packages.iter().map(|package| without_version(package).to_owned()).collect();
                progress(&format!("the versions asked for cannot be had: {}", error.summary()));
                progress(&format!("installing other versions in their place: {}", relaxed.join(", ")));
                self.install(directory, uv, &relaxed, false, progress).await?;
                notes.push(relaxed_note(&recipe.packages, directory, &found.version));
                notes.last().into_iter().for_each(|note| progress(note));
            }
        }
        if uv.is_some() {
            self.compile(directory, &found.version, progress).await?;
        }
        let interpreter = python::interpreter(&directory.join("bin/python"), self.settings).await;
        let interpreter = interpreter
            .map_err(|detail| EnvironmentError::new("starting the environment's Python", detail))?;
        Marker { interpreter, notes, needs: Vec::new() }
            .write(directory)
            .map_err(|error| EnvironmentError::new("finishing the environment", error.to_string()))?;
        progress("the environment is ready");
        Ok(())
    }

    async fn install(
        &self,
        directory: &Path,
        uv: Option<&Path>,
        packages: &[String],
        wheels_only: bool,
        progress: Progress<'_>,
    ) -> Result<(), EnvironmentError> {
        if packages.is_empty() {
            return Ok(());
        }
        let python = directory.join("bin/python").display().to_string();
        let mut command: Vec<String> = match uv {
            Some(uv) => {
                vec![uv.display().to_string(), "pip".into(), "install".into(), "--python".into(), python]
            }
            None => [&python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
                .map(str::to_owned)
                .to_vec(),
        };
        if wheels_only {
            command.extend(["--only-binary".to_owned(), ":all:".to_owned()]);
            for name in packages.iter().map(|package| without_version(package)) {
                if WITHOUT_WHEELS.contains(&name) {
                    command.extend(["--no-binary".to_owned(), name.to_owned()]);
                }
            }
        }
        command.extend(packages.iter().cloned());
        self.step("installing packages", command, progress).await
    }

    /// Compiles what uv, unlike pip, leaves as source: jobs cannot write what Python would compile at the first import. Tests
    /// of packages are left out; they are half of the files.
    async fn compile(
        &self,
        directory: &Path,
        version: &str,
        progress: Progress<'_>,
    ) -> Result<(), EnvironmentError> {
        let python = directory.join("bin/python").display().to_string();
        let packages = directory.join(format!("lib/python{version}/site-packages")).display().to_string();
        // Some packages ship files that are no Python of this version: not an error.
        let line = "\"$0\" \"$@\" > /dev/null 2>&1 || true";
        let shell = ["/bin/sh", "-c", line].map(str::to_owned);
        let words =
            [&python, "-m", "compileall", "-q", "-j", "0", "-x", "/tests?/", &packages].map(str::to_owned);
        progress("compiling packages");
        self.step("compiling packages", shell.into_iter().chain(words).collect(), progress).await
    }

    async fn step(
        &self,
        name: &str,
        command: Vec<String>,
        progress: Progress<'_>,
    ) -> Result<(), EnvironmentError> {
        let mut variables = settings::for_uv(self.settings);
        variables.insert("PYTHONUNBUFFERED".into(), "1".into());
        let step = Step {
            name,
            command,
            variables: &variables,
            directory: None,
            lock: self.lock,
            time_limit: self.time_limit,
        };
        step.run(progress).await
    }

    /// Builds the layer with a job's requirements over `below` into `directory`, which must not exist; confined where that
    /// works.
    ///
    /// # Errors
    /// Which step failed, with the end of its output.
    pub async fn requirements(
        &self,
        directory: &Path,
        below: &Environment,
        requirements: &Requirements,
        confinement: Option<&Confinement>,
        progress: Progress<'_>,
    ) -> Result<(), EnvironmentError> {
        let name = "installing requirements.txt";
        let io = |error: std::io::Error| EnvironmentError::new(name, error.to_string());
        layer::write(directory, directory, below).map_err(io)?;
        let scratch = directory.join(SCRATCH);
        let source = scratch.join("source");
        std::fs::create_dir_all(scratch.join("tmp")).map_err(io)?;
        std::fs::create_dir_all(&source).map_err(io)?;
        if let Some(origin) = requirements.source() {
            // A copy: packages are built in their folders.
            copy_tree(origin, &source).map_err(io)?;
        }
        std::fs::write(source.join("requirements.txt"), &requirements.text).map_err(io)?;

        progress("installing requirements.txt");
        let mut variables = self.settings.clone();
        let temporary = scratch.join("tmp").display().to_string();
        variables.extend([("PYTHONUNBUFFERED".to_owned(), "1".to_owned()), ("TMPDIR".to_owned(), temporary)]);
        let python = directory.join("bin/python").display().to_string();
        let words =
            [&python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-cache-dir"];
        let mut command: Vec<String> = words.map(str::to_owned).to_vec();
        command.extend(["-r".to_owned(), "requirements.txt".to_owned()]);
        let shown: String = command.join(" ");
        let mut start_in = source.as_path();
        if let Some(confinement) = confinement {
            let mut read_only = below.read_only_paths.clone();
            read_only.extend(settings::local_paths(self.settings));
            let read_only = python::visible_paths(read_only.iter().map(PathBuf::as_path));
            let target = Path::new(SOURCE_TARGET);
            let view = View { read_only: &read_only, writable: &[(directory, directory), (&source, target)] };
            let inner = ["/bin/sh", "-c", "cd /opt/ml/code && exec \"$0\" \"$@\""].map(str::to_owned);
            command = confinement.wrap(inner.into_iter().chain(command).collect(), &view, self.settings);
            start_in = Path::new("/");
        } else {
            refuse_outside_paths(&requirements.text)?;
            progress("no sandbox works here: build scripts of the requirements run unconfined");
        }
        let step = Step {
            name,
            command,
            variables: &variables,
            directory: Some(start_in),
            lock: self.lock,
            time_limit: self.time_limit,
        };
        step.run(progress).await.map_err(|error| EnvironmentError { command: shown, ..error })?;
        std::fs::remove_dir_all(&scratch).map_err(io)?;
        Marker {
            interpreter: below_as_layer(below, directory),
            notes: below.notes.clone(),
            needs: below.read_only_paths.clone(),
        }
        .write(directory)
        .map_err(io)?;
        progress("requirements.txt is installed");
        Ok(())
    }
}

/// The interpreter of a layer.
fn below_as_layer(below: &Environment, directory: &Path) -> super::Interpreter {
    let site_packages = directory.join(format!("lib/python{}/site-packages", below.interpreter.version));
    super::Interpreter {
        prefix: directory.to_owned(),
        site_packages: vec![site_packages],
        ..below.interpreter.clone()
    }
}

/// Without a sandbox an installer reads whatever the server may read, and quotes it in its complaints.
fn refuse_outside_paths(text: &str) -> Result<(), EnvironmentError> {
    let leads_outside = |word: &str| {
        let path = word.rsplit(['=', '@']).next().unwrap_or(word);
        let path = path.strip_prefix("file:").unwrap_or(path);
        path.starts_with(['/', '~']) || path.split('/').any(|part| part == "..") || path.contains("${")
    };
    let words =
        text.lines().map(|line| line.split('#').next().unwrap_or_default()).flat_map(str::split_whitespace);
    let option = |word: &str| {
        word.strip_prefix('-')
            .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()))
            .unwrap_or(word)
            .to_owned()
    };
    match words.into_iter().find(|word| leads_outside(word) || leads_outside(&option(word))) {
        None => Ok(()),
        Some(word) => {
            let detail =
                format!("{word:?} leads out of the source, which is not allowed where no sandbox works.");
            Err(EnvironmentError::new("installing requirements.txt", detail))
        }
    }
}

/// What is installed in place of what was asked for.
fn relaxed_note(asked: &[String], directory: &Path, version: &str) -> String {
    let site_packages = directory.join(format!("lib/python{version}/site-packages"));
    let normal = |name: &str| name.to_lowercase().replace(['-', '.'], "_");
    let mut installed = Vec::new();
    for entry in std::fs::read_dir(site_packages).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((name, version)) = name.strip_suffix(".dist-info").and_then(|stem| stem.split_once('-')) {
            installed.push((normal(name), version.to_owned()));
        }
    }
    let pairs = asked.iter().filter_map(|requirement| {
        let name = without_version(requirement);
        let bare = normal(name.split('[').next().unwrap_or(name));
        let (_, version) = installed.iter().find(|(known, _)| *known == bare)?;
        (name.len() < requirement.len()).then(|| format!("{name} {version} for {requirement}"))
    });
    let pairs: Vec<String> = pairs.collect();
    format!(
        "the versions that the image asks for cannot be had with Python {version}; installed are {}",
        pairs.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_out_of_the_source_are_refused() {
        for text in [
            "-r /etc/shadow",
            "-r../x",
            "a @ file:///etc",
            "--requirement=/x",
            "../up",
            "-e /x",
            "-r ~/x",
            "-r/etc/x",
        ] {
            assert!(refuse_outside_paths(text).is_err(), "{text}");
        }
        for text in
            ["numpy>=1", "-r more.txt", "./package", "a @ https://host/a.zip  # /path", "-e .", "--pre"]
        {
            assert!(refuse_outside_paths(text).is_ok(), "{text}");
        }
    }
}
