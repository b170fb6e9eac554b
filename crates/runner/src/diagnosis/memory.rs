//! Out of memory, as programs and libraries say it themselves.

use super::{Cause, Diagnosis, Observed, lines_with, python};
use crate::workload::Exit;

/// What frameworks say when a GPU is full.
const GPU: &[&str] = &[
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "HIP out of memory",
    "torch.cuda.OutOfMemoryError",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
    "MPS backend out of memory",
];

/// What allocators, runtimes and the C library say when memory is used up.
const HOST: &[&str] = &[
    "MemoryError",
    "Unable to allocate",
    "std::bad_alloc",
    "Cannot allocate memory",
    "can't allocate memory",
    "java.lang.OutOfMemoryError",
    "ArrowMemoryError",
    "malloc of size",
    "OOM-kill",
    "oom-kill",
    "was killed by signal: Killed",
];

const HINT: &str = "Use smaller batches, fewer data loader workers, a smaller data type, or read the data in pieces; or an instance type with \
                    more memory.";

pub(super) fn diagnose(observed: &Observed<'_>) -> Option<Diagnosis> {
    let ended_badly = matches!(observed.exit, Exit::Code(_) | Exit::Signal(_));
    if !ended_badly {
        return None;
    }
    // A program may survive a failed allocation and fail later for another reason: the last words count.
    let decisive = observed
        .traceback
        .map(|traceback| traceback.exception.clone())
        .filter(|_| matches!(observed.exit, Exit::Code(_)));
    let is_decisive = |needles: &[&str]| match &decisive {
        Some(exception) => needles.iter().any(|needle| exception.contains(needle)),
        None => {
            let end = observed.tail.len().saturating_sub(10);
            let last = observed.tail[end..].iter().map(String::as_str).chain(observed.written);
            last.into_iter().any(|line| needles.iter().any(|needle| line.contains(needle)))
        }
    };
    let frame = observed.traceback.and_then(|traceback| python::last_frame(&traceback.text));
    let at = frame.as_ref().map(|frame| format!(" in {frame}")).unwrap_or_default();
    let place = frame.map(|frame| frame.function).unwrap_or_default();
    let evidence = |needles: &[&str]| {
        lines_with(observed, needles).into_iter().rev().take(3).map(str::to_owned).collect()
    };
    if is_decisive(GPU) {
        return Some(Diagnosis::new(
            Cause::GpuOutOfMemory,
            format!("The memory of a GPU was used up{at}."),
            "Use a smaller batch, gradient accumulation or checkpointing, mixed precision, or a GPU with more memory; another process on \
             the same GPU takes memory too (nvidia-smi).",
            evidence(GPU),
            &[observed.command, &place],
        ));
    }
    is_decisive(HOST).then(|| {
        let mut evidence: Vec<String> = evidence(HOST);
        if let Some(bytes) = observed.peak_memory_bytes {
            evidence.push(format!("largest process: {} MiB of memory", bytes / 1024 / 1024));
        }
        let sentence = format!("The program could not get the memory it asked for{at}.");
        Diagnosis::new(Cause::OutOfMemory, sentence, HINT, evidence, &[observed.command, &place])
    })
}

/// What to do about want of memory.
pub(super) fn hint() -> &'static str {
    HINT
}

#[cfg(test)]
mod tests {
    use super::super::tests::judged;
    use super::*;

    fn raised(line: &str) -> Diagnosis {
        let log = format!(
            "Traceback (most recent call last):\n  File \"/opt/ml/code/train.py\", line 7, in load\n    x = make()\n{line}"
        );
        judged(&Exit::Code(1), &log)
    }

    #[test]
    fn allocators_are_understood() {
        for line in [
            "MemoryError",
            "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 745. GiB for an array with shape (100000000000,)",
            "RuntimeError: [enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes",
            "OSError: [Errno 12] Cannot allocate memory",
            "RuntimeError: DataLoader worker (pid(s) 71) exited unexpectedly: it was killed by signal: Killed. was killed by signal: Killed",
        ] {
            let found = raised(line);
            assert_eq!(found.cause, Cause::OutOfMemory, "{line}");
            assert!(found.sentence.contains("in load"), "{}", found.sentence);
        }
        let found = judged(
            &Exit::Signal(6),
            "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc",
        );
        assert_eq!(found.cause, Cause::OutOfMemory);
    }

    #[test]
    fn a_full_gpu_is_another_cause() {
        let found = raised(
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.15 GiB of which \
             10.00 MiB is free.",
        );
        assert_eq!(found.cause, Cause::GpuOutOfMemory);
        assert!(found.evidence[0].contains("Tried to allocate"));
    }

    #[test]
    fn an_allocation_that_failed_long_before_is_not_the_cause() {
        let log = "MemoryError was handled\n".to_owned()
            + &"fine\n".repeat(20)
            + "Traceback (most recent call last):\n  File \"/opt/ml/code/train.py\", line 7, in load\n    x\nValueError: bad";
        assert_eq!(judged(&Exit::Code(1), &log).cause, Cause::Exception);
        let quiet = "MemoryError was handled\n".to_owned() + &"fine\n".repeat(20);
        assert_eq!(judged(&Exit::Signal(11), &quiet).cause, Cause::Signal);
    }
}
