//! Sees to it that a job keeps its limits where the kernel does not: the disk always, memory and processes on
//! machines without control groups.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::disk::DiskWatch;
use crate::cgroup::ControlGroup;
use crate::limits::{EffectiveLimits, Judge, LimitEvent, Limited};
use crate::usage::{ProcessTree, Subject, proportional_memory_bytes};
use crate::workload::{Access, WorkloadSpec};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// Looking at the processes may take this part of the time.
const SHARE_OF_TIME: u32 = 100;
/// A job that has grown by more than this is ended when the disk has less than this left: the server needs it.
const LAST_FREE_BYTES: u64 = 64 * 1024 * 1024;

/// Watches one job.
pub struct Watchdog {
    limits: EffectiveLimits,
    disk: DiskWatch,
    tree: ProcessTree,
    next_at: Instant,
    processes_at: Instant,
    out_of_memory_kills_before: u64,
}

impl Watchdog {
    /// Begins with `disk`, which has measured what the job finds.
    pub fn start(limits: EffectiveLimits, disk: DiskWatch) -> Self {
        let now = Instant::now();
        Self {
            limits,
            disk,
            tree: ProcessTree::default(),
            next_at: now,
            processes_at: now,
            out_of_memory_kills_before: machine_out_of_memory_kills(),
        }
    }

    /// The directories that a job writes to.
    pub fn places(spec: &WorkloadSpec) -> Vec<PathBuf> {
        let writable = spec.mounts.iter().filter(|mount| mount.access == Access::ReadWrite);
        let sources: Vec<PathBuf> = writable.map(|mount| mount.source.clone()).collect();
        // One inside another is counted with it.
        sources
            .iter()
            .filter(|inner| !sources.iter().any(|outer| outer != *inner && inner.starts_with(outer)))
            .cloned()
            .collect()
    }

    /// The limits in force.
    pub fn limits(&self) -> &EffectiveLimits {
        &self.limits
    }

    /// When the next look is due.
    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Space of the job's places and its log.
    pub fn disk_bytes(&self, log_bytes: u64) -> u64 {
        self.disk.used_bytes().saturating_add(log_bytes)
    }

    /// Looks, if it is time; a limit that was passed is a reason to end the job.
    pub fn look(&mut self, subject: Subject<'_>, log_bytes: u64) -> Option<LimitEvent> {
        let now = Instant::now();
        if now < self.next_at {
            return None;
        }
        self.next_at = now + INTERVAL;
        let passed = self.disk_passed(log_bytes);
        if passed.is_some() || now < self.processes_at {
            return passed;
        }
        let passed = self.processes_passed(subject);
        self.processes_at = Instant::now() + now.elapsed() * SHARE_OF_TIME;
        passed
    }

    fn disk_passed(&mut self, log_bytes: u64) -> Option<LimitEvent> {
        let limit_bytes = self.limits.disk_bytes;
        self.disk.look(limit_bytes.saturating_sub(log_bytes));
        if self.disk_bytes(log_bytes) > limit_bytes {
            return Some(ended(Limited::Disk, limit_bytes));
        }
        let grown = self.disk_bytes(log_bytes).saturating_sub(self.disk.used_bytes_at_start());
        let is_full = self.disk.free_now().is_some_and(|free| free < LAST_FREE_BYTES);
        (is_full && grown > LAST_FREE_BYTES).then(|| ended(Limited::FreeDisk, LAST_FREE_BYTES))
    }

    fn processes_passed(&mut self, subject: Subject<'_>) -> Option<LimitEvent> {
        let kernel_does_all = subject.group.limits_memory() && subject.group.limits_processes();
        if kernel_does_all {
            return None;
        }
        let pids = subject.processes();
        let found = self.tree.look(&pids);
        if !subject.group.limits_processes() && found.processes > self.limits.processes {
            return Some(ended(Limited::Processes, self.limits.processes));
        }
        let limit_bytes = self.limits.memory_bytes;
        if subject.group.limits_memory() {
            return None;
        }
        let files = memory_files_bytes(subject.pid);
        // Pages shared after a fork count for each process at first; the exact count is dear.
        let is_past = found.memory_bytes + files > limit_bytes
            && proportional_memory_bytes(&pids) + files > limit_bytes;
        is_past.then(|| ended(Limited::Memory, limit_bytes))
    }

    /// What the kernel says was done for limits, after the end of the job, whose main process may have been killed. What an
    /// engine's own groups counted is gone with them: there the count of the whole machine has to do.
    pub fn kernels_word(
        &self,
        group: &ControlGroup,
        was_killed: bool,
        is_container: bool,
    ) -> Vec<LimitEvent> {
        let kernel = |limited, limit, count| LimitEvent {
            limited,
            limit,
            judge: Judge::Kernel,
            count,
            ended_job: limited != Limited::Processes && was_killed,
        };
        let mut events = Vec::new();
        let kills = group.out_of_memory_kills();
        if kills > 0 {
            events.push(kernel(Limited::Memory, self.limits.memory_bytes, kills));
        } else if was_killed {
            let others = machine_out_of_memory_kills().saturating_sub(self.out_of_memory_kills_before);
            if others > 0 && is_container {
                events.push(kernel(Limited::Memory, self.limits.memory_bytes, others));
            } else if others > 0 {
                events.push(kernel(Limited::MachineMemory, 0, others));
            }
        }
        let refused = group.refused_forks();
        if refused > 0 {
            events.push(kernel(Limited::Processes, self.limits.processes, refused));
        }
        if self.disk.free_now().is_some_and(|free| free < LAST_FREE_BYTES / 4) {
            let event = LimitEvent { ended_job: false, ..ended(Limited::FreeDisk, 0) };
            events.push(event);
        }
        events
    }
}

fn ended(limited: Limited, limit: u64) -> LimitEvent {
    LimitEvent { limited, limit, judge: Judge::Supervisor, count: 1, ended_job: true }
}

/// Files in the job's own memory-backed file systems.
fn memory_files_bytes(pid: u32) -> u64 {
    ["tmp", "dev/shm", "run"]
        .iter()
        .filter_map(|place| rustix::fs::statfs(format!("/proc/{pid}/root/{place}")).ok())
        .filter(|found| found.f_type == TMPFS_MAGIC)
        .map(|found| found.f_blocks.saturating_sub(found.f_bfree) * found.f_bsize as u64)
        .sum()
}

/// What `statfs` calls a memory-backed file system.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// Processes killed on the whole machine because its memory was used up, since it started.
fn machine_out_of_memory_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Mount;

    #[test]
    fn only_writable_places_count_and_each_once() {
        let mount = |source: &str, access| Mount {
            source: PathBuf::from(source),
            target: PathBuf::from(source),
            access,
        };
        let mounts = vec![
            mount("/job", Access::ReadWrite),
            mount("/job/checkpoints", Access::ReadWrite),
            mount("/usr", Access::ReadOnly),
            mount("/sockets", Access::ReadWrite),
        ];
        let spec = WorkloadSpec { mounts, ..WorkloadSpec::plain("a", vec!["true".to_owned()]) };
        assert_eq!(Watchdog::places(&spec), [PathBuf::from("/job"), PathBuf::from("/sockets")]);
    }
}
