//! The processes of a workload in `/proc`: who they are and what they use.

use std::collections::HashMap;
use std::fs;

/// What the processes of a workload use, those that have ended included where it is a sum over time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct TreeUse {
    pub cpu_seconds: f64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// Memory of the living processes that is not backed by files; pages shared after a fork count for each.
    pub memory_bytes: u64,
    pub processes: u64,
}

/// Counts for a set of processes that changes from look to look.
#[derive(Debug, Default)]
pub(crate) struct ProcessTree {
    living: HashMap<(u32, u64), Counters>,
    ended: Counters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    cpu_seconds: f64,
    read_bytes: u64,
    written_bytes: u64,
}

impl Counters {
    fn add(&mut self, other: &Counters) {
        self.cpu_seconds += other.cpu_seconds;
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

impl ProcessTree {
    /// Looks at the processes. What a process did between the last look and its end is not seen.
    pub fn look(&mut self, pids: &[u32]) -> TreeUse {
        let mut now = HashMap::with_capacity(pids.len());
        let mut found = TreeUse::default();
        for &pid in pids {
            let Some(process) = Process::read(pid) else { continue };
            let key = (pid, process.start_ticks);
            let mut counters = process.counters;
            // Not readable for every user: then the last known values stand.
            if let Some(before) = self.living.get(&key) {
                counters.read_bytes = counters.read_bytes.max(before.read_bytes);
                counters.written_bytes = counters.written_bytes.max(before.written_bytes);
            }
            found.memory_bytes += process.memory_bytes;
            found.processes += 1;
            now.insert(key, counters);
        }
        for (key, counters) in &self.living {
            if !now.contains_key(key) {
                self.ended.add(counters);
            }
        }
        let mut total = self.ended;
        now.values().for_each(|counters| total.add(counters));
        self.living = now;
        TreeUse {
            cpu_seconds: total.cpu_seconds,
            read_bytes: total.read_bytes,
            written_bytes: total.written_bytes,
            ..found
        }
    }
}

struct Process {
    start_ticks: u64,
    counters: Counters,
    memory_bytes: u64,
}

impl Process {
    fn read(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name, in parentheses, may contain anything.
        let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let ticks = number(11)? + number(12)?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let (mut read_bytes, mut written_bytes) = (0, 0);
        for line in fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default().lines() {
            match line.split_once(": ") {
                Some(("read_bytes", value)) => read_bytes = value.parse().unwrap_or(0),
                Some(("write_bytes", value)) => written_bytes = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        Some(Process {
            start_ticks: number(19)?,
            counters: Counters { cpu_seconds: ticks as f64 / per_second as f64, read_bytes, written_bytes },
            memory_bytes: unshared_memory_bytes(pid).unwrap_or(0),
        })
    }
}

/// Resident pages without those of files and shared memory.
fn unshared_memory_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).filter_map(|word| word.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
}

/// Memory of the processes with each page divided by the number of processes that share it: exact and dear.
pub(crate) fn proportional_memory_bytes(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    };
    pids.iter().filter_map(|pid| of(pid).or_else(|| unshared_memory_bytes(*pid))).sum()
}

/// A process and everything below it.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let me = std::process::id();
        let mut tree = ProcessTree::default();
        let first = tree.look(&[me]);
        assert_eq!(first.processes, 1);
        assert!(first.memory_bytes > 100_000, "{first:?}");
        assert!(proportional_memory_bytes(&[me]) > 100_000);
        assert!(descendants(me).contains(&me));
        // One that is not seen any more has ended, and its time still counts.
        let second = tree.look(&[]);
        assert_eq!((second.processes, second.memory_bytes), (0, 0));
        assert!(second.cpu_seconds >= first.cpu_seconds);
    }
}
