//! Whether a running workload does anything: the CPU time of its processes, and what they wait in.

use std::collections::HashMap;
use std::fs;

/// Most processes whose names are kept.
const NOTED_PROCESSES: usize = 20;

/// What the processes of a workload have done so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// CPU time of all living processes and of the children that they have waited for, in seconds.
    pub cpu_seconds: f64,
    /// Processes that live.
    pub processes: Vec<ProcessNote>,
}

/// A process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessNote {
    /// Its pid on the host.
    pub pid: u32,
    /// Its name, at most 15 characters.
    pub name: String,
    /// One letter: `R` running, `S` waiting, `D` waiting for a disk, `T` stopped, `Z` ended.
    pub state: char,
    /// Function of the kernel that it waits in, where the kernel tells.
    pub waits_in: Option<String>,
}

impl ProcessNote {
    /// In a few words for people.
    pub fn sentence(&self) -> String {
        let state = match self.state {
            'R' => "runs",
            'S' => "waits",
            'D' => "waits for a disk or a device",
            'T' | 't' => "is stopped",
            'Z' => "has ended and was not waited for",
            _ => "is in an unknown state",
        };
        match &self.waits_in {
            Some(function) => format!("{} {state} in {function}", self.name),
            None => format!("{} {state}", self.name),
        }
    }
}

struct Stat {
    parent: u32,
    name: String,
    state: char,
    cpu_ticks: u64,
}

impl Activity {
    /// Looks at the process `first` and all that come from it. One pass over `/proc`: some milliseconds at most.
    pub fn below(first: u32) -> Activity {
        let mut all: HashMap<u32, Stat> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            // Processes end while they are looked at.
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(stat) = fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(parse)
            {
                all.insert(pid, stat);
            }
        }
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (pid, stat) in &all {
            children.entry(stat.parent).or_default().push(*pid);
        }
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        let mut activity = Activity::default();
        let mut cpu_ticks = 0;
        let mut left = vec![first];
        while let Some(pid) = left.pop() {
            let Some(stat) = all.get(&pid) else { continue };
            cpu_ticks += stat.cpu_ticks;
            left.extend(children.get(&pid).into_iter().flatten());
            activity.processes.push(ProcessNote {
                pid,
                name: stat.name.clone(),
                state: stat.state,
                waits_in: waits_in(pid),
            });
        }
        activity.processes.sort_by_key(|note| note.pid);
        activity.processes.truncate(NOTED_PROCESSES);
        activity.cpu_seconds = cpu_ticks as f64 / ticks_per_second as f64;
        activity
    }
}

/// `/proc/PID/stat`: the name is in parentheses and may hold anything.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // User and system time, its own and of its waited-for children: fields 14 to 17, counted from 1 with pid and name.
    let cpu_ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        cpu_ticks,
    })
}

fn waits_in(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
    (!text.is_empty() && text != "0").then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_busy_and_its_child_waits() {
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let begun = std::time::Instant::now();
        // Its program may have to come from the disk first.
        let before = loop {
            let before = Activity::below(std::process::id());
            let note = before.processes.iter().find(|note| note.pid == child.id()).unwrap();
            if note.state == 'S' {
                break before;
            }
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{note:?}");
        };
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(300) {
            std::hint::spin_loop();
        }
        let after = Activity::below(std::process::id());
        assert!(after.cpu_seconds > before.cpu_seconds, "{before:?} {after:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(Activity::below(child.id()), Activity::default());
    }

    #[test]
    fn names_with_parentheses_and_blanks_are_read() {
        let stat = parse("12 (a) b (c) S 7 12 12 0 -1 4194560 1 0 0 0 3 4 5 6 20 0 1 0 100 0").unwrap();
        assert_eq!((stat.parent, stat.name.as_str(), stat.state, stat.cpu_ticks), (7, "a) b (c", 'S', 18));
        assert!(parse("12 (a").is_none());
        let note =
            ProcessNote { pid: 1, name: "python".into(), state: 'S', waits_in: Some("futex_wait".into()) };
        assert_eq!(note.sentence(), "python waits in futex_wait");
    }
}
