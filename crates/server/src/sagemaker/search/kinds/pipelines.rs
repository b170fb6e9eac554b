//! What can be searched of pipelines.

use serde_json::{Map, Value, json};
use store::resources::Resource;

use super::laid_over;
use crate::pipelines::expressions::as_text;
use crate::pipelines::record::{ExecutionRecord, ExecutionSpec};
use crate::sagemaker::{pipeline_executions, records};

/// A pipeline, without its definition.
pub(super) fn pipeline(resource: &Resource) -> Map<String, Value> {
    let last_run = resource.document["LastRunAt"].as_i64().map(records::seconds);
    let more = json!({
        "PipelineArn": resource.arn,
        "PipelineStatus": resource.status,
        "CreationTime": records::seconds(resource.created_at),
        "LastModifiedTime": records::seconds(resource.modified_at),
        "LastRunTime": last_run,
        "CreatedBy": resource.document["CreatedBy"],
        "LastModifiedBy": resource.document["LastModifiedBy"],
    });
    laid_over(resource, more)
}

/// An execution, with the values of its parameters.
pub(super) fn execution(resource: &Resource) -> store::Result<Map<String, Value>> {
    let spec = ExecutionSpec::read(resource)?;
    let parameters: Vec<Value> =
        spec.parameters.iter().map(|(name, value)| json!({"Name": name, "Value": as_text(value)})).collect();
    let mut shown = pipeline_executions::description(resource, &spec, ExecutionRecord::read(resource)?);
    shown["PipelineParameters"] = parameters.into();
    let Value::Object(members) = shown else { return Ok(Map::new()) };
    Ok(members.into_iter().filter(|(_, value)| !value.is_null()).collect())
}
