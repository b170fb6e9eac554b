//! The mark of a finished environment: written last and durably, read whenever the environment is used.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use failpoint::Point;
use serde::{Deserialize, Serialize};

/// File that stands in a finished environment.
pub(super) const NAME: &str = "modelyard-ready.json";

/// What is known about a finished environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Its interpreter.
    pub interpreter: Interpreter,
    /// How it differs from what was asked for: sentences for the logs of the jobs that use it.
    pub notes: Vec<String>,
    /// Host folders other than its own and its interpreter's that must be visible to it.
    pub needs: Vec<PathBuf>,
}

/// What an interpreter says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// For example `3.11`.
    pub version: String,
    /// `sys.prefix`.
    pub prefix: PathBuf,
    /// `sys.base_prefix`: the installation that it belongs to.
    pub base_prefix: PathBuf,
    /// The installation's program, without links.
    pub base_executable: PathBuf,
    /// Folders with its packages.
    pub site_packages: Vec<PathBuf>,
}

impl Marker {
    /// Marks `directory` as finished.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let partial = directory.join(format!("{NAME}.partial"));
        failpoint::at(Point::EnvironmentMark)?;
        std::fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        File::open(&partial)?.sync_all()?;
        failpoint::at(Point::EnvironmentMarked)?;
        std::fs::rename(&partial, directory.join(NAME))?;
        File::open(directory)?.sync_all()
    }

    /// The mark of `directory`; `None` when its build was not finished, or its Python is no longer there.
    pub fn read(directory: &Path) -> Option<Marker> {
        let text = std::fs::read(directory.join(NAME)).ok()?;
        let marker: Marker = serde_json::from_slice(&text).ok()?;
        let works = directory.join("bin/python").exists() && marker.needs.iter().all(|path| path.exists());
        works.then_some(marker)
    }

    /// Whether `directory` was finished once.
    pub fn is_in(directory: &Path) -> bool {
        directory.join(NAME).exists()
    }
}
