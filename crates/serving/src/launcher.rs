//! How the data plane asks its surroundings to start and stop the processes of a model.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

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
    /// Where, on the host, the model host must listen. The directory above it exists, is empty and belongs to this
    /// replica alone, so that it can be mounted into its sandbox.
    pub socket: PathBuf,
    /// How many worker processes the model host must run; each serves one connection.
    pub workers: u32,
    /// The time limit of one invocation; the model host ends workers that overrun it.
    pub model_timeout_seconds: f64,
    /// What the launcher needs to know, passed on from the plan untouched.
    pub launch: serde_json::Value,
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
    /// Waits for the end of the replica's process. Also answers, at once, for one that has ended, and for one that
    /// was launched before a restart of the server.
    fn exited<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ExitText>;
    /// Ends the replica (politely, then by force) and returns when it is gone. Unknown ids are no error.
    fn stop<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()>;
    /// The ids of all replicas that are running now, whoever launched them.
    fn running(&self) -> Vec<String>;
}
