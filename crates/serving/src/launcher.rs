//! How the data plane asks its surroundings to start and stop the processes of a model.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use crate::engine::NativeModel;
use crate::models::{FetchError, FetchedModel};

/// A boxed future, so that [`Launcher`] can be used as a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One replica: a model host process with its workers behind one Unix socket.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSpec {
    /// Unique name of this attempt to run the replica, `[A-Za-z0-9-]{1,128}`. It is never reused.
    pub id: String,
    /// The key of the endpoint this replica serves.
    pub endpoint: String,
    /// The production variant this replica serves.
    pub variant: String,
    /// Position within the variant, from 0.
    pub index: u32,
    /// Which of several containers it is, from 0, where the variant's replicas have several.
    pub part: Option<u32>,
    /// Where, on the host, the model host must listen. The directory above it exists, is empty and belongs to this
    /// replica alone, so that it can be mounted into its sandbox.
    pub socket: PathBuf,
    /// How many worker processes the model host must run; each serves one connection. A container runs as many as it likes.
    pub workers: u32,
    /// The time limit of one invocation; the model host ends workers that overrun it.
    pub model_timeout_seconds: f64,
    /// Whether it stands by: it imports what is named in the file `imports` beside its socket, and loads its model when somebody
    /// connects. Only where [`Launcher::can_stand_by`] said so of a replica like it.
    pub standby: bool,
    /// What the launcher needs to know, passed on from the plan untouched.
    pub launch: serde_json::Value,
}

/// How a replica is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// In frames over its socket, as with a model host: `python/model_host/PROTOCOL.md`.
    Frames,
    /// Over HTTP, as with a container: its socket hands out TCP sockets of its network, from which `127.0.0.1` is the container.
    Http {
        /// Where it answers.
        port: u16,
    },
    /// Not at all: this process answers for it, with what [`Launcher::native_model`] gives.
    Native,
}

/// Why a replica could not be launched; the text is shown to the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LaunchError(pub String);

/// How a replica's process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitText {
    /// One sentence: exit code, signal or the like.
    pub summary: String,
    /// The last lines it logged, oldest first.
    pub log_tail: Vec<String>,
}

/// Starts and stops replicas. Replicas outlive the data plane: one that is still running is taken up again.
pub trait Launcher: Send + Sync {
    /// Starts the replica; it is done when the process is started, not when it is ready.
    fn launch<'a>(&'a self, replica: &'a ReplicaSpec) -> BoxFuture<'a, Result<(), LaunchError>>;
    /// How a replica is spoken to that was launched, by whichever server.
    fn protocol(&self, id: &str) -> Protocol {
        let _ = id;
        Protocol::Frames
    }
    /// The model of a launched replica whose protocol is [`Protocol::Native`].
    fn native_model(&self, id: &str) -> Option<Arc<NativeModel>> {
        let _ = id;
        None
    }
    /// Brings one of a replica's many models to where the replica can load it.
    fn fetch_model<'a>(
        &'a self,
        replica: &'a ReplicaSpec,
        model: &'a str,
    ) -> BoxFuture<'a, Result<FetchedModel, FetchError>> {
        let _ = replica;
        Box::pin(async move { Err(FetchError::Missing(format!("There is no model {model}."))) })
    }
    /// What tells the model of this name now from another one, as [`FetchedModel::version`] does.
    fn model_version<'a>(
        &'a self,
        replica: &'a ReplicaSpec,
        model: &'a str,
    ) -> BoxFuture<'a, Result<String, FetchError>> {
        let _ = replica;
        Box::pin(async move { Err(FetchError::Missing(format!("There is no model {model}."))) })
    }
    /// Whether another process like this replica, which answers, could stand by: it is a model host, and leaves the names of the modules
    /// that it has imported in the file `modules` beside its socket.
    fn can_stand_by(&self, id: &str) -> bool {
        let _ = id;
        false
    }
    /// How many of the replica's processes the kernel has ended because they used up the memory that they may use.
    fn out_of_memory_kills(&self, id: &str) -> u64 {
        let _ = id;
        0
    }
    /// Waits for the end of the replica's process. Also answers, at once, for one that has ended, and for one that
    /// was launched before a restart of the server.
    fn exited<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ExitText>;
    /// Ends the replica (politely, then by force) and returns when it is gone. Unknown ids are no error.
    fn stop<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()>;
    /// The ids of all replicas that are running now, whoever launched them.
    fn running(&self) -> Vec<String>;
}
