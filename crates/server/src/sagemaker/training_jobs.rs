//! Training jobs: create, describe, list, stop, delete. What they do while they run is in `crate::training`.

use api::sagemaker::{
    CreateTrainingJob, CreateTrainingJobInput, CreateTrainingJobOutput, DeleteTrainingJob,
    DeleteTrainingJobInput, DeleteTrainingJobOutput, DescribeTrainingJob, DescribeTrainingJobInput,
    DescribeTrainingJobOutput, ListTrainingJobs, ListTrainingJobsInput, ListTrainingJobsOutput,
    StopTrainingJob, StopTrainingJobInput, StopTrainingJobOutput, TrainingJobSummary,
};
use serde_json::{Value, json};
use store::resources::Resource;
use store::warm_pools::WarmPool;

use super::kinds::TRAINING_JOB;
use super::{fields, job_stop, listing, records, training_hosts, training_inputs, training_times};
use crate::training::admission;
use crate::training::record::TrainingRecord;
use crate::training::warm_pool;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateTrainingJob, _, _, _>(create_training_job);
    registry.on::<DescribeTrainingJob, _, _, _>(describe_training_job);
    registry.on::<ListTrainingJobs, _, _, _>(list_training_jobs);
    registry.on::<StopTrainingJob, _, _, _>(stop_training_job);
    registry.on::<DeleteTrainingJob, _, _, _>(delete_training_job);
}

/// What a training job honours. `ProfilerConfig` and `ProfilerRuleConfigurations` are recorded and shown;
/// the job's log says that the rules are not evaluated. `DebugHookConfig` reaches the container as the service writes it.
const HONOURED: &[&str] = &[
    "TrainingJobName",
    "HyperParameters.**",
    "AlgorithmSpecification.TrainingImage",
    "AlgorithmSpecification.TrainingInputMode",
    "AlgorithmSpecification.MetricDefinitions.**",
    "AlgorithmSpecification.EnableSageMakerMetricsTimeSeries",
    "AlgorithmSpecification.ContainerEntrypoint",
    "AlgorithmSpecification.ContainerArguments",
    "RoleArn",
    "InputDataConfig.ChannelName",
    "InputDataConfig.DataSource.S3DataSource.S3DataType",
    "InputDataConfig.DataSource.S3DataSource.S3Uri",
    "InputDataConfig.DataSource.S3DataSource.S3DataDistributionType",
    "InputDataConfig.DataSource.S3DataSource.AttributeNames",
    "InputDataConfig.DataSource.S3DataSource.InstanceGroupNames",
    "InputDataConfig.ContentType",
    "InputDataConfig.CompressionType",
    "InputDataConfig.RecordWrapperType",
    "InputDataConfig.InputMode",
    "InputDataConfig.ShuffleConfig.Seed",
    "OutputDataConfig.S3OutputPath",
    "OutputDataConfig.CompressionType",
    "OutputDataConfig.KmsKeyId",
    "ResourceConfig.InstanceType",
    "ResourceConfig.InstanceCount",
    "ResourceConfig.InstanceGroups.**",
    "ResourceConfig.VolumeSizeInGB",
    "ResourceConfig.KeepAlivePeriodInSeconds",
    "StoppingCondition.MaxRuntimeInSeconds",
    "StoppingCondition.MaxWaitTimeInSeconds",
    "StoppingCondition.MaxPendingTimeInSeconds",
    "EnableManagedSpotTraining",
    "RetryStrategy.MaximumRetryAttempts",
    "CheckpointConfig.S3Uri",
    "CheckpointConfig.LocalPath",
    "TensorBoardOutputConfig.S3OutputPath",
    "TensorBoardOutputConfig.LocalPath",
    "Tags.**",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "DebugHookConfig.**",
    "ProfilerConfig.**",
    "ProfilerRuleConfigurations.**",
    "ExperimentConfig.**",
    "RemoteDebugConfig.EnableRemoteDebug",
    "InfraCheckConfig.EnableInfraCheck",
    "SessionChainingConfig.EnableSessionTagChaining",
    "Environment.**",
];

async fn create_training_job(cx: Cx, input: CreateTrainingJobInput) -> Result<CreateTrainingJobOutput> {
    fields::check(&cx.input, HONOURED)?;
    check(&cx.input, &input)?;
    crate::iam::check_assumable(&cx, &input.role_arn).await?;
    if let Some(key) = input.output_data_config.kms_key_id.as_deref().filter(|key| !key.is_empty()) {
        crate::kms::check_usable(&cx, "OutputDataConfig.KmsKeyId", key).await?;
    }
    let asked = admission::hosts(&cx.input, cx.state.capacity.instance_types());
    asked.map_err(Error::Validation)?;
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let mut record = TrainingRecord::default();
    let chaining = input.session_chaining_config.as_ref();
    if chaining.is_some_and(|chaining| chaining.enable_session_tag_chaining == Some(true)) {
        record.session_tags = cx.caller.session_tags.clone();
    }
    (record.queue, record.priority) = admission::queue_and_priority(&cx.input).map_err(Error::Validation)?;
    record.enter("Starting", "Starting the training job", cx.state.clock.now_ms());
    let name = &input.training_job_name;
    let resource = records::new_resource(&cx, TRAINING_JOB, name, "InProgress", record.to_document());
    let arn = resource.arn.clone();
    let taken = "Training job names must be unique within an AWS account and region, \
                 and a training job with this name already exists";
    records::insert(&cx, resource, tags, taken, true).await?;
    cx.state.training.wake();
    Ok(CreateTrainingJobOutput { training_job_arn: Some(arn) })
}

/// Rules that the model cannot say.
fn check(raw: &Value, input: &CreateTrainingJobInput) -> Result<()> {
    training_inputs::check(raw)?;
    let specification = &raw["AlgorithmSpecification"];
    if specification["TrainingImage"].is_null() {
        return Err(Error::Validation("AlgorithmSpecification.TrainingImage must be given.".into()));
    }
    training_hosts::check(raw, input)?;
    check_encryption(raw)?;
    training_times::check(input)?;
    check_warm_pool(raw)?;
    let output = &input.output_data_config.s3_output_path;
    if crate::training::bucket_and_key(output).is_none() {
        return Err(Error::Validation(format!(
            "OutputDataConfig.S3OutputPath: {output:?} is not an S3 URI."
        )));
    }
    if let Some(definitions) = specification["MetricDefinitions"].as_array() {
        for (at, definition) in definitions.iter().enumerate() {
            let expression = definition["Regex"].as_str().unwrap_or_default();
            if let Err(error) = runner::contract::check_metric_expression(expression) {
                let field = format!("AlgorithmSpecification.MetricDefinitions[{at}].Regex");
                return Err(Error::Validation(format!("{field}: {error}.")));
            }
        }
    }
    Ok(())
}

/// What one instance says to itself needs no encryption; what several say to each other has none here.
fn check_encryption(raw: &Value) -> Result<()> {
    let resources = &raw["ResourceConfig"];
    let is_one = resources["InstanceCount"].as_i64() == Some(1) && resources["InstanceGroups"].is_null();
    if raw["EnableInterContainerTrafficEncryption"] == true && !is_one {
        return Err(Error::field("EnableInterContainerTrafficEncryption with more than one instance"));
    }
    Ok(())
}

/// A warm pool is refused where the service does not keep one.
fn check_warm_pool(raw: &Value) -> Result<()> {
    let resources = &raw["ResourceConfig"];
    if resources["KeepAlivePeriodInSeconds"].as_i64().unwrap_or(0) == 0 {
        return Ok(());
    }
    let is_mixed = resources["InstanceGroups"].as_array().is_some_and(|groups| !groups.is_empty());
    let obstacle = match () {
        () if raw["EnableManagedSpotTraining"] == true => "EnableManagedSpotTraining is set to true",
        () if is_mixed => "ResourceConfig.InstanceGroups is given",
        () => return Ok(()),
    };
    Err(Error::Validation(format!(
        "Invalid KeepAlivePeriodInSeconds. Warm pools are not supported when {obstacle}."
    )))
}

async fn describe_training_job(cx: Cx, input: DescribeTrainingJobInput) -> Result<DescribeTrainingJobOutput> {
    let resource = records::find(&cx, TRAINING_JOB, &input.training_job_name).await?;
    let record = TrainingRecord::read(&resource.document)?;
    let mut shown = description(&resource, &record);
    if let Some(reason) = cx.state.capacity.waits_for(&resource.key)
        && let Some(current) =
            shown["SecondaryStatusTransitions"].as_array_mut().and_then(|all| all.last_mut())
    {
        current["StatusMessage"] = reason.into();
    }
    warm_pool::expire(&cx.state).await?;
    let pools = warm_pool::of_jobs(&cx.state, vec![resource.key.clone()]).await?;
    show_pool(&mut shown, pools.into_iter().next().flatten().as_ref(), cx.state.clock.now_ms());
    records::described(&resource, shown)
}

/// Adds the pool of a job to its description.
pub fn show_pool(shown: &mut Value, pool: Option<&WarmPool>, now_ms: i64) {
    if let Some(pool) = pool {
        shown["WarmPoolStatus"] = warm_pool::shown(pool, now_ms);
    }
}

/// The members of a description that are not in the request.
pub fn description(resource: &Resource, record: &TrainingRecord) -> Value {
    let at = |at: Option<i64>| at.map(records::seconds);
    let seconds_trained = record.trained_ms().map(|ran_ms| (ran_ms + 999) / 1000);
    let transitions: Vec<Value> = record
        .transitions
        .iter()
        .map(|transition| {
            let mut shown = json!({
                "Status": transition.status,
                "StartTime": records::seconds(transition.started_at),
                "StatusMessage": transition.message,
            });
            if let Some(ended) = transition.ended_at {
                shown["EndTime"] = json!(records::seconds(ended));
            }
            shown
        })
        .collect();
    let metrics: Vec<Value> = record.final_metrics.iter().map(|metric| {
        json!({"MetricName": metric.name, "Value": metric.value, "Timestamp": records::seconds(metric.at)})
    }).collect();
    json!({
        "TrainingJobArn": resource.arn,
        "TrainingJobStatus": resource.status,
        "SecondaryStatus": record.secondary_status(),
        "SecondaryStatusTransitions": transitions,
        "FailureReason": record.failure.as_ref().map(|card| card.reason.clone()),
        "ModelArtifacts": record.model_artifacts.as_ref().map(|uri| json!({"S3ModelArtifacts": uri})),
        "FinalMetricDataList": (!metrics.is_empty()).then_some(metrics),
        "CreationTime": records::seconds(resource.created_at),
        "LastModifiedTime": records::seconds(resource.modified_at),
        "TrainingStartTime": at(record.training_started_at),
        "TrainingEndTime": at(record.training_ended_at),
        "TrainingTimeInSeconds": seconds_trained,
        "BillableTimeInSeconds": seconds_trained,
    })
}

async fn list_training_jobs(cx: Cx, input: ListTrainingJobsInput) -> Result<ListTrainingJobsOutput> {
    if input.training_plan_arn_equals.is_some() {
        return Err(Error::field("TrainingPlanArnEquals"));
    }
    warm_pool::expire(&cx.state).await?;
    let filters = listing::Filters {
        name_contains: input.name_contains,
        status: input.status_equals.map(|status| status.to_string()),
        warm_pool_status: input.warm_pool_status_equals.map(|status| status.to_string()),
        created_after: input.creation_time_after,
        created_before: input.creation_time_before,
        modified_after: input.last_modified_time_after,
        modified_before: input.last_modified_time_before,
        sort_by: input.sort_by.map(|column| column.to_string()),
        sort_order: input.sort_order.map(|order| order.to_string()),
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let page = listing::page(&cx, TRAINING_JOB, filters, "Descending").await?;
    let keys = page.resources.iter().map(|resource| resource.key.clone()).collect();
    let pools = warm_pool::of_jobs(&cx.state, keys).await?;
    let now_ms = cx.state.clock.now_ms();
    let shown = page.resources.iter().zip(&pools).map(|(job, pool)| summary(job, pool.as_ref(), now_ms));
    let summaries = shown.collect::<Result<_>>()?;
    Ok(ListTrainingJobsOutput { training_job_summaries: Some(summaries), next_token: page.next_token })
}

fn summary(resource: &Resource, pool: Option<&WarmPool>, now_ms: i64) -> Result<TrainingJobSummary> {
    let record = TrainingRecord::read(&resource.document)?;
    let mut shown = description(resource, &record);
    shown["TrainingJobName"] = resource.key.name.clone().into();
    show_pool(&mut shown, pool, now_ms);
    serde_json::from_value(shown).map_err(Error::internal)
}

async fn stop_training_job(cx: Cx, input: StopTrainingJobInput) -> Result<StopTrainingJobOutput> {
    let resource = records::find(&cx, TRAINING_JOB, &input.training_job_name).await?;
    job_stop::request(&cx.state, &resource).await?;
    cx.state.training.stop(&resource.key);
    Ok(StopTrainingJobOutput::default())
}

async fn delete_training_job(cx: Cx, input: DeleteTrainingJobInput) -> Result<DeleteTrainingJobOutput> {
    let resource = records::find(&cx, TRAINING_JOB, &input.training_job_name).await?;
    let now_ms = cx.state.clock.now_ms();
    warm_pool::expire(&cx.state).await?;
    let deleted = cx.state.database.write(move |session| {
        let removed = session.delete_resource(&resource.key)?;
        if matches!(removed.status.as_str(), "InProgress" | "Stopping") {
            return Err(store::Error::WrongStatus {
                kind: TRAINING_JOB.into(),
                name: removed.key.name,
                status: removed.status,
            });
        }
        if session.warm_pool(&removed.key)?.is_some_and(|pool| pool.is_available()) {
            return Err(store::Error::Precondition(
                "The request was rejected because the training job has a warm pool that is Available: end it first, by \
                 UpdateTrainingJob with ResourceConfig.KeepAlivePeriodInSeconds 0."
                    .to_owned(),
            ));
        }
        session.delete_warm_pool(&removed.key)?;
        session.append_event(&resource.key, "Deleted", &Value::Null, now_ms)
    });
    deleted.await.map_err(|error| match error {
        store::Error::Precondition(text) => Error::InUse(text),
        store::Error::WrongStatus { status, .. } => {
            Error::InUse(format!("The request was rejected because the training job is in status {status}."))
        }
        other => other.into(),
    })?;
    Ok(DeleteTrainingJobOutput::default())
}
