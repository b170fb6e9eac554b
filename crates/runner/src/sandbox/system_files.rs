//! The few files of `/etc` that are written for each job.

use super::{Identity, SANDBOX_HOME};
use crate::workload::{Network, WorkloadSpec};

/// A file to be made inside the sandbox.
pub(super) struct SystemFile {
    /// Where the job sees it.
    pub path: &'static str,
    /// All of its text.
    pub content: String,
}

/// The files that name the job's user and its hosts.
pub(super) fn generated(spec: &WorkloadSpec, identity: Identity) -> Vec<SystemFile> {
    let (uid, gid) = identity.ids();
    let mut files = vec![
        SystemFile { path: "/etc/passwd", content: passwd(uid, gid) },
        SystemFile { path: "/etc/group", content: group(gid) },
        SystemFile { path: "/etc/hostname", content: format!("{}\n", spec.hostname) },
        SystemFile { path: "/etc/hosts", content: hosts(spec, host_file("/etc/hosts").as_deref()) },
    ];
    if spec.network == Network::Host
        && let Some(content) = host_file("/etc/resolv.conf")
    {
        files.push(SystemFile { path: "/etc/resolv.conf", content });
    }
    files
}

/// Copied, not mounted: programs that manage the original replace it, and a mount would keep showing the old
/// one.
fn host_file(path: &str) -> Option<String> {
    std::fs::read(path).ok().map(|content| String::from_utf8_lossy(&content).into_owned())
}

fn passwd(uid: u32, gid: u32) -> String {
    let mut text = format!("job:x:{uid}:{gid}:job:{SANDBOX_HOME}:/bin/sh\n");
    if uid != 0 {
        text.insert_str(0, "root:x:0:0:root:/root:/bin/sh\n");
    }
    if uid != 65534 {
        text.push_str("nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
    }
    text
}

fn group(gid: u32) -> String {
    let mut text = format!("job:x:{gid}:\n");
    if gid != 0 {
        text.insert_str(0, "root:x:0:\n");
    }
    if gid != 65534 {
        text.push_str("nogroup:x:65534:\n");
    }
    text
}

fn hosts(spec: &WorkloadSpec, of_host: Option<&str>) -> String {
    let own_name = if spec.hosts.contains_key(&spec.hostname) { "" } else { spec.hostname.as_str() };
    let mut text = format!("127.0.0.1 localhost {own_name}").trim_end().to_owned();
    text.push_str("\n::1 localhost ip6-localhost\n");
    for (name, address) in &spec.hosts {
        text.push_str(&format!("{address} {name}\n"));
    }
    // With the host's network come the names that the host gives to it.
    if spec.network == Network::Host {
        text.push_str(of_host.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_one_line() {
        for uid in [0, 1000, 64_000, 65_534] {
            let text = passwd(uid, uid);
            let ids: Vec<&str> = text.lines().map(|line| line.split(':').nth(2).unwrap()).collect();
            assert_eq!(ids.iter().filter(|id| **id == uid.to_string()).count(), 1, "{text}");
        }
    }
}
