//! The kinds that can be searched, a line each.

mod pipelines;
mod registry;

use serde_json::{Map, Value, json};
use store::Session;
use store::resources::Resource;

use crate::endpoints::EndpointRecord;
use crate::sagemaker::entities::{self, Noun};
use crate::sagemaker::{experiments, kinds, records, training_jobs};
use crate::training::record::TrainingRecord;
use crate::training::warm_pool;
use crate::{Error, Result};

/// A property that lies outside the record, and is read when it is needed; takes milliseconds since 1970.
pub(super) type Extra = fn(&Session<'_>, &Resource, i64) -> store::Result<Value>;

/// A kind that can be searched.
pub(super) struct Searchable {
    /// What `Resource` calls it.
    pub(super) resource: &'static str,
    /// Its kind.
    pub(super) kind: &'static str,
    /// Member of a result that holds it.
    pub(super) member: &'static str,
    /// Property with its name.
    pub(super) name: &'static str,
    /// Property with its ARN.
    pub(super) arn: &'static str,
    /// Property that is the status of the record, when there is one.
    pub(super) status: Option<&'static str>,
    /// Its properties, as far as they are in the record.
    pub(super) describe: fn(&Resource) -> store::Result<Map<String, Value>>,
    /// The others.
    pub(super) extras: &'static [(&'static str, Extra)],
    /// Whether judging these properties needs the document; of the spec, the properties themselves are enough then. `None` for
    /// kinds whose records are read whole.
    pub(super) needs_document: Option<fn(&[String]) -> bool>,
    /// Properties whose entries are named by the user.
    pub(super) named: &'static [&'static str],
}

/// Every kind that can be searched.
pub(super) static SEARCHABLE: &[Searchable] = &[
    Searchable {
        resource: "TrainingJob",
        kind: kinds::TRAINING_JOB,
        member: "TrainingJob",
        name: "TrainingJobName",
        arn: "TrainingJobArn",
        status: Some("TrainingJobStatus"),
        describe: training_job,
        extras: &[("Tags", tags), ("WarmPoolStatus", warm_pool_status)],
        needs_document: Some(|_| true),
        named: &["HyperParameters", "Environment", "Metrics", "Tags"],
    },
    Searchable {
        resource: "Experiment",
        kind: kinds::EXPERIMENT,
        member: "Experiment",
        name: "ExperimentName",
        arn: "ExperimentArn",
        status: None,
        describe: |resource| Ok(displayed(resource, experiments::EXPERIMENT)),
        extras: &[("Tags", tags)],
        needs_document: None,
        named: &["Tags"],
    },
    Searchable {
        resource: "ExperimentTrial",
        kind: kinds::TRIAL,
        member: "Trial",
        name: "TrialName",
        arn: "TrialArn",
        status: None,
        describe: |resource| Ok(displayed(resource, experiments::TRIAL)),
        extras: &[
            ("Tags", tags),
            ("TrialComponentSummaries", |session, trial, _| experiments::component_summaries(session, trial)),
        ],
        needs_document: None,
        named: &["Tags"],
    },
    Searchable {
        resource: "ExperimentTrialComponent",
        kind: kinds::TRIAL_COMPONENT,
        member: "TrialComponent",
        name: "TrialComponentName",
        arn: "TrialComponentArn",
        status: None,
        describe: component,
        extras: &[
            ("Tags", tags),
            ("Parents", |session, component, _| experiments::parents(session, component)),
            ("Metrics", |session, component, _| experiments::metric_summaries(session, component)),
            ("SourceDetail", source_detail),
        ],
        needs_document: Some(is_beyond_request),
        named: &["Parameters", "InputArtifacts", "OutputArtifacts", "Metrics", "Tags"],
    },
    Searchable {
        resource: "Endpoint",
        kind: kinds::ENDPOINT,
        member: "Endpoint",
        name: "EndpointName",
        arn: "EndpointArn",
        status: Some("EndpointStatus"),
        describe: endpoint,
        extras: &[("Tags", tags)],
        needs_document: None,
        named: &["Tags"],
    },
    Searchable {
        resource: "Model",
        kind: kinds::MODEL,
        member: "Model",
        name: "ModelName",
        arn: "ModelArn",
        status: None,
        describe: model,
        extras: &[("Tags", tags)],
        needs_document: None,
        named: &["Tags"],
    },
    Searchable {
        resource: "ModelPackageGroup",
        kind: kinds::MODEL_PACKAGE_GROUP,
        member: "ModelPackageGroup",
        name: "ModelPackageGroupName",
        arn: "ModelPackageGroupArn",
        status: None,
        describe: registry::group,
        extras: &[("Tags", tags)],
        needs_document: None,
        named: &["Tags"],
    },
    Searchable {
        resource: "ModelPackage",
        kind: kinds::MODEL_PACKAGE,
        member: "ModelPackage",
        // Versions of groups have none.
        name: "ModelPackageName",
        arn: "ModelPackageArn",
        status: None,
        describe: registry::package,
        extras: &[("Tags", registry::package_tags)],
        needs_document: None,
        named: &["CustomerMetadataProperties", "Tags"],
    },
    Searchable {
        resource: "ModelCard",
        kind: kinds::MODEL_CARD,
        member: "ModelCard",
        name: "ModelCardName",
        arn: "ModelCardArn",
        status: Some("ModelCardStatus"),
        describe: registry::card,
        extras: &[("Tags", tags)],
        needs_document: None,
        named: &["Tags"],
    },
    Searchable {
        resource: "Pipeline",
        kind: kinds::PIPELINE,
        member: "Pipeline",
        name: "PipelineName",
        arn: "PipelineArn",
        status: Some("PipelineStatus"),
        describe: |resource| Ok(pipelines::pipeline(resource)),
        extras: &[("Tags", tags)],
        needs_document: None,
        named: &["Tags"],
    },
    Searchable {
        resource: "PipelineExecution",
        kind: kinds::PIPELINE_EXECUTION,
        member: "PipelineExecution",
        // Executions have none.
        name: "PipelineExecutionName",
        arn: "PipelineExecutionArn",
        status: Some("PipelineExecutionStatus"),
        describe: pipelines::execution,
        extras: &[],
        needs_document: None,
        named: &[],
    },
];

/// The kind that `Resource` means.
///
/// # Errors
/// [`Error::NotImplemented`] for kinds that are not there yet.
pub(super) fn find(resource: &str) -> Result<&'static Searchable> {
    let found = SEARCHABLE.iter().find(|kind| kind.resource == resource);
    found.ok_or_else(|| Error::field(&format!("Search of Resource {resource}")))
}

fn tags(session: &Session<'_>, resource: &Resource, _: i64) -> store::Result<Value> {
    let tags = session.tags(&resource.arn)?;
    Ok(tags.into_iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect())
}

fn warm_pool_status(session: &Session<'_>, resource: &Resource, now_ms: i64) -> store::Result<Value> {
    Ok(session.warm_pool(&resource.key)?.map_or(Value::Null, |pool| warm_pool::shown(&pool, now_ms)))
}

fn displayed(resource: &Resource, noun: Noun) -> Map<String, Value> {
    let mut shown = entities::shown(resource, noun);
    shown.entry("DisplayName").or_insert_with(|| resource.key.name.clone().into());
    shown
}

/// Whether any of these properties of a component is not in its request.
fn is_beyond_request(properties: &[String]) -> bool {
    let beyond = ["CreatedBy", "LastModifiedBy", "Source", "RunName", "SourceDetail"];
    properties.iter().any(|property| beyond.contains(&property.as_str()))
}

fn component(resource: &Resource) -> store::Result<Map<String, Value>> {
    let mut shown = displayed(resource, experiments::COMPONENT);
    if !resource.document["run_name"].is_null() {
        shown.insert("RunName".into(), resource.document["run_name"].clone());
    }
    Ok(shown)
}

/// What the request of a resource says, with more laid over it.
fn laid_over(resource: &Resource, more: Value) -> Map<String, Value> {
    let mut shown = resource.spec.as_object().cloned().unwrap_or_default();
    if let Value::Object(more) = more {
        shown.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    shown
}

fn training_job(resource: &Resource) -> store::Result<Map<String, Value>> {
    let record = TrainingRecord::read(&resource.document)?;
    Ok(laid_over(resource, training_jobs::description(resource, &record)))
}

fn endpoint(resource: &Resource) -> store::Result<Map<String, Value>> {
    let record = EndpointRecord::read(&resource.document)?;
    let variants: Vec<Value> = record
        .variants
        .iter()
        .map(|variant| {
            json!({
                "VariantName": variant.name,
                "DesiredWeight": variant.weight,
                "DesiredInstanceCount": variant.replicas,
            })
        })
        .collect();
    let more = json!({
        "EndpointArn": resource.arn,
        "EndpointConfigName": record.config,
        "EndpointStatus": resource.status,
        "FailureReason": record.failure_reason,
        "ProductionVariants": variants,
        "CreationTime": records::seconds(resource.created_at),
        "LastModifiedTime": records::seconds(resource.modified_at),
    });
    Ok(laid_over(resource, more))
}

/// A model in the form of the dashboard: its description lies below `Model`, and is found by short names, too.
fn model(resource: &Resource) -> store::Result<Map<String, Value>> {
    let created_at = records::seconds(resource.created_at);
    let more = json!({"ModelArn": resource.arn, "CreationTime": created_at});
    Ok(Map::from_iter([("Model".to_owned(), Value::Object(laid_over(resource, more)))]))
}

/// The job that made a component.
fn source_detail(session: &Session<'_>, component: &Resource, now_ms: i64) -> store::Result<Value> {
    let Some(arn) = component.document["source"]["SourceArn"].as_str() else { return Ok(Value::Null) };
    let mut detail = json!({"SourceArn": arn});
    if let Some(job) = session.find_resource_by_arn(arn)?
        && let Some(kind) = SEARCHABLE.iter().find(|kind| kind.kind == job.key.kind)
    {
        let mut shown = (kind.describe)(&job)?;
        shown.insert("Tags".into(), tags(session, &job, now_ms)?);
        detail[kind.member] = Value::Object(shown);
    }
    Ok(detail)
}
