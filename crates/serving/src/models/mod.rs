//! Many models behind one replica: each is fetched and loaded when a request names it, and goes when others need its memory.

mod cache;
mod counts;
mod host;
mod loading;
mod room;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::NativeModel;

pub(crate) use self::cache::{ModelCache, ModelRest};
pub(crate) use self::counts::ModelCounters;
pub use self::counts::{LoadedModel, ModelMetrics};
pub(crate) use self::host::Host;
pub(crate) use self::workers::{Role, Workers};

/// A model that was brought to where its replica can load it.
#[derive(Debug)]
pub struct FetchedModel {
    /// What tells it from another one that may take its name.
    pub version: String,
    /// What there is to load.
    pub content: ModelContent,
}

/// What there is to load of a fetched model.
#[derive(Debug)]
pub enum ModelContent {
    /// This process answers for it.
    Native(Arc<NativeModel>),
    /// The replica's own processes load it from a folder.
    Folder {
        /// Its name among the models of the replica: text that may stand in a path.
        name: String,
        /// The folder as the replica's processes see it.
        inside: String,
        /// The folder, which is removed when the model is unloaded.
        folder: PathBuf,
    },
}

/// Why a model cannot be fetched. The texts are shown to callers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// There is none of that name, or the name is no name of a model.
    #[error("{0}")]
    Missing(String),
    /// It is there, and cannot be used.
    #[error("{0}")]
    Unusable(String),
}
