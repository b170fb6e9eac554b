//! Lists of executions, of their steps and of their parameters.

use api::sagemaker::{
    ListPipelineExecutionSteps, ListPipelineExecutionStepsInput, ListPipelineExecutionStepsOutput,
    ListPipelineExecutions, ListPipelineExecutionsInput, ListPipelineExecutionsOutput,
    ListPipelineParametersForExecution, ListPipelineParametersForExecutionInput,
    ListPipelineParametersForExecutionOutput,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use store::pipelines::TimedQuery;

use super::kinds::PIPELINE;
use super::pipeline_executions::find;
use super::pipeline_versions::answer;
use super::{pipelines, records};
use crate::pipelines::expressions::as_text;
use crate::pipelines::record::{ExecutionRecord, ExecutionSpec, StepRecord};
use crate::{Cx, Error, Registry, Result};

/// Rows on a page when the caller names no number.
const DEFAULT_ROWS: i32 = 10;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<ListPipelineExecutions, _, _, _>(list_pipeline_executions);
    registry.on::<ListPipelineExecutionSteps, _, _, _>(list_pipeline_execution_steps);
    registry.on::<ListPipelineParametersForExecution, _, _, _>(list_pipeline_parameters);
}

async fn list_pipeline_executions(
    cx: Cx,
    input: ListPipelineExecutionsInput,
) -> Result<ListPipelineExecutionsOutput> {
    if input.sort_by.as_ref().is_some_and(|column| column.as_str() != "CreationTime") {
        return Err(Error::field("SortBy PipelineExecutionArn"));
    }
    let pipeline = pipelines::find(&cx, &input.pipeline_name).await?;
    let rows = input.max_results.unwrap_or(DEFAULT_ROWS).max(1) as usize;
    let mut query = TimedQuery {
        created_after: input.created_after.map(|at| at.as_millis()),
        created_before: input.created_before.map(|at| at.as_millis()),
        descending: input.sort_order.is_none_or(|order| order.as_str() == "Descending"),
        after: input.next_token.as_deref().map(position).transpose()?,
        limit: rows + 1,
    };
    let alias = input.pipeline_version_alias;
    let mut summaries: Vec<Value> = Vec::new();
    // Executions of other aliases are passed over; without an alias one round fills the page.
    let next_token = 'page: loop {
        let (key, asked) = (pipeline.key.clone(), query.clone());
        let page = cx.state.database.read(move |session| session.pipeline_executions(&key, &asked)).await?;
        let is_last = page.len() < query.limit;
        for resource in page {
            if summaries.len() == rows {
                break 'page query.after.map(|(at, name)| token(at, &name));
            }
            query.after = Some((resource.created_at, resource.key.name.clone()));
            let spec = ExecutionSpec::read(&resource)?;
            if alias.is_some() && spec.version_alias != alias {
                continue;
            }
            let record = ExecutionRecord::read(&resource)?;
            summaries.push(json!({
                "PipelineExecutionArn": resource.arn,
                "StartTime": records::seconds(resource.created_at),
                "PipelineExecutionStatus": resource.status,
                "PipelineExecutionDescription": spec.description,
                "PipelineExecutionDisplayName": spec.display_name,
                "PipelineExecutionFailureReason": record.failure,
                "PipelineVersionAliases": spec.version_alias.map(|alias| vec![alias]),
            }));
        }
        if is_last {
            break None;
        }
    };
    answer(json!({"PipelineExecutionSummaries": summaries, "NextToken": next_token}))
}

async fn list_pipeline_execution_steps(
    cx: Cx,
    input: ListPipelineExecutionStepsInput,
) -> Result<ListPipelineExecutionStepsOutput> {
    let arn = input
        .pipeline_execution_arn
        .ok_or_else(|| Error::Validation("PipelineExecutionArn must be given.".into()))?;
    let resource = find(&cx, &arn).await?;
    let spec = ExecutionSpec::read(&resource)?;
    let (execution, pipeline) = (resource.key.clone(), records::key(&cx, PIPELINE, &spec.pipeline));
    let (mut rows, version) = cx
        .state
        .database
        .read(move |session| {
            Ok((
                session.pipeline_steps(&execution)?,
                session.pipeline_version(&pipeline, Some(spec.version))?,
            ))
        })
        .await?;
    let definition = pipelines::parse(&version.map(|version| version.definition).unwrap_or_default())?;
    let ascending = input.sort_order.is_some_and(|order| order.as_str() == "Ascending");
    if !ascending {
        rows.reverse();
    }
    if let Some(token) = &input.next_token {
        let seen = position(token)?;
        rows.retain(|row| {
            let here = (row.started_at, row.name.clone());
            if ascending { here > seen } else { here < seen }
        });
    }
    let limit = input.max_results.unwrap_or(DEFAULT_ROWS).max(1) as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_token = rows.last().filter(|_| more).map(|last| token(last.started_at, &last.name));
    let mut steps = Vec::new();
    for row in rows {
        let record = StepRecord::read(&row.document)?;
        let step = definition.step(&row.name);
        let source = |arn: Option<&String>| arn.map(|arn| json!({"SourcePipelineExecutionArn": arn}));
        steps.push(json!({
            "StepName": row.name,
            "StepDisplayName": step.and_then(|step| step.display_name.clone()),
            "StepDescription": step.and_then(|step| step.description.clone()),
            "StartTime": records::seconds(record.started_at),
            "EndTime": record.ended_at.map(records::seconds),
            "StepStatus": record.phase.status(),
            "CacheHitResult": source(record.cached_from.as_ref()),
            "SelectiveExecutionResult": source(record.selected_from.as_ref()),
            "FailureReason": record.failure.filter(|_| record.phase.status() == "Failed"),
            "Metadata": record.metadata,
            "AttemptCount": record.attempt,
        }));
    }
    answer(json!({"PipelineExecutionSteps": steps, "NextToken": next_token}))
}

async fn list_pipeline_parameters(
    cx: Cx,
    input: ListPipelineParametersForExecutionInput,
) -> Result<ListPipelineParametersForExecutionOutput> {
    let resource = find(&cx, &input.pipeline_execution_arn).await?;
    let spec = ExecutionSpec::read(&resource)?;
    let seen = input.next_token.as_deref().map(position).transpose()?;
    let mut parameters: Vec<(&String, &Value)> = spec
        .parameters
        .iter()
        .filter(|(name, _)| seen.as_ref().is_none_or(|(_, last)| *name > last))
        .collect();
    let limit = input.max_results.unwrap_or(DEFAULT_ROWS).max(1) as usize;
    let more = parameters.len() > limit;
    parameters.truncate(limit);
    let next_token = parameters.last().filter(|_| more).map(|(name, _)| token(0, name));
    let shown: Vec<Value> =
        parameters.iter().map(|(name, value)| json!({"Name": name, "Value": as_text(value)})).collect();
    answer(json!({"PipelineParameters": shown, "NextToken": next_token}))
}

fn token(at: i64, name: &str) -> String {
    URL_SAFE_NO_PAD.encode(json!([at, name]).to_string())
}

fn position(token: &str) -> Result<(i64, String)> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    read.ok_or_else(|| Error::Validation("The pagination token NextToken is not valid.".into()))
}
