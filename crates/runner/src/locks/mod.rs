//! The locks that keep a job in: their names, and which of them hold for a workload.

pub(crate) mod landlock;
pub(crate) mod namespaces;
pub(crate) mod seccomp;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of the locks that keep a job in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// The job runs as another user than the server.
    JobUser,
    /// The job's user ids mean nothing outside of its own namespace.
    UserNamespace,
    /// The job has its own view of the file system.
    MountNamespace,
    /// The job sees no process but its own.
    PidNamespace,
    /// The job has its own shared memory segments, semaphores and message queues.
    IpcNamespace,
    /// The job has its own host name.
    UtsNamespace,
    /// The job sees its own place as the root of the control groups.
    CgroupNamespace,
    /// The job has a network of its own, with nothing but loopback.
    NetworkNamespace,
    /// No privilege of the system is kept, and none is in reach.
    NoCapabilities,
    /// No program that the job runs can gain privileges.
    NoNewPrivileges,
    /// System calls that no training program needs are refused.
    Seccomp,
    /// File access, abstract sockets and signals are limited a second time, by the kernel's Landlock.
    Landlock,
    /// The kernel limits the memory of all processes of the job together.
    CgroupMemory,
    /// The kernel limits the CPU time of all processes of the job together.
    CgroupCpu,
    /// The kernel limits the number of processes and threads of the job.
    CgroupProcesses,
}

impl Lock {
    /// All locks, in the order in which reports list them.
    pub const ALL: [Lock; 15] = [
        Lock::JobUser,
        Lock::UserNamespace,
        Lock::MountNamespace,
        Lock::PidNamespace,
        Lock::IpcNamespace,
        Lock::UtsNamespace,
        Lock::CgroupNamespace,
        Lock::NetworkNamespace,
        Lock::NoCapabilities,
        Lock::NoNewPrivileges,
        Lock::Seccomp,
        Lock::Landlock,
        Lock::CgroupMemory,
        Lock::CgroupCpu,
        Lock::CgroupProcesses,
    ];

    /// Its name in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Lock::JobUser => "job_user",
            Lock::UserNamespace => "user_namespace",
            Lock::MountNamespace => "mount_namespace",
            Lock::PidNamespace => "pid_namespace",
            Lock::IpcNamespace => "ipc_namespace",
            Lock::UtsNamespace => "uts_namespace",
            Lock::CgroupNamespace => "cgroup_namespace",
            Lock::NetworkNamespace => "network_namespace",
            Lock::NoCapabilities => "no_capabilities",
            Lock::NoNewPrivileges => "no_new_privileges",
            Lock::Seccomp => "seccomp",
            Lock::Landlock => "landlock",
            Lock::CgroupMemory => "cgroup_memory",
            Lock::CgroupCpu => "cgroup_cpu",
            Lock::CgroupProcesses => "cgroup_processes",
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Lock {
    type Err = String;

    fn from_str(name: &str) -> Result<Lock, String> {
        Lock::ALL.into_iter().find(|lock| lock.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Lock::ALL.into_iter().map(Lock::name).collect();
            format!("there is no lock {name:?}; the locks are {}", names.join(", "))
        })
    }
}

/// Whether a lock holds for a workload, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockReport {
    /// The lock.
    pub lock: Lock,
    /// Whether it holds.
    pub held: bool,
    /// What it does here, or why it does not hold; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl LockReport {
    /// A lock that holds.
    pub fn held(lock: Lock, detail: impl Into<String>) -> LockReport {
        LockReport { lock, held: true, detail: detail.into() }
    }

    /// A lock that does not hold.
    pub fn missing(lock: Lock, why: impl Into<String>) -> LockReport {
        LockReport { lock, held: false, detail: why.into() }
    }
}

/// Why the job must not run: the required locks that do not hold, in a sentence; `None` when all do.
pub fn unmet(required: &[Lock], reports: &[LockReport]) -> Option<String> {
    let missing: Vec<String> = required
        .iter()
        .filter_map(|lock| match reports.iter().find(|report| report.lock == *lock) {
            Some(report) if report.held => None,
            Some(report) if !report.detail.is_empty() => Some(format!("{lock} ({})", report.detail)),
            _ => Some(lock.to_string()),
        })
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "The settings require locks that do not hold for this workload: {}. `modelyard doctor` shows what holds on \
             this machine; required_locks in the settings says what must.",
            missing.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_stored_form() {
        for lock in Lock::ALL {
            assert_eq!(serde_json::to_value(lock).unwrap(), lock.name());
            assert_eq!(lock.name().parse::<Lock>().unwrap(), lock);
        }
        assert!("secomp".parse::<Lock>().unwrap_err().contains("seccomp"));
    }

    #[test]
    fn only_required_locks_that_do_not_hold_are_named() {
        let reports = [
            LockReport::held(Lock::Seccomp, ""),
            LockReport::missing(Lock::Landlock, "the kernel has none"),
            LockReport::missing(Lock::CgroupCpu, ""),
        ];
        assert_eq!(unmet(&[Lock::Seccomp], &reports), None);
        let text = unmet(&[Lock::Seccomp, Lock::Landlock, Lock::JobUser], &reports).unwrap();
        assert!(text.contains("landlock (the kernel has none); job_user."), "{text}");
        assert!(!text.contains("seccomp") && !text.contains("cgroup_cpu"), "{text}");
    }
}
