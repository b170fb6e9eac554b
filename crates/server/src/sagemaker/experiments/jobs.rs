//! The trial components that jobs make by themselves. Each kind of job calls [`begin`] in the transaction that creates a job,
//! and [`end`] in the one that ends it.

use serde_json::{Map, Value, json};
use store::Session;
use store::points::Point;
use store::resources::{Resource, ResourceKey};

use super::{COMPONENT, EXPERIMENT, SOURCES, TRIAL, TRIALS, components, place};
use crate::sagemaker::{entities, kinds, records};

/// A kind of job that makes components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Training.
    Training,
    /// Processing.
    Processing,
    /// Batch transform.
    Transform,
}

impl JobKind {
    fn source_type(self) -> &'static str {
        match self {
            JobKind::Training => "SageMakerTrainingJob",
            JobKind::Processing => "SageMakerProcessingJob",
            JobKind::Transform => "SageMakerTransformJob",
        }
    }

    /// Name of a job's component, as the service forms it.
    fn component(self, job: &str) -> String {
        let suffix = match self {
            JobKind::Training => "training",
            JobKind::Processing => "processing",
            JobKind::Transform => "transform",
        };
        format!("{job}-aws-{suffix}-job")
    }
}

/// What a job tells of itself when it is created.
#[derive(Debug, Default)]
pub struct Facts {
    /// `Parameters` of the component: names with `StringValue` or `NumberValue`.
    pub parameters: Map<String, Value>,
    /// `InputArtifacts`: names with `Value` and `MediaType`.
    pub inputs: Map<String, Value>,
}

/// What a job tells of itself when it has ended.
#[derive(Debug, Default)]
pub struct Ending {
    /// `Completed`, `Failed` or `Stopped`.
    pub status: String,
    /// Why, when it failed.
    pub message: Option<String>,
    /// When the work began, milliseconds since 1970.
    pub started_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// `OutputArtifacts`.
    pub outputs: Map<String, Value>,
    /// Values of its metrics, by name.
    pub metrics: Vec<(String, Vec<Point>)>,
}

/// ARN of the component of a job, when it has one.
///
/// # Errors
/// When the database fails.
pub fn component_arn(session: &Session<'_>, job: &Resource) -> store::Result<Option<String>> {
    let names = session.link_targets(place(&job.key, SOURCES), &job.arn, 1)?;
    let (region, account) = (&job.key.region, &job.key.account);
    Ok(names.first().map(|name| kinds::arn(region, account, COMPONENT.kind, name)))
}

/// Makes the component of a new job, and puts it where the job's `ExperimentConfig` wants it. Returns the component's ARN.
///
/// # Errors
/// [`store::Error::Invalid`] when the configuration names an experiment, a trial or a run that is not there.
pub fn begin(
    session: &Session<'_>,
    job: &Resource,
    kind: JobKind,
    facts: Facts,
    created_by: &Value,
) -> store::Result<String> {
    let (config, now_ms) = (&job.spec["ExperimentConfig"], job.created_at);
    let mut parameters = facts.parameters;
    let over = parameters.len().saturating_sub(components::MOST_PARAMETERS);
    let dropped: Vec<String> = parameters.keys().rev().take(over).cloned().collect();
    dropped.iter().for_each(|name| drop(parameters.remove(name)));
    let name = kind.component(&job.key.name);
    let mut spec = json!({
        "TrialComponentName": name,
        "Status": {"PrimaryStatus": "InProgress"},
        "Parameters": parameters,
        "InputArtifacts": facts.inputs,
    });
    entities::replace(
        &mut spec,
        &json!({"DisplayName": config["TrialComponentDisplayName"]}),
        &["DisplayName"],
    );
    let arn = kinds::arn(&job.key.region, &job.key.account, COMPONENT.kind, &name);
    if let Some(earlier) = session.find_resource_by_arn(&arn)? {
        // Of a deleted job of this name: what it came from stays in the lineage, its values give way to those of the new one.
        session.disown_points(&arn)?;
        session.update_resource(&earlier.key, now_ms, |resource| {
            resource.spec = spec.clone();
            resource.document["run_name"] = config["RunName"].clone();
            Ok(())
        })?;
    } else {
        let component = Resource {
            key: ResourceKey { kind: COMPONENT.kind.into(), name: name.clone(), ..job.key.clone() },
            arn: arn.clone(),
            status: "Created".into(),
            spec,
            document: json!({
                "created_by": created_by,
                "source": {"SourceArn": job.arn, "SourceType": kind.source_type()},
                "run_name": config["RunName"],
            }),
            generation: 1,
            created_at: now_ms,
            modified_at: now_ms,
        };
        session.insert_resource(&component)?;
        session.append_event(&component.key, "Created", &component.spec, now_ms)?;
    }
    session.link(place(&job.key, SOURCES), &job.arn, &name, now_ms)?;
    if let Some(trial) = trial_of(session, job, config)? {
        components::associate(session, &trial, &name, now_ms)?;
    }
    if let Some(run) = config["RunName"].as_str() {
        let run = entities::key_of(session, &job.key, COMPONENT.kind, run)
            .map_err(|error| invalid(error, "RunName"))?;
        let run_arn = kinds::arn(&run.region, &run.account, COMPONENT.kind, &run.name);
        let recorder = crate::sagemaker::lineage::Recorder::of(session, &job.key, created_by, now_ms);
        recorder.edge(&arn, &run_arn, "AssociatedWith")?;
    }
    Ok(arn)
}

/// The trial that a job's `ExperimentConfig` means; one is made when it names an experiment alone.
fn trial_of(session: &Session<'_>, job: &Resource, config: &Value) -> store::Result<Option<ResourceKey>> {
    let experiment = config["ExperimentName"].as_str();
    let experiment = experiment
        .map(|name| entities::key_of(session, &job.key, EXPERIMENT.kind, name))
        .transpose()
        .map_err(|error| invalid(error, "ExperimentName"))?;
    let trial = config["TrialName"].as_str();
    let trial = trial
        .map(|name| entities::key_of(session, &job.key, TRIAL.kind, name))
        .transpose()
        .map_err(|error| invalid(error, "TrialName"))?;
    match (experiment, trial) {
        (Some(experiment), Some(trial)) => {
            let experiments = session.link_sources(place(&trial, TRIALS), &trial.name, 1)?;
            if experiments.first() != Some(&experiment.name) {
                let text = format!(
                    "ExperimentConfig.TrialName: the trial {} is not part of the experiment {}.",
                    trial.name, experiment.name
                );
                return Err(store::Error::Invalid(text));
            }
            Ok(Some(trial))
        }
        (None, Some(trial)) => Ok(Some(trial)),
        (Some(experiment), None) => {
            let name = format!("{}-aws-trial", job.key.name);
            ensure_trial(session, &experiment, &name, job.created_at).map(Some)
        }
        (None, None) => Ok(None),
    }
}

fn invalid(error: store::Error, field: &str) -> store::Error {
    match error {
        store::Error::Missing { kind, name } => store::Error::Invalid(format!(
            "ExperimentConfig.{field}: the {kind} {name} does not exist; create it first, or leave {field} out."
        )),
        other => other,
    }
}

/// The trial of this name in an experiment that is there; made when it is missing.
fn ensure_trial(
    session: &Session<'_>,
    experiment: &ResourceKey,
    name: &str,
    now_ms: i64,
) -> store::Result<ResourceKey> {
    let key =
        ensure(session, experiment, TRIAL.kind, name, json!({"ExperimentName": experiment.name}), now_ms)?;
    session.link(place(experiment, TRIALS), &experiment.name, &key.name, now_ms)?;
    Ok(key)
}

/// The experiment and the trial of these names, made when they are missing: what a pipeline does for its executions.
///
/// # Errors
/// When the database fails.
pub fn ensure_group(
    session: &Session<'_>,
    near: &ResourceKey,
    experiment: &str,
    trial: &str,
    now_ms: i64,
) -> store::Result<()> {
    let experiment = ensure(session, near, EXPERIMENT.kind, experiment, json!({}), now_ms)?;
    ensure_trial(session, &experiment, trial, now_ms).map(drop)
}

fn ensure(
    session: &Session<'_>,
    near: &ResourceKey,
    kind: &str,
    name: &str,
    spec: Value,
    now_ms: i64,
) -> store::Result<ResourceKey> {
    match entities::key_of(session, near, kind, name) {
        Err(store::Error::Missing { .. }) => {}
        found => return found,
    }
    let resource = Resource {
        key: ResourceKey { kind: kind.into(), name: name.into(), ..near.clone() },
        arn: kinds::arn(&near.region, &near.account, kind, name),
        status: "Created".into(),
        spec,
        document: json!({}),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    session.insert_resource(&resource)?;
    session.append_event(&resource.key, "Created", &resource.spec, now_ms)?;
    Ok(resource.key)
}

/// Writes the end of a job into its component; nothing when the component was deleted meanwhile. Returns the component's ARN.
///
/// # Errors
/// When the database fails.
pub fn end(
    session: &Session<'_>,
    job: &Resource,
    ending: Ending,
    now_ms: i64,
) -> store::Result<Option<String>> {
    let Some(arn) = component_arn(session, job)? else { return Ok(None) };
    let Some(component) = session.find_resource_by_arn(&arn)? else { return Ok(None) };
    let Ending { status, message, started_at, ended_at, outputs, metrics } = ending;
    session.update_resource(&component.key, now_ms, |resource| {
        let spec = &mut resource.spec;
        spec["Status"] = json!({"PrimaryStatus": status});
        if let Some(message) = message {
            spec["Status"]["Message"] = message.into();
        }
        for (member, at) in [("StartTime", started_at), ("EndTime", ended_at)] {
            if let Some(at) = at {
                spec[member] = json!(records::seconds(at));
            }
        }
        spec["OutputArtifacts"] = Value::Object(outputs);
        Ok(())
    })?;
    for (name, points) in &metrics {
        session.put_points(&arn, name, points)?;
    }
    Ok(Some(arn))
}
