//! What a workload may use of the machine, and what it ran into.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Open files of one process, unless the host allows less.
const OPEN_FILES: u64 = 65_536;
/// Processes and threads, at least; numeric libraries start several threads per CPU in each process.
const PROCESSES: u64 = 4_096;
/// More of them for each CPU of the machine.
const PROCESSES_PER_CPU: u64 = 256;
/// Part of the machine's memory that one job may take when nothing else is said: the rest keeps the server alive.
const MEMORY_PERCENT: u64 = 90;
/// Space that jobs leave free on the disk, so that the server's database goes on working.
const DISK_RESERVE_BYTES: u64 = 1024 * 1024 * 1024;

/// What a workload may use at most; what is `None` is taken from the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory of all processes together, with the files of their memory-backed `/tmp` and `/dev/shm`.
    pub memory_bytes: Option<u64>,
    /// CPUs' worth of time; `None` for all of the machine.
    pub cpus: Option<u32>,
    /// Processes and threads together.
    pub processes: Option<u64>,
    /// Open files of each process.
    pub open_files: Option<u64>,
    /// Space of the writable mounts and the log together.
    pub disk_bytes: Option<u64>,
}

/// The limits that are in force for a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveLimits {
    /// See [`Limits::memory_bytes`].
    pub memory_bytes: u64,
    /// See [`Limits::cpus`].
    pub cpus: Option<u32>,
    /// See [`Limits::processes`].
    pub processes: u64,
    /// See [`Limits::open_files`].
    pub open_files: u64,
    /// See [`Limits::disk_bytes`].
    pub disk_bytes: u64,
}

/// What there is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub memory_bytes: u64,
    pub cpus: u64,
    pub open_files: u64,
    /// Free space where the job writes, and what the job's own files take there already.
    pub disk_free_bytes: u64,
    pub disk_used_bytes: u64,
}

impl Limits {
    /// Checks what can be checked without knowing the machine; the error is a sentence for the user.
    pub fn validate(&self) -> Result<(), String> {
        let named = [
            ("memory_bytes", self.memory_bytes),
            ("cpus", self.cpus.map(u64::from)),
            ("processes", self.processes),
            ("open_files", self.open_files),
            ("disk_bytes", self.disk_bytes),
        ];
        match named.into_iter().find(|(_, value)| *value == Some(0)) {
            Some((name, _)) => Err(format!("The limit {name} is zero: give at least one, or no limit.")),
            None => Ok(()),
        }
    }

    /// The limits in force on `machine`.
    pub(crate) fn on(&self, machine: Machine) -> EffectiveLimits {
        let free = machine.disk_free_bytes;
        let usable = if free > 2 * DISK_RESERVE_BYTES { free - DISK_RESERVE_BYTES } else { free / 2 };
        EffectiveLimits {
            memory_bytes: self.memory_bytes.unwrap_or(machine.memory_bytes / 100 * MEMORY_PERCENT),
            cpus: self.cpus.filter(|cpus| u64::from(*cpus) < machine.cpus),
            processes: self.processes.unwrap_or(PROCESSES.max(PROCESSES_PER_CPU * machine.cpus)),
            open_files: self.open_files.unwrap_or(OPEN_FILES).min(machine.open_files),
            disk_bytes: self.disk_bytes.unwrap_or(machine.disk_used_bytes.saturating_add(usable)),
        }
    }
}

impl Machine {
    /// Looks at this machine; `work` is a directory that the job writes to and `disk_used_bytes` what is in it.
    pub fn look(work: &Path, disk_used_bytes: u64) -> Machine {
        let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        Machine {
            memory_bytes: total_memory_bytes(),
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
            open_files: open_files.unwrap_or(u64::MAX),
            disk_free_bytes: free_bytes(work).unwrap_or(u64::MAX),
            disk_used_bytes,
        }
    }
}

/// Space that is free for ordinary users on the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// Memory of the machine; where that cannot be read, so much that it limits nothing.
fn total_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map_or(u64::MAX, |kib| kib * 1024)
}

/// A limit that can be run into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// Memory of the job.
    Memory,
    /// Memory of the whole machine, or of the group that the server runs in.
    MachineMemory,
    /// Processes and threads of the job.
    Processes,
    /// Disk space of the job.
    Disk,
    /// Space on the file system that the job writes to.
    FreeDisk,
}

/// Who found that a limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// The kernel, at the moment it happened.
    Kernel,
    /// The supervisor, which looks several times a second.
    Supervisor,
}

/// That a workload ran into a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitEvent {
    /// Which.
    pub limited: Limited,
    /// Its value: bytes, or a number of processes.
    pub limit: u64,
    /// Who says so.
    pub judge: Judge,
    /// How often: processes killed for want of memory, refused forks; 1 for what ends the job.
    pub count: u64,
    /// Whether the whole job was ended for it.
    pub ended_job: bool,
}

impl LimitEvent {
    /// What happened, in a sentence for people.
    pub fn sentence(&self) -> String {
        let limit = readable_bytes(self.limit);
        let times = |one: &str, more: &str| {
            if self.count == 1 { one.to_owned() } else { format!("{} {more}", self.count) }
        };
        match (self.limited, self.judge) {
            (Limited::Memory, Judge::Kernel) => format!(
                "The memory limit of {limit} was used up, and the kernel ended {} of the job for it.",
                times("a process", "processes")
            ),
            (Limited::Memory, Judge::Supervisor) => {
                format!("The job used more memory than its limit of {limit} and was ended for it.")
            }
            (Limited::MachineMemory, _) => {
                "The memory of the whole machine was used up, and the kernel ended processes for it."
                    .to_owned()
            }
            (Limited::Processes, Judge::Kernel) => format!(
                "The limit of {} processes and threads was reached, and the kernel refused {} more.",
                self.limit,
                times("one", "times one")
            ),
            (Limited::Processes, Judge::Supervisor) => {
                format!("The job had more than {} processes and was ended for it.", self.limit)
            }
            (Limited::Disk, _) => format!(
                "The job's files and its log took more disk space than its limit of {limit}, and it was ended for it."
            ),
            (Limited::FreeDisk, _) if self.ended_job => {
                format!("The disk had less than {limit} left, and the job, which was filling it, was ended.")
            }
            (Limited::FreeDisk, _) => "The disk that the job wrote to is full.".to_owned(),
        }
    }
}

/// A number of bytes as people say it.
pub fn readable_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "bytes" || value.fract() == 0.0 {
        format!("{value} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;
    const MACHINE: Machine = Machine {
        memory_bytes: 100 * GIB,
        cpus: 4,
        open_files: 20_000,
        disk_free_bytes: 50 * GIB,
        disk_used_bytes: 3 * GIB,
    };

    #[test]
    fn what_is_not_said_comes_from_the_machine() {
        let limits = Limits::default().on(MACHINE);
        assert_eq!(limits.memory_bytes, 90 * GIB);
        assert_eq!((limits.cpus, limits.processes, limits.open_files), (None, 4_096, 20_000));
        assert_eq!(limits.disk_bytes, 52 * GIB);
        let tight = Machine { disk_free_bytes: GIB, ..MACHINE };
        assert_eq!(Limits::default().on(tight).disk_bytes, 3 * GIB + GIB / 2);
    }

    #[test]
    fn what_is_said_holds_as_far_as_the_machine_goes() {
        let asked = Limits {
            memory_bytes: Some(GIB),
            cpus: Some(2),
            processes: Some(10),
            open_files: Some(100_000),
            disk_bytes: Some(5),
        };
        let limits = asked.on(MACHINE);
        assert_eq!((limits.memory_bytes, limits.cpus), (GIB, Some(2)));
        assert_eq!((limits.processes, limits.open_files, limits.disk_bytes), (10, 20_000, 5));
        assert_eq!(Limits { cpus: Some(4), ..asked }.on(MACHINE).cpus, None, "no limit is none");
    }

    #[test]
    fn bytes_and_events_are_readable() {
        for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (2048, "2 KiB"), (3 * GIB / 2, "1.5 GiB")]
        {
            assert_eq!(readable_bytes(bytes), text);
        }
        let mut event = LimitEvent {
            limited: Limited::Memory,
            limit: GIB,
            judge: Judge::Kernel,
            count: 1,
            ended_job: true,
        };
        assert!(event.sentence().contains("1 GiB was used up, and the kernel ended a process"));
        event.count = 3;
        assert!(event.sentence().contains("ended 3 processes"));
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        assert_eq!(Limits::default().validate(), Ok(()));
        let error = Limits { processes: Some(0), ..Limits::default() }.validate().unwrap_err();
        assert!(error.contains("processes"), "{error}");
    }
}
