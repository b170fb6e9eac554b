//! Inference experiments: create, describe, list, delete. What drives them is in `crate::inference_experiments`.

use api::sagemaker::{
    CreateInferenceExperiment, CreateInferenceExperimentInput, CreateInferenceExperimentOutput,
    DeleteInferenceExperiment, DeleteInferenceExperimentInput, DeleteInferenceExperimentOutput,
    DescribeInferenceExperiment, DescribeInferenceExperimentInput, DescribeInferenceExperimentOutput,
    InferenceExperimentSummary, ListInferenceExperiments, ListInferenceExperimentsInput,
    ListInferenceExperimentsOutput,
};
use serde_json::{Value, json};
use store::Session;
use store::resources::Resource;

use super::kinds::{ENDPOINT, ENDPOINT_CONFIG, INFERENCE_EXPERIMENT, MODEL};
use super::{fields, listing, records, shadow_variants};
use crate::endpoints::EndpointRecord;
use crate::inference_experiments::record::{CREATED, ExperimentRecord, STOPPING, check_rivals, is_over};
use crate::inference_experiments::{endpoint_key, rules};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateInferenceExperiment, _, _, _>(create_inference_experiment);
    registry.on::<DescribeInferenceExperiment, _, _, _>(describe_inference_experiment);
    registry.on::<ListInferenceExperiments, _, _, _>(list_inference_experiments);
    registry.on::<DeleteInferenceExperiment, _, _, _>(delete_inference_experiment);
}

const HONOURED: &[&str] = &[
    "Name",
    "Type",
    "Schedule.StartTime",
    "Schedule.EndTime",
    "Description",
    "RoleArn",
    "EndpointName",
    "ModelVariants.**",
    "DataStorageConfig.**",
    "ShadowModeConfig.**",
    "Tags.**",
];

async fn create_inference_experiment(
    cx: Cx,
    input: CreateInferenceExperimentInput,
) -> Result<CreateInferenceExperimentOutput> {
    fields::check(&cx.input, HONOURED)?;
    let asked = input.schedule.as_ref();
    let schedule = rules::schedule(
        asked.and_then(|asked| asked.start_time).map(|at| at.as_millis()),
        asked.and_then(|asked| asked.end_time).map(|at| at.as_millis()),
        cx.state.clock.now_ms(),
    )
    .map_err(Error::Validation)?;
    crate::iam::check_assumable(&cx, &input.role_arn).await?;
    check_spec(&cx, &cx.input).await?;
    let record = ExperimentRecord {
        start_at_ms: schedule.start_at,
        end_at_ms: schedule.end_at,
        id: uuid::Uuid::new_v4().simple().to_string()[..8].to_owned(),
        deployment: None,
        deployments: 0,
        config_before: None,
        stop: None,
        reason: None,
        completed_at_ms: None,
    };
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let resource =
        records::new_resource(&cx, INFERENCE_EXPERIMENT, &input.name, CREATED, record.to_document());
    let arn = resource.arn.clone();
    let (key, endpoint, now_ms) = (resource.key.clone(), input.endpoint_name, resource.created_at);
    let times = (schedule.start_at, schedule.end_at);
    let is_free = move |session: &Session<'_>| check_rivals(session, &key, &endpoint, times, now_ms);
    let taken = "Cannot create already existing inference experiment";
    records::insert_where(&cx, resource, tags, taken, false, is_free).await?;
    cx.state.inference_experiments.ring();
    Ok(CreateInferenceExperimentOutput { inference_experiment_arn: Some(arn) })
}

/// Checks variants, models, data storage and endpoint of an experiment.
///
/// # Errors
/// [`Error::Validation`] naming the field.
pub async fn check_spec(cx: &Cx, spec: &Value) -> Result<()> {
    let variants = rules::variants(spec).map_err(Error::Validation)?;
    for variant in [variants.production, variants.shadow] {
        let model = records::find(cx, MODEL, variant["ModelName"].as_str().unwrap_or_default()).await?;
        if shadow_variants::has_several_models(&model.spec) {
            return Err(Error::Validation(format!(
                "ModelVariants: model {} has several containers or is a multi-model one, which shadow tests do not support.",
                model.key.name
            )));
        }
    }
    let storage = &spec["DataStorageConfig"];
    if !storage.is_null() {
        let capture = json!({
            "DestinationS3Uri": storage["Destination"], "CaptureContentTypeHeader": storage["ContentType"],
        });
        crate::capture::check(&capture).map_err(|refused| {
            Error::Validation(
                refused
                    .to_string()
                    .replace("DataCaptureConfig.DestinationS3Uri", "DataStorageConfig.Destination")
                    .replace("DataCaptureConfig.CaptureContentTypeHeader", "DataStorageConfig.ContentType"),
            )
        })?;
    }
    check_endpoint(cx, spec, variants.production).await
}

/// An endpoint that is not there is made when the experiment starts; one that is there must serve the production variant.
async fn check_endpoint(cx: &Cx, spec: &Value, production: &Value) -> Result<()> {
    let name = spec["EndpointName"].as_str().unwrap_or_default();
    let key = records::key(cx, ENDPOINT, name);
    let Some(endpoint) = cx.state.database.read(move |session| session.find_resource(&key)).await? else {
        return Ok(());
    };
    let refused = |text: String| Err(Error::Validation(format!("EndpointName: endpoint {name} {text}")));
    if endpoint.status != "InService" {
        return refused(format!("is {}; wait until it is InService.", endpoint.status));
    }
    let serves = EndpointRecord::read(&endpoint.document)?;
    if serves.asynchronous.is_some() {
        return refused("is asynchronous, which shadow tests do not support.".into());
    }
    let wanted = production["VariantName"].as_str().unwrap_or_default();
    match &serves.variants[..] {
        [one] if one.name == wanted => {}
        [one] => {
            return refused(format!(
                "has the production variant {}, and SourceModelVariantName is {wanted}.",
                one.name
            ));
        }
        several => {
            return refused(format!(
                "has {} production variants; a shadow test needs an endpoint with one.",
                several.len()
            ));
        }
    }
    let key = records::key(cx, ENDPOINT_CONFIG, &serves.config);
    let config = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    let Some(config) = config else { return Ok(()) };
    let served = &config.spec["ProductionVariants"][0];
    if !served["ServerlessConfig"].is_null() {
        return refused("is serverless, which shadow tests do not support.".into());
    }
    if served["ModelName"] != production["ModelName"] {
        return refused(format!(
            "serves model {} as {wanted}, and ModelVariants says {}.",
            served["ModelName"], production["ModelName"]
        ));
    }
    Ok(())
}

async fn describe_inference_experiment(
    cx: Cx,
    input: DescribeInferenceExperimentInput,
) -> Result<DescribeInferenceExperimentOutput> {
    let experiment = records::find(&cx, INFERENCE_EXPERIMENT, &input.name).await?;
    let record = ExperimentRecord::read(&experiment.document)?;
    let key = endpoint_key(&experiment);
    let endpoint = {
        let key = key.clone();
        cx.state.database.read(move |session| session.find_resource(&key)).await?
    };
    let serves = endpoint.as_ref().map(|endpoint| EndpointRecord::read(&endpoint.document)).transpose()?;
    let live = cx.state.endpoints.variants(&key);
    let variants = experiment.spec["ModelVariants"].as_array().into_iter().flatten().map(|variant| {
        let name = variant["VariantName"].as_str().unwrap_or_default();
        let is_deployed = serves.as_ref().is_some_and(|serves| {
            serves.variants.iter().chain(&serves.shadows).any(|deployed| deployed.name == name)
        });
        let answers = live.iter().any(|one| one.name == name && one.healthy_replicas > 0);
        let status = match (is_deployed, answers) {
            (true, true) if experiment.status == "Updating" => "Updating",
            (true, true) => "InService",
            (false, _) if is_over(&experiment.status) => "Deleted",
            (false, true) if experiment.status == STOPPING => "Deleting",
            (false, _) if experiment.status == STOPPING => "Deleted",
            _ => "Creating",
        };
        let mut shown = variant.clone();
        shown["Status"] = json!(status);
        shown
    });
    let more = json!({
        "Arn": experiment.arn,
        "Schedule": shown_schedule(&record),
        "Status": experiment.status,
        "StatusReason": record.reason,
        "CreationTime": records::seconds(experiment.created_at),
        "CompletionTime": record.completed_at_ms.map(records::seconds),
        "LastModifiedTime": records::seconds(experiment.modified_at),
        "EndpointMetadata": {
            "EndpointName": key.name,
            "EndpointConfigName": serves.as_ref().map(|serves| serves.config.clone()),
            "EndpointStatus": endpoint.as_ref().map(|endpoint| endpoint.status.clone()),
            "FailureReason": serves.as_ref().and_then(|serves| serves.failure_reason.clone()),
        },
        "ModelVariants": variants.collect::<Vec<Value>>(),
    });
    records::described(&experiment, more)
}

fn shown_schedule(record: &ExperimentRecord) -> Value {
    json!({
        "StartTime": records::seconds(record.start_at_ms),
        // One that ended early ended then.
        "EndTime": records::seconds(record.completed_at_ms.map_or(record.end_at_ms, |at| at.min(record.end_at_ms))),
    })
}

async fn list_inference_experiments(
    cx: Cx,
    input: ListInferenceExperimentsInput,
) -> Result<ListInferenceExperimentsOutput> {
    // There is one type, so that its filter leaves everything.
    let filters = listing::Filters {
        name_contains: input.name_contains,
        status: input.status_equals.map(|status| status.to_string()),
        created_after: input.creation_time_after,
        created_before: input.creation_time_before,
        modified_after: input.last_modified_time_after,
        modified_before: input.last_modified_time_before,
        sort_by: input.sort_by.map(|column| column.to_string()),
        sort_order: input.sort_order.map(|order| order.to_string()),
        max_results: input.max_results,
        next_token: input.next_token,
        ..Default::default()
    };
    let page = listing::page(&cx, INFERENCE_EXPERIMENT, filters, "Descending").await?;
    let summaries = page.resources.iter().map(summary).collect::<Result<Vec<_>>>()?;
    Ok(ListInferenceExperimentsOutput { inference_experiments: Some(summaries), next_token: page.next_token })
}

fn summary(experiment: &Resource) -> Result<InferenceExperimentSummary> {
    let record = ExperimentRecord::read(&experiment.document)?;
    let mut shown = json!({
        "Name": experiment.key.name,
        "Type": experiment.spec["Type"],
        "Schedule": shown_schedule(&record),
        "Status": experiment.status,
        "CreationTime": records::seconds(experiment.created_at),
        "LastModifiedTime": records::seconds(experiment.modified_at),
        "RoleArn": experiment.spec["RoleArn"],
    });
    for (name, value) in [
        ("StatusReason", json!(record.reason)),
        ("Description", experiment.spec["Description"].clone()),
        ("CompletionTime", json!(record.completed_at_ms.map(records::seconds))),
    ] {
        if !value.is_null() {
            shown[name] = value;
        }
    }
    serde_json::from_value(shown).map_err(Error::internal)
}

async fn delete_inference_experiment(
    cx: Cx,
    input: DeleteInferenceExperimentInput,
) -> Result<DeleteInferenceExperimentOutput> {
    let experiment = records::find(&cx, INFERENCE_EXPERIMENT, &input.name).await?;
    let (key, arn, now_ms) = (experiment.key, experiment.arn, cx.state.clock.now_ms());
    let deleted = cx.state.database.write(move |session| {
        let now = session.resource(&key)?;
        if !is_over(&now.status) && now.status != CREATED {
            return Err(records::wrong_status(&now));
        }
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    deleted
        .await
        .map_err(|error| wrong_status(error, "deleted when it is Created, Completed or Cancelled"))?;
    Ok(DeleteInferenceExperimentOutput { inference_experiment_arn: Some(arn) })
}

/// The refusal of what a status does not allow.
pub fn wrong_status(error: store::Error, allowed: &str) -> Error {
    match error {
        store::Error::WrongStatus { name, status, .. } => {
            Error::Conflict(format!("Inference experiment {name} is {status}; it can be {allowed}."))
        }
        store::Error::Missing { name, .. } => Error::not_found(INFERENCE_EXPERIMENT, name),
        store::Error::Precondition(text) => Error::InUse(text),
        other => other.into(),
    }
}
