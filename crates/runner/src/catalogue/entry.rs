//! One entry of the catalogue: its text form, its checks, and what it makes of an image URI.

use std::path::{Path, PathBuf};

use regex::{Captures, Regex};
use serde::Deserialize;
use toml::Spanned;

use super::container::{RawContainer, RawExecutor, RawGpus};
use super::{CatalogueError, ContainerImage, Framework, ImageProfile, Launcher, Source};
use crate::oci::PullPolicy;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    image: Vec<Spanned<RawEntry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    name: String,
    pattern: String,
    framework: Option<Framework>,
    launcher: Option<Launcher>,
    python: Option<String>,
    exact: Option<bool>,
    packages: Option<Vec<String>>,
    interpreter: Option<PathBuf>,
    conda: Option<PathBuf>,
    executor: Option<RawExecutor>,
    image: Option<String>,
    pull: Option<PullPolicy>,
    gpus: Option<RawGpus>,
    memory_gib: Option<f64>,
    cpus: Option<f64>,
    pids_limit: Option<u64>,
}

impl RawEntry {
    fn container(&self) -> RawContainer<'_> {
        RawContainer {
            executor: self.executor,
            image: self.image.as_deref(),
            pull: self.pull,
            gpus: self.gpus.as_ref(),
            memory_gib: self.memory_gib,
            cpus: self.cpus,
            pids_limit: self.pids_limit,
        }
    }
}

/// A checked entry.
#[derive(Clone, Debug)]
pub struct Entry {
    name: String,
    text: String,
    pattern: Regex,
    framework: Framework,
    launcher: Launcher,
    source: Source,
}

/// The entries of a file's text; `path` is for messages and relative paths.
///
/// # Errors
/// A text with file, line and what is wrong.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Entry>, CatalogueError> {
    let shown = path.display();
    let file: File = toml::from_str(text)
        .map_err(|error| CatalogueError(format!("the image catalogue {shown} cannot be used: {error}")))?;
    let base = path.parent().unwrap_or(Path::new(""));
    let checked = file.image.into_iter().map(|raw| {
        let line = text[..raw.span().start].matches('\n').count() + 1;
        let raw = raw.into_inner();
        let name = raw.name.clone();
        Entry::new(raw, base).map_err(|problem| {
            CatalogueError(format!(
                "the image catalogue {shown} cannot be used: line {line}, image {name:?}: {problem}"
            ))
        })
    });
    checked.collect()
}

impl Entry {
    fn new(raw: RawEntry, base: &Path) -> Result<Entry, String> {
        let pattern = Regex::new(&format!("^(?:{})$", raw.pattern))
            .map_err(|error| format!("the pattern is not a regular expression: {error}"))?;
        for text in raw.python.iter().chain(raw.packages.iter().flatten()) {
            check_placeholders(text, &pattern)?;
        }
        if let Some(image) = raw.container().template()? {
            let given = [
                ("framework", raw.framework.is_some()),
                ("launcher", raw.launcher.is_some()),
                ("python", raw.python.is_some()),
                ("exact", raw.exact.is_some()),
                ("packages", raw.packages.is_some()),
                ("interpreter", raw.interpreter.is_some()),
                ("conda", raw.conda.is_some()),
            ];
            if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
                return Err(format!("{key} does not go with executor = \"oci\": the image has its own"));
            }
            check_placeholders(&image.reference, &pattern)?;
            return Ok(Entry {
                name: raw.name,
                text: raw.pattern,
                pattern,
                framework: Framework::default(),
                launcher: Launcher::default(),
                source: Source::Container(image),
            });
        }
        let (framework, launcher) = (raw.framework.unwrap_or_default(), raw.launcher.unwrap_or_default());
        let from_packages = raw.python.is_some() || raw.exact.is_some() || raw.packages.is_some();
        let source = match (raw.interpreter, raw.conda) {
            (Some(_), Some(_)) => return Err("interpreter and conda exclude each other".into()),
            (Some(_), None) | (None, Some(_)) if from_packages => {
                return Err("python, exact and packages do not go with interpreter or conda".into());
            }
            (Some(interpreter), None) => Source::Interpreter(base.join(interpreter)),
            (None, Some(conda)) => Source::Interpreter(base.join(conda).join("bin/python")),
            (None, None) => Source::Packages {
                python: raw.python,
                exact: raw.exact.unwrap_or(false),
                packages: raw.packages.unwrap_or_default(),
            },
        };
        let Source::Packages { python, packages, .. } = &source else {
            return Ok(Entry { name: raw.name, text: raw.pattern, pattern, framework, launcher, source });
        };
        if let Some(python) = python
            && !python.contains('{')
            && !is_python_version(&dotted(python))
        {
            return Err(format!("python = {python:?} is not a version such as \"3.10\""));
        }
        if let Some(odd) = packages.iter().find(|package| !is_requirement(package)) {
            return Err(format!("{odd:?} in packages is not a requirement such as \"numpy<2\""));
        }
        Ok(Entry { name: raw.name, text: raw.pattern, pattern, framework, launcher, source })
    }

    /// The profile, when the pattern matches the image.
    pub fn profile(&self, image: &str) -> Option<ImageProfile> {
        let captures = self.pattern.captures(image)?;
        Some(ImageProfile {
            name: self.name.clone(),
            framework: self.framework,
            launcher: self.launcher,
            source: filled(&self.source, &captures, image),
        })
    }

    /// For listings.
    pub fn name_and_pattern(&self) -> (&str, &str) {
        (&self.name, &self.text)
    }
}

/// The parts of a text between braces, and where they are.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

fn check_placeholders(text: &str, pattern: &Regex) -> Result<(), String> {
    for name in placeholders(text) {
        if !pattern.capture_names().flatten().any(|known| known == name) {
            return Err(format!("{text:?} uses {{{name}}}, and the pattern has no (?P<{name}>...)"));
        }
    }
    Ok(())
}

/// A requirement starts with a package's name: an option or a path there would be read by the installer as such.
fn is_requirement(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !text.split(['@', ';']).next().unwrap_or_default().contains('/')
}

fn is_python_version(text: &str) -> bool {
    !text.is_empty()
        && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The source with `{name}` replaced by what the pattern captured under that name.
fn filled(source: &Source, captures: &Captures<'_>, image: &str) -> Source {
    let fill = |text: &str| -> Option<String> {
        let mut filled = text.to_owned();
        for name in placeholders(text) {
            filled = filled.replace(&format!("{{{name}}}"), captures.name(name)?.as_str());
        }
        Some(filled)
    };
    let (python, exact, packages) = match source {
        Source::Interpreter(_) => return source.clone(),
        Source::Container(container) => {
            let named = Some(&container.reference).filter(|reference| !reference.is_empty());
            // What is left open by the pattern, and no name at all, mean the image as the request names it.
            let reference = named.and_then(|reference| fill(reference)).unwrap_or_else(|| image.to_owned());
            return Source::Container(ContainerImage { reference, ..container.clone() });
        }
        Source::Packages { python, exact, packages } => (python, exact, packages),
    };
    Source::Packages {
        // "3" asks for no more than Python.
        python: python
            .as_deref()
            .and_then(fill)
            .map(|version| dotted(&version))
            .filter(|version| version.contains('.')),
        exact: *exact,
        packages: packages
            .iter()
            .map(|package| fill(package).unwrap_or_else(|| without_version(package).to_owned()))
            .collect(),
    }
}

/// The name in a requirement such as `numpy[extra]<2`, with its extras.
pub fn without_version(requirement: &str) -> &str {
    let end = requirement.find(|character: char| "<>=!~; @({".contains(character));
    &requirement[..end.unwrap_or(requirement.len())]
}

/// `310` as `3.10`; anything else as it is.
fn dotted(version: &str) -> String {
    let digits = version.bytes().all(|byte| byte.is_ascii_digit());
    if digits && version.len() > 1 {
        format!("{}.{}", &version[..1], &version[1..])
    } else {
        version.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        parse(text, Path::new("my.toml")).unwrap_err().to_string()
    }

    #[test]
    fn problems_name_file_line_and_entry() {
        let good = "[[image]]\nname = 'a'\npattern = 'x'\n\n";
        let unknown = problem(&format!("{good}[[image]]\nname = 'b'\npattern = 'x'\npakages = []\n"));
        assert!(
            unknown.contains("my.toml") && unknown.contains("line 8") && unknown.contains("pakages"),
            "{unknown}"
        );
        let expression = problem(&format!("{good}[[image]]\nname = 'b'\npattern = '('\n"));
        assert!(expression.contains("line 5, image \"b\": the pattern is not"), "{expression}");
        let capture = problem("[[image]]\nname = 'b'\npattern = 'x'\npackages = ['numpy=={version}']\n");
        assert!(capture.contains("the pattern has no (?P<version>...)"), "{capture}");
        let both = problem("[[image]]\nname = 'b'\npattern = 'x'\nconda = 'c'\nexact = true\n");
        assert!(both.contains("do not go with interpreter or conda"), "{both}");
        let option = problem("[[image]]\nname = 'b'\npattern = 'x'\npackages = ['--pre']\n");
        assert!(option.contains("is not a requirement"), "{option}");
        let mixed = problem("[[image]]\nname = 'b'\npattern = 'x'\nexecutor = 'oci'\npackages = ['numpy']\n");
        assert!(mixed.contains("packages does not go with executor"), "{mixed}");
        let stray = problem("[[image]]\nname = 'b'\npattern = 'x'\npull = 'never'\n");
        assert!(stray.contains("pull needs executor = \"oci\""), "{stray}");
        let framework = problem("[[image]]\nname = 'b'\npattern = 'x'\nframework = 'caffe'\n");
        assert!(framework.contains("line 4") && framework.contains("scikit-learn"), "{framework}");
    }

    #[test]
    fn requirements_lose_their_versions() {
        assert_eq!(without_version("numpy<2"), "numpy");
        assert_eq!(without_version("torch[extra]=={version}.*"), "torch[extra]");
        assert_eq!(without_version("a; python_version < '3'"), "a");
    }
}
