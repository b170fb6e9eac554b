//! Building one environment: a virtual environment, its packages, the job's requirements, and a mark when all is done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::{EnvironmentError, MARKER, Recipe, Tools};

/// Lines of output that an error carries.
const TAIL_LINES: usize = 30;

type Settings = BTreeMap<String, String>;
type Progress<'a> = &'a mut (dyn FnMut(&str) + Send);

/// Builds into `directory`, removing first what an interrupted build left there.
///
/// # Errors
/// Which step failed, with the end of its output.
pub async fn build(
    directory: &Path,
    recipe: &Recipe,
    tools: &Tools,
    settings: &Settings,
    progress: Progress<'_>,
) -> Result<(), EnvironmentError> {
    let io = |step: &str| {
        let step = step.to_owned();
        move |error: std::io::Error| EnvironmentError { step, detail: error.to_string() }
    };
    if directory.exists() {
        std::fs::remove_dir_all(directory).map_err(io("removing an interrupted build"))?;
    }
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent).map_err(io("making the folder of environments"))?;
    }
    let wanted = recipe.python.as_deref();
    let found = tools.python(wanted, settings).await;
    let (python, version) = found.ok_or_else(|| EnvironmentError {
        step: "looking for Python".into(),
        detail: "no python3 is on PATH; install Python 3".into(),
    })?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != version) {
        if recipe.exact {
            let detail =
                format!("the image asks for Python {wanted} exactly, and Python {version} is what is found");
            return Err(EnvironmentError { step: "looking for Python".into(), detail });
        }
        progress(&format!(
            "the image asks for Python {wanted}, which is not installed here; Python {version} serves"
        ));
    }
    let builder = Builder { directory, tools, settings, python };
    progress(&format!("building the environment once: Python {version}, {}", shown(&recipe.packages)));
    builder.make(progress).await?;
    if !recipe.packages.is_empty() {
        let installed = builder.install(&recipe.packages, None, progress).await;
        match installed {
            Err(error) if !recipe.exact => {
                let relaxed: Vec<String> =
                    recipe.packages.iter().map(|package| name_of(package).to_owned()).collect();
                progress(&format!("the versions asked for cannot be had: {}", first_line(&error.detail)));
                progress(&format!("installing other versions in their place: {}", relaxed.join(", ")));
                builder.install(&relaxed, None, progress).await?;
            }
            other => other?,
        }
    }
    if let Some(requirements) = &recipe.requirements {
        progress("installing requirements.txt");
        let folder = requirements.directory.as_deref();
        let file = directory.join("job-requirements.txt");
        std::fs::write(&file, &requirements.text).map_err(io("writing requirements.txt"))?;
        let words = ["--requirement".to_owned(), file.display().to_string()];
        builder.install(&words, folder, progress).await.map_err(|error| EnvironmentError {
            step: "installing requirements.txt".into(),
            detail: error.detail,
        })?;
    }
    builder.mark_finished().await?;
    progress("the environment is ready");
    Ok(())
}

fn shown(packages: &[String]) -> String {
    if packages.is_empty() { "no packages".into() } else { packages.join(", ") }
}

fn first_line(text: &str) -> &str {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim()
}

/// The name in a requirement such as `numpy<2`.
fn name_of(requirement: &str) -> &str {
    let end = requirement.find(|character: char| "<>=!~; @".contains(character)).unwrap_or(requirement.len());
    &requirement[..end]
}

struct Builder<'a> {
    directory: &'a Path,
    tools: &'a Tools,
    settings: &'a Settings,
    python: PathBuf,
}

impl Builder<'_> {
    async fn make(&self, progress: Progress<'_>) -> Result<(), EnvironmentError> {
        let directory = self.directory.display().to_string();
        match &self.tools.uv {
            Some(uv) => {
                let python = self.python.display().to_string();
                let words = ["venv", "--quiet", "--seed", "--python", &python, &directory];
                self.run("making the environment", uv, &words, None, progress).await
            }
            None => {
                let words = ["-m", "venv", &directory];
                self.run("making the environment", &self.python, &words, None, progress).await
            }
        }
    }

    async fn install(
        &self,
        what: &[String],
        folder: Option<&Path>,
        progress: Progress<'_>,
    ) -> Result<(), EnvironmentError> {
        let python = self.directory.join("bin/python");
        let shown = python.display().to_string();
        let (program, mut words) = match &self.tools.uv {
            Some(uv) => (uv.clone(), vec!["pip", "install", "--python", &shown]),
            None => {
                (python.clone(), vec!["-m", "pip", "install", "--disable-pip-version-check", "--no-input"])
            }
        };
        words.extend(what.iter().map(String::as_str));
        self.run("installing packages", &program, &words, folder, progress).await
    }

    /// Writes the mark last and durably: an environment without it does not exist.
    async fn mark_finished(&self) -> Result<(), EnvironmentError> {
        let python = self.directory.join("bin/python");
        let failed = |detail: String| EnvironmentError { step: "finishing the environment".into(), detail };
        let base_prefix = output_of(&python, &["-c", "import sys; print(sys.base_prefix)"], self.settings)
            .await
            .map_err(failed)?;
        let write = || {
            let partial = self.directory.join("modelyard-ready.partial");
            std::fs::write(&partial, base_prefix.trim())?;
            std::fs::File::open(&partial)?.sync_all()?;
            std::fs::rename(&partial, self.directory.join(MARKER))
        };
        write().map_err(|error| failed(error.to_string()))
    }

    /// Runs a program with its output as progress; it ends with the caller.
    async fn run(
        &self,
        step: &str,
        program: &Path,
        words: &[&str],
        folder: Option<&Path>,
        progress: Progress<'_>,
    ) -> Result<(), EnvironmentError> {
        let failed = |detail: String| EnvironmentError { step: step.to_owned(), detail };
        // pip writes its progress to standard output, uv to standard error: both become one stream.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "exec \"$0\" \"$@\" 1>&2"])
            .arg(program)
            .args(words)
            .env_clear()
            .envs(self.settings)
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        let mut child = command.spawn().map_err(|error| failed(format!("{}: {error}", program.display())))?;
        let errors = child.stderr.take().ok_or_else(|| failed("its output cannot be read".into()))?;
        let mut tail: Vec<String> = Vec::new();
        let mut lines = BufReader::new(errors).split(b'\n');
        while let Some(line) = lines.next_segment().await.map_err(|error| failed(error.to_string()))? {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            progress(&line);
            tail.push(line);
            if tail.len() > TAIL_LINES {
                tail.remove(0);
            }
        }
        let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
        if status.success() { Ok(()) } else { Err(failed(format!("{}\n({status})", tail.join("\n")))) }
    }
}

/// Standard output of a short program.
///
/// # Errors
/// Its error output, or why it did not start.
pub async fn output_of(program: &Path, words: &[&str], settings: &Settings) -> Result<String, String> {
    let output = Command::new(program)
        .args(words)
        .env_clear()
        .envs(settings)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
