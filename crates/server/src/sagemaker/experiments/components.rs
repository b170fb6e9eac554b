//! Trial components: create, describe, list, update, delete, and their association with trials.

use api::sagemaker::SERVICE;
use serde_json::{Map, Value, json};
use store::Session;
use store::links::Narrowing;
use store::resources::{Resource, ResourceKey};

use super::{COMPONENT, COMPONENTS, EXPERIMENT, SOURCES, TRIAL, TRIALS, place};
use crate::sagemaker::{entities, fields, kinds, records};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "CreateTrialComponent", create_trial_component);
    registry.on_value(&SERVICE, "DescribeTrialComponent", describe_trial_component);
    registry.on_value(&SERVICE, "ListTrialComponents", list_trial_components);
    registry.on_value(&SERVICE, "UpdateTrialComponent", update_trial_component);
    registry.on_value(&SERVICE, "DeleteTrialComponent", delete_trial_component);
    registry.on_value(&SERVICE, "AssociateTrialComponent", associate_trial_component);
    registry.on_value(&SERVICE, "DisassociateTrialComponent", disassociate_trial_component);
}

/// Most parameters of a component, as in the service.
pub(super) const MOST_PARAMETERS: usize = 300;

/// Most artifacts in either direction, as in the service.
const MOST_ARTIFACTS: usize = 60;

/// Trials of a component, or components of a trial, that are shown.
const MOST_PARENTS: usize = 100;

const HONOURED: &[&str] = &[
    "TrialComponentName",
    "DisplayName",
    "Status.**",
    "StartTime",
    "EndTime",
    "Parameters.**",
    "InputArtifacts.**",
    "OutputArtifacts.**",
];

async fn create_trial_component(cx: Cx) -> Result<Value> {
    fields::check(&cx.input, &[HONOURED, &["MetadataProperties.**", "Tags.**"]].concat())?;
    check_parameters(&cx.input)?;
    let name = entities::required(&cx.input, "TrialComponentName");
    let arn = entities::create(&cx, COMPONENT, name, "Created", |_, _| Ok(())).await?;
    Ok(json!({"TrialComponentArn": arn}))
}

fn check_parameters(input: &Value) -> Result<()> {
    for (name, value) in input["Parameters"].as_object().into_iter().flatten() {
        if value["StringValue"].is_null() == value["NumberValue"].is_null() {
            let text =
                format!("Parameters.{name}: exactly one of StringValue and NumberValue must be given.");
            return Err(Error::Validation(text));
        }
    }
    Ok(())
}

/// A component without what lies outside its record.
pub(super) fn shown(resource: &Resource) -> Map<String, Value> {
    let mut shown = entities::shown(resource, COMPONENT);
    shown.entry("DisplayName").or_insert_with(|| resource.key.name.clone().into());
    if !resource.document["run_name"].is_null() {
        shown.insert("RunName".into(), resource.document["run_name"].clone());
    }
    shown
}

async fn describe_trial_component(cx: Cx) -> Result<Value> {
    let name = entities::required(&cx.input, "TrialComponentName");
    let resource = entities::find(&cx, COMPONENT.kind, name).await?;
    let owner = resource.clone();
    let metrics = cx.state.database.read(move |session| metric_summaries(session, &owner)).await?;
    let mut shown = shown(&resource);
    shown.remove("RunName");
    if let Some(source) = shown.get("Source").cloned() {
        shown.insert("Sources".into(), json!([source]));
    }
    shown.insert("Metrics".into(), metrics);
    let group = records::arn(&cx, kinds::LINEAGE_GROUP, crate::sagemaker::lineage::DEFAULT_GROUP);
    shown.insert("LineageGroupArn".into(), group.into());
    Ok(Value::Object(shown))
}

/// The statistics of all metrics of a component.
///
/// # Errors
/// When the database fails.
pub fn metric_summaries(session: &Session<'_>, component: &Resource) -> store::Result<Value> {
    let source = component.document["source"]["SourceArn"].as_str().unwrap_or(&component.arn);
    let summaries = session.point_summaries(&component.arn)?;
    let shown = summaries.into_iter().map(|one| {
        json!({
            "MetricName": one.name,
            "SourceArn": source,
            "TimeStamp": records::seconds(one.last_at),
            "Max": one.maximum,
            "Min": one.minimum,
            "Last": one.last,
            "Count": one.count,
            "Avg": one.mean,
            "StdDev": one.deviation,
        })
    });
    Ok(shown.collect())
}

/// The trials of a component, with their experiments.
///
/// # Errors
/// When the database fails.
pub fn parents(session: &Session<'_>, component: &Resource) -> store::Result<Value> {
    let key = &component.key;
    let mut parents = Vec::new();
    for trial in session.link_sources(place(key, COMPONENTS), &key.name, MOST_PARENTS)? {
        let experiments = session.link_sources(place(key, TRIALS), &trial, 1)?;
        parents.push(json!({"TrialName": trial, "ExperimentName": experiments.first()}));
    }
    Ok(parents.into())
}

/// The first components of a trial, as a search shows them.
///
/// # Errors
/// When the database fails.
pub fn component_summaries(session: &Session<'_>, trial: &Resource) -> store::Result<Value> {
    let mut summaries = Vec::new();
    for name in session.link_targets(place(&trial.key, COMPONENTS), &trial.key.name, MOST_PARENTS)? {
        let key = ResourceKey { kind: COMPONENT.kind.into(), name, ..trial.key.clone() };
        let Some(component) = session.find_resource(&key)? else { continue };
        let mut shown = shown(&component);
        if let Some(source) = shown.remove("Source") {
            shown.insert("TrialComponentSource".into(), source);
        }
        let members =
            ["TrialComponentName", "TrialComponentArn", "TrialComponentSource", "CreationTime", "CreatedBy"];
        summaries.push(entities::picked(&shown, &members));
    }
    Ok(summaries.into())
}

async fn list_trial_components(cx: Cx) -> Result<Value> {
    let input = &cx.input;
    let mut narrowed = Vec::new();
    match (entities::text(input, "ExperimentName"), entities::text(input, "TrialName")) {
        (Some(_), Some(_)) => {
            return Err(Error::Validation("ExperimentName and TrialName cannot both be given.".into()));
        }
        (Some(name), None) => {
            let source = entities::find(&cx, EXPERIMENT.kind, name).await?.key.name;
            narrowed.push(Narrowing::TargetsOfTargets { first: TRIALS, second: COMPONENTS, source });
        }
        (None, Some(name)) => {
            let source = entities::find(&cx, TRIAL.kind, name).await?.key.name;
            narrowed.push(Narrowing::TargetsOf { relation: COMPONENTS, source });
        }
        (None, None) => {}
    }
    if let Some(arn) = entities::text(input, "SourceArn") {
        narrowed.push(Narrowing::TargetsOf { relation: SOURCES, source: arn.to_owned() });
    }
    let page = entities::page(&cx, COMPONENT.kind, None, narrowed).await?;
    let members = [
        "TrialComponentName",
        "TrialComponentArn",
        "DisplayName",
        "TrialComponentSource",
        "Status",
        "StartTime",
        "EndTime",
        "CreationTime",
        "CreatedBy",
        "LastModifiedTime",
        "LastModifiedBy",
    ];
    let rows = page.resources.iter().map(|resource| {
        let mut shown = shown(resource);
        if let Some(source) = shown.remove("Source") {
            shown.insert("TrialComponentSource".into(), source);
        }
        entities::picked(&shown, &members)
    });
    Ok(entities::listed("TrialComponentSummaries", rows.collect(), page.next_token))
}

async fn update_trial_component(cx: Cx) -> Result<Value> {
    let removals = ["ParametersToRemove", "InputArtifactsToRemove", "OutputArtifactsToRemove"];
    fields::check(&cx.input, &[HONOURED, &removals].concat())?;
    check_parameters(&cx.input)?;
    let name = entities::required(&cx.input, "TrialComponentName");
    let resource = entities::find(&cx, COMPONENT.kind, name).await?;
    let input = cx.input.clone();
    let updated = entities::update(&cx, resource.key, move |resource| {
        let spec = &mut resource.spec;
        entities::replace(spec, &input, &["DisplayName", "Status", "StartTime", "EndTime"]);
        entities::merge(spec, &input, "Parameters", "ParametersToRemove", MOST_PARAMETERS)?;
        entities::merge(spec, &input, "InputArtifacts", "InputArtifactsToRemove", MOST_ARTIFACTS)?;
        entities::merge(spec, &input, "OutputArtifacts", "OutputArtifactsToRemove", MOST_ARTIFACTS)
    });
    Ok(json!({"TrialComponentArn": updated.await?.arn}))
}

async fn delete_trial_component(cx: Cx) -> Result<Value> {
    let name = entities::required(&cx.input, "TrialComponentName");
    let resource = entities::find(&cx, COMPONENT.kind, name).await?;
    let (key, arn, now_ms) = (resource.key, resource.arn.clone(), cx.state.clock.now_ms());
    let deleted = cx.state.database.write(move |session| {
        if let Some(trial) = session.link_sources(place(&key, COMPONENTS), &key.name, 1)?.first() {
            return Err(store::Error::Precondition(format!(
                "The trial component {} belongs to trials, for example {trial}: disassociate it first.",
                key.name
            )));
        }
        session.unlink_target(place(&key, SOURCES), &key.name)?;
        session.delete_edges_of(&arn)?;
        session.disown_points(&arn)?;
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    deleted.await.map_err(entities::missing_or)?;
    super::purge(&cx.state);
    Ok(json!({"TrialComponentArn": resource.arn}))
}

/// Component and trial of a request, both there.
async fn pair(cx: &Cx) -> Result<(Resource, Resource)> {
    let component = entities::required(&cx.input, "TrialComponentName");
    let component = entities::find(cx, COMPONENT.kind, component).await?;
    let trial = entities::find(cx, TRIAL.kind, entities::required(&cx.input, "TrialName")).await?;
    Ok((component, trial))
}

async fn associate_trial_component(cx: Cx) -> Result<Value> {
    let (component, trial) = pair(&cx).await?;
    let answer = json!({"TrialComponentArn": component.arn, "TrialArn": trial.arn});
    let now_ms = cx.state.clock.now_ms();
    let linked = cx.state.database.write(move |session| {
        // Read again: neither may have been deleted meanwhile.
        session.resource(&component.key)?;
        associate(session, &trial.key, &component.key.name, now_ms)
    });
    linked.await.map_err(entities::missing_or)?;
    Ok(answer)
}

/// Associates a component with a trial that is there, once.
pub(super) fn associate(
    session: &Session<'_>,
    trial: &ResourceKey,
    component: &str,
    now_ms: i64,
) -> store::Result<()> {
    session.resource(trial)?;
    if session.link(place(trial, COMPONENTS), &trial.name, component, now_ms)? {
        session.append_event(trial, "ComponentAssociated", &json!({"component": component}), now_ms)?;
    }
    Ok(())
}

async fn disassociate_trial_component(cx: Cx) -> Result<Value> {
    let (component, trial) = pair(&cx).await?;
    let answer = json!({"TrialComponentArn": component.arn, "TrialArn": trial.arn});
    let now_ms = cx.state.clock.now_ms();
    let unlinked = cx.state.database.write(move |session| {
        let trial = &trial.key;
        let component = component.key.name;
        if !session.unlink(place(trial, COMPONENTS), &trial.name, &component)? {
            return Err(store::Error::Missing { kind: kinds::TRIAL_COMPONENT.into(), name: component });
        }
        session.append_event(trial, "ComponentDisassociated", &json!({"component": component}), now_ms)
    });
    unlinked.await.map_err(entities::missing_or)?;
    Ok(answer)
}
