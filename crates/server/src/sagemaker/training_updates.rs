//! UpdateTrainingJob: what may change of a job that has not ended.

use api::sagemaker::{UpdateTrainingJob, UpdateTrainingJobInput, UpdateTrainingJobOutput};
use serde_json::{Value, json};
use store::resources::Resource;

use super::kinds::TRAINING_JOB;
use super::{fields, records};
use crate::training::record::TrainingRecord;
use crate::training::warm_pool;
use crate::{Cx, Error, Registry, Result};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<UpdateTrainingJob, _, _, _>(update_training_job);
}

/// What can be updated.
const HONOURED: &[&str] = &[
    "TrainingJobName",
    "ProfilerConfig.**",
    "ProfilerRuleConfigurations.**",
    "RemoteDebugConfig.EnableRemoteDebug",
    "ResourceConfig.KeepAlivePeriodInSeconds",
];

/// Secondary statuses in which the service lets remote debugging be turned on and off.
const DEBUGGABLE: &[&str] = &["Downloading", "Training"];

async fn update_training_job(cx: Cx, input: UpdateTrainingJobInput) -> Result<UpdateTrainingJobOutput> {
    fields::check(&cx.input, HONOURED)?;
    let resource = records::find(&cx, TRAINING_JOB, &input.training_job_name).await?;
    let (key, arn, now_ms) = (resource.key, resource.arn, cx.state.clock.now_ms());
    let mut changes = (*cx.input).clone();
    if let Some(members) = changes.as_object_mut() {
        members.remove("TrainingJobName");
    }
    warm_pool::expire(&cx.state).await?;
    let of_pool = key.clone();
    let updated = cx.state.database.write(move |session| {
        session.update_resource(&key, now_ms, |resource| {
            if let Some(seconds) = changes["ResourceConfig"]["KeepAlivePeriodInSeconds"].as_i64() {
                warm_pool::update(session, resource, seconds, now_ms)?;
            }
            apply(resource, &changes)
        })?;
        session.append_event(&key, "Updated", &changes, now_ms)
    });
    updated.await.map_err(|error| match error {
        store::Error::WrongStatus { status, .. } => Error::Validation(format!(
            "The request was rejected because the training job is in status {status}."
        )),
        other => other.into(),
    })?;
    warm_pool::changed(&cx.state, &of_pool).await?;
    Ok(UpdateTrainingJobOutput { training_job_arn: Some(arn) })
}

fn apply(resource: &mut Resource, changes: &Value) -> store::Result<()> {
    let of_running = ["RemoteDebugConfig", "ProfilerConfig", "ProfilerRuleConfigurations"];
    if !changes["ResourceConfig"].is_null() && of_running.iter().all(|name| changes[*name].is_null()) {
        return Ok(());
    }
    let wrong = |status: &str| store::Error::WrongStatus {
        kind: TRAINING_JOB.into(),
        name: resource.key.name.clone(),
        status: status.into(),
    };
    if resource.status != "InProgress" {
        return Err(wrong(&resource.status));
    }
    let record = TrainingRecord::read(&resource.document)?;
    if !changes["RemoteDebugConfig"].is_null() && !DEBUGGABLE.contains(&record.secondary_status()) {
        return Err(store::Error::Invalid(format!(
            "RemoteDebugConfig can be updated while the secondary status is Downloading or Training; it is {}.",
            record.secondary_status()
        )));
    }
    for name in ["RemoteDebugConfig", "ProfilerConfig"] {
        let Some(members) = changes[name].as_object() else { continue };
        let present = &mut resource.spec[name];
        if !present.is_object() {
            *present = json!({});
        }
        for (member, value) in members {
            present[member] = value.clone();
        }
    }
    if !changes["ProfilerRuleConfigurations"].is_null() {
        resource.spec["ProfilerRuleConfigurations"] = changes["ProfilerRuleConfigurations"].clone();
    }
    Ok(())
}
