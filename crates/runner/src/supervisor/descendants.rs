//! Ends every process below this one, however it tried to get away.

use std::fs;

use rustix::process::{Pid, Signal, WaitOptions};

/// Kills and reaps all descendants of this process, which must be their subreaper and start no others
/// meanwhile.
///
/// Children are killed first; theirs then become children of this process and are found in the next round,
/// until the kernel says that there is none.
pub fn kill_all() {
    loop {
        for pid in children() {
            // It may have ended since it was listed; only this process reaps, so the pid cannot name another
            // one.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The children of all threads of this process.
fn children() -> Vec<Pid> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
        })
        .filter_map(Pid::from_raw)
        .collect()
}
