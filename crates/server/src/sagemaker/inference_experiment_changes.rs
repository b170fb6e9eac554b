//! Changes of inference experiments: start, update, stop.

use api::sagemaker::{
    StartInferenceExperiment, StartInferenceExperimentInput, StartInferenceExperimentOutput,
    StopInferenceExperiment, StopInferenceExperimentInput, StopInferenceExperimentOutput,
    UpdateInferenceExperiment, UpdateInferenceExperimentInput, UpdateInferenceExperimentOutput,
};
use serde_json::{Value, json};

use super::inference_experiments::{check_spec, wrong_status};
use super::kinds::INFERENCE_EXPERIMENT;
use super::{fields, records};
use crate::inference_experiments::record::{
    CANCELLED, COMPLETED, CREATED, ExperimentRecord, RUNNING, Stop, UPDATING, change, check_rivals,
};
use crate::inference_experiments::rules::{self, Schedule};
use crate::inference_experiments::{begin_stop, begin_within, endpoint_key};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<StartInferenceExperiment, _, _, _>(start_inference_experiment);
    registry.on::<UpdateInferenceExperiment, _, _, _>(update_inference_experiment);
    registry.on::<StopInferenceExperiment, _, _, _>(stop_inference_experiment);
}

async fn start_inference_experiment(
    cx: Cx,
    input: StartInferenceExperimentInput,
) -> Result<StartInferenceExperimentOutput> {
    let experiment = records::find(&cx, INFERENCE_EXPERIMENT, &input.name).await?;
    let (endpoint, now_ms) = (endpoint_key(&experiment), cx.state.clock.now_ms());
    let key = experiment.key;
    let begun = cx.state.database.write(move |session| {
        let found = session.resource(&key)?;
        if found.status == CREATED {
            let end_at = ExperimentRecord::read(&found.document)?.end_at_ms;
            check_rivals(session, &key, &endpoint.name, (now_ms, end_at), now_ms)?;
        }
        begin_within(session, &key, &endpoint, now_ms)
    });
    begun.await.map_err(|error| wrong_status(error, "started when it is Created"))?;
    cx.state.inference_experiments.ring();
    Ok(StartInferenceExperimentOutput { inference_experiment_arn: Some(experiment.arn) })
}

const HONOURED: &[&str] = &[
    "Name",
    "Schedule.StartTime",
    "Schedule.EndTime",
    "Description",
    "ModelVariants.**",
    "DataStorageConfig.**",
    "ShadowModeConfig.**",
];

async fn update_inference_experiment(
    cx: Cx,
    input: UpdateInferenceExperimentInput,
) -> Result<UpdateInferenceExperimentOutput> {
    const ALLOWED: &str = "updated when it is Created or Running";
    fields::check(&cx.input, HONOURED)?;
    let experiment = records::find(&cx, INFERENCE_EXPERIMENT, &input.name).await?;
    if ![CREATED, RUNNING].contains(&experiment.status.as_str()) {
        return Err(wrong_status(records::wrong_status(&experiment), ALLOWED));
    }
    let is_running = experiment.status == RUNNING;
    let spec = updated(&experiment.spec, &cx.input);
    let record = ExperimentRecord::read(&experiment.document)?;
    let schedule = schedule(&cx, &input, &record, is_running)?;
    if is_running
        && spec["ShadowModeConfig"]["SourceModelVariantName"]
            != experiment.spec["ShadowModeConfig"]["SourceModelVariantName"]
    {
        return Err(Error::Validation(
            "ShadowModeConfig.SourceModelVariantName: a running experiment keeps its production variant."
                .into(),
        ));
    }
    let deployed = ["ModelVariants", "DataStorageConfig", "ShadowModeConfig"];
    let is_deployed_anew = is_running && deployed.iter().any(|name| spec[*name] != experiment.spec[*name]);
    if !is_running || is_deployed_anew {
        check_spec(&cx, &spec).await?;
    }
    let endpoint = endpoint_key(&experiment);
    let weight = share_alone(&experiment.spec, &spec);
    let (key, status, now_ms) = (experiment.key, experiment.status, cx.state.clock.now_ms());
    let changed = cx.state.database.write(move |session| {
        check_rivals(session, &key, &endpoint.name, (schedule.start_at, schedule.end_at), now_ms)?;
        change(session, &key, &[&status], now_ms, |resource, record| {
            record.start_at_ms = schedule.start_at;
            record.end_at_ms = schedule.end_at;
            resource.spec = spec;
            if is_deployed_anew {
                resource.status = UPDATING.into();
                match (weight, &mut record.deployment) {
                    (Some(weight), Some(deployment)) => {
                        deployment.weight = Some(weight);
                        deployment.is_asked = false;
                    }
                    _ => record.deploy_next(&key.name),
                }
            }
            Ok(())
        })
    });
    changed.await.map_err(|error| wrong_status(error, ALLOWED))?;
    cx.state.inference_experiments.ring();
    Ok(UpdateInferenceExperimentOutput { inference_experiment_arn: Some(experiment.arn) })
}

/// The stored request with what an update gives; variants are laid over those of the same name.
fn updated(spec: &Value, input: &Value) -> Value {
    let mut updated = spec.clone();
    for name in ["Description", "DataStorageConfig", "ShadowModeConfig"] {
        if !input[name].is_null() {
            updated[name] = input[name].clone();
        }
    }
    for given in input["ModelVariants"].as_array().into_iter().flatten() {
        let Some(variants) = updated["ModelVariants"].as_array_mut() else { continue };
        match variants.iter_mut().find(|variant| variant["VariantName"] == given["VariantName"]) {
            Some(variant) => *variant = given.clone(),
            // That there are too many is found by the check of the whole.
            None => variants.push(given.clone()),
        }
    }
    updated
}

fn schedule(
    cx: &Cx,
    input: &UpdateInferenceExperimentInput,
    record: &ExperimentRecord,
    is_running: bool,
) -> Result<Schedule> {
    let start_at = input.schedule.as_ref().and_then(|schedule| schedule.start_time).map(|at| at.as_millis());
    let end_at = input.schedule.as_ref().and_then(|schedule| schedule.end_time).map(|at| at.as_millis());
    let now_ms = cx.state.clock.now_ms();
    if !is_running {
        let start_at = start_at.unwrap_or(record.start_at_ms);
        return rules::schedule(Some(start_at), Some(end_at.unwrap_or(record.end_at_ms)), now_ms)
            .map_err(Error::Validation);
    }
    // Clients that send what they were shown send whole seconds.
    if start_at.is_some_and(|start_at| start_at / 1000 != record.start_at_ms / 1000) {
        return Err(Error::Validation(
            "Schedule.StartTime: a running experiment has started; only its EndTime can be changed.".into(),
        ));
    }
    let Some(end_at) = end_at else {
        return Ok(Schedule { start_at: record.start_at_ms, end_at: record.end_at_ms });
    };
    if end_at <= now_ms {
        return Err(Error::Validation(
            "Schedule.EndTime: it must be in the future; use StopInferenceExperiment to end the experiment now.".into(),
        ));
    }
    rules::schedule(Some(record.start_at_ms), Some(end_at), record.start_at_ms).map_err(Error::Validation)
}

/// The weight of the shadow, when nothing but the share of the copied requests changes.
fn share_alone(before: &Value, after: &Value) -> Option<f64> {
    let without_share = |spec: &Value| {
        let mut spec = spec.clone();
        spec["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"] = Value::Null;
        json!([spec["ModelVariants"], spec["DataStorageConfig"], spec["ShadowModeConfig"]])
    };
    let share = after["ShadowModeConfig"]["ShadowModelVariants"][0]["SamplingPercentage"].as_f64()?;
    (without_share(before) == without_share(after)).then_some(share / 100.0)
}

async fn stop_inference_experiment(
    cx: Cx,
    input: StopInferenceExperimentInput,
) -> Result<StopInferenceExperimentOutput> {
    let experiment = records::find(&cx, INFERENCE_EXPERIMENT, &input.name).await?;
    let variants = rules::variants(&experiment.spec).map_err(Error::Validation)?;
    let actions = input.model_variant_actions.iter();
    let actions = actions.map(|(name, action)| (name.clone(), action.to_string())).collect();
    let outcome = rules::outcome(&variants, &actions).map_err(Error::Validation)?;
    let given = cx.input["DesiredModelVariants"].as_array().cloned().unwrap_or_default();
    let desired = rules::desired(&variants, outcome, &given).map_err(Error::Validation)?;
    let status = input.desired_state.map_or_else(|| COMPLETED.to_owned(), |state| state.to_string());
    let stop = Stop { status, outcome, variants: (!given.is_empty()).then_some(desired) };
    let (key, now_ms, reason) = (experiment.key, cx.state.clock.now_ms(), input.reason);
    let stopped = cx.state.database.write(move |session| {
        change(session, &key, &[CREATED, RUNNING], now_ms, |resource, record| {
            record.reason = reason;
            if resource.status == CREATED {
                // Nothing is deployed, so that nothing is left to be done.
                resource.status = CANCELLED.into();
            } else {
                begin_stop(&key.name, resource, record, stop);
            }
            Ok(())
        })
    });
    stopped.await.map_err(|error| wrong_status(error, "stopped when it is Created or Running"))?;
    cx.state.inference_experiments.ring();
    Ok(StopInferenceExperimentOutput { inference_experiment_arn: Some(experiment.arn) })
}
