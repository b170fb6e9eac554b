//! What the ends of a job's hosts mean for the job.

use runner::workload::{Exit, ExitReport};

/// How a job ended, by its hosts alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All hosts ended well.
    Completed,
    /// It was stopped.
    Stopped,
    /// It ran into its time limit.
    TimeLimit,
    /// This host failed first.
    Failed(usize),
}

/// Whether a host ended badly by itself.
pub fn is_failure(report: &ExitReport) -> bool {
    !report.stop_requested && !matches!(report.exit, Exit::Code(0) | Exit::TimeLimit)
}

/// Judges the reports of all hosts.
pub fn verdict(reports: &[ExitReport], limit_seconds: u64, stop_wanted: bool) -> Verdict {
    if stop_wanted {
        return Verdict::Stopped;
    }
    let failures = reports.iter().enumerate().filter(|(_, report)| is_failure(report));
    let first = failures.min_by_key(|(_, report)| report.ended_at_ms);
    // A host that is ended for the time limit may have up to two minutes left, in which its peers fail for want of it.
    let limit_at = reports
        .iter()
        .filter(|report| report.exit == Exit::TimeLimit)
        .map(|report| report.started_at_ms.saturating_add(limit_seconds.saturating_mul(1_000)))
        .min();
    match (first, limit_at) {
        (Some((host, report)), limit_at) if limit_at.is_none_or(|at| report.ended_at_ms < at) => {
            Verdict::Failed(host)
        }
        (_, Some(_)) => Verdict::TimeLimit,
        _ if reports.iter().any(|report| report.stop_requested) => Verdict::Stopped,
        _ => Verdict::Completed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(exit: Exit, ended_at_ms: u64, stop_requested: bool) -> ExitReport {
        ExitReport::bare(exit, 0, ended_at_ms, stop_requested)
    }

    #[test]
    fn the_first_failure_counts_and_not_those_that_follow_from_it() {
        let good = || report(Exit::Code(0), 5, false);
        let bad = |at| report(Exit::Code(1), at, false);
        let stopped = || report(Exit::Signal(15), 9, true);
        assert_eq!(verdict(&[good(), good()], 60, false), Verdict::Completed);
        assert_eq!(verdict(&[stopped(), bad(4), bad(3)], 60, false), Verdict::Failed(2));
        assert_eq!(verdict(&[good(), report(Exit::SupervisorLost, 7, false)], 60, false), Verdict::Failed(1));
        assert_eq!(verdict(&[stopped(), stopped()], 60, false), Verdict::Stopped);
        assert_eq!(verdict(&[bad(1)], 60, true), Verdict::Stopped);
    }

    #[test]
    fn what_comes_of_the_time_limit_is_the_time_limit() {
        let late = || report(Exit::TimeLimit, 70_000, false);
        assert_eq!(verdict(&[late(), late()], 60, false), Verdict::TimeLimit);
        assert_eq!(verdict(&[late(), report(Exit::Code(1), 60_001, false)], 60, false), Verdict::TimeLimit);
        assert_eq!(verdict(&[late(), report(Exit::Code(1), 59_000, false)], 60, false), Verdict::Failed(1));
    }
}
