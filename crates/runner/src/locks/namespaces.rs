//! Which namespaces a job does not share with its supervisor.

use std::collections::BTreeMap;

use super::{Lock, LockReport};
use crate::workload::Network;

/// Names under `/proc/self/ns` and their locks.
const NAMESPACES: [(&str, Lock); 7] = [
    ("user", Lock::UserNamespace),
    ("mnt", Lock::MountNamespace),
    ("pid", Lock::PidNamespace),
    ("ipc", Lock::IpcNamespace),
    ("uts", Lock::UtsNamespace),
    ("cgroup", Lock::CgroupNamespace),
    ("net", Lock::NetworkNamespace),
];

/// The namespaces of this process: name under `/proc/self/ns`, and what the kernel calls the one it is in.
pub(crate) fn own() -> BTreeMap<String, String> {
    NAMESPACES
        .iter()
        .filter_map(|(name, _)| {
            let link = std::fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
            Some(((*name).to_owned(), link.to_string_lossy().into_owned()))
        })
        .collect()
}

/// A report for each namespace of a job that this process supervises.
pub(crate) fn of_job(network: &Network, job: &BTreeMap<String, String>) -> Vec<LockReport> {
    let mut reports = compare(&own(), job);
    if matches!(network, Network::Peers { .. }) {
        // This process has left the host's network itself.
        let shared = LockReport::held(Lock::NetworkNamespace, "shared by the hosts of the job");
        reports.retain(|report| report.lock != shared.lock);
        reports.push(shared);
    }
    reports
}

/// A report for each namespace: whether the job's is another one than the supervisor's.
fn compare(supervisor: &BTreeMap<String, String>, job: &BTreeMap<String, String>) -> Vec<LockReport> {
    NAMESPACES
        .iter()
        .map(|(name, lock)| match (supervisor.get(*name), job.get(*name)) {
            (Some(ours), Some(theirs)) if ours != theirs => LockReport::held(*lock, ""),
            (Some(_), Some(_)) => LockReport::missing(
                *lock,
                match lock {
                    Lock::NetworkNamespace => "the job uses the host's network",
                    Lock::UserNamespace => "the job runs as another user of the host instead",
                    _ => "the job shares it with the host",
                },
            ),
            _ => LockReport::missing(*lock, "the kernel does not tell"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_different_namespace_counts() {
        let ours = own();
        assert!(compare(&ours, &ours).iter().all(|report| !report.held));
        let mut theirs = ours.clone();
        theirs.insert("pid".to_owned(), "pid:[1]".to_owned());
        theirs.remove("net");
        let held: Vec<Lock> = compare(&ours, &theirs)
            .into_iter()
            .filter(|report| report.held)
            .map(|report| report.lock)
            .collect();
        assert_eq!(held, [Lock::PidNamespace]);
    }
}
