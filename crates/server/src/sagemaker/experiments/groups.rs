//! Experiments themselves: create, describe, list, update, delete.

use api::sagemaker::SERVICE;
use serde_json::{Value, json};
use store::links::LinkPlace;

use super::{EXPERIMENT, TRIALS, place};
use crate::sagemaker::{entities, fields};
use crate::{Cx, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "CreateExperiment", create_experiment);
    registry.on_value(&SERVICE, "DescribeExperiment", describe_experiment);
    registry.on_value(&SERVICE, "ListExperiments", list_experiments);
    registry.on_value(&SERVICE, "UpdateExperiment", update_experiment);
    registry.on_value(&SERVICE, "DeleteExperiment", delete_experiment);
}

async fn create_experiment(cx: Cx) -> Result<Value> {
    fields::check(&cx.input, &["ExperimentName", "DisplayName", "Description", "Tags.**"])?;
    let name = entities::required(&cx.input, "ExperimentName");
    let arn = entities::create(&cx, EXPERIMENT, name, "Created", |_, _| Ok(())).await?;
    Ok(json!({"ExperimentArn": arn}))
}

async fn describe_experiment(cx: Cx) -> Result<Value> {
    let name = entities::required(&cx.input, "ExperimentName");
    let resource = entities::find(&cx, EXPERIMENT.kind, name).await?;
    Ok(description(&resource))
}

/// An experiment as it is shown.
pub(super) fn description(resource: &store::resources::Resource) -> Value {
    let mut shown = entities::shown(resource, EXPERIMENT);
    shown.entry("DisplayName").or_insert_with(|| resource.key.name.clone().into());
    Value::Object(shown)
}

async fn list_experiments(cx: Cx) -> Result<Value> {
    let page = entities::page(&cx, EXPERIMENT.kind, None, Vec::new()).await?;
    let rows = page.resources.iter().map(|resource| {
        let mut shown = entities::shown(resource, EXPERIMENT);
        shown.entry("DisplayName").or_insert_with(|| resource.key.name.clone().into());
        if let Some(source) = shown.remove("Source") {
            shown.insert("ExperimentSource".into(), source);
        }
        let members = [
            "ExperimentArn",
            "ExperimentName",
            "DisplayName",
            "ExperimentSource",
            "CreationTime",
            "LastModifiedTime",
        ];
        entities::picked(&shown, &members)
    });
    Ok(entities::listed("ExperimentSummaries", rows.collect(), page.next_token))
}

async fn update_experiment(cx: Cx) -> Result<Value> {
    fields::check(&cx.input, &["ExperimentName", "DisplayName", "Description"])?;
    let name = entities::required(&cx.input, "ExperimentName");
    let resource = entities::find(&cx, EXPERIMENT.kind, name).await?;
    let input = cx.input.clone();
    let updated = entities::update(&cx, resource.key, move |resource| {
        entities::replace(&mut resource.spec, &input, &["DisplayName", "Description"]);
        Ok(())
    });
    Ok(json!({"ExperimentArn": updated.await?.arn}))
}

async fn delete_experiment(cx: Cx) -> Result<Value> {
    let name = entities::required(&cx.input, "ExperimentName");
    let resource = entities::find(&cx, EXPERIMENT.kind, name).await?;
    let (key, arn, now_ms) = (resource.key, resource.arn.clone(), cx.state.clock.now_ms());
    let deleted = cx.state.database.write(move |session| {
        let trials: LinkPlace<'_> = place(&key, TRIALS);
        if let Some(trial) = session.link_targets(trials, &key.name, 1)?.first() {
            return Err(store::Error::Precondition(format!(
                "The experiment {} has trials, for example {trial}: delete them first.",
                key.name
            )));
        }
        session.delete_edges_of(&arn)?;
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    deleted.await.map_err(entities::missing_or)?;
    Ok(json!({"ExperimentArn": resource.arn}))
}
