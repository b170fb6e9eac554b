//! Which Python serves an image, and what of it a sandbox must show.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::build::output_of;
use super::{Environment, EnvironmentError};

/// Programs that build environments.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// `uv`, the fast installer.
    pub uv: Option<PathBuf>,
    search_path: Vec<PathBuf>,
}

impl Tools {
    /// Looks for the programs in the folders of a `PATH`.
    pub fn find(search_path: &[PathBuf]) -> Tools {
        let mut tools = Tools { uv: None, search_path: search_path.to_vec() };
        tools.uv = tools.program("uv");
        tools
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        self.search_path.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// The interpreter for a version such as `3.10`, and its own version: the one asked for where it is found, otherwise
    /// the default one. `None` when there is no Python at all.
    pub async fn python(
        &self,
        wanted: Option<&str>,
        settings: &BTreeMap<String, String>,
    ) -> Option<(PathBuf, String)> {
        let mut candidates = Vec::new();
        if let Some(wanted) = wanted {
            candidates.extend(self.program(&format!("python{wanted}")));
        }
        candidates.extend(self.program("python3"));
        candidates.extend(self.program("python"));
        for candidate in candidates {
            // A shim answers for an interpreter elsewhere; ask it for the real one.
            let script = "import sys; print(sys.executable); print('%d.%d' % sys.version_info[:2])";
            if let Ok(text) = output_of(&candidate, &["-c", script], settings).await
                && let Some((executable, version)) = text.trim().split_once('\n')
            {
                return Some((PathBuf::from(executable), version.to_owned()));
            }
        }
        None
    }
}

/// An interpreter of the user's as an environment.
///
/// # Errors
/// When it does not run.
pub async fn existing(
    interpreter: &Path,
    settings: &BTreeMap<String, String>,
) -> Result<Environment, EnvironmentError> {
    let script = "import sys; print(sys.prefix); print(sys.base_prefix)";
    let answer = output_of(interpreter, &["-c", script], settings).await;
    let text = answer
        .map_err(|detail| EnvironmentError { step: format!("starting {}", interpreter.display()), detail })?;
    let (prefix, base_prefix) = text.trim().split_once('\n').unwrap_or((text.trim(), text.trim()));
    Ok(Environment {
        directory: PathBuf::from(prefix),
        python: interpreter.to_owned(),
        read_only_paths: visible_paths(Path::new(prefix), Path::new(base_prefix)),
        content_key: interpreter.display().to_string(),
    })
}

/// Prefixes that the sandbox does not show by itself, outer ones first and once.
pub fn visible_paths(prefix: &Path, base_prefix: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in [base_prefix, prefix] {
        let shown = path.starts_with("/usr")
            || path == Path::new("/")
            || paths.iter().any(|known| path.starts_with(known));
        if !shown {
            paths.push(path.to_owned());
        }
    }
    paths
}
