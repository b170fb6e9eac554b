//! RetryPipelineExecution: an execution that failed or was stopped goes on where it left off.

use store::Session;
use store::pipelines::PipelineStep;
use store::resources::ResourceKey;

use super::engine::Phase;
use super::record::{ExecutionRecord, ExecutionSpec, StepRecord};
use super::retry::Used;
use super::state_events;

/// Lines the execution up again; its failed and stopped steps begin a new attempt, and those that ended well keep their results.
///
/// # Errors
/// [`store::Error::Precondition`] when it is under way or has ended well.
pub fn retry(
    session: &Session<'_>,
    execution: &ResourceKey,
    by: (String, String),
    most_parallel: Option<usize>,
    now_ms: i64,
) -> store::Result<()> {
    let before = session.resource(execution)?.status;
    let changed = session.update_resource(execution, now_ms, |resource| {
        if !matches!(resource.status.as_str(), "Failed" | "Stopped") {
            return Err(store::Error::Precondition(format!(
                "Only executions with the status Failed or Stopped can be retried; the status of {} is {}.",
                resource.arn, resource.status
            )));
        }
        let mut record = ExecutionRecord::read(resource)?;
        record.failure = None;
        record.ended_at = None;
        record.retries += 1;
        record.modified_by = Some(by);
        resource.document = record.to_document();
        if most_parallel.is_some() {
            let mut spec = ExecutionSpec::read(resource)?;
            spec.most_parallel = most_parallel;
            resource.spec = serde_json::to_value(&spec)?;
        }
        resource.status = "Executing".into();
        Ok(())
    })?;
    for row in session.pipeline_steps(execution)? {
        let mut record = StepRecord::read(&row.document)?;
        if matches!(record.phase, Phase::Failed | Phase::Stopped) {
            record.phase = Phase::Retrying(now_ms);
            record.ended_at = None;
            record.used = Used::default();
            session.put_pipeline_step(execution, &step_row(&row.name, &record))?;
        }
    }
    state_events::execution(session, &changed, Some(&before), now_ms)?;
    session.enqueue_work(execution, now_ms)
}

/// The row of a step.
pub fn step_row(name: &str, record: &StepRecord) -> PipelineStep {
    PipelineStep { name: name.to_owned(), started_at: record.started_at, document: record.to_document() }
}
