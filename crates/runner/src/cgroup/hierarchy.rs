//! Where this process stands in the control groups, in version 1, 2 or both at once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::delegation::SERVER_LEAF;

/// What a group controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Cpu,
    CpuAccounting,
    Processes,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::CpuAccounting => "cpuacct",
            Self::Processes => "pids",
        }
    }
}

/// The places of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Controllers of version 1, and this process's group in each.
    separate: BTreeMap<String, PathBuf>,
    /// This process's group of version 2.
    unified: Option<PathBuf>,
}

impl Hierarchies {
    /// Reads them from the kernel.
    pub fn of_this_process() -> io::Result<Self> {
        Self::read("/proc/self/cgroup")
    }

    /// The places of another process, as this one sees them.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::read(&format!("/proc/{pid}/cgroup"))
    }

    fn read(groups: &str) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?, &fs::read_to_string(groups)?))
    }

    /// The group that limits the memory.
    pub fn memory_group(&self) -> Option<&Path> {
        if self.is_unified() {
            return self.unified.as_deref();
        }
        self.separate.get(Controller::Memory.name()).map(PathBuf::as_path)
    }

    /// Version 2 alone, with this process in the group at `path`.
    #[cfg(test)]
    pub fn unified(path: PathBuf) -> Self {
        Self { separate: BTreeMap::new(), unified: Some(path) }
    }

    fn parse(mounts: &str, groups: &str) -> Self {
        let group_of = |controller: &str| {
            groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let controllers = parts.next()?;
                let path = parts.next()?;
                controllers.split(',').any(|one| one == controller).then_some(path)
            })
        };
        let mut found = Self::default();
        for line in mounts.lines() {
            let Some((front, back)) = line.split_once(" - ") else { continue };
            let mut front = front.split(' ').skip(3);
            let (Some(root), Some(mount_point)) = (front.next(), front.next()) else { continue };
            let mut back = back.split(' ');
            let (kind, options) = (back.next(), back.nth(1).unwrap_or_default());
            let place = |path: &str| {
                let mount_point = PathBuf::from(unescape(mount_point));
                // In a container the mount may show a part only, whose path is not the one told here.
                let below = Path::new(path).strip_prefix(unescape(root)).unwrap_or(Path::new(""));
                if below == Path::new("") { mount_point } else { mount_point.join(below) }
            };
            match kind {
                Some("cgroup2") => {
                    if let Some(path) = group_of("") {
                        found.unified.get_or_insert_with(|| place(path));
                    }
                }
                Some("cgroup") => {
                    for controller in options.split(',') {
                        if let Some(path) = group_of(controller) {
                            found.separate.entry(controller.to_owned()).or_insert_with(|| place(path));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Whether version 2 has the controllers; a machine may have both versions, with the controllers in the first.
    pub fn is_unified(&self) -> bool {
        self.unified.is_some() && !self.separate.contains_key(Controller::Memory.name())
    }

    /// This process's group of version 2.
    pub fn unified_group(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Makes a group for the controller; in version 2 that is the same one for all.
    pub fn make(&self, controller: Controller, name: &str) -> Result<PathBuf, String> {
        let parent = if self.is_unified() {
            self.parent_with(controller)?
        } else {
            let own = self.separate.get(controller.name());
            own.ok_or_else(|| format!("the kernel offers no control groups for {}", controller.name()))?
                .clone()
        };
        let path = parent.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(format!("{} cannot be made: {error}", path.display()))
            }
            _ => Ok(path),
        }
    }

    /// The group of version 2 below which jobs have theirs, with the controller turned on.
    fn parent_with(&self, controller: Controller) -> Result<PathBuf, String> {
        if controller == Controller::CpuAccounting {
            return Err("it comes with the CPU's".to_owned());
        }
        let own = self.unified.as_deref().unwrap_or(Path::new("/sys/fs/cgroup"));
        let parent = match own.parent() {
            Some(parent) if own.ends_with(SERVER_LEAF) => parent,
            _ => own,
        };
        let has = |name: &str| {
            let text = fs::read_to_string(parent.join(name)).unwrap_or_default();
            text.split_ascii_whitespace().any(|word| word == controller.name())
        };
        if !has("cgroup.controllers") {
            return Err(format!(
                "the server's control group {} was not given the controller {}",
                parent.display(),
                controller.name()
            ));
        }
        let control = parent.join("cgroup.subtree_control");
        if !has("cgroup.subtree_control")
            && let Err(error) = fs::write(&control, format!("+{}", controller.name()))
        {
            return Err(format!("{} cannot be changed: {error}", control.display()));
        }
        Ok(parent.to_owned())
    }
}

/// Undoes the octal escapes of mount tables.
fn unescape(text: &str) -> String {
    let mut out = text.to_owned();
    for (escape, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(escape, character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_beside_an_empty_version_2() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 25 0:28 /box/a /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      34 25 0:30 / /tmp rw - tmpfs tmpfs rw\n";
        let groups = "4:memory:/jobs/x\n3:cpu,cpuacct:/\n2:pids:/box/a/b\n0::/\n";
        let found = Hierarchies::parse(mounts, groups);
        assert!(!found.is_unified());
        assert_eq!(found.separate["memory"], Path::new("/sys/fs/cgroup/memory/jobs/x"));
        assert_eq!(found.separate["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found.separate["pids"], Path::new("/sys/fs/cgroup/pids/b"));
        assert_eq!(found.unified_group(), Some(Path::new("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn version_2_alone() {
        let mounts = "33 25 0:29 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchies::parse(mounts, "0::/user.slice/modelyard.service\n");
        assert!(found.is_unified());
        assert_eq!(found.unified_group(), Some(Path::new("/sys/fs/cgroup/user.slice/modelyard.service")));
    }

    #[test]
    fn jobs_stand_beside_the_server_not_below_it() {
        let root = tempfile::tempdir().unwrap();
        let service = root.path();
        fs::write(service.join("cgroup.controllers"), "memory pids").unwrap();
        fs::write(service.join("cgroup.subtree_control"), "memory").unwrap();
        let leaf = service.join(SERVER_LEAF);
        fs::create_dir(&leaf).unwrap();
        let found = Hierarchies::unified(leaf);
        assert_eq!(found.make(Controller::Memory, "job"), Ok(service.join("job")));
        assert!(found.make(Controller::Cpu, "job").unwrap_err().contains("not given the controller cpu"));
        assert!(Hierarchies::default().make(Controller::Memory, "job").is_err());
    }
}
