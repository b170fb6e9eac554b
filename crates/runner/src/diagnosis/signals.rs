//! Signals by name, and what they usually mean for a training program.

use super::{Cause, Diagnosis, Observed, lines_with, python};

/// What a signal usually means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// `SIGKILL` and the like.
    pub name: &'static str,
    /// What it says, in a sentence without its subject.
    pub text: &'static str,
    /// What to do.
    pub hint: &'static str,
}

const NATIVE: &str = "Set PYTHONFAULTHANDLER=1 in the job's Environment to get the Python line of the crash. The usual causes are a native \
                      package that does not fit the others (pin the versions in requirements.txt), a GPU driver of another version \
                      than the framework expects, and too small a stack for deep recursion.";
const OUTSIDE: &str = "Find out who sent it: another process of the job, a person, or the machine shutting down. Running the job again is \
                       safe.";

const KNOWN: &[(i32, Meaning)] = &[
    (1, Meaning { name: "SIGHUP", text: "its terminal or session was closed", hint: OUTSIDE }),
    (2, Meaning { name: "SIGINT", text: "it was interrupted as if by Ctrl-C", hint: OUTSIDE }),
    (3, Meaning { name: "SIGQUIT", text: "it was told to quit", hint: OUTSIDE }),
    (
        4,
        Meaning {
            name: "SIGILL",
            text: "it ran an instruction that this processor does not have",
            hint: "A package was built for a newer processor (AVX2, AVX-512): install a version built for this machine, or build it \
                   from source.",
        },
    ),
    (
        5,
        Meaning {
            name: "SIGTRAP",
            text: "it ran into a trap of its own, as native code does when a check fails",
            hint: NATIVE,
        },
    ),
    (
        6,
        Meaning {
            name: "SIGABRT",
            text: "it gave itself up: a failed assertion, heap corruption or an uncaught C++ exception in native code",
            hint: "The lines before the end name the assertion or exception. For collective operations (NCCL, gloo) it is the watchdog: \
                   another rank stopped first, and its log says why.",
        },
    ),
    (
        7,
        Meaning {
            name: "SIGBUS",
            text: "memory that it had mapped was not there: a full /dev/shm or disk, or a file that was cut off while in use",
            hint: "The usual cause is shared memory for data loader workers: use fewer workers (num_workers) or smaller batches, or share \
                   by files (torch.multiprocessing.set_sharing_strategy('file_system')).",
        },
    ),
    (8, Meaning { name: "SIGFPE", text: "native code divided an integer by zero", hint: NATIVE }),
    (
        9,
        Meaning {
            name: "SIGKILL",
            text: "something outside the program ended it; running out of memory is the most common cause",
            hint: "Compare the job's peak memory with the machine's. If memory is the cause, use smaller batches, fewer data loader \
                   workers, or read the data in pieces.",
        },
    ),
    (11, Meaning { name: "SIGSEGV", text: "it crashed in native code", hint: NATIVE }),
    (
        13,
        Meaning {
            name: "SIGPIPE",
            text: "it wrote to a pipe or connection whose other end was gone",
            hint: "The other end failed first: look for its message.",
        },
    ),
    (
        14,
        Meaning {
            name: "SIGALRM",
            text: "a timer that it had set ran out",
            hint: "Look for alarm() or a timeout in the program.",
        },
    ),
    (15, Meaning { name: "SIGTERM", text: "it was asked to end", hint: OUTSIDE }),
    (
        24,
        Meaning {
            name: "SIGXCPU",
            text: "it used up the CPU time that it may have",
            hint: "The program, or the machine (ulimit -t), sets a limit on CPU time.",
        },
    ),
    (
        25,
        Meaning {
            name: "SIGXFSZ",
            text: "it wrote a larger file than it may",
            hint: "Write several smaller files, or ask for more disk (VolumeSizeInGB).",
        },
    ),
    (
        31,
        Meaning {
            name: "SIGSYS",
            text: "it made a system call that the sandbox refuses",
            hint: "The program does something that jobs may not, such as mounting or tracing; see docs/security-model.md.",
        },
    ),
];

/// What is known of a signal.
pub fn meaning(number: i32) -> Option<Meaning> {
    KNOWN.iter().find(|(known, _)| *known == number).map(|(_, meaning)| *meaning)
}

/// `SIGKILL` and the like.
pub fn signal_name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name = usize::try_from(number - 1).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| format!("signal {number}"), |name| format!("SIG{name}"))
}

/// The signal behind an exit code of 128 and more, with which shells and launchers pass on that their child was killed.
pub fn signal_of_code(code: i32) -> Option<i32> {
    let number = code.checked_sub(128)?;
    meaning(number).map(|_| number)
}

/// What an exit code says by custom (may be empty), and what to do.
pub(super) fn code_meaning(code: i32) -> (&'static str, &'static str) {
    const LOG: &str = "See the end of the log. A program can say more: an uncaught exception, or a text written to \
                       /opt/ml/output/failure, ends up on this card.";
    match code {
        2 => (
            "By custom, code 2 says that the arguments are wrong.",
            "Compare the hyperparameters, which become arguments (--name value), with what the program takes.",
        ),
        126 => (
            "By custom, code 126 says that the command was found and cannot be executed.",
            "Give the file its execute bit (chmod +x) and a first line such as #!/bin/bash.",
        ),
        127 => (
            "By custom, code 127 says that the command was not found.",
            "Check the name in the entry point; what the image has is in docs/images.md.",
        ),
        _ => ("", LOG),
    }
}

pub(super) fn diagnose(observed: &Observed<'_>, number: i32) -> Diagnosis {
    let name = signal_name(number);
    let code = 128 + number;
    let known = meaning(number);
    let text = known.map_or("what it means is up to the program", |meaning| meaning.text);
    let hint = known.map_or("See the end of the log.", |meaning| meaning.hint);
    let mut evidence: Vec<String> = lines_with(
        observed,
        &[
            "Fatal Python error",
            "Segmentation fault",
            "Assertion",
            "assertion",
            "terminate called",
            "what():",
            "Bus error",
            "Aborted",
            "Illegal instruction",
            "core dumped",
            "NCCL",
        ],
    )
    .into_iter()
    .map(str::to_owned)
    .collect();
    let crashed_at = python::fault_frame(observed.tail);
    if let Some(frame) = &crashed_at {
        evidence.push(format!("in {frame}"));
    }
    if let Some(bytes) = observed.peak_memory_bytes {
        evidence.push(format!("largest process: {} MiB of memory", bytes / 1024 / 1024));
    }
    let place = crashed_at.map(|frame| frame.to_string()).unwrap_or_default();
    let at = if place.is_empty() { String::new() } else { format!(", in {place}") };
    Diagnosis::new(
        Cause::Signal,
        format!("The program was ended by {name} (exit code {code}){at}: {text}."),
        hint,
        evidence,
        &[&name, observed.command, &place],
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::judged;
    use super::*;
    use crate::workload::Exit;

    #[test]
    fn signals_have_names_and_meanings() {
        let found = judged(&Exit::Signal(11), "epoch 1");
        assert_eq!(found.cause, Cause::Signal);
        assert_eq!(
            found.sentence,
            "The program was ended by SIGSEGV (exit code 139): it crashed in native code."
        );
        assert!(found.hint.contains("PYTHONFAULTHANDLER"));
        let killed = judged(&Exit::Signal(9), "epoch 1");
        assert!(
            killed.sentence.contains("SIGKILL (exit code 137)") && killed.sentence.contains("out of memory")
        );
        assert_ne!(found.fingerprint, killed.fingerprint);
        assert!(judged(&Exit::Signal(63), "").sentence.contains("signal 63"));
        assert_eq!(signal_name(12), "SIGUSR2");
        for (number, meaning) in KNOWN {
            assert_eq!(signal_name(*number), meaning.name);
        }
    }

    #[test]
    fn a_shell_passes_the_signal_of_its_child_on() {
        let found = judged(
            &Exit::Code(139),
            "run.sh: line 2:    12 Segmentation fault      (core dumped) python train.py",
        );
        assert_eq!(found.cause, Cause::Signal);
        assert!(found.sentence.contains("SIGSEGV (exit code 139)"), "{}", found.sentence);
        assert!(found.evidence[0].contains("Segmentation fault"));
        assert_eq!(signal_of_code(128), None);
        assert_eq!(signal_of_code(255), None);
        assert_eq!(signal_of_code(1), None);
    }

    #[test]
    fn the_fault_handler_says_where() {
        let log = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f12e5a0b740 (most recent call first):\n  \
                   File \"/usr/lib/python3.11/ctypes/__init__.py\", line 519 in string_at\n  File \"/opt/ml/code/train.py\", line 9 in \
                   step\n  File \"/opt/ml/code/train.py\", line 12 in <module>\n";
        let found = judged(&Exit::Signal(11), log);
        assert!(found.sentence.contains("in step (/opt/ml/code/train.py, line 9)"), "{}", found.sentence);
        assert!(found.evidence.iter().any(|line| line.contains("Fatal Python error")));
    }
}
