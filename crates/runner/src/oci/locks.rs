//! Which locks hold for a job in a container, going by what the engine is asked for.

use std::path::Path;

use super::{Container, EngineKind};
use crate::limits::{EffectiveLimits, readable_bytes};
use crate::locks::{Lock, LockReport};
use crate::workload::{Network, WorkloadSpec};

/// Every lock, and whether it holds. What only the engine's own settings decide does not count.
pub(super) fn of(spec: &WorkloadSpec, container: &Container, limits: &EffectiveLimits) -> Vec<LockReport> {
    let name = container.engine.kind.as_str();
    let server_is_root = rustix::process::geteuid().is_root();
    // Only version 2 of control groups can be handed to an ordinary user.
    let can_limit = server_is_root
        || container.engine.kind == EngineKind::Docker
        || Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let asked = || format!("made by {name}");
    let limited = |lock, detail: String| {
        if can_limit {
            LockReport::held(lock, detail)
        } else {
            LockReport::missing(lock, format!("{name} of an ordinary user cannot limit on this machine"))
        }
    };
    let of_lock = |lock: Lock| match lock {
        Lock::MountNamespace
        | Lock::PidNamespace
        | Lock::IpcNamespace
        | Lock::UtsNamespace
        | Lock::NoNewPrivileges => LockReport::held(lock, asked()),
        Lock::NetworkNamespace if spec.network != Network::Host => LockReport::held(lock, asked()),
        Lock::NetworkNamespace => LockReport::missing(lock, "the job may use the network"),
        Lock::UserNamespace if !server_is_root && container.engine.kind == EngineKind::Podman => {
            LockReport::held(lock, asked())
        }
        Lock::UserNamespace => LockReport::missing(lock, format!("{name} runs with root's rights")),
        Lock::JobUser => LockReport::missing(lock, "a container has the users of its image"),
        Lock::CgroupNamespace => LockReport::missing(lock, format!("left to {name}")),
        Lock::NoCapabilities => LockReport::missing(lock, format!("{name} leaves some of them to root")),
        Lock::Seccomp => LockReport::missing(lock, format!("left to {name}, which has a filter of its own")),
        Lock::Landlock => LockReport::missing(lock, "not for containers"),
        Lock::CgroupMemory => limited(lock, readable_bytes(limits.memory_bytes)),
        Lock::CgroupCpu => {
            let detail = limits.cpus.map_or_else(|| "all CPUs".to_owned(), |cpus| format!("{cpus} CPUs"));
            limited(lock, detail)
        }
        Lock::CgroupProcesses => limited(lock, format!("{} processes and threads", limits.processes)),
    };
    Lock::ALL.map(of_lock).to_vec()
}
