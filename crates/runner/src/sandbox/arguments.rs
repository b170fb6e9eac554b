//! Describes a sandbox in bubblewrap's own arguments.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Identity;
use crate::workload::{Access, Mount, Network, WorkloadSpec};

/// Top-level directories of the system besides `/usr`: links into it, or directories, depending on the
/// distribution.
const SYSTEM_DIRECTORIES: [&str; 7] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"];

/// Configuration that programs need and that holds no secrets: folders, each a mount.
const CONFIGURATION_FOLDERS: [&str; 10] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/java-11-openjdk",
    "/etc/java-17-openjdk",
    "/etc/java-21-openjdk",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
];

/// The same: single files, which are copied, since that takes a fraction of a mount's time.
const CONFIGURATION_FILES: [&str; 9] = [
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/openssl.cnf",
];

/// Size of the memory-backed places for small files.
const SMALL_PLACE_BYTES: u64 = 64 * 1024 * 1024;
/// Largest size that bubblewrap takes with certainty: a pebibyte limits nothing.
const LARGEST_SIZE: u64 = 1 << 50;

/// What numeric libraries read to find out about the processor.
const HARDWARE: [&str; 2] = ["/sys/devices/system/cpu", "/sys/devices/system/node"];

/// Arguments in the making; the order matters, since later mounts cover earlier ones.
pub(super) struct Arguments {
    list: Vec<OsString>,
}

impl Arguments {
    pub fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// The namespaces and the privileges of the first process.
    pub fn namespaces(&mut self, identity: Identity, network: &Network) {
        self.add(&["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]);
        self.add(&["--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]);
        match identity {
            // Enough to become the job's user, which the first process does before anything else.
            Identity::Other { .. } => self.add(&["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]),
            Identity::Own { .. } => self.add(&["--unshare-user"]),
        }
        // The network of peers is the supervisor's, which is inherited.
        if *network == Network::None {
            self.add(&["--unshare-net"]);
        }
    }

    /// The read-only system: programs, libraries and folders of harmless configuration.
    pub fn system(&mut self) {
        self.add(&["--ro-bind", "/usr", "/usr"]);
        for directory in SYSTEM_DIRECTORIES {
            match std::fs::read_link(directory) {
                Ok(link) => self.add(&[OsStr::new("--symlink"), link.as_os_str(), OsStr::new(directory)]),
                Err(_) => self.add(&["--ro-bind-try", directory, directory]),
            }
        }
        self.open_directory(Path::new("/etc"));
        self.open_directory(Path::new("/etc/ssl"));
        for path in CONFIGURATION_FOLDERS.into_iter().filter(|path| Path::new(path).is_dir()) {
            self.add(&["--ro-bind", path, path]);
        }
    }

    /// Single files of configuration; the handles must be inherited.
    pub fn configuration_files(&mut self) -> Vec<OwnedFd> {
        let mut handles = Vec::new();
        for path in CONFIGURATION_FILES {
            // What is not there, or is not for everyone to read, the job does without.
            if let Ok(file) = std::fs::File::open(path)
                && file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o4 != 0)
            {
                let handle = OwnedFd::from(file);
                self.file(&handle, path);
                handles.push(handle);
            }
        }
        handles
    }

    /// A file with the content behind a handle; the place it lies in is made read-only at the end.
    pub fn file(&mut self, content: &OwnedFd, path: &str) {
        self.add(&["--perms", "0444", "--file", &content.as_raw_fd().to_string(), path]);
    }

    /// The directories that are the job's alone, in memory, and the kernel's windows.
    pub fn private_directories(&mut self, memory_bytes: u64) {
        self.add(&["--proc", "/proc", "--dev", "/dev"]);
        self.in_memory("/dev/shm", memory_bytes);
        for path in ["/sys", "/sys/devices", "/sys/devices/system"] {
            self.open_directory(Path::new(path));
        }
        for path in HARDWARE {
            self.add(&["--ro-bind-try", path, path]);
        }
        self.in_memory("/tmp", memory_bytes);
        self.in_memory("/run", SMALL_PLACE_BYTES);
        self.open_directory(Path::new("/var"));
        self.add(&["--symlink", "/run", "/var/run", "--symlink", "/tmp", "/var/tmp"]);
    }

    /// The device files of these NVIDIA GPUs, and those that any use of one needs.
    pub fn gpus(&mut self, gpus: &[u32]) {
        if gpus.is_empty() {
            return;
        }
        let own = gpus.iter().map(|index| format!("/dev/nvidia{index}"));
        let common = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];
        for path in own.chain(common.iter().map(|name| format!("/dev/{name}"))) {
            self.add(&["--dev-bind-try", &path, &path]);
        }
    }

    /// A directory for everyone that lives in the job's memory.
    fn in_memory(&mut self, path: &str, most_bytes: u64) {
        self.add(&["--perms", "1777", "--size", &most_bytes.min(LARGEST_SIZE).to_string(), "--tmpfs", path]);
    }

    /// One host file or directory, for reading.
    pub fn read_only(&mut self, source: &Path, target: &Path) {
        self.add(&[OsStr::new("--ro-bind"), source.as_os_str(), target.as_os_str()]);
    }

    /// The job's own mounts, outer ones first.
    pub fn mounts(&mut self, mounts: &[Mount]) {
        let mut ordered: Vec<&Mount> = mounts.iter().collect();
        ordered.sort_by_key(|mount| mount.target.components().count());
        for (index, mount) in ordered.iter().enumerate() {
            let lies_in_a_mount =
                ordered[..index].iter().any(|outer| mount.target.starts_with(&outer.target));
            if !lies_in_a_mount {
                let ancestors: Vec<&Path> = mount.target.ancestors().skip(1).collect();
                for ancestor in ancestors.into_iter().rev().filter(|path| path.parent().is_some()) {
                    self.open_directory(ancestor);
                }
            }
            match mount.access {
                Access::ReadOnly => self.read_only(&mount.source, &mount.target),
                Access::ReadWrite => {
                    self.add(&[OsStr::new("--bind"), mount.source.as_os_str(), mount.target.as_os_str()]);
                }
            }
        }
    }

    /// A directory that everyone may enter. bubblewrap closes the parents that it makes by itself to other
    /// users.
    fn open_directory(&mut self, path: &Path) {
        if !path.starts_with("/usr") {
            self.add(&[OsStr::new("--perms"), OsStr::new("0755"), OsStr::new("--dir"), path.as_os_str()]);
        }
    }

    /// What remains: the frozen root, the names, the place and the environment.
    pub fn finish(&mut self, spec: &WorkloadSpec, environment: &BTreeMap<OsString, OsString>) {
        self.add(&["--remount-ro", "/", "--hostname", &spec.hostname, "--clearenv"]);
        self.add(&[OsStr::new("--chdir"), spec.working_directory.as_os_str()]);
        for (name, value) in environment {
            self.add(&[OsStr::new("--setenv"), name, value]);
        }
    }

    /// Where bubblewrap writes the pid of the first process.
    pub fn announce_pid(&mut self, pipe: &OwnedFd) {
        self.add(&["--info-fd", &pipe.as_raw_fd().to_string()]);
    }

    /// The arguments as `--args` reads them.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::new();
        for argument in &self.list {
            encoded.extend_from_slice(argument.as_bytes());
            encoded.push(0);
        }
        encoded
    }

    /// The arguments as a list, for a command line.
    pub fn into_list(self) -> Vec<OsString> {
        self.list
    }

    fn add<T: AsRef<OsStr>, const COUNT: usize>(&mut self, arguments: &[T; COUNT]) {
        self.list.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn outer_mounts_come_before_inner_ones() {
        let mount = |target: &str| Mount {
            source: PathBuf::from("/src"),
            target: PathBuf::from(target),
            access: Access::ReadOnly,
        };
        let mut arguments = Arguments::new();
        arguments.mounts(&[mount("/opt/ml/input/data"), mount("/opt/ml"), mount("/opt/ml/input")]);
        let expected = "--perms 0755 --dir /opt --ro-bind /src /opt/ml --ro-bind /src /opt/ml/input \
                        --ro-bind /src /opt/ml/input/data";
        assert_eq!(arguments.into_list().join(OsStr::new(" ")), expected);
    }

    #[test]
    fn arguments_end_with_nul_each() {
        let mut arguments = Arguments::new();
        arguments.add(&["--setenv", "A", ""]);
        assert_eq!(arguments.encode(), b"--setenv\0A\0\0");
    }
}
