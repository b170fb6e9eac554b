//! ExplainPipelineExecution of our own service: every step of an execution, and why it is where it is.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::definition::Definition;
use super::engine::{self, Fate, Phase, View};
use super::record::{ExecutionRecord, ExecutionSpec, StepRecord};
use super::selective;
use crate::events::moment;
use crate::own_service::own_operation;
use crate::sagemaker::kinds::{PIPELINE, PIPELINE_EXECUTION};
use crate::sagemaker::record_key;
use crate::{Cx, Error, Registry, Result};

own_operation! {
    /// Answers every step of an execution, and why it is where it is.
    ExplainPipelineExecution(ExplainPipelineExecutionInput) -> ExplainPipelineExecutionOutput
}

/// Input of [`ExplainPipelineExecution`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExplainPipelineExecutionInput {
    /// ARN or id of the execution.
    pub execution: String,
}

/// Output of [`ExplainPipelineExecution`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExplainPipelineExecutionOutput {
    /// The answer.
    pub explanation: Value,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<ExplainPipelineExecution, _, _, _>(explain_pipeline_execution);
}

async fn explain_pipeline_execution(
    cx: Cx,
    input: ExplainPipelineExecutionInput,
) -> Result<ExplainPipelineExecutionOutput> {
    let id = input.execution.rsplit('/').next().unwrap_or_default().to_owned();
    let key = record_key(&cx, PIPELINE_EXECUTION, &id);
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let read = cx.state.database.read(move |session| {
        let Some(resource) = session.find_resource(&key)? else { return Ok(None) };
        let spec = ExecutionSpec::read(&resource)?;
        let pipeline = store::resources::ResourceKey::new(account, region, PIPELINE, &*spec.pipeline);
        let version = session.pipeline_version(&pipeline, Some(spec.version))?;
        Ok(Some((resource, spec, version, session.pipeline_steps(&key)?, session.stop_wanted(&key)?)))
    });
    let found =
        read.await?.filter(|found| !input.execution.starts_with("arn:") || found.0.arn == input.execution);
    let (resource, spec, version, rows, stop_wanted) =
        found.ok_or_else(|| Error::not_found(PIPELINE_EXECUTION, &*input.execution))?;
    let text = version.map(|version| version.definition).unwrap_or_default();
    let definition = Definition::parse(&text).map_err(|flaw| Error::Validation(flaw.to_string()))?;
    let mut records: Vec<Option<StepRecord>> = vec![None; definition.steps.len()];
    for row in rows {
        if let Some(at) = definition.position(&row.name) {
            records[at] = Some(StepRecord::read(&row.document)?);
        }
    }
    let record = ExecutionRecord::read(&resource)?;
    let left_out =
        spec.selective.as_ref().map(|one| selective::left_out(&definition, &one.steps)).unwrap_or_default();
    let progress: Vec<_> = records.iter().map(|record| record.as_ref().map(StepRecord::progress)).collect();
    let view = View {
        definition: &definition,
        progress: &progress,
        left_out: &left_out,
        stop_wanted,
        most_parallel: spec.most_parallel,
        now_ms: cx.state.clock.now_ms(),
    };
    let fates = engine::fates(&view);
    let has_ended = record.ended_at.is_some();
    let steps: Vec<Value> = fates
        .iter()
        .enumerate()
        .map(|(at, fate)| {
            let step = &definition.steps[at];
            let record = records[at].as_ref();
            json!({
                "Name": step.name,
                "Type": step.kind.name(),
                "Branch": step.branch.map(|(condition, side)| json!([definition.steps[condition].name, side])),
                "WaitsFor": names(&definition, step.dependencies.iter().copied()),
                "Status": record.map_or("", |record| record.phase.status()),
                "Why": why(&view, fate, record, has_ended),
                "Attempt": record.map(|record| record.attempt),
                "StartedAt": record.map(|record| moment(record.started_at)),
                "EndedAt": record.and_then(|record| record.ended_at).map(moment),
                "Metadata": record.map(|record| &record.metadata),
                "Arguments": record.map(|record| &record.arguments),
                "Receipt": record.and_then(|record| record.receipt.as_ref()),
                "CachedFrom": record.and_then(|record| record.cached_from.as_ref()),
                "SelectedFrom": record.and_then(|record| record.selected_from.as_ref()),
            })
        })
        .collect();
    let explanation = json!({
        "PipelineExecutionArn": resource.arn,
        "PipelineName": spec.pipeline,
        "PipelineVersionId": spec.version,
        "Status": resource.status,
        "FailureReason": record.failure,
        "Parameters": spec.parameters,
        "Steps": steps,
    });
    Ok(ExplainPipelineExecutionOutput { explanation })
}

fn names(definition: &Definition, positions: impl Iterator<Item = usize>) -> Vec<&str> {
    positions.map(|at| definition.steps[at].name.as_str()).collect()
}

/// Why a step is where it is, in a sentence; empty where its status says it all.
fn why(view: &View<'_>, fate: &Fate, record: Option<&StepRecord>, has_ended: bool) -> String {
    let name = |at: usize| view.definition.steps[at].name.as_str();
    let failure = record.and_then(|record| record.failure.as_deref()).unwrap_or_default();
    match fate {
        Fate::Begun(Phase::Retrying(until)) => {
            format!(
                "It waits until {} for its next attempt, because the last one failed: {failure}",
                moment(*until)
            )
        }
        Fate::Begun(Phase::Failed) => failure.to_owned(),
        Fate::Begun(_) => String::new(),
        Fate::LeftOut => "It was not selected.".to_owned(),
        Fate::Skipped(condition) => {
            let outcome = view.progress[*condition].and_then(|progress| progress.outcome).unwrap_or_default();
            format!("It is not run: the condition {} came to {outcome}.", name(*condition))
        }
        Fate::Blocked(cause) => format!("It is not run: the step {} did not end well.", name(*cause)),
        _ if has_ended => "It is not run: the execution ended before.".to_owned(),
        Fate::Waits(others) => {
            format!("It waits for {}.", names(view.definition, others.iter().copied()).join(", "))
        }
        Fate::Ready if view.stop_wanted => "It is not run: the execution stops.".to_owned(),
        Fate::Ready => match view.most_parallel {
            Some(most) => format!("It waits for room: at most {most} steps may be under way at once."),
            None => "It begins now.".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipelines::engine::Progress;
    use std::collections::BTreeSet;

    #[test]
    fn a_pending_step_says_what_it_waits_for() {
        let lambda = |name: &str, depends: &[&str]| json!({"Name": name, "Type": "Lambda", "FunctionArn": "f", "DependsOn": depends});
        let condition = json!({"Name": "c", "Type": "Condition", "Arguments": {
            "Conditions": [{"Type": "Equals", "LeftValue": 1, "RightValue": 1}], "IfSteps": [], "ElseSteps": [lambda("e", &[])]}});
        let steps = json!([
            lambda("a", &[]),
            lambda("b", &["a"]),
            condition,
            lambda("f", &[]),
            lambda("g", &["f"]),
            lambda("r", &[])
        ]);
        let definition =
            Definition::parse(&json!({"Version": "2020-12-01", "Steps": steps}).to_string()).unwrap();
        let begun = |phase, outcome| Some(Progress { phase, outcome });
        // a, b, c, e, f, g, r
        let progress = [
            begun(Phase::Executing, None),
            None,
            begun(Phase::Succeeded, Some(true)),
            None,
            begun(Phase::Failed, None),
            None,
            None,
        ];
        let view = View {
            definition: &definition,
            progress: &progress,
            left_out: &BTreeSet::new(),
            stop_wanted: false,
            most_parallel: Some(1),
            now_ms: 0,
        };
        let fates = engine::fates(&view);
        let said: Vec<String> = fates.iter().map(|fate| why(&view, fate, None, false)).collect();
        assert_eq!(
            said,
            [
                "",
                "It waits for a.",
                "",
                "It is not run: the condition c came to true.",
                "",
                "It is not run: the step f did not end well.",
                "It waits for room: at most 1 steps may be under way at once."
            ]
        );
    }
}
