//! Events of executions and steps, as EventBridge tells them.

use serde_json::json;
use store::Session;
use store::resources::Resource;

use super::definition::Step;
use super::record::{ExecutionRecord, ExecutionSpec, StepRecord};
use crate::events::{envelope, moment};

/// What the envelope of an execution's new state says it is.
pub const EXECUTION_STATE: &str = "SageMaker Model Building Pipeline Execution Status Change";
/// What the envelope of a step's new state says it is.
pub const STEP_STATE: &str = "SageMaker Model Building Pipeline Execution Step Status Change";

/// Appends the event of an execution's new status.
///
/// # Errors
/// When the database fails, or the stored record is damaged.
pub fn execution(
    session: &Session<'_>,
    resource: &Resource,
    before: Option<&str>,
    now_ms: i64,
) -> store::Result<()> {
    let spec = ExecutionSpec::read(resource)?;
    let record = ExecutionRecord::read(resource)?;
    let detail = json!({
        "pipelineArn": spec.pipeline_arn,
        "pipelineExecutionArn": resource.arn,
        "pipelineExecutionDisplayName": spec.display_name,
        "pipelineExecutionDescription": spec.description,
        "currentPipelineExecutionStatus": resource.status,
        "previousPipelineExecutionStatus": before,
        "executionStartTime": moment(resource.created_at),
        "executionEndTime": record.ended_at.map(moment),
    });
    let event = envelope(EXECUTION_STATE, "aws.sagemaker", &resource.key, &resource.arn, &detail, now_ms);
    session.append_event(&resource.key, EXECUTION_STATE, &event, now_ms)
}

/// Appends the event of a step's new status.
///
/// # Errors
/// When the database fails.
pub fn step(
    session: &Session<'_>,
    execution: &super::walk::Execution,
    step: &Step,
    before: Option<&str>,
    record: &StepRecord,
    now_ms: i64,
) -> store::Result<()> {
    let detail = json!({
        "pipelineArn": execution.spec.pipeline_arn,
        "pipelineExecutionArn": execution.arn,
        "stepName": step.name,
        "stepType": step.kind.name(),
        "currentStepStatus": record.phase.status(),
        "previousStepStatus": before,
        "metadata": record.metadata,
        "failureReason": record.failure,
        "stepStartTime": moment(record.started_at),
        "stepEndTime": record.ended_at.map(moment),
    });
    let event = envelope(STEP_STATE, "aws.sagemaker", &execution.key, &execution.arn, &detail, now_ms);
    session.append_event(&execution.key, STEP_STATE, &event, now_ms)
}
