//! The beginning of a step: its references become values, Conditions and Fail steps are decided, results are reused.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cache::{self, Facts, Receipt};
use super::definition::{Definition, Step, StepKind};
use super::engine::Phase;
use super::expressions::{Expression, Room, Scope};
use super::files;
use super::path;
use super::record::StepRecord;
use super::steps;
use super::walk::Walk;
use crate::events::moment;

/// Most bytes of all JSON files that the expressions of one step read.
const MOST_FILE_BYTES: usize = 64 << 20;

/// The record with which a step begins; Conditions, Fail steps and reused results have ended with it.
///
/// # Errors
/// When the database fails.
pub(super) async fn record(walk: &Walk<'_>, at: usize) -> store::Result<StepRecord> {
    let step = &walk.execution.definition.steps[at];
    let now_ms = walk.app.clock.now_ms();
    let before = walk.records[at].as_ref();
    let mut record = StepRecord::begin(now_ms, before.map_or(1, |before| before.attempt + 1));
    if let Some(before) = before {
        record.started_at = before.started_at;
        record.used = before.used.clone();
    }
    match evaluate(walk, at, record.attempt).await {
        Err(problem) => failed(&mut record, &problem, now_ms),
        Ok(Evaluated { arguments, settings, outcome }) => {
            record.arguments = arguments;
            record.settings = settings;
            match step.kind {
                StepKind::Condition => {
                    let outcome = outcome.unwrap_or_default();
                    let text = if outcome { "True" } else { "False" };
                    record.outcome = Some(outcome);
                    record.properties = json!({"Outcome": text});
                    record.metadata = json!({"Condition": {"Outcome": text}});
                    succeeded(&mut record, now_ms);
                }
                StepKind::Fail => {
                    let message = &record.arguments["ErrorMessage"];
                    let message =
                        if message.is_null() { String::new() } else { super::expressions::as_text(message) };
                    record.metadata = json!({"Fail": {"ErrorMessage": message}});
                    failed(&mut record, &message, now_ms);
                }
                _ => reuse(walk, step, &mut record, now_ms).await?,
            }
        }
    }
    Ok(record)
}

fn failed(record: &mut StepRecord, reason: &str, now_ms: i64) {
    record.phase = Phase::Failed;
    record.failure = Some(reason.chars().take(1_024).collect());
    record.ended_at = Some(now_ms);
}

fn succeeded(record: &mut StepRecord, now_ms: i64) {
    record.phase = Phase::Succeeded;
    record.ended_at = Some(now_ms);
}

struct Evaluated {
    arguments: Value,
    settings: BTreeMap<String, Value>,
    outcome: Option<bool>,
}

async fn evaluate(walk: &Walk<'_>, at: usize, attempt: u32) -> Result<Evaluated, String> {
    let execution = &walk.execution;
    let step = &execution.definition.steps[at];
    let mut properties = BTreeMap::new();
    for dependency in &step.dependencies {
        if let Some(record) = walk.records[*dependency].as_ref().filter(|one| one.phase == Phase::Succeeded) {
            properties
                .insert(execution.definition.steps[*dependency].name.clone(), record.properties.clone());
        }
    }
    // Steps whose results a selective execution took have no dependency that ran.
    for (other, record) in execution.definition.steps.iter().zip(&walk.records) {
        if let Some(record) = record.as_ref().filter(|record| record.selected_from.is_some()) {
            properties.insert(other.name.clone(), record.properties.clone());
        }
    }
    let mut variables = BTreeMap::from([
        ("PipelineName".to_owned(), json!(execution.spec.pipeline)),
        ("PipelineArn".to_owned(), json!(execution.spec.pipeline_arn)),
        ("PipelineExecutionId".to_owned(), json!(execution.key.name)),
        ("PipelineExecutionArn".to_owned(), json!(execution.arn)),
        ("StartDateTime".to_owned(), json!(moment(execution.created_at))),
        ("CurrentDateTime".to_owned(), json!(moment(walk.app.clock.now_ms()))),
    ]);
    let job = steps::job_name(execution, at, attempt, &Value::Null);
    match step.kind {
        StepKind::Training | StepKind::NotebookJob => {
            drop(variables.insert("TrainingJobName".into(), json!(job)))
        }
        StepKind::Processing => drop(variables.insert("ProcessingJobName".into(), json!(job))),
        _ => {}
    }
    let property_file =
        |step: &str, name: &str| property_file_uri(&execution.definition, &properties, step, name);
    let mut contents = BTreeMap::new();
    let nothing = BTreeMap::new();
    let scope_with = |files| Scope {
        parameters: &execution.spec.parameters,
        execution: &variables,
        properties: &properties,
        files,
        property_file: &property_file,
        room: Room::default(),
    };
    let mut uris = Ok(std::collections::BTreeSet::new());
    {
        let scope = scope_with(&nothing);
        step.each_expression(&mut |expression: &Expression| {
            if let Ok(found) = &mut uris {
                match scope.files(expression) {
                    Ok(more) => found.extend(more),
                    Err(problem) => uris = Err(problem),
                }
            }
        });
    }
    let mut left_bytes = MOST_FILE_BYTES;
    for uri in uris? {
        let (content, bytes) = files::read_json(&walk.app, &execution.key.account, &uri).await?;
        left_bytes = left_bytes.checked_sub(bytes).ok_or_else(|| {
            format!("The JSON files that this step reads have more than {MOST_FILE_BYTES} bytes together.")
        })?;
        contents.insert(uri, content);
    }
    let scope = scope_with(&contents);
    let mut outcome = None;
    if step.kind == StepKind::Condition {
        let mut all = true;
        for condition in &step.conditions {
            all = all && condition.holds(&scope)?;
        }
        outcome = Some(all);
    }
    let settings = step.settings.iter().map(|(name, value)| Ok((name.clone(), scope.value(value)?)));
    Ok(Evaluated {
        arguments: without_nulls(scope.value(&step.arguments)?),
        settings: settings.collect::<Result<_, String>>()?,
        outcome,
    })
}

/// The SDK writes `null` for what was not given.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, member)| !member.is_null());
            Value::Object(members.map(|(name, member)| (name, without_nulls(member))).collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(without_nulls).collect()),
        scalar => scalar,
    }
}

fn property_file_uri(
    definition: &Definition,
    properties: &BTreeMap<String, Value>,
    step: &str,
    name: &str,
) -> Result<String, String> {
    let declared =
        definition.step(step).and_then(|step| step.property_files.iter().find(|file| file.name == name));
    let file = declared.ok_or_else(|| format!("The step {step} has no property file {name:?}."))?;
    let at = path::parse(&format!("ProcessingOutputConfig.Outputs['{}'].S3Output.S3Uri", file.output_name))?;
    let result = properties.get(step).and_then(|result| path::follow(result, &at));
    let uri = result.and_then(Value::as_str).ok_or_else(|| {
        format!(
            "The property file {name:?} cannot be found: the step {step} has no output {:?}.",
            file.output_name
        )
    })?;
    Ok(format!("{}/{}", uri.trim_end_matches('/'), file.file_path.trim_start_matches('/')))
}

/// Takes an earlier result where there is one that fits, and says why or why not.
async fn reuse(walk: &Walk<'_>, step: &Step, record: &mut StepRecord, now_ms: i64) -> store::Result<()> {
    let Some(config) = &step.cache else { return Ok(()) };
    let Some(facts) = cache::facts(step.kind, &record.arguments) else {
        let reasons = vec![format!("Results of {} steps are never reused.", step.kind.name())];
        record.receipt = Some(Receipt { hit: false, source: None, reasons });
        return Ok(());
    };
    let account = &walk.execution.key.account;
    let mut all: Facts = facts.clone();
    for (field, uri) in cache::input_locations(&facts) {
        all.extend(files::object_facts(&walk.app, account, &field, &uri).await);
    }
    let fingerprint = cache::fingerprint(&all);
    let (pipeline, name, wanted) = (walk.execution.pipeline.clone(), step.name.clone(), fingerprint);
    let found = walk.app.database.read(move |session| {
        let (newest, same) = session.pipeline_results(&pipeline, &name, &wanted)?;
        let Some(result) = &same else { return Ok((newest, same, None)) };
        let mut execution = pipeline.clone();
        execution.kind = crate::sagemaker::kinds::PIPELINE_EXECUTION.to_owned();
        execution.name.clone_from(&result.execution);
        let row = session.pipeline_step(&execution, &name)?;
        let arn = session.find_resource(&execution)?.map(|resource| resource.arn);
        Ok((newest, same, row.zip(arn)))
    });
    let (newest, same, source) = found.await?;
    let mut receipt = cache::judge(config, &all, newest.as_ref(), same.as_ref(), now_ms);
    record.facts = Some(all);
    if receipt.hit {
        let reused = match &source {
            Some((row, arn)) => Some((StepRecord::read(&row.document)?, arn)),
            None => None,
        };
        match reused.filter(|(earlier, _)| earlier.phase == Phase::Succeeded) {
            None => {
                receipt.hit = false;
                receipt.reasons = vec!["The execution that has the result was deleted.".to_owned()];
            }
            Some((earlier, arn)) => match gone(walk, &earlier.properties).await {
                Some(uri) => {
                    receipt.hit = false;
                    receipt.reasons = vec![format!("The result is gone: there is no object {uri} any more.")];
                }
                None => {
                    record.properties = earlier.properties;
                    record.metadata = earlier.metadata;
                    record.cached_from = Some(arn.clone());
                    succeeded(record, now_ms);
                }
            },
        }
    }
    record.receipt = Some(receipt);
    Ok(())
}

/// An artifact of an earlier result that was deleted since.
async fn gone(walk: &Walk<'_>, properties: &Value) -> Option<String> {
    let uri = properties["ModelArtifacts"]["S3ModelArtifacts"].as_str()?;
    let exists = files::exists(&walk.app, &walk.execution.key.account, uri).await;
    (!exists).then(|| uri.to_owned())
}
