//! Processing jobs: create, describe, list, stop, delete. What they do while they run is in `crate::training`, with training jobs.

use api::sagemaker::{
    CreateProcessingJob, CreateProcessingJobInput, CreateProcessingJobOutput, DeleteProcessingJob,
    DeleteProcessingJobInput, DeleteProcessingJobOutput, DescribeProcessingJob, DescribeProcessingJobInput,
    DescribeProcessingJobOutput, ListProcessingJobs, ListProcessingJobsInput, ListProcessingJobsOutput,
    ProcessingJobSummary, StopProcessingJob, StopProcessingJobInput, StopProcessingJobOutput,
};
use serde_json::{Value, json};
use store::resources::Resource;

use super::kinds::PROCESSING_JOB;
use super::{dataset_fields, job_stop, listing, processing_fields, records};
use crate::training::admission;
use crate::training::record::TrainingRecord;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateProcessingJob, _, _, _>(create_processing_job);
    registry.on::<DescribeProcessingJob, _, _, _>(describe_processing_job);
    registry.on::<ListProcessingJobs, _, _, _>(list_processing_jobs);
    registry.on::<StopProcessingJob, _, _, _>(stop_processing_job);
    registry.on::<DeleteProcessingJob, _, _, _>(delete_processing_job);
}

async fn create_processing_job(cx: Cx, input: CreateProcessingJobInput) -> Result<CreateProcessingJobOutput> {
    processing_fields::check(&cx.input, &input, cx.state.capacity.instance_types())?;
    let key = input.processing_output_config.as_ref().and_then(|config| config.kms_key_id.as_deref());
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        crate::kms::check_usable(&cx, "ProcessingOutputConfig.KmsKeyId", key).await?;
    }
    crate::iam::check_assumable(&cx, &input.role_arn).await?;
    dataset_fields::check_references(&cx, input.processing_inputs.as_deref().unwrap_or_default()).await?;
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let mut record = TrainingRecord::default();
    (record.queue, record.priority) = admission::queue_and_priority(&cx.input).map_err(Error::Validation)?;
    record.enter("Starting", "Starting the processing job", cx.state.clock.now_ms());
    let name = &input.processing_job_name;
    let resource = records::new_resource(&cx, PROCESSING_JOB, name, "InProgress", record.to_document());
    let arn = resource.arn.clone();
    let taken = "Processing job names must be unique within an AWS account and region, \
                 and a processing job with this name already exists";
    records::insert(&cx, resource, tags, taken, true).await?;
    cx.state.training.wake();
    Ok(CreateProcessingJobOutput { processing_job_arn: Some(arn) })
}

async fn describe_processing_job(
    cx: Cx,
    input: DescribeProcessingJobInput,
) -> Result<DescribeProcessingJobOutput> {
    let resource = records::find(&cx, PROCESSING_JOB, &input.processing_job_name).await?;
    let record = TrainingRecord::read(&resource.document)?;
    records::described(&resource, description(&resource, &record))
}

/// The members of a description that are not in the request.
pub fn description(resource: &Resource, record: &TrainingRecord) -> Value {
    let at = |at: Option<i64>| at.map(records::seconds);
    json!({
        "ProcessingJobArn": resource.arn,
        "ProcessingJobStatus": resource.status,
        "ExitMessage": record.exit_message,
        "FailureReason": record.failure.as_ref().map(|card| card.reason.clone()),
        "CreationTime": records::seconds(resource.created_at),
        "LastModifiedTime": records::seconds(resource.modified_at),
        "ProcessingStartTime": at(record.training_started_at),
        "ProcessingEndTime": at(record.training_ended_at),
    })
}

async fn list_processing_jobs(cx: Cx, input: ListProcessingJobsInput) -> Result<ListProcessingJobsOutput> {
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
    let page = listing::page(&cx, PROCESSING_JOB, filters, "Descending").await?;
    let summaries = page.resources.iter().map(summary).collect::<Result<_>>()?;
    Ok(ListProcessingJobsOutput { processing_job_summaries: Some(summaries), next_token: page.next_token })
}

fn summary(resource: &Resource) -> Result<ProcessingJobSummary> {
    let mut shown = description(resource, &TrainingRecord::read(&resource.document)?);
    shown["ProcessingJobName"] = resource.key.name.clone().into();
    serde_json::from_value(shown).map_err(Error::internal)
}

async fn stop_processing_job(cx: Cx, input: StopProcessingJobInput) -> Result<StopProcessingJobOutput> {
    let resource = records::find(&cx, PROCESSING_JOB, &input.processing_job_name).await?;
    job_stop::request(&cx.state, &resource).await?;
    cx.state.training.stop(&resource.key);
    Ok(StopProcessingJobOutput::default())
}

async fn delete_processing_job(cx: Cx, input: DeleteProcessingJobInput) -> Result<DeleteProcessingJobOutput> {
    let resource = records::find(&cx, PROCESSING_JOB, &input.processing_job_name).await?;
    let now_ms = cx.state.clock.now_ms();
    let deleted = cx.state.database.write(move |session| {
        let removed = session.delete_resource(&resource.key)?;
        if matches!(removed.status.as_str(), "InProgress" | "Stopping") {
            return Err(records::wrong_status(&removed));
        }
        session.append_event(&resource.key, "Deleted", &Value::Null, now_ms)
    });
    deleted.await.map_err(|error| match error {
        store::Error::WrongStatus { status, .. } => Error::InUse(format!(
            "The request was rejected because the processing job is in status {status}."
        )),
        other => other.into(),
    })?;
    Ok(DeleteProcessingJobOutput::default())
}
