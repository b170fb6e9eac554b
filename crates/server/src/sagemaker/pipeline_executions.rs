//! Executions of pipelines: start, describe, stop, retry, update, and the answers to Callback steps.

use std::collections::{BTreeMap, BTreeSet};

use api::sagemaker::{
    DescribePipelineDefinitionForExecution, DescribePipelineDefinitionForExecutionInput,
    DescribePipelineDefinitionForExecutionOutput, DescribePipelineExecution, DescribePipelineExecutionInput,
    DescribePipelineExecutionOutput, RetryPipelineExecution, RetryPipelineExecutionInput,
    RetryPipelineExecutionOutput, SendPipelineExecutionStepFailure, SendPipelineExecutionStepFailureInput,
    SendPipelineExecutionStepFailureOutput, SendPipelineExecutionStepSuccess,
    SendPipelineExecutionStepSuccessInput, SendPipelineExecutionStepSuccessOutput, StartPipelineExecution,
    StartPipelineExecutionInput, StartPipelineExecutionOutput, StopPipelineExecution,
    StopPipelineExecutionInput, StopPipelineExecutionOutput, UpdatePipelineExecution,
    UpdatePipelineExecutionInput, UpdatePipelineExecutionOutput,
};
use serde_json::{Value, json};
use store::resources::Resource;

use super::kinds::{PIPELINE, PIPELINE_EXECUTION};
use super::pipeline_versions::{answer, refused};
use super::{pipeline_versions as versions, pipelines, records};
use crate::identity::random_id;
use crate::pipelines::definition::Definition;
use crate::pipelines::record::{ExecutionRecord, ExecutionSpec, Selective, StepRecord};
use crate::pipelines::{restart, selective, state_events, token_of};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<StartPipelineExecution, _, _, _>(start_pipeline_execution);
    registry.on::<DescribePipelineExecution, _, _, _>(describe_pipeline_execution);
    registry.on::<DescribePipelineDefinitionForExecution, _, _, _>(describe_definition);
    registry.on::<StopPipelineExecution, _, _, _>(stop_pipeline_execution);
    registry.on::<RetryPipelineExecution, _, _, _>(retry_pipeline_execution);
    registry.on::<UpdatePipelineExecution, _, _, _>(update_pipeline_execution);
    registry.on::<SendPipelineExecutionStepSuccess, _, _, _>(send_success);
    registry.on::<SendPipelineExecutionStepFailure, _, _, _>(send_failure);
}

async fn start_pipeline_execution(
    cx: Cx,
    input: StartPipelineExecutionInput,
) -> Result<StartPipelineExecutionOutput> {
    if input.mlflow_experiment_name.is_some() {
        return Err(Error::field("MlflowExperimentName"));
    }
    let pipeline = pipelines::find(&cx, &input.pipeline_name).await?;
    let alias = input.pipeline_version_alias.clone();
    let version = versions::find(&cx, &pipeline, input.pipeline_version_id, alias.as_deref()).await?;
    let definition = pipelines::parse(&version.definition)?;
    let mut given = BTreeMap::new();
    for parameter in input.pipeline_parameters.unwrap_or_default() {
        if given.insert(parameter.name.clone(), parameter.value).is_some() {
            return Err(Error::Validation(format!(
                "PipelineParameters: {:?} is given twice.",
                parameter.name
            )));
        }
    }
    let parameters = definition.parameter_values(&given).map_err(Error::Validation)?;
    let now_ms = cx.state.clock.now_ms();
    let selective = match input.selective_execution_config {
        None => None,
        Some(config) => {
            let steps = config.selected_steps.into_iter().map(|step| step.step_name).collect();
            Some(Selective { source_arn: config.source_pipeline_execution_arn, steps })
        }
    };
    let taken = match &selective {
        None => Vec::new(),
        Some(selective) => taken_steps(&cx, &pipeline, &definition, selective).await?,
    };
    let parallelism =
        cx.input.get("ParallelismConfiguration").unwrap_or(&pipeline.spec["ParallelismConfiguration"]);
    let role_arn =
        input.role_arn.unwrap_or_else(|| pipeline.spec["RoleArn"].as_str().unwrap_or_default().to_owned());
    crate::iam::check_assumable(&cx, &role_arn).await?;
    let spec = ExecutionSpec {
        pipeline: pipeline.key.name.clone(),
        pipeline_arn: pipeline.arn.clone(),
        version: version.version,
        display_name: input.pipeline_execution_display_name.unwrap_or_else(|| format!("execution-{now_ms}")),
        description: input.pipeline_execution_description,
        role_arn,
        most_parallel: parallelism["MaxParallelExecutionSteps"].as_u64().map(|most| most as usize),
        parameters,
        selective,
        version_alias: alias,
        created_by: (cx.caller.principal_arn.clone(), cx.caller.principal_id.clone()),
    };
    let id = random_id(12).to_lowercase();
    let key = records::key(&cx, PIPELINE_EXECUTION, &id);
    let resource = Resource {
        arn: format!("{}/execution/{id}", pipeline.arn),
        key,
        status: "Executing".into(),
        spec: serde_json::to_value(&spec).map_err(Error::internal)?,
        document: ExecutionRecord::default().to_document(),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    let token = input.client_request_token;
    let arn = cx.state.database.write(move |session| {
        let key = &resource.key;
        if let Some((subject, answer)) = session.pipeline_request(key, "StartPipelineExecution", &token)? {
            if subject == pipeline.key.name {
                return Ok(answer);
            }
            let text = "ClientRequestToken: this token was used for an execution of another pipeline.";
            return Err(store::Error::Precondition(text.into()));
        }
        session.insert_resource(&resource)?;
        session.add_pipeline_execution(key, &pipeline.key.name, spec.version, now_ms)?;
        for (name, record) in &taken {
            session.put_pipeline_step(key, &restart::step_row(name, record))?;
        }
        session.update_resource(&pipeline.key, pipeline.modified_at, |pipeline| {
            pipeline.document["LastRunAt"] = now_ms.into();
            Ok(())
        })?;
        let mut document = version.document;
        document["LastExecutionArn"] = resource.arn.clone().into();
        session.set_pipeline_version(&pipeline.key, spec.version, &document)?;
        session.put_pipeline_request(
            key,
            "StartPipelineExecution",
            &token,
            &pipeline.key.name,
            &resource.arn,
        )?;
        session.append_event(key, "Created", &resource.spec, now_ms)?;
        state_events::execution(session, &resource, None, now_ms)?;
        session.enqueue_work(key, now_ms)?;
        Ok(resource.arn)
    });
    let arn = arn.await.map_err(refused)?;
    cx.state.pipelines.wake();
    Ok(StartPipelineExecutionOutput { pipeline_execution_arn: Some(arn) })
}

/// The results that a selective execution takes from another one.
async fn taken_steps(
    cx: &Cx,
    pipeline: &Resource,
    definition: &Definition,
    selective: &Selective,
) -> Result<Vec<(String, StepRecord)>> {
    let source = match &selective.source_arn {
        Some(arn) => Some(find(cx, arn).await?),
        None => None,
    };
    if let Some(source) = &source
        && ExecutionSpec::read(source)?.pipeline != pipeline.key.name
    {
        let text =
            "SelectiveExecutionConfig.SourcePipelineExecutionArn: this is an execution of another pipeline.";
        return Err(Error::Validation(text.into()));
    }
    let records = match &source {
        Some(source) => {
            let key = source.key.clone();
            cx.state.database.read(move |session| session.pipeline_steps(&key)).await?
        }
        None => Vec::new(),
    };
    let mut known = BTreeMap::new();
    for row in records {
        known.insert(row.name.clone(), StepRecord::read(&row.document)?);
    }
    let chosen: BTreeSet<&str> = selective.steps.iter().map(String::as_str).collect();
    let now_ms = cx.state.clock.now_ms();
    let arn = source.map(|source| source.arn);
    selective::taken(definition, &chosen, &known, arn.as_deref(), now_ms)
        .map_err(|problem| Error::Validation(format!("SelectiveExecutionConfig: {problem}")))
}

async fn describe_pipeline_execution(
    cx: Cx,
    input: DescribePipelineExecutionInput,
) -> Result<DescribePipelineExecutionOutput> {
    let resource = find(&cx, &input.pipeline_execution_arn).await?;
    let spec = ExecutionSpec::read(&resource)?;
    let mut shown = description(&resource, &spec, ExecutionRecord::read(&resource)?);
    shown["PipelineVersionAliases"] = json!(spec.version_alias.map(|alias| vec![alias]));
    shown["RoleArn"] = spec.role_arn.into();
    answer(shown)
}

/// What both DescribePipelineExecution and Search show.
pub fn description(resource: &Resource, spec: &ExecutionSpec, record: ExecutionRecord) -> Value {
    let user = |(arn, id): &(String, String)| pipelines::user_context(arn, id);
    let selective = spec.selective.as_ref().map(|selective| {
        let steps: Vec<Value> = selective.steps.iter().map(|name| json!({"StepName": name})).collect();
        json!({"SourcePipelineExecutionArn": selective.source_arn, "SelectedSteps": steps})
    });
    let experiment = record
        .experiment
        .map(|(experiment, trial)| json!({"ExperimentName": experiment, "TrialName": trial}));
    json!({
        "PipelineArn": spec.pipeline_arn,
        "PipelineExecutionArn": resource.arn,
        "PipelineExecutionDisplayName": spec.display_name,
        "PipelineExecutionStatus": resource.status,
        "PipelineExecutionDescription": spec.description,
        "PipelineExperimentConfig": experiment,
        "FailureReason": record.failure,
        "CreationTime": records::seconds(resource.created_at),
        "LastModifiedTime": records::seconds(resource.modified_at),
        "CreatedBy": user(&spec.created_by),
        "LastModifiedBy": user(record.modified_by.as_ref().unwrap_or(&spec.created_by)),
        "ParallelismConfiguration": spec.most_parallel.map(|most| json!({"MaxParallelExecutionSteps": most})),
        "SelectiveExecutionConfig": selective,
        "PipelineVersionId": spec.version,
    })
}

async fn describe_definition(
    cx: Cx,
    input: DescribePipelineDefinitionForExecutionInput,
) -> Result<DescribePipelineDefinitionForExecutionOutput> {
    let resource = find(&cx, &input.pipeline_execution_arn).await?;
    let spec = ExecutionSpec::read(&resource)?;
    let key = records::key(&cx, PIPELINE, &spec.pipeline);
    let version =
        cx.state.database.read(move |session| session.pipeline_version(&key, Some(spec.version))).await?;
    let version = version.ok_or_else(|| Error::not_found(PIPELINE, spec.pipeline_arn))?;
    answer(json!({
        "PipelineDefinition": version.definition,
        "CreationTime": records::seconds(version.created_at),
    }))
}

async fn stop_pipeline_execution(
    cx: Cx,
    input: StopPipelineExecutionInput,
) -> Result<StopPipelineExecutionOutput> {
    let resource = find(&cx, &input.pipeline_execution_arn).await?;
    let (key, now_ms) = (resource.key.clone(), cx.state.clock.now_ms());
    let by = (cx.caller.principal_arn.clone(), cx.caller.principal_id.clone());
    let stopped = cx.state.database.write(move |session| {
        let before = session.resource(&key)?.status;
        let changed = session.update_resource(&key, now_ms, |resource| match resource.status.as_str() {
            "Executing" | "Stopping" => {
                resource.status = "Stopping".into();
                let mut record = ExecutionRecord::read(resource)?;
                record.modified_by = Some(by);
                resource.document = record.to_document();
                Ok(())
            }
            status => Err(store::Error::Precondition(format!(
                "Only executions with the status Executing can be stopped; the status of {} is {status}.",
                resource.arn
            ))),
        })?;
        if before != changed.status {
            state_events::execution(session, &changed, Some(&before), now_ms)?;
        }
        session.want_stop(&key)
    });
    stopped.await.map_err(refused)?;
    cx.state.pipelines.poke(&resource.key);
    Ok(StopPipelineExecutionOutput { pipeline_execution_arn: Some(resource.arn) })
}

async fn retry_pipeline_execution(
    cx: Cx,
    input: RetryPipelineExecutionInput,
) -> Result<RetryPipelineExecutionOutput> {
    let resource = find(&cx, &input.pipeline_execution_arn).await?;
    let (key, now_ms, token) = (resource.key.clone(), cx.state.clock.now_ms(), input.client_request_token);
    let by = (cx.caller.principal_arn.clone(), cx.caller.principal_id.clone());
    let most = input.parallelism_configuration.map(|config| config.max_parallel_execution_steps as usize);
    let retried = cx.state.database.write(move |session| {
        match session.pipeline_request(&key, "RetryPipelineExecution", &token)? {
            Some((subject, _)) if subject == key.name => return Ok(()),
            Some(_) => {
                let text = "ClientRequestToken: this token was used for another execution.";
                return Err(store::Error::Precondition(text.into()));
            }
            None => {}
        }
        session.put_pipeline_request(&key, "RetryPipelineExecution", &token, &key.name, "")?;
        restart::retry(session, &key, by, most, now_ms)
    });
    retried.await.map_err(refused)?;
    cx.state.pipelines.wake();
    Ok(RetryPipelineExecutionOutput { pipeline_execution_arn: Some(resource.arn) })
}

async fn update_pipeline_execution(
    cx: Cx,
    input: UpdatePipelineExecutionInput,
) -> Result<UpdatePipelineExecutionOutput> {
    let resource = find(&cx, &input.pipeline_execution_arn).await?;
    let (key, now_ms) = (resource.key.clone(), cx.state.clock.now_ms());
    let by = (cx.caller.principal_arn.clone(), cx.caller.principal_id.clone());
    let written = cx.state.database.write(move |session| {
        session.update_resource(&key, now_ms, |resource| {
            let mut spec = ExecutionSpec::read(resource)?;
            let mut record = ExecutionRecord::read(resource)?;
            record.modified_by = Some(by);
            if let Some(name) = input.pipeline_execution_display_name {
                spec.display_name = name;
            }
            spec.description = input.pipeline_execution_description.or(spec.description);
            if let Some(config) = input.parallelism_configuration {
                spec.most_parallel = Some(config.max_parallel_execution_steps as usize);
            }
            resource.spec = serde_json::to_value(&spec)?;
            resource.document = record.to_document();
            Ok(())
        })?;
        session.append_event(&key, "Updated", &Value::Null, now_ms)
    });
    written.await?;
    cx.state.pipelines.poke(&resource.key);
    Ok(UpdatePipelineExecutionOutput { pipeline_execution_arn: Some(resource.arn) })
}

async fn send_success(
    cx: Cx,
    input: SendPipelineExecutionStepSuccessInput,
) -> Result<SendPipelineExecutionStepSuccessOutput> {
    let mut outputs = BTreeMap::new();
    for output in input.output_parameters.unwrap_or_default() {
        if outputs.insert(output.name.clone(), output.value).is_some() {
            return Err(Error::Validation(format!("OutputParameters: {:?} is given twice.", output.name)));
        }
    }
    let arn = tell(&cx, input.callback_token, json!({"Outputs": outputs})).await?;
    Ok(SendPipelineExecutionStepSuccessOutput { pipeline_execution_arn: Some(arn) })
}

async fn send_failure(
    cx: Cx,
    input: SendPipelineExecutionStepFailureInput,
) -> Result<SendPipelineExecutionStepFailureOutput> {
    let reason = input.failure_reason.unwrap_or_else(|| "The callback reported a failure.".into());
    let arn = tell(&cx, input.callback_token, json!({"FailureReason": reason})).await?;
    Ok(SendPipelineExecutionStepFailureOutput { pipeline_execution_arn: Some(arn) })
}

/// Tells the step that waits with this token its result. The same answer again changes nothing; another one is refused.
async fn tell(cx: &Cx, token: String, told: Value) -> Result<String> {
    let wanted = token.clone();
    let found = cx.state.database.read(move |session| session.pipeline_callback(&wanted)).await?;
    let own = found.filter(|callback| pipelines::is_own(cx, &callback.execution, PIPELINE_EXECUTION));
    let callback = own.ok_or_else(|| Error::not_found("callback token", &*token))?;
    let execution = callback.execution.clone();
    let resource = cx.state.database.read(move |session| session.resource(&execution)).await?;
    let spec = ExecutionSpec::read(&resource)?;
    let key = records::key(cx, PIPELINE, &spec.pipeline);
    let version =
        cx.state.database.read(move |session| session.pipeline_version(&key, Some(spec.version))).await?;
    if let (Some(version), Some(outputs)) = (version, told.get("Outputs")) {
        let definition = pipelines::parse(&version.definition)?;
        if let Some(step) = definition.step(&callback.step) {
            crate::pipelines::outputs::check(&step.outputs, outputs).map_err(Error::Validation)?;
        }
    }
    let (now_ms, execution_arn) = (cx.state.clock.now_ms(), resource.arn.clone());
    let written = cx.state.database.write(move |session| {
        let Some(callback) = session.pipeline_callback(&token)? else { return Ok(()) };
        match callback.answer {
            Some(before) if before == told => return Ok(()),
            Some(_) => {
                let text = "CallbackToken: the step was told another result before; the first one stands.";
                return Err(store::Error::Precondition(text.into()));
            }
            None => {}
        }
        let row = session.pipeline_step(&callback.execution, &callback.step)?;
        let record = row.map(|row| StepRecord::read(&row.document)).transpose()?;
        // A retry by hand begins another attempt, which has a token of its own.
        let is_waiting = |record: StepRecord| {
            let current = token_of(&execution_arn, &callback.step, record.attempt);
            !record.phase.is_final() && current == token
        };
        if !record.is_some_and(is_waiting) {
            let text = "CallbackToken: the step has ended and takes no result any more.";
            return Err(store::Error::Precondition(text.into()));
        }
        session.answer_pipeline_callback(&token, &told)?;
        session.append_event(
            &callback.execution,
            "CallbackAnswered",
            &json!({"StepName": callback.step}),
            now_ms,
        )
    });
    written.await.map_err(refused)?;
    Ok(resource.arn)
}

/// The execution with this ARN.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn find(cx: &Cx, arn: &str) -> Result<Resource> {
    let wanted = arn.to_owned();
    let found = cx.state.database.read(move |session| session.find_resource_by_arn(&wanted)).await?;
    let own = found.filter(|resource| pipelines::is_own(cx, &resource.key, PIPELINE_EXECUTION));
    own.ok_or_else(|| Error::not_found(PIPELINE_EXECUTION, arn))
}
