//! The experiment and the trial that an execution's jobs are put into.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use store::resources::Resource;
use store::work::Work;

use super::expressions::{Room, Scope, as_text};
use super::record::ExecutionRecord;
use super::walk::Execution;
use crate::app::App;
use crate::events::moment;
use crate::internal_call::{self, CallError};

/// Makes experiment and trial where this release has them, once, and answers their names for the jobs.
///
/// # Errors
/// When the database fails or the lease is lost.
pub(super) async fn enter(
    app: &Arc<App>,
    execution: &Execution,
    resource: &Resource,
    work: &Work,
    owner: &str,
) -> store::Result<Option<(String, String)>> {
    let record = ExecutionRecord::read(resource)?;
    let names = match record.experiment {
        Some(names) => names,
        None => {
            let Some(names) = names(execution) else { return Ok(None) };
            names
        }
    };
    let (Some(experiment), Some(trial)) = names.clone() else { return Ok(None) };
    let mut entered = record.experiment_entered;
    if !entered {
        let made = call(app, execution, "CreateExperiment", json!({"ExperimentName": experiment})).await;
        let trial = json!({"TrialName": trial, "ExperimentName": experiment});
        entered = made && call(app, execution, "CreateTrial", trial).await;
    }
    let (work, owner, now_ms) = (work.clone(), owner.to_owned(), app.clock.now_ms());
    let written = app.database.write(move |session| {
        session.check_lease(&work, &owner)?;
        session.update_resource(&work.key, now_ms, |resource| {
            let mut record = ExecutionRecord::read(resource)?;
            record.experiment = Some(names);
            record.experiment_entered = entered;
            resource.document = record.to_document();
            Ok(())
        })
    });
    written.await?;
    Ok(entered.then_some((experiment, trial)))
}

/// Whether the thing is there now.
async fn call(app: &Arc<App>, execution: &Execution, operation: &str, input: Value) -> bool {
    match internal_call::call(app, &execution.caller, "sagemaker", operation, input).await {
        Ok(_) => true,
        Err(CallError { message, .. }) if message.contains("already exist") => true,
        Err(error) => {
            if error.code != "NotImplemented" {
                tracing::warn!(operation, %error, "an execution's experiment could not be entered");
            }
            false
        }
    }
}

fn names(execution: &Execution) -> Option<(Option<String>, Option<String>)> {
    let config = execution.definition.experiment.as_ref()?;
    let variables = BTreeMap::from([
        ("PipelineName".to_owned(), json!(execution.spec.pipeline)),
        ("PipelineArn".to_owned(), json!(execution.spec.pipeline_arn)),
        ("PipelineExecutionId".to_owned(), json!(execution.key.name)),
        ("PipelineExecutionArn".to_owned(), json!(execution.arn)),
        ("StartDateTime".to_owned(), json!(moment(execution.created_at))),
    ]);
    let nothing = BTreeMap::new();
    let scope = Scope {
        parameters: &execution.spec.parameters,
        execution: &variables,
        properties: &nothing,
        files: &nothing,
        property_file: &|_, _| Err("Names of experiments cannot depend on files.".to_owned()),
        room: Room::default(),
    };
    let name = |expression: &Option<super::expressions::Expression>| {
        let value = expression.as_ref().and_then(|expression| scope.value(expression).ok())?;
        Some(as_text(&value))
    };
    Some((name(&config.experiment_name), name(&config.trial_name)))
}
