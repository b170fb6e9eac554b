//! Real container images: the same workloads, run by Podman or Docker instead of the sandbox.
//!
//! The engine is spoken to through its command line, in the part that both programs share. Each container has a
//! [`warden`]: a process between supervisor and engine that stands where the sandbox's first process stands otherwise.

mod arguments;
mod door;
mod engine;
mod files;
mod image;
mod locks;
mod probe;
mod removal;
mod session;
mod state;
mod warden;

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

pub use door::{Door, SOCKETS_AT_ONCE, SUBCOMMAND as DOOR_SUBCOMMAND, WayOut, open_door};
pub use engine::{Engine, EngineError, EngineKind};
pub use image::{ImageDetails, ImageError, PullPolicy};
pub use probe::{EngineReport, EngineState, probe};
pub(crate) use removal::{contained, finish, strays};
pub use session::session;
pub use warden::{SUBCOMMAND, run_container};

use crate::limits::{self, EffectiveLimits};
use crate::locks::unmet;
use crate::sandbox::{JobPid, Launch};
use crate::workload::{Confinement, WorkloadSpec};

/// Label of every container: the directory of workloads that it belongs to.
const ROOT_LABEL: &str = "modelyard.workloads";
/// Label of every container: its workload's id.
const WORKLOAD_LABEL: &str = "modelyard.workload";

/// A workload's container, as the engine is asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The engine that runs it.
    pub engine: Engine,
    /// Image id, or a reference that the engine has already: nothing is pulled at the start.
    pub image: String,
    /// Replaces the image's own entry point; the workload's command follows as its arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Whether the image names a user: the writable mounts are then opened for every user before the start.
    pub has_own_user: bool,
    /// What it may use of the machine.
    pub limits: Limits,
    /// A network of the engine that it joins in place of having nothing but loopback ([`crate::Network::None`]).
    #[serde(default)]
    pub network: Option<String>,
    /// The server's way into its own network; never with that of the host.
    #[serde(default)]
    pub door: Option<Door>,
}

/// What a container may use of the machine; `None` sets no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, in bytes; the kernel ends what uses more.
    pub memory_bytes: Option<u64>,
    /// CPU time, in thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// NVIDIA GPUs that it sees.
    pub gpus: Option<Gpus>,
}

/// GPUs given to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gpus {
    /// All of the machine.
    All,
    /// These, by index.
    Indexes(Vec<u32>),
}

/// The container of a workload that has one.
pub(crate) fn container_of(spec: &WorkloadSpec) -> Option<&Container> {
    match &spec.confinement {
        Confinement::Container(container) => Some(container),
        Confinement::Bubblewrap | Confinement::None => None,
    }
}

/// The limits of a workload together with those of its image.
pub(crate) fn limits(spec: &WorkloadSpec) -> limits::Limits {
    let Some(container) = container_of(spec) else { return spec.limits.clone() };
    let smaller = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
    let cpus = container.limits.cpu_millis.and_then(|millis| u32::try_from(millis.div_ceil(1000)).ok());
    limits::Limits {
        memory_bytes: smaller(spec.limits.memory_bytes, container.limits.memory_bytes),
        cpus: spec.limits.cpus.into_iter().chain(cpus).min(),
        processes: smaller(spec.limits.processes, container.limits.pids),
        ..spec.limits.clone()
    }
}

/// The name of a workload's container.
fn container_name(workload_id: &str) -> String {
    format!("modelyard-{workload_id}")
}

/// Readies the host for a container and builds the command of its warden. The error is a sentence for the user.
pub(crate) fn prepare(
    spec: &WorkloadSpec,
    container: &Container,
    workload_directory: &Path,
    limits: &EffectiveLimits,
    own_program: &Path,
) -> Result<Launch, String> {
    arguments::check(spec, container, workload_directory)?;
    let locks = locks::of(spec, container, limits);
    if let Some(text) = unmet(&spec.required_locks, &locks) {
        return Err(text);
    }
    if container.has_own_user {
        files::open_for_all(&spec.mounts)?;
    }
    arguments::write(spec, container, workload_directory, limits)?;
    let mut command = Command::new(own_program);
    command.env_clear().envs(failpoint::environment()).arg(SUBCOMMAND).arg(workload_directory);
    Ok(Launch { command, inherited: Vec::new(), job_pid: JobPid::Told(locks), feeders: Vec::new() })
}
