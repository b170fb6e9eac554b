//! Finds out whether this host can make a sandbox, and what would mend it.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::Identity;
use super::arguments::Arguments;
use crate::executor::ExecutorSettings;
use crate::workload::Network;

/// What became of trying to make a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxReport {
    /// Whether jobs can be confined here.
    pub state: SandboxState,
    /// What bubblewrap says its version is.
    pub bubblewrap_version: Option<String>,
    /// One sentence: what works, or what was tried and what came back.
    pub detail: String,
    /// The command or setting that mends it, when one is known.
    pub remedy: Option<String>,
}

/// Whether jobs can be confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// A sandbox was made, with and without a network of its own.
    Works,
    /// bubblewrap is not there.
    Missing,
    /// bubblewrap is there and this host does not let it work.
    Broken,
}

const INSTALL: &str = "Install bubblewrap: apt-get install bubblewrap (Debian, Ubuntu), \
     dnf install bubblewrap (Fedora), apk add bubblewrap \
     (Alpine).";

/// Size of the memory-backed places in a tried sandbox, which stay empty.
const PROBE_MEMORY_BYTES: u64 = 1024 * 1024;

/// Makes a sandbox as jobs get it, runs `true` in it and reports. Takes some 20 ms; blocks.
pub fn probe(settings: &ExecutorSettings) -> SandboxReport {
    let version = match run(&settings.bubblewrap, &["--version".into()]) {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(output) => return broken(None, &complaint(&output)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return SandboxReport {
                state: SandboxState::Missing,
                bubblewrap_version: None,
                detail: format!("{} does not exist.", settings.bubblewrap.display()),
                remedy: Some(INSTALL.to_owned()),
            };
        }
        Err(error) => return broken(None, &error.to_string()),
    };
    for network in [Network::Host, Network::None] {
        let mut arguments = Arguments::new();
        arguments.namespaces(Identity::of(settings), &network);
        arguments.system();
        arguments.private_directories(PROBE_MEMORY_BYTES);
        let mut list = arguments.into_list();
        list.extend(["--".into(), "true".into()]);
        match run(&settings.bubblewrap, &list) {
            Ok(output) if output.status.success() => {}
            Ok(output) => return broken(Some(version), &complaint(&output)),
            Err(error) => return broken(Some(version), &error.to_string()),
        }
    }
    SandboxReport {
        state: SandboxState::Works,
        detail: format!("{version} makes sandboxes here."),
        bubblewrap_version: Some(version),
        remedy: None,
    }
}

fn run(program: &Path, arguments: &[std::ffi::OsString]) -> io::Result<Output> {
    Command::new(program).args(arguments).env_clear().stdin(Stdio::null()).output()
}

fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.is_empty() { output.status.to_string() } else { text }
}

fn broken(bubblewrap_version: Option<String>, complaint: &str) -> SandboxReport {
    let setting = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    SandboxReport {
        state: SandboxState::Broken,
        bubblewrap_version,
        detail: format!("bubblewrap could not make a sandbox: {complaint}"),
        remedy: remedy(rustix::process::geteuid().is_root(), setting),
    }
}

/// The first of the known obstacles that is in force.
fn remedy(is_root: bool, setting: impl Fn(&str) -> Option<String>) -> Option<String> {
    if is_root {
        return Some(
            "Inside a container, start it with the right to make namespaces (--privileged, or --cap-add SYS_ADMIN with \
             --security-opt seccomp=unconfined), or run the server as an ordinary user."
                .to_owned(),
        );
    }
    let is = |path: &str, value: &str| setting(path).as_deref() == Some(value);
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some("Allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1".to_owned());
    }
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return Some("Allow user namespaces: sysctl -w user.max_user_namespaces=15000".to_owned());
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Some(
            "Allow bubblewrap to use user namespaces: give it an AppArmor profile with 'userns,', or \
             sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
                .to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_missing_program_is_told_from_a_broken_one() {
        let with =
            |path: &str| ExecutorSettings { bubblewrap: PathBuf::from(path), ..ExecutorSettings::default() };
        let missing = probe(&with("/nowhere/bwrap"));
        assert_eq!(missing.state, SandboxState::Missing);
        assert!(missing.remedy.unwrap().contains("apt-get install bubblewrap"));
        let broken = probe(&with("/bin/false"));
        assert_eq!(broken.state, SandboxState::Broken);
    }

    #[test]
    fn the_obstacle_in_force_is_named() {
        let only = |name: &'static str, value: &'static str| {
            move |path: &str| path.ends_with(name).then(|| value.to_owned())
        };
        let cases = [
            ("unprivileged_userns_clone", "0", "unprivileged_userns_clone=1"),
            ("max_user_namespaces", "0", "max_user_namespaces="),
            ("apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
        ];
        for (name, value, expected) in cases {
            assert!(remedy(false, only(name, value)).unwrap().contains(expected), "{name}");
        }
        assert_eq!(remedy(false, only("max_user_namespaces", "100")), None);
    }
}
