//! Transform jobs: create, describe, list, stop. What they do while they run is in `crate::transform`.

use api::sagemaker::{
    CreateTransformJob, CreateTransformJobInput, CreateTransformJobOutput, DescribeTransformJob,
    DescribeTransformJobInput, DescribeTransformJobOutput, ListTransformJobs, ListTransformJobsInput,
    ListTransformJobsOutput, StopTransformJob, StopTransformJobInput, StopTransformJobOutput,
    TransformJobSummary,
};
use serde_json::{Value, json};
use store::resources::Resource;

use super::kinds::{MODEL, TRANSFORM_JOB};
use super::{endpoints, job_stop, listing, records, transform_fields};
use crate::training::admission;
use crate::training::record::TrainingRecord;
use crate::transform::record::{Progress, TransformState};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateTransformJob, _, _, _>(create_transform_job);
    registry.on::<DescribeTransformJob, _, _, _>(describe_transform_job);
    registry.on::<ListTransformJobs, _, _, _>(list_transform_jobs);
    registry.on::<StopTransformJob, _, _, _>(stop_transform_job);
}

async fn create_transform_job(cx: Cx, input: CreateTransformJobInput) -> Result<CreateTransformJobOutput> {
    transform_fields::check(&cx.input, &input, cx.state.capacity.instance_types())?;
    let capture_key = input.data_capture_config.as_ref().and_then(|config| config.kms_key_id.as_deref());
    let keys = [
        ("TransformOutput.KmsKeyId", input.transform_output.kms_key_id.as_deref()),
        ("DataCaptureConfig.KmsKeyId", capture_key),
    ];
    for (field, key) in keys {
        if let Some(key) = key.filter(|key| !key.is_empty()) {
            crate::kms::check_usable(&cx, field, key).await?;
        }
    }
    let model = records::find(&cx, MODEL, &input.model_name).await?;
    let mut served = endpoints::deployed(&model)?;
    served.check_transform().map_err(Error::Validation)?;
    // What the job says goes over what the model says.
    let said = input.environment.clone().unwrap_or_default();
    for container in &mut served.containers {
        container.environment.extend(said.clone());
    }
    served.environment.extend(said);
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let folder = uuid::Uuid::new_v4().simple().to_string();
    let mut record = TrainingRecord::default();
    let (progress, engines) = (Progress::default(), Vec::new());
    record.transform = Some(TransformState { folder, model: served, progress, engines });
    (record.queue, record.priority) = admission::queue_and_priority(&cx.input).map_err(Error::Validation)?;
    record.enter("Starting", "Starting the transform job", cx.state.clock.now_ms());
    let name = &input.transform_job_name;
    let resource = records::new_resource(&cx, TRANSFORM_JOB, name, "InProgress", record.to_document());
    let arn = resource.arn.clone();
    let taken = "Job name must be unique within an AWS account and region, \
                 and a job with this name already exists";
    records::insert(&cx, resource, tags, taken, true).await?;
    cx.state.transform.wake();
    Ok(CreateTransformJobOutput { transform_job_arn: Some(arn) })
}

async fn describe_transform_job(
    cx: Cx,
    input: DescribeTransformJobInput,
) -> Result<DescribeTransformJobOutput> {
    let resource = records::find(&cx, TRANSFORM_JOB, &input.transform_job_name).await?;
    let record = TrainingRecord::read(&resource.document)?;
    records::described(&resource, description(&resource, &record))
}

/// The members of a description that are not in the request, or that the service fills in.
pub fn description(resource: &Resource, record: &TrainingRecord) -> Value {
    let at = |at: Option<i64>| at.map(records::seconds);
    let mut input = resource.spec["TransformInput"].clone();
    let mut output = resource.spec["TransformOutput"].clone();
    let mut data = match &resource.spec["DataProcessing"] {
        Value::Null => json!({}),
        data => data.clone(),
    };
    fill(&mut input, &[("CompressionType", "None"), ("SplitType", "None")]);
    fill(&mut output, &[("AssembleWith", "None")]);
    fill(&mut data, &[("InputFilter", "$"), ("OutputFilter", "$"), ("JoinSource", "None")]);
    json!({
        "TransformJobArn": resource.arn,
        "TransformJobStatus": resource.status,
        "FailureReason": record.failure.as_ref().map(|card| card.reason.clone()),
        "TransformInput": input,
        "TransformOutput": output,
        "DataProcessing": data,
        "CreationTime": records::seconds(resource.created_at),
        "TransformStartTime": at(record.training_started_at),
        "TransformEndTime": at(record.training_ended_at),
    })
}

fn fill(value: &mut Value, defaults: &[(&str, &str)]) {
    for (name, default) in defaults {
        if value[*name].is_null() {
            value[*name] = (*default).into();
        }
    }
}

async fn list_transform_jobs(cx: Cx, input: ListTransformJobsInput) -> Result<ListTransformJobsOutput> {
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
        ..listing::Filters::default()
    };
    let page = listing::page(&cx, TRANSFORM_JOB, filters, "Descending").await?;
    let summaries = page.resources.iter().map(summary).collect::<Result<_>>()?;
    Ok(ListTransformJobsOutput { transform_job_summaries: Some(summaries), next_token: page.next_token })
}

fn summary(resource: &Resource) -> Result<TransformJobSummary> {
    let mut shown = description(resource, &TrainingRecord::read(&resource.document)?);
    shown["TransformJobName"] = resource.key.name.clone().into();
    shown["LastModifiedTime"] = json!(records::seconds(resource.modified_at));
    serde_json::from_value(shown).map_err(Error::internal)
}

async fn stop_transform_job(cx: Cx, input: StopTransformJobInput) -> Result<StopTransformJobOutput> {
    let resource = records::find(&cx, TRANSFORM_JOB, &input.transform_job_name).await?;
    job_stop::request(&cx.state, &resource).await?;
    cx.state.transform.stop(&resource.key);
    Ok(StopTransformJobOutput::default())
}
