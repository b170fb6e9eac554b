//! The image catalogue: what an image URI means on this machine.

mod container;
mod entry;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use entry::Entry;
pub(crate) use entry::without_version;

use crate::oci::{Limits, PullPolicy};

/// The built-in entries, which also document the format.
pub const DEFAULT_IMAGES: &str = include_str!("default-images.toml");

/// Decides how models are served without an inference script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framework {
    /// scikit-learn.
    ScikitLearn,
    /// XGBoost.
    Xgboost,
    /// PyTorch.
    Pytorch,
    /// TensorFlow.
    Tensorflow,
    /// Hugging Face Transformers.
    Huggingface,
    /// Python and nothing else.
    #[default]
    Python,
}

impl Framework {
    /// Its name in the catalogue.
    pub fn as_str(self) -> &'static str {
        match self {
            Framework::ScikitLearn => "scikit-learn",
            Framework::Xgboost => "xgboost",
            Framework::Pytorch => "pytorch",
            Framework::Tensorflow => "tensorflow",
            Framework::Huggingface => "huggingface",
            Framework::Python => "python",
        }
    }
}

impl fmt::Display for Framework {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How a training job without an entry point of its own starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launcher {
    /// It runs the script that its hyperparameters name.
    #[default]
    Script,
    /// It does not: the request must bring an entry point.
    Entrypoint,
}

/// What an image means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageProfile {
    /// Name of the catalogue entry.
    pub name: String,
    /// Decides the defaults of serving.
    pub framework: Framework,
    /// How training jobs start.
    pub launcher: Launcher,
    /// Where its Python comes from.
    pub source: Source,
}

/// Where the Python of an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A virtual environment with these packages, built once.
    Packages {
        /// Python version such as `3.10`; `None` takes any.
        python: Option<String>,
        /// Whether another version than the one asked for is an error.
        exact: bool,
        /// Requirements, as `pip` writes them.
        packages: Vec<String>,
    },
    /// An interpreter of the user's, as it is.
    Interpreter(PathBuf),
    /// None of ours: the image is run as a real container.
    Container(ContainerImage),
}

/// An image that a container engine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerImage {
    /// What the engine calls it.
    pub reference: String,
    /// When it is pulled.
    pub pull: PullPolicy,
    /// What its containers may use of the machine.
    pub limits: Limits,
}

impl ImageProfile {
    /// The profile of an image that no entry matches and that is run as it is.
    pub fn of_container(image: &str) -> ImageProfile {
        let container = ContainerImage {
            reference: image.to_owned(),
            pull: PullPolicy::default(),
            limits: Limits::default(),
        };
        ImageProfile {
            name: image.to_owned(),
            framework: Framework::default(),
            launcher: Launcher::default(),
            source: Source::Container(container),
        }
    }
}

/// What is wrong with a catalogue, or with an image; a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CatalogueError(String);

/// All entries; earlier ones win.
#[derive(Clone, Debug)]
pub struct Catalogue {
    entries: Vec<Entry>,
}

impl Catalogue {
    /// The built-in entries under the user's overlays; of several overlays a later one wins, within one its first match.
    ///
    /// # Errors
    /// A text with file, line and what is wrong.
    pub fn load(overlays: &[PathBuf]) -> Result<Catalogue, CatalogueError> {
        let mut entries = Vec::new();
        for path in overlays.iter().rev() {
            let text = std::fs::read_to_string(path).map_err(|error| {
                CatalogueError(format!("the image catalogue {} cannot be read: {error}", path.display()))
            })?;
            entries.extend(entry::parse(&text, path)?);
        }
        entries.extend(entry::parse(DEFAULT_IMAGES, Path::new("default-images.toml"))?);
        Ok(Catalogue { entries })
    }

    /// The profile of an image.
    ///
    /// # Errors
    /// When no entry matches: a sentence that names the image and says how to add it.
    pub fn resolve(&self, image: &str) -> Result<ImageProfile, CatalogueError> {
        self.entries.iter().find_map(|entry| entry.profile(image)).ok_or_else(|| {
            CatalogueError(format!(
                "the image {image:?} is not in the image catalogue; add an [[image]] entry whose pattern matches it to a \
                 file, and start the server with --images FILE"
            ))
        })
    }

    /// Names and patterns of all entries, in the order in which they are tried.
    pub fn list(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(Entry::name_and_pattern)
    }
}
