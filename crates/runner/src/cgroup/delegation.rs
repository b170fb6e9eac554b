//! Makes room below the server's own control group, as version 2 wants it: a group has processes or limited
//! groups below it, not both.

use std::fs;
use std::path::Path;

use super::hierarchy::Hierarchies;

/// The group into which the server moves, so that jobs get theirs beside it.
pub const SERVER_LEAF: &str = "modelyard-server";

/// Controllers that jobs need.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "io"];

/// Moves this process into a group of its own below its present one and turns the controllers on, where the present
/// group is ours to divide: in version 1 nothing has to be done. Called once, by a server that starts.
///
/// # Errors
/// Why jobs will have no control groups; a text for the log.
pub fn prepare_delegation() -> Result<(), String> {
    let found = Hierarchies::of_this_process().map_err(|error| error.to_string())?;
    match found.unified_group() {
        Some(group) if found.is_unified() && !group.ends_with(SERVER_LEAF) => {
            divide(group, std::process::id())
        }
        _ => Ok(()),
    }
}

fn divide(group: &Path, own_pid: u32) -> Result<(), String> {
    let during = |what: &str, error: std::io::Error| format!("{}: {what}: {error}", group.display());
    let listed = fs::read_to_string(group.join("cgroup.controllers"))
        .map_err(|error| during("the controllers cannot be read", error))?;
    let wanted: Vec<String> = CONTROLLERS
        .iter()
        .filter(|name| listed.split_ascii_whitespace().any(|one| one == **name))
        .map(|name| format!("+{name}"))
        .collect();
    if wanted.is_empty() {
        return Err(format!(
            "{} was given no controllers: start the server with systemd-run --user --scope -p Delegate=yes, or as a \
             service with Delegate=yes",
            group.display()
        ));
    }
    // The kernel's own root group may have both processes and limited groups; only there the file is missing.
    if group.join("cgroup.type").exists() {
        let members = fs::read_to_string(group.join("cgroup.procs"))
            .map_err(|error| during("the processes cannot be read", error))?;
        if members.lines().any(|pid| pid != own_pid.to_string()) {
            return Err(format!(
                "{} holds other processes than the server, so that it is not ours to divide: start the server with \
                 systemd-run --user --scope -p Delegate=yes, or as a service with Delegate=yes",
                group.display()
            ));
        }
        let leaf = group.join(SERVER_LEAF);
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(during("no group can be made in it", error));
            }
            _ => {}
        }
        fs::write(leaf.join("cgroup.procs"), own_pid.to_string())
            .map_err(|error| during("the server cannot move into a group of its own", error))?;
    }
    fs::write(group.join("cgroup.subtree_control"), wanted.join(" "))
        .map_err(|error| during("the controllers cannot be turned on", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(members: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory hugetlb pids").unwrap();
        fs::write(root.path().join("cgroup.type"), "domain").unwrap();
        fs::write(root.path().join("cgroup.procs"), members).unwrap();
        root
    }

    #[test]
    fn a_server_alone_in_its_group_divides_it() {
        let root = group("42\n");
        divide(root.path(), 42).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(read("modelyard-server/cgroup.procs"), "42");
        assert_eq!(read("cgroup.subtree_control"), "+memory +cpu +pids +io");
    }

    #[test]
    fn a_group_with_other_processes_is_left_alone() {
        let root = group("1\n42\n");
        assert!(divide(root.path(), 42).unwrap_err().contains("Delegate=yes"));
        assert!(!root.path().join(SERVER_LEAF).exists());
    }
}
