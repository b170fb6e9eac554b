//! A control group for each workload: limits that the kernel keeps, its word on what they did, and an end that
//! nobody in the group can run from.

mod delegation;
mod hierarchy;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

pub use delegation::prepare_delegation;
use hierarchy::{Controller, Hierarchies};

use crate::limits::{EffectiveLimits, readable_bytes};
use crate::locks::{Lock, LockReport};

/// Period over which CPU time is shared out, in microseconds: the kernel's own default.
const CPU_PERIOD_MICROSECONDS: u64 = 100_000;
/// How often a group is tried to be emptied before it is given up.
const EMPTYING_ROUNDS: u32 = 200;
/// Pause between two of these.
const EMPTYING_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// The control group of one workload; in version 1 one per controller.
///
/// Stored in the workload's directory, so that what a lost supervisor left can be ended and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlGroup {
    unified: bool,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpu_accounting: Option<PathBuf>,
    processes: Option<PathBuf>,
    /// What holds of the limits, and why not.
    locks: Vec<LockReport>,
}

/// What the kernel has counted for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Memory in use without what could be dropped at once (cached file content).
    pub memory_bytes: Option<u64>,
    /// CPU time since the start.
    pub cpu_nanoseconds: Option<u64>,
    /// Bytes read from and written to disks since the start.
    pub disk_bytes: Option<(u64, u64)>,
}

impl ControlGroup {
    /// Makes a group called `name` with the limits. Never fails: what this machine does not offer is left out and
    /// told by [`ControlGroup::locks`].
    pub fn create(name: &str, limits: &EffectiveLimits) -> Self {
        match Hierarchies::of_this_process() {
            Ok(hierarchies) => Self::create_in(&hierarchies, name, limits),
            Err(error) => {
                let why = format!("the control groups cannot be read: {error}");
                let locks = [Lock::CgroupMemory, Lock::CgroupCpu, Lock::CgroupProcesses];
                let locks = locks.map(|lock| LockReport::missing(lock, why.clone())).to_vec();
                Self { locks, ..Self::default() }
            }
        }
    }

    fn create_in(hierarchies: &Hierarchies, name: &str, limits: &EffectiveLimits) -> Self {
        let mut group = Self { unified: hierarchies.is_unified(), ..Self::default() };
        let unified = group.unified;
        let memory = hierarchies.make(Controller::Memory, name).and_then(|path| {
            limit_memory(&path, unified, limits.memory_bytes)?;
            Ok(path)
        });
        group.memory = group.keep(Lock::CgroupMemory, memory, &readable_bytes(limits.memory_bytes));
        let cpu = hierarchies.make(Controller::Cpu, name).and_then(|path| {
            limit_cpu(&path, unified, limits.cpus)?;
            Ok(path)
        });
        let detail = limits.cpus.map_or_else(|| "all CPUs".to_owned(), |cpus| format!("{cpus} CPUs"));
        group.cpu = group.keep(Lock::CgroupCpu, cpu, &detail);
        // Only for counting; in version 2 it comes with the CPU's.
        group.cpu_accounting = hierarchies.make(Controller::CpuAccounting, name).ok();
        let processes = hierarchies.make(Controller::Processes, name).and_then(|path| {
            write(&path, "pids.max", &limits.processes.to_string())?;
            Ok(path)
        });
        group.processes = group.keep(
            Lock::CgroupProcesses,
            processes,
            &format!("{} processes and threads", limits.processes),
        );
        group
    }

    fn keep(&mut self, lock: Lock, made: Result<PathBuf, String>, detail: &str) -> Option<PathBuf> {
        match made {
            Ok(path) => {
                self.locks.push(LockReport::held(lock, detail));
                Some(path)
            }
            Err(why) => {
                self.locks.push(LockReport::missing(lock, why));
                None
            }
        }
    }

    /// Which of its limits hold.
    pub fn locks(&self) -> &[LockReport] {
        &self.locks
    }

    /// Whether the kernel limits the memory.
    pub fn limits_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether the kernel limits the CPU time.
    pub fn limits_cpu(&self) -> bool {
        self.cpu.is_some()
    }

    /// Whether the kernel limits the processes.
    pub fn limits_processes(&self) -> bool {
        self.processes.is_some()
    }

    /// The directories, each once.
    fn directories(&self) -> Vec<&Path> {
        let mut directories: Vec<&Path> = [&self.memory, &self.cpu, &self.cpu_accounting, &self.processes]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .collect();
        directories.sort_unstable();
        directories.dedup();
        directories
    }

    /// Puts a process in, with all that it starts from now on.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.directories()
            .into_iter()
            .try_for_each(|path| fs::write(path.join("cgroup.procs"), pid.to_string()))
    }

    /// The processes in it; `None` when there is no group.
    pub fn members(&self) -> Option<Vec<u32>> {
        let directory = self.directories().first()?.join("cgroup.procs");
        let text = fs::read_to_string(directory).ok()?;
        Some(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// What the kernel has counted so far.
    pub fn counted(&self) -> Counted {
        let memory_bytes = self.memory.as_deref().and_then(|path| {
            let (total, cached) = if self.unified {
                ("memory.current", "inactive_file")
            } else {
                ("memory.usage_in_bytes", "total_inactive_file")
            };
            let statistics = fs::read_to_string(path.join("memory.stat")).ok()?;
            Some(number(path, total)?.saturating_sub(field(&statistics, cached).unwrap_or(0)))
        });
        let cpu_nanoseconds = if self.unified {
            self.cpu.as_deref().and_then(|path| {
                let statistics = fs::read_to_string(path.join("cpu.stat")).ok()?;
                field(&statistics, "usage_usec")?.checked_mul(1000)
            })
        } else {
            self.cpu_accounting.as_deref().and_then(|path| number(path, "cpuacct.usage"))
        };
        let disk_bytes = self.unified.then_some(self.memory.as_deref()).flatten().and_then(|path| {
            let text = fs::read_to_string(path.join("io.stat")).ok()?;
            let sum = |name: &str| {
                let values = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name));
                values.filter_map(|value| value.parse::<u64>().ok()).sum()
            };
            Some((sum("rbytes="), sum("wbytes=")))
        });
        Counted { memory_bytes, cpu_nanoseconds, disk_bytes }
    }

    /// How many processes the kernel killed because the group's memory was used up.
    pub fn out_of_memory_kills(&self) -> u64 {
        self.memory.as_deref().map_or(0, |path| kills_in(path, self.unified))
    }

    /// How often the limit of processes refused a fork.
    pub fn refused_forks(&self) -> u64 {
        let Some(path) = self.processes.as_deref() else { return 0 };
        fs::read_to_string(path.join("pids.events")).ok().and_then(|text| field(&text, "max")).unwrap_or(0)
    }

    /// Ends every process in it, however fast they multiply.
    pub fn kill(&self) {
        if let Some(path) = &self.processes {
            // From here on nobody can start another one. It fails when the group is gone, and so are its
            // processes.
            let _ = fs::write(path.join("pids.max"), "0");
        }
        for directory in self.directories() {
            if self.unified && fs::write(directory.join("cgroup.kill"), "1").is_ok() {
                continue;
            }
            let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            for pid in text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
                // It may have ended meanwhile.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Ends what is left in it and removes it. A complaint is for the supervisor's log: nothing depends on it.
    pub fn remove(&self) -> io::Result<()> {
        self.directories().into_iter().try_for_each(|directory| {
            let mut rounds_left = EMPTYING_ROUNDS;
            loop {
                match fs::remove_dir(directory) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy && rounds_left > 0 => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    done => return done,
                }
                rounds_left -= 1;
                self.kill();
                // A killed process leaves the group when it has ended, which nothing announces.
                let _ = poll(&mut [], Some(&EMPTYING_PAUSE));
            }
        })
    }
}

/// How many processes the kernel killed in the group of a process because the group's memory was used up.
pub fn out_of_memory_kills_around(pid: u32) -> u64 {
    let Ok(places) = Hierarchies::of_process(pid) else { return 0 };
    places.memory_group().map_or(0, |path| kills_in(path, places.is_unified()))
}

fn kills_in(group: &Path, unified: bool) -> u64 {
    let name = if unified { "memory.events" } else { "memory.oom_control" };
    fs::read_to_string(group.join(name)).ok().and_then(|text| field(&text, "oom_kill")).unwrap_or(0)
}

fn limit_memory(path: &Path, unified: bool, bytes: u64) -> Result<(), String> {
    if unified {
        write(path, "memory.max", &bytes.to_string())?;
        write_if_there(path, "memory.swap.max", "0")
    } else {
        write(path, "memory.limit_in_bytes", &bytes.to_string())?;
        // Memory and swap together: none may be swapped out past the limit.
        write_if_there(path, "memory.memsw.limit_in_bytes", &bytes.to_string())
    }
}

fn limit_cpu(path: &Path, unified: bool, cpus: Option<u32>) -> Result<(), String> {
    let Some(cpus) = cpus else { return Ok(()) };
    let quota = u64::from(cpus) * CPU_PERIOD_MICROSECONDS;
    if unified {
        write(path, "cpu.max", &format!("{quota} {CPU_PERIOD_MICROSECONDS}"))
    } else {
        write(path, "cpu.cfs_period_us", &CPU_PERIOD_MICROSECONDS.to_string())?;
        write(path, "cpu.cfs_quota_us", &quota.to_string())
    }
}

fn write(directory: &Path, name: &str, value: &str) -> Result<(), String> {
    fs::write(directory.join(name), value)
        .map_err(|error| format!("{} cannot be set to {value}: {error}", directory.join(name).display()))
}

/// For files that kernels without swap accounting lack.
fn write_if_there(directory: &Path, name: &str, value: &str) -> Result<(), String> {
    if directory.join(name).exists() { write(directory, name, value) } else { Ok(()) }
}

fn number(directory: &Path, name: &str) -> Option<u64> {
    fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok()
}

/// The value in the line `NAME VALUE`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> EffectiveLimits {
        EffectiveLimits {
            memory_bytes: 1 << 30,
            cpus: Some(2),
            processes: 64,
            open_files: 10,
            disk_bytes: 10,
        }
    }

    /// Version 2 as a tree of plain files: what is written where, and what is read from where.
    #[test]
    fn version_2_is_written_and_read_by_its_own_names() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "cpu io memory pids\n").unwrap();
        let hierarchies = Hierarchies::unified(root.path().to_owned());
        let group = ControlGroup::create_in(&hierarchies, "modelyard-a", &limits());
        let directory = root.path().join("modelyard-a");
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(read("memory.max"), (1u64 << 30).to_string());
        assert_eq!(read("cpu.max"), "200000 100000");
        assert_eq!(read("pids.max"), "64");
        assert!(group.locks().iter().all(|report| report.held), "{:?}", group.locks());
        group.add(4711).unwrap();
        assert_eq!(group.members(), Some(vec![4711]));
        for (name, text) in [
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 5\ninactive_file 300\n"),
            ("cpu.stat", "usage_usec 7\nuser_usec 5\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2 rios=1\n"),
            ("memory.events", "oom 3\noom_kill 2\noom_group_kill 0\n"),
            ("pids.events", "max 9\n"),
        ] {
            fs::write(directory.join(name), text).unwrap();
        }
        let expected =
            Counted { memory_bytes: Some(700), cpu_nanoseconds: Some(7_000), disk_bytes: Some((11, 22)) };
        assert_eq!(group.counted(), expected);
        assert_eq!((group.out_of_memory_kills(), group.refused_forks()), (2, 9));
    }

    #[test]
    fn without_controllers_every_limit_says_why() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "hugetlb\n").unwrap();
        fs::write(root.path().join("cgroup.subtree_control"), "").unwrap();
        let hierarchies = Hierarchies::unified(root.path().to_owned());
        let group = ControlGroup::create_in(&hierarchies, "modelyard-a", &limits());
        assert_eq!(group.locks().len(), 3);
        assert!(group.locks().iter().all(|report| !report.held && !report.detail.is_empty()));
        assert_eq!((group.members(), group.counted()), (None, Counted::default()));
    }
}
