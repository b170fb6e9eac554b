//! What an environment is made from, and the key that follows from it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Changed whenever environments are built in another way.
const FORMAT: &[u8] = b"environment 2";

/// `requirements.txt` of a job.
#[derive(Clone, Debug)]
pub struct Requirements {
    /// Its text.
    pub text: String,
    /// The folder it lies in, for requirements that are local paths.
    pub directory: Option<PathBuf>,
}

/// The environment of an image.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Version of Python; `None` takes any.
    pub python: Option<String>,
    /// Whether all versions must be those asked for.
    pub exact: bool,
    /// Requirements, as pip writes them.
    pub packages: Vec<String>,
}

impl Recipe {
    /// Key of the environment: the same content, the same key.
    pub fn content_key(&self) -> String {
        let mut packages = self.packages.clone();
        packages.sort();
        let mut key = Key::new();
        key.part(self.python.as_deref().unwrap_or_default().as_bytes());
        key.part(&[u8::from(self.exact)]);
        packages.iter().for_each(|package| key.part(package.as_bytes()));
        key.finish()
    }
}

impl Requirements {
    /// Key of the layer with these requirements over the environment with the key `below`. Reads the whole folder when a
    /// requirement may be in it.
    pub fn content_key(&self, below: &str) -> String {
        let mut key = Key::new();
        key.part(below.as_bytes());
        key.part(self.text.as_bytes());
        if let Some(directory) = self.source() {
            for (name, content) in files_below(directory) {
                key.part(name.as_bytes());
                key.part(&content);
            }
        }
        key.finish()
    }

    /// The folder, when a line installs from, or reads, a file beside it.
    pub fn source(&self) -> Option<&Path> {
        let is_local = |line: &str| {
            line.starts_with(['.', '/', '-'])
                || line.ends_with(".whl")
                || line.ends_with(".tar.gz")
                || line.contains("file:")
                || line
                    .split([' ', ';', '#'])
                    .next()
                    .is_some_and(|word| word.contains('/') && !word.contains(':'))
        };
        self.directory.as_deref().filter(|_| self.text.lines().map(str::trim).any(is_local))
    }
}

struct Key(Sha256);

impl Key {
    fn new() -> Key {
        let mut key = Key(Sha256::new());
        key.part(FORMAT);
        key
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> String {
        hex::encode(&self.0.finalize()[..16])
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
                    let content = std::fs::read(&path).map(|bytes| Sha256::digest(&bytes).to_vec());
                    found.push((name, content.unwrap_or_default()));
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(packages: &[&str]) -> Recipe {
        let packages = packages.iter().map(|one| (*one).to_owned()).collect();
        Recipe { python: Some("3.10".into()), exact: false, packages }
    }

    #[test]
    fn the_key_depends_on_content_and_not_on_order() {
        let key = recipe(&["a", "b"]).content_key();
        assert_eq!(key, recipe(&["b", "a"]).content_key());
        assert_ne!(key, recipe(&["ab"]).content_key());
        assert_ne!(key, Recipe { exact: true, ..recipe(&["a", "b"]) }.content_key());
    }

    #[test]
    fn the_folder_counts_only_when_requirements_are_in_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.py"), "one").unwrap();
        let requirements =
            |text: &str| Requirements { text: text.into(), directory: Some(folder.path().to_owned()) };
        let (plain, local) = (requirements("six==1.16\n"), requirements("./package\n"));
        let before = (plain.content_key("x"), local.content_key("x"));
        std::fs::write(folder.path().join("train.py"), "two").unwrap();
        assert_eq!(plain.content_key("x"), before.0);
        assert_ne!(local.content_key("x"), before.1);
        assert_ne!(plain.content_key("y"), before.0);
        for text in ["-r other.txt", "a @ file:///x", "packages/a.whl", "sub/package"] {
            assert!(requirements(text).source().is_some(), "{text}");
        }
        assert!(requirements("a @ https://host/a.zip").source().is_none());
    }
}
