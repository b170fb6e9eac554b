//! Which Python serves an image, and what of it a sandbox must show.

use std::path::{Path, PathBuf};

use super::marker::Interpreter;
use super::process::{Variables, output_of};

/// Oldest and newest minor version of Python 3 that are looked for by name.
const MINOR_VERSIONS: std::ops::RangeInclusive<u32> = 6..=20;

/// Oldest minor version that serves in place of another: older ones have hardly a package left.
const OLDEST_SUBSTITUTE: u32 = 8;

/// Asks an interpreter about itself.
const QUESTION: &str = "\
import json, os, site, sys
base = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)
folders = [p for p in site.getsitepackages() if os.path.isdir(p)]
print(json.dumps({'version': '%d.%d' % sys.version_info[:2], 'prefix': sys.prefix, 'base_prefix': sys.base_prefix,
  'base_executable': base, 'site_packages': list(dict.fromkeys(folders))}))
";

/// Programs that build environments.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// `uv`, the fast installer.
    pub uv: Option<PathBuf>,
    /// bubblewrap, which confines the installing of jobs' requirements.
    pub bubblewrap: Option<PathBuf>,
    /// Folders that interpreters are looked for in.
    pub search_path: Vec<PathBuf>,
}

impl Tools {
    /// Looks for the programs in the folders of a `PATH`.
    pub fn find(search_path: &[PathBuf]) -> Tools {
        let mut tools = Tools { search_path: search_path.to_vec(), ..Tools::default() };
        tools.uv = tools.program("uv");
        tools.bubblewrap = tools.program("bwrap");
        tools
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        self.search_path.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// The interpreter for a version such as `3.10`: the one asked for where it is found, otherwise, unless it must be exact,
    /// the nearest one (of two as near, the newer). `None` when there is none.
    pub async fn python(
        &self,
        wanted: Option<&str>,
        exact: bool,
        settings: &Variables,
    ) -> Option<Interpreter> {
        let mut candidates = self.candidates(settings);
        let default = match self.program("python3").or_else(|| self.program("python")) {
            Some(program) => interpreter(&program, settings).await.ok(),
            None => None,
        };
        let Some(wanted) = wanted else {
            if default.is_some() {
                return default;
            }
            candidates.retain(|(version, _)| *version >= OLDEST_SUBSTITUTE);
            candidates.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
            return first_working(&candidates, settings).await;
        };
        if let Some(default) = default.filter(|default| minor(&default.version).is_some()) {
            candidates.extend(minor(&default.version).map(|version| (version, default.base_executable)));
        }
        let wanted = minor(wanted)?;
        candidates.retain(|(version, _)| *version == wanted || (!exact && *version >= OLDEST_SUBSTITUTE));
        candidates.sort_by_key(|(version, _)| (version.abs_diff(wanted), std::cmp::Reverse(*version)));
        first_working(&candidates, settings).await
    }

    /// Interpreters by the minor version that their name or folder says, those on `PATH` first.
    fn candidates(&self, settings: &Variables) -> Vec<(u32, PathBuf)> {
        let by_name = MINOR_VERSIONS
            .filter_map(|version| Some((version, self.program(&format!("python3.{version}"))?)));
        let mut found: Vec<(u32, PathBuf)> = by_name.collect();
        let home = settings.get("HOME").map(PathBuf::from);
        let home_pyenv = home.as_ref().map(|home| home.join(".pyenv"));
        let shims = self.search_path.iter().filter(|folder| folder.ends_with("shims"));
        let pyenv = settings.get("PYENV_ROOT").map(PathBuf::from).into_iter();
        let pyenv =
            pyenv.chain(shims.filter_map(|folder| Some(folder.parent()?.to_owned()))).chain(home_pyenv);
        let uv = settings.get("UV_PYTHON_INSTALL_DIR").map(PathBuf::from);
        let uv = uv.or_else(|| Some(home?.join(".local/share/uv/python")));
        for folder in pyenv.map(|root| root.join("versions")).chain(uv) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let version = name.strip_prefix("cpython-").unwrap_or(&name);
                let program = entry.path().join("bin/python3");
                if let Some(version) = minor(version).filter(|_| program.exists()) {
                    found.push((version, program));
                }
            }
        }
        found.retain(|(version, _)| MINOR_VERSIONS.contains(version));
        found
    }
}

async fn first_working(candidates: &[(u32, PathBuf)], settings: &Variables) -> Option<Interpreter> {
    for (version, program) in candidates {
        // A shim may be there for a version that is not.
        if let Ok(found) = interpreter(program, settings).await
            && minor(&found.version) == Some(*version)
        {
            return Some(found);
        }
    }
    None
}

/// The 11 of `3.11` or `3.11.7`.
pub fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("3.")?;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// What an interpreter says about itself.
///
/// # Errors
/// What it says instead, or why it does not start.
pub async fn interpreter(program: &Path, settings: &Variables) -> Result<Interpreter, String> {
    let answer = output_of(program, &["-I", "-c", QUESTION], settings).await?;
    serde_json::from_str(&answer).map_err(|error| format!("{} answers oddly: {error}", program.display()))
}

/// Folders that a sandbox, which shows `/usr`, does not show by itself: outer ones first and once.
pub fn visible_paths<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut visible: Vec<PathBuf> = Vec::new();
    for path in paths {
        let shown = path.starts_with("/usr")
            || path == Path::new("/")
            || visible.iter().any(|known| path.starts_with(known));
        if !shown {
            visible.retain(|known| !known.starts_with(path));
            visible.push(path.to_owned());
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(minor("3.11"), Some(11));
        assert_eq!(minor("3.11.7"), Some(11));
        assert_eq!(minor("3.13t"), Some(13));
        assert_eq!(minor("2.7.18"), None);
        assert_eq!(minor("3.x"), None);
    }

    #[test]
    fn only_what_is_hidden_must_be_shown() {
        let paths = ["/usr/lib/x", "/opt/a/b", "/opt/a", "/opt/a/c", "/root/python"].map(Path::new);
        assert_eq!(visible_paths(paths), [PathBuf::from("/opt/a"), PathBuf::from("/root/python")]);
    }
}
