//! Trials: create, describe, list, update, delete.

use api::sagemaker::SERVICE;
use serde_json::{Map, Value, json};
use store::links::Narrowing;
use store::resources::Resource;

use super::{COMPONENT, COMPONENTS, EXPERIMENT, TRIAL, TRIALS, place};
use crate::sagemaker::{entities, fields};
use crate::{Cx, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "CreateTrial", create_trial);
    registry.on_value(&SERVICE, "DescribeTrial", describe_trial);
    registry.on_value(&SERVICE, "ListTrials", list_trials);
    registry.on_value(&SERVICE, "UpdateTrial", update_trial);
    registry.on_value(&SERVICE, "DeleteTrial", delete_trial);
}

async fn create_trial(cx: Cx) -> Result<Value> {
    let honoured = ["TrialName", "DisplayName", "ExperimentName", "MetadataProperties.**", "Tags.**"];
    fields::check(&cx.input, &honoured)?;
    let name = entities::required(&cx.input, "TrialName");
    let experiment = entities::required(&cx.input, "ExperimentName").to_owned();
    let arn = entities::create(&cx, TRIAL, name, "Created", move |session, trial| {
        let key = entities::key_of(session, &trial.key, EXPERIMENT.kind, &experiment)?;
        session.link(place(&key, TRIALS), &key.name, &trial.key.name, trial.created_at).map(drop)
    });
    Ok(json!({"TrialArn": arn.await?}))
}

fn shown(resource: &Resource) -> Map<String, Value> {
    let mut shown = entities::shown(resource, TRIAL);
    shown.entry("DisplayName").or_insert_with(|| resource.key.name.clone().into());
    shown
}

async fn describe_trial(cx: Cx) -> Result<Value> {
    let resource = entities::find(&cx, TRIAL.kind, entities::required(&cx.input, "TrialName")).await?;
    Ok(Value::Object(shown(&resource)))
}

async fn list_trials(cx: Cx) -> Result<Value> {
    let mut narrowed = Vec::new();
    if let Some(name) = entities::text(&cx.input, "ExperimentName") {
        let source = entities::find(&cx, EXPERIMENT.kind, name).await?.key.name;
        narrowed.push(Narrowing::TargetsOf { relation: TRIALS, source });
    }
    if let Some(name) = entities::text(&cx.input, "TrialComponentName") {
        let target = entities::find(&cx, COMPONENT.kind, name).await?.key.name;
        narrowed.push(Narrowing::SourcesOf { relation: COMPONENTS, target });
    }
    let page = entities::page(&cx, TRIAL.kind, None, narrowed).await?;
    let rows = page.resources.iter().map(|resource| {
        let mut shown = shown(resource);
        if let Some(source) = shown.remove("Source") {
            shown.insert("TrialSource".into(), source);
        }
        let members =
            ["TrialArn", "TrialName", "DisplayName", "TrialSource", "CreationTime", "LastModifiedTime"];
        entities::picked(&shown, &members)
    });
    Ok(entities::listed("TrialSummaries", rows.collect(), page.next_token))
}

async fn update_trial(cx: Cx) -> Result<Value> {
    fields::check(&cx.input, &["TrialName", "DisplayName"])?;
    let resource = entities::find(&cx, TRIAL.kind, entities::required(&cx.input, "TrialName")).await?;
    let input = cx.input.clone();
    let updated = entities::update(&cx, resource.key, move |resource| {
        entities::replace(&mut resource.spec, &input, &["DisplayName"]);
        Ok(())
    });
    Ok(json!({"TrialArn": updated.await?.arn}))
}

async fn delete_trial(cx: Cx) -> Result<Value> {
    let resource = entities::find(&cx, TRIAL.kind, entities::required(&cx.input, "TrialName")).await?;
    let (key, now_ms) = (resource.key, cx.state.clock.now_ms());
    let deleted = cx.state.database.write(move |session| {
        if let Some(component) = session.link_targets(place(&key, COMPONENTS), &key.name, 1)?.first() {
            return Err(store::Error::Precondition(format!(
                "The trial {} has trial components, for example {component}: disassociate them first.",
                key.name
            )));
        }
        session.unlink_target(place(&key, TRIALS), &key.name)?;
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    deleted.await.map_err(entities::missing_or)?;
    Ok(json!({"TrialArn": resource.arn}))
}
