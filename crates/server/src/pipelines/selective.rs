//! Selective execution: which results are taken from an earlier execution, and which steps are left out.

use std::collections::{BTreeMap, BTreeSet};

use super::definition::{Definition, StepKind};
use super::engine::Phase;
use super::record::StepRecord;

/// The records that the chosen steps need of steps that are not chosen.
///
/// # Errors
/// The rest of a sentence that says what is missing.
pub fn taken(
    definition: &Definition,
    chosen: &BTreeSet<&str>,
    source: &BTreeMap<String, StepRecord>,
    source_arn: Option<&str>,
    now_ms: i64,
) -> Result<Vec<(String, StepRecord)>, String> {
    let mut needed = BTreeSet::new();
    for name in chosen {
        let step = definition
            .step(name)
            .ok_or_else(|| format!("SelectedSteps: the pipeline has no step {name:?}."))?;
        if step.kind == StepKind::Fail {
            return Err(format!("SelectedSteps: {name:?} is a Fail step, which cannot be selected."));
        }
        let mut referred = BTreeSet::new();
        step.each_expression(&mut |expression| referred.extend(expression.steps()));
        needed.extend(referred.into_iter().filter(|other| !chosen.contains(other)));
    }
    let mut taken = Vec::new();
    for name in needed {
        let Some(arn) = source_arn else {
            return Err(format!(
                "SourcePipelineExecutionArn must be given, because a selected step refers to {name:?}, which is not selected."
            ));
        };
        let record = source.get(name).filter(|record| record.phase == Phase::Succeeded).ok_or_else(|| {
            format!("SourcePipelineExecutionArn: {arn} has no result of the step {name:?}, which a selected step refers to.")
        })?;
        let mut record = record.clone();
        record.selected_from = Some(record.selected_from.take().unwrap_or_else(|| arn.to_owned()));
        record.cached_from = None;
        record.receipt = None;
        (record.started_at, record.ended_at) = (now_ms, Some(now_ms));
        taken.push((name.to_owned(), record));
    }
    Ok(taken)
}

/// Positions of the steps that an execution leaves out.
pub fn left_out(definition: &Definition, chosen: &[String]) -> BTreeSet<usize> {
    let steps = definition.steps.iter().enumerate();
    steps.filter(|(_, step)| !chosen.contains(&step.name)).map(|(at, _)| at).collect()
}
