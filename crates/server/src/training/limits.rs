//! What a limit has to do with a job's failure.

use runner::limits::{LimitEvent, Limited};
use runner::workload::{Exit, ExitReport};

use super::record::{FailureCard, shorten};

/// What the C library says when a disk, or a file system in memory, is full.
const NO_SPACE: &str = "No space left on device";

/// Puts into the card which limit ended the job, or what limit it ran into before it ended by itself.
pub fn explain(card: &mut FailureCard, report: &ExitReport) {
    if let Some(event) = report.limit_events.iter().find(|event| event.ended_job)
        && matches!(report.exit, Exit::Signal(_))
    {
        (card.cause, card.reason) = ended(event);
        return;
    }
    let hints: Vec<String> = report.limit_events.iter().map(LimitEvent::sentence).collect();
    if !hints.is_empty() {
        card.reason = shorten(format!("{} {}", card.reason, hints.join(" ")));
    } else if card.reason.contains(NO_SPACE) {
        card.cause = "disk_full".into();
        card.reason = shorten(format!(
            "{} The job's disk is not full: /tmp, /dev/shm and /run live in the job's memory and are limited to it; large \
             files belong below /opt/ml.",
            card.reason
        ));
    }
}

/// Cause and reason of a job that was ended for a limit.
fn ended(event: &LimitEvent) -> (String, String) {
    let (cause, advice) = match event.limited {
        Limited::Memory | Limited::MachineMemory => (
            "out_of_memory",
            "ClientError: Please use an instance type with more memory, or reduce the size of job data processed on an \
             instance., exit code: 137.",
        ),
        Limited::Disk => (
            "disk_full",
            "ClientError: Please use a larger VolumeSizeInGB, or write less below /opt/ml, exit code: 137.",
        ),
        Limited::FreeDisk => ("disk_full", "InternalServerError: the disk of this machine is full."),
        Limited::Processes => {
            ("limit", "AlgorithmError: the program started more processes than it may have, exit code: 137.")
        }
    };
    (cause.to_owned(), shorten(format!("{advice} {}", event.sentence())))
}

#[cfg(test)]
mod tests {
    use runner::limits::Judge;

    use super::*;

    fn event(limited: Limited, ended_job: bool) -> LimitEvent {
        LimitEvent { limited, limit: 1 << 30, judge: Judge::Kernel, count: 2, ended_job }
    }

    fn explained(exit: Exit, events: Vec<LimitEvent>, reason: &str) -> FailureCard {
        let mut card = FailureCard::new("exit", reason);
        explain(&mut card, &ExitReport { limit_events: events, ..ExitReport::bare(exit, 0, 1, false) });
        card
    }

    #[test]
    fn the_limit_that_ended_a_job_is_its_cause() {
        let card = explained(Exit::Signal(9), vec![event(Limited::Memory, true)], "killed");
        assert_eq!(card.cause, "out_of_memory");
        assert!(card.reason.starts_with("ClientError: Please use an instance type with more memory"));
        assert!(
            card.reason.contains("exit code: 137. The memory limit of 1 GiB was used up"),
            "{}",
            card.reason
        );
        assert_eq!(explained(Exit::Signal(9), vec![event(Limited::Disk, true)], "").cause, "disk_full");
    }

    #[test]
    fn a_job_that_ended_by_itself_keeps_its_own_reason() {
        let events = vec![event(Limited::Memory, true), event(Limited::Processes, false)];
        let card = explained(Exit::Code(1), events, "AlgorithmError: worker died");
        assert_eq!(card.cause, "exit");
        assert!(card.reason.starts_with("AlgorithmError: worker died The memory limit"), "{}", card.reason);
        assert!(card.reason.contains("refused 2 times one more"), "{}", card.reason);
        let card = explained(Exit::Code(1), Vec::new(), "OSError: [Errno 28] No space left on device");
        assert!(card.reason.contains("/dev/shm"), "{}", card.reason);
        let untouched = explained(Exit::Code(1), Vec::new(), "ValueError");
        assert_eq!((untouched.cause.as_str(), untouched.reason.as_str()), ("exit", "ValueError"));
    }
}
