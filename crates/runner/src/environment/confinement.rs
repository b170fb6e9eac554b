//! The sandbox in which a job's requirements are installed: `setup.py` files and build scripts are code of the job's author.

use std::path::{Path, PathBuf};

use super::process::{Variables, output_of};

/// User and group inside; outside they are the server's own.
const USER_ID: &str = "64000";

/// Home folder inside.
const HOME: &str = "/tmp/home";

/// What installers and compilers need of the system, where it exists.
const SYSTEM: [&str; 20] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/pip.conf",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/resolv.conf",
    "/etc/ssl/certs",
];

/// bubblewrap, known to work.
#[derive(Clone, Debug)]
pub struct Confinement {
    bubblewrap: PathBuf,
}

/// What a confined program sees besides the system.
pub struct View<'a> {
    /// Host paths at their own places, read-only.
    pub read_only: &'a [PathBuf],
    /// Host folders and where they are seen, writable.
    pub writable: &'a [(&'a Path, &'a Path)],
}

impl Confinement {
    /// Tries whether bubblewrap can make such a sandbox here.
    pub async fn probe(bubblewrap: &Path) -> Option<Confinement> {
        let confinement = Confinement { bubblewrap: bubblewrap.to_owned() };
        let command = confinement.wrap(
            vec!["true".to_owned()],
            &View { read_only: &[], writable: &[] },
            &Variables::new(),
        );
        let words: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        output_of(bubblewrap, &words, &Variables::new()).await.is_ok().then_some(confinement)
    }

    /// The command that runs `command` confined.
    pub fn wrap(&self, command: Vec<String>, view: &View<'_>, settings: &Variables) -> Vec<String> {
        let mut words = vec![self.bubblewrap.display().to_string()];
        let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
        add(&["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]);
        add(&["--uid", USER_ID, "--gid", USER_ID, "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
        for path in SYSTEM {
            match std::fs::read_link(path) {
                Ok(link) if !path.starts_with("/etc") => {
                    add(&["--symlink", &link.display().to_string(), path])
                }
                _ => add(&["--ro-bind-try", path, path]),
            }
        }
        add(&[
            "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", HOME, "--setenv", "HOME", HOME,
        ]);
        if let Some(home) = settings.get("HOME") {
            for folder in [".config/pip", ".pip"] {
                add(&["--ro-bind-try", &format!("{home}/{folder}"), &format!("{HOME}/{folder}")]);
            }
        }
        for path in view.read_only {
            let path = path.display().to_string();
            add(&["--ro-bind", &path, &path]);
        }
        for (source, target) in view.writable {
            add(&["--bind", &source.display().to_string(), &target.display().to_string()]);
        }
        add(&["--remount-ro", "/", "--"]);
        words.extend(command);
        words
    }
}
