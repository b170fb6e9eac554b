//! What kernel and supervisor say about limits, and full disks.

use super::{Cause, Diagnosis, Observed, lines_with, memory};
use crate::limits::{Judge, LimitEvent, Limited, readable_bytes};
use crate::workload::Exit;

/// What the C library says of a full disk.
const NO_SPACE: &[&str] =
    &["No space left on device", "[Errno 28]", "ENOSPC", "Disk quota exceeded", "[Errno 122]"];

/// The limit that ended the job: what ended it by a signal, or killed a part of it without which it failed.
pub(super) fn ended_by_limit(observed: &Observed<'_>, by_signal: bool) -> Option<Diagnosis> {
    let ended =
        observed.limits.iter().find(|word| word.ended_job && matches!(observed.exit, Exit::Signal(_)));
    // A kernel that killed a worker is why its parent failed soon after.
    let killed_part = || {
        let memory = |word: &&LimitEvent| {
            matches!(word.limited, Limited::Memory | Limited::MachineMemory) && word.judge == Judge::Kernel
        };
        observed.limits.iter().find(memory).filter(|_| by_signal || mentions_a_killed_child(observed))
    };
    let refused = || {
        let refused_forks = |word: &&LimitEvent| word.limited == Limited::Processes;
        let said =
            ["Resource temporarily unavailable", "[Errno 11]", "can't start new thread", "fork: retry"];
        observed.limits.iter().find(refused_forks).filter(|_| !lines_with(observed, &said).is_empty())
    };
    let word = ended.or_else(killed_part).or_else(refused)?;
    let (cause, kind, hint) = judged(word.limited);
    let by = if word.judge == Judge::Kernel { "kernel" } else { "supervisor" };
    let mut evidence = vec![format!("the {by} says so, {} times", word.count)];
    if let Some(bytes) = observed.peak_memory_bytes {
        evidence.push(format!("largest process: {} of memory", readable_bytes(bytes)));
    }
    Some(Diagnosis::new(cause, word.sentence(), hint, evidence, &[kind, observed.command]))
}

/// Cause, a word that tells such failures apart, and what to do.
fn judged(limited: Limited) -> (Cause, &'static str, String) {
    match limited {
        Limited::Memory => (Cause::OutOfMemory, "memory of the job", memory::hint().to_owned()),
        Limited::MachineMemory => (
            Cause::OutOfMemory,
            "memory of the machine",
            format!("Run fewer jobs at once (parallel_jobs), or smaller ones. {}", memory::hint()),
        ),
        Limited::Disk => (
            Cause::DiskFull,
            "disk of the job",
            "Ask for a larger VolumeSizeInGB, keep fewer checkpoints, or log less.".to_owned(),
        ),
        Limited::FreeDisk => (
            Cause::DiskFull,
            "disk of the machine",
            "Free some space on the disk that has the data directory: old environments, objects and logs are below it.".to_owned(),
        ),
        Limited::Processes => (
            Cause::Limit,
            "processes",
            "Use fewer workers, and fewer threads in each (OMP_NUM_THREADS).".to_owned(),
        ),
    }
}

fn mentions_a_killed_child(observed: &Observed<'_>) -> bool {
    let said = [
        "Killed",
        "SIGKILL",
        "exit code: -9",
        "exitcode: -9",
        "BrokenProcessPool",
        "exited unexpectedly",
        "signal 9",
    ];
    !lines_with(observed, &said).is_empty()
}

/// A full disk in the program's own words, or in its log's.
pub(super) fn disk_full(observed: &Observed<'_>) -> Option<Diagnosis> {
    let decisive = match (observed.exit, observed.traceback) {
        (Exit::Code(_), Some(traceback)) => NO_SPACE.iter().any(|needle| traceback.text.contains(needle)),
        _ => {
            let end = observed.tail.len().saturating_sub(10);
            let mut last = observed.tail[end..]
                .iter()
                .map(String::as_str)
                .chain(observed.written)
                .chain(observed.log_error);
            last.any(|line| NO_SPACE.iter().any(|needle| line.contains(needle)))
        }
    };
    if !decisive {
        return None;
    }
    let mut evidence: Vec<String> =
        lines_with(observed, NO_SPACE).into_iter().rev().take(3).map(str::to_owned).collect();
    if let Some(text) = observed.log_error {
        evidence.push(format!("the log is not whole: {text}"));
    }
    let path = evidence.iter().find_map(|line| quoted_path(line)).unwrap_or_default();
    let in_memory = ["/tmp", "/dev/shm", "/run", "/var/tmp"].iter().any(|place| path.starts_with(place));
    let machine_is_full = observed.limits.iter().any(|word| word.limited == Limited::FreeDisk);
    let place = if path.is_empty() { String::new() } else { format!(" at {path}") };
    let hint = if in_memory && !machine_is_full {
        "/tmp, /dev/shm and /run of a job live in memory and are limited with it: write large files below /opt/ml, for example to \
         /opt/ml/output/data."
    } else {
        "Free some space on the disk that has the data directory, keep fewer checkpoints, or ask for a larger VolumeSizeInGB. /tmp and \
         /dev/shm of a job live in memory: large files belong below /opt/ml."
    };
    let kind = if in_memory { "memory-backed" } else { "disk" };
    let sentence = format!("There was no space left{place} for what the program wrote.");
    Some(Diagnosis::new(Cause::DiskFull, sentence, hint, evidence, &[observed.command, kind]))
}

fn quoted_path(line: &str) -> Option<&str> {
    line.split(['\'', '"']).find(|part| part.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::diagnose;
    use super::super::tests::{judged, observed};
    use super::*;

    fn word(limited: Limited, by_kernel: bool, ended_job: bool) -> LimitEvent {
        let judge = if by_kernel { Judge::Kernel } else { Judge::Supervisor };
        LimitEvent { limited, limit: 2 << 30, judge, count: 1, ended_job }
    }

    fn with_limits(exit: &Exit, log: &str, limits: &[LimitEvent]) -> Diagnosis {
        let tail: Vec<String> = log.lines().map(str::to_owned).collect();
        let traceback = crate::contract::traceback(&tail);
        diagnose(&Observed { limits, ..observed(exit, &tail, traceback.as_ref()) })
    }

    #[test]
    fn the_kernels_word_decides() {
        let found = with_limits(&Exit::Signal(9), "epoch 3", &[word(Limited::Memory, true, true)]);
        assert_eq!(found.cause, Cause::OutOfMemory);
        assert!(
            found.sentence.starts_with("The memory limit of 2 GiB was used up, and the kernel"),
            "{}",
            found.sentence
        );
        let found = with_limits(&Exit::Signal(9), "", &[word(Limited::Disk, false, true)]);
        assert!(found.cause == Cause::DiskFull && found.sentence.contains("2 GiB"));
        assert_eq!(
            with_limits(&Exit::Signal(9), "", &[word(Limited::Processes, false, true)]).cause,
            Cause::Limit
        );
    }

    #[test]
    fn a_killed_worker_explains_its_parent() {
        let log = "Traceback (most recent call last):\n  File \"/opt/ml/code/train.py\", line 1, in f\n    x\n\
                   concurrent.futures.process.BrokenProcessPool: A process in the process pool was terminated abruptly";
        let words = [word(Limited::Memory, true, false)];
        assert_eq!(with_limits(&Exit::Code(1), log, &words).cause, Cause::OutOfMemory);
        assert_eq!(with_limits(&Exit::Code(137), "", &words).cause, Cause::OutOfMemory);
        let unrelated = "Traceback (most recent call last):\n  File \"/opt/ml/code/train.py\", line 1, in f\n    x\nValueError: bad";
        assert_eq!(with_limits(&Exit::Code(1), unrelated, &words).cause, Cause::Exception);
    }

    #[test]
    fn refused_forks_count_when_the_program_says_so() {
        let words = [word(Limited::Processes, true, false)];
        let log = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    t.start()\nRuntimeError: can't start new thread";
        assert_eq!(with_limits(&Exit::Code(1), log, &words).cause, Cause::Limit);
        assert_eq!(with_limits(&Exit::Code(1), "ValueError", &words).cause, Cause::Exit);
    }

    #[test]
    fn a_full_disk_is_found_in_a_traceback_and_in_the_log() {
        let log = "Traceback (most recent call last):\n  File \"/opt/ml/code/train.py\", line 3, in save\n    f.write(x)\n\
                   OSError: [Errno 28] No space left on device: '/opt/ml/checkpoints/a.pt'";
        let found = judged(&Exit::Code(1), log);
        assert_eq!(found.cause, Cause::DiskFull);
        assert!(
            found.sentence.contains("at /opt/ml/checkpoints/a.pt") && found.hint.contains("VolumeSizeInGB"),
            "{found:?}"
        );
        let found = judged(&Exit::Code(1), &log.replace("/opt/ml/checkpoints/a.pt", "/tmp/a.pt"));
        assert!(found.hint.starts_with("/tmp, /dev/shm"), "{}", found.hint);
        assert_eq!(
            judged(&Exit::Code(1), "cp: error writing 'x': No space left on device").cause,
            Cause::DiskFull
        );
        let exit = Exit::Signal(15);
        let given = Observed {
            log_error: Some("No space left on device (os error 28)"),
            ..observed(&exit, &[], None)
        };
        assert_eq!(diagnose(&given).cause, Cause::DiskFull);
    }
}
