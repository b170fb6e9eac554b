//! What a cluster does next: a pure function of its steps.

use super::record::{ClusterRecord, Ending, StepState};

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Begin the step at this position.
    Begin(usize),
    /// Stop the jobs of the steps at these positions, and wait for them.
    Stop(Vec<usize>),
    /// Wait for a job, or for more steps.
    Wait,
    /// Nothing runs and nothing waits: end.
    End(Ending),
}

/// What is next. `stays` says that the cluster waits for more steps when it has none.
pub fn next(record: &ClusterRecord, most_parallel: usize, stays: bool) -> Next {
    let running = || record.steps.iter().enumerate().filter(|(_, step)| step.state == StepState::Running);
    if let Some(ending) = &record.ending {
        let left: Vec<usize> = running().map(|(at, _)| at).collect();
        return if left.is_empty() { Next::End(ending.clone()) } else { Next::Stop(left) };
    }
    let pending = record.steps.iter().position(|step| step.state == StepState::Pending);
    if let Some(at) = pending.filter(|_| running().count() < most_parallel) {
        return Next::Begin(at);
    }
    let cancelled: Vec<usize> = running().filter(|(_, step)| step.is_cancelled).map(|(at, _)| at).collect();
    if !cancelled.is_empty() {
        return Next::Stop(cancelled);
    }
    if stays || pending.is_some() || running().next().is_some() {
        return Next::Wait;
    }
    let failed = record.steps.iter().any(|step| step.state == StepState::Failed);
    let how = if failed { "Steps completed with errors" } else { "Steps completed" };
    Next::End(Ending::new("ALL_STEPS_COMPLETED", how))
}

/// Ends a step, with what its end does to the others.
pub fn end_step(
    record: &mut ClusterRecord,
    at: usize,
    state: StepState,
    failure: Option<String>,
    now_ms: i64,
) {
    let step = &mut record.steps[at];
    step.state = state;
    step.failure = failure;
    step.ended_at = Some(now_ms);
    if state != StepState::Failed {
        return;
    }
    match step.action_on_failure() {
        "TERMINATE_CLUSTER" | "TERMINATE_JOB_FLOW" => {
            end(record, Ending::new("STEP_FAILURE", "Shut down as step failed"), now_ms);
        }
        "CANCEL_AND_WAIT" => cancel_pending(record, now_ms),
        _ => {}
    }
}

/// Decides that the cluster ends; the first reason stays.
pub fn end(record: &mut ClusterRecord, ending: Ending, now_ms: i64) {
    cancel_pending(record, now_ms);
    record.ending.get_or_insert(ending);
}

fn cancel_pending(record: &mut ClusterRecord, now_ms: i64) {
    for step in record.steps.iter_mut().filter(|step| step.state == StepState::Pending) {
        step.state = StepState::Cancelled;
        step.ended_at = Some(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::StepRecord;
    use super::*;
    use serde_json::json;

    fn record(actions: &[&str]) -> ClusterRecord {
        let steps = actions.iter().enumerate().map(|(at, action)| {
            StepRecord::new(format!("s-{at}"), json!({"ActionOnFailure": action}), None, 0)
        });
        ClusterRecord { steps: steps.collect(), ..ClusterRecord::default() }
    }

    #[test]
    fn steps_run_in_their_order_and_no_more_than_allowed_at_once() {
        let mut cluster = record(&["CONTINUE", "CONTINUE", "CONTINUE"]);
        assert_eq!(next(&cluster, 2, true), Next::Begin(0));
        cluster.steps[0].state = StepState::Running;
        assert_eq!(next(&cluster, 2, true), Next::Begin(1));
        cluster.steps[1].state = StepState::Running;
        assert_eq!(next(&cluster, 2, true), Next::Wait);
        end_step(&mut cluster, 0, StepState::Failed, Some("why".into()), 5);
        assert_eq!(next(&cluster, 2, true), Next::Begin(2), "the others go on");
        cluster.steps[1].is_cancelled = true;
        assert_eq!(next(&cluster, 1, true), Next::Stop(vec![1]));
    }

    #[test]
    fn a_cluster_without_steps_waits_or_ends() {
        assert_eq!(next(&record(&[]), 1, true), Next::Wait);
        let mut cluster = record(&["CONTINUE"]);
        end_step(&mut cluster, 0, StepState::Failed, None, 5);
        assert_eq!(
            next(&cluster, 1, false),
            Next::End(Ending::new("ALL_STEPS_COMPLETED", "Steps completed with errors"))
        );
    }

    #[test]
    fn a_failed_step_ends_what_it_says() {
        let mut cluster = record(&["CANCEL_AND_WAIT", "CONTINUE"]);
        end_step(&mut cluster, 0, StepState::Failed, None, 5);
        assert_eq!(cluster.steps[1].state, StepState::Cancelled);
        assert_eq!(next(&cluster, 1, true), Next::Wait);
        let mut cluster = record(&["TERMINATE_CLUSTER", "CONTINUE", "CONTINUE"]);
        cluster.steps[1].state = StepState::Running;
        end_step(&mut cluster, 0, StepState::Failed, None, 5);
        assert_eq!(cluster.steps[2].state, StepState::Cancelled);
        assert_eq!(next(&cluster, 2, true), Next::Stop(vec![1]));
        end_step(&mut cluster, 1, StepState::Cancelled, None, 6);
        assert!(matches!(next(&cluster, 2, true), Next::End(ending) if ending.code == "STEP_FAILURE"));
    }
}
