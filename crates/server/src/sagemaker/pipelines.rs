//! Pipelines: create, update, describe, list, delete. What their executions do is in `crate::pipelines`.

use api::sagemaker::{
    CreatePipeline, CreatePipelineInput, CreatePipelineOutput, DeletePipeline, DeletePipelineInput,
    DeletePipelineOutput, DescribePipeline, DescribePipelineInput, DescribePipelineOutput, ListPipelines,
    ListPipelinesInput, ListPipelinesOutput, PipelineDefinitionS3Location, UpdatePipeline,
    UpdatePipelineInput, UpdatePipelineOutput,
};
use serde_json::{Value, json};
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};

use super::kinds::PIPELINE;
use super::{pipeline_versions as versions, records};
use crate::pipelines::definition::Definition;
use crate::pipelines::expressions::Flaw;
use crate::pipelines::properties;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreatePipeline, _, _, _>(create_pipeline);
    registry.on::<UpdatePipeline, _, _, _>(update_pipeline);
    registry.on::<DescribePipeline, _, _, _>(describe_pipeline);
    registry.on::<DeletePipeline, _, _, _>(delete_pipeline);
    registry.on::<ListPipelines, _, _, _>(list_pipelines);
}

async fn create_pipeline(cx: Cx, input: CreatePipelineInput) -> Result<CreatePipelineOutput> {
    let text = definition_text(&cx, input.pipeline_definition, input.pipeline_definition_s3_location).await?;
    let text = text.ok_or_else(|| {
        Error::Validation("PipelineDefinition or PipelineDefinitionS3Location must be given.".into())
    })?;
    check(&text)?;
    crate::iam::check_assumable(&cx, &input.role_arn).await?;
    let aliases = input.pipeline_version_aliases.unwrap_or_default();
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let document = json!({"CreatedBy": user(&cx), "LastModifiedBy": user(&cx)});
    let mut resource = records::new_resource(&cx, PIPELINE, &input.pipeline_name, "Active", document);
    resource.spec = json!({
        "PipelineName": input.pipeline_name,
        "PipelineDisplayName": input.pipeline_display_name.unwrap_or_else(|| input.pipeline_name.clone()),
        "PipelineDescription": input.pipeline_description,
        "RoleArn": input.role_arn,
        "ParallelismConfiguration": cx.input.get("ParallelismConfiguration"),
    });
    let (arn, token, name) = (resource.arn.clone(), input.client_request_token, input.pipeline_name);
    let stored = cx.state.database.write({
        let name = name.clone();
        move |session| {
            let key = resource.key.clone();
            if let Some((subject, answer)) = session.pipeline_request(&key, "CreatePipeline", &token)?
                && subject == name
                && session.find_resource(&key)?.is_some()
            {
                return Ok(answer);
            }
            session.insert_resource(&resource)?;
            session.put_tags(&resource.arn, &tags)?;
            let version = session.add_pipeline_version(&key, &text, &json!({}), resource.created_at)?;
            versions::assign(session, &key, version, &aliases, &[])?;
            // A token that named a pipeline which was deleted since says nothing any more.
            if session.pipeline_request(&key, "CreatePipeline", &token)?.is_none() {
                session.put_pipeline_request(&key, "CreatePipeline", &token, &name, &resource.arn)?;
            }
            session.append_event(&key, "Created", &resource.spec, resource.created_at)?;
            Ok(arn)
        }
    });
    let arn = stored.await.map_err(|error| match error {
        store::Error::Exists { .. } => Error::Validation(format!(
            "Pipeline names must be unique within an AWS account and region. Pipeline with name ({name}) already exists."
        )),
        other => versions::refused(other),
    })?;
    Ok(CreatePipelineOutput { pipeline_arn: Some(arn) })
}

async fn update_pipeline(cx: Cx, input: UpdatePipelineInput) -> Result<UpdatePipelineOutput> {
    let resource = find(&cx, &input.pipeline_name).await?;
    let text = definition_text(&cx, input.pipeline_definition, input.pipeline_definition_s3_location).await?;
    if let Some(text) = &text {
        check(text)?;
    }
    if let Some(role) = &input.role_arn {
        crate::iam::check_assumable(&cx, role).await?;
    }
    let aliases = input.pipeline_version_aliases.unwrap_or_default();
    let (now_ms, raw, user) = (cx.state.clock.now_ms(), cx.input.clone(), user(&cx));
    let key = resource.key.clone();
    let written = cx.state.database.write(move |session| {
        session.update_resource(&key, now_ms, |resource| {
            for name in ["PipelineDisplayName", "PipelineDescription", "RoleArn", "ParallelismConfiguration"]
            {
                if let Some(value) = raw.get(name) {
                    resource.spec[name] = value.clone();
                }
            }
            resource.document["LastModifiedBy"] = user;
            Ok(())
        })?;
        let version = match &text {
            Some(text) => session.add_pipeline_version(&key, text, &json!({}), now_ms)?,
            None => session.pipeline_version(&key, None)?.map_or(1, |newest| newest.version),
        };
        versions::assign(session, &key, version, &aliases, &[])?;
        session.append_event(&key, "Updated", &json!({"PipelineVersionId": version}), now_ms)?;
        Ok(version)
    });
    let version = written.await.map_err(versions::refused)?;
    Ok(UpdatePipelineOutput { pipeline_arn: Some(resource.arn), pipeline_version_id: Some(version) })
}

async fn describe_pipeline(cx: Cx, input: DescribePipelineInput) -> Result<DescribePipelineOutput> {
    let resource = find(&cx, &input.pipeline_name).await?;
    let alias = input.pipeline_version_alias;
    let version = versions::find(&cx, &resource, input.pipeline_version_id, alias.as_deref()).await?;
    let at = |member: &str| resource.document[member].as_i64().map(records::seconds);
    records::described(
        &resource,
        json!({
            "PipelineArn": resource.arn,
            "PipelineDefinition": version.definition,
            "PipelineStatus": resource.status,
            "CreationTime": records::seconds(resource.created_at),
            "LastModifiedTime": records::seconds(resource.modified_at),
            "LastRunTime": at("LastRunAt"),
            "CreatedBy": resource.document["CreatedBy"],
            "LastModifiedBy": resource.document["LastModifiedBy"],
            "PipelineVersionDisplayName": version.document["DisplayName"],
            "PipelineVersionDescription": version.document["Description"],
            "PipelineVersionAliases": version.document["Aliases"],
        }),
    )
}

async fn delete_pipeline(cx: Cx, input: DeletePipelineInput) -> Result<DeletePipelineOutput> {
    let resource = find(&cx, &input.pipeline_name).await?;
    let (key, now_ms) = (resource.key.clone(), cx.state.clock.now_ms());
    let deleted = cx.state.database.write(move |session| {
        if session.pipeline_has_execution_in(&key, &["Executing", "Stopping"])? {
            return Err(store::Error::Precondition(format!(
                "The pipeline {} has executions that are under way: stop them, or wait for their end.",
                key.name
            )));
        }
        session.delete_resource(&key)?;
        session.delete_pipeline_rows(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    deleted.await.map_err(versions::refused)?;
    Ok(DeletePipelineOutput { pipeline_arn: Some(resource.arn) })
}

async fn list_pipelines(cx: Cx, input: ListPipelinesInput) -> Result<ListPipelinesOutput> {
    if input.managed_by.as_ref().is_some_and(|by| by.as_str() != "CUSTOMER") {
        return Ok(ListPipelinesOutput { pipeline_summaries: Some(Vec::new()), next_token: None });
    }
    let by_name = input.sort_by.is_some_and(|column| column.as_str() == "Name");
    let query = ListQuery {
        name_prefix: input.pipeline_name_prefix,
        created_after: input.created_after.map(|at| at.as_millis()),
        created_before: input.created_before.map(|at| at.as_millis()),
        sort_by: if by_name { SortBy::Name } else { SortBy::CreatedAt },
        descending: input.sort_order.is_none_or(|order| order.as_str() == "Descending"),
        limit: input.max_results.unwrap_or(10).max(1) as usize,
        next_token: input.next_token,
        ..ListQuery::default()
    };
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let page = cx
        .state
        .database
        .read(move |session| session.list_resources(&account, &region, PIPELINE, &query))
        .await?;
    let summaries = page.resources.iter().map(|resource| {
        let last_run = resource.document["LastRunAt"].as_i64().map(records::seconds);
        let more = json!({
            "PipelineArn": resource.arn,
            "CreationTime": records::seconds(resource.created_at),
            "LastModifiedTime": records::seconds(resource.modified_at),
            "LastExecutionTime": last_run,
        });
        records::described(resource, more)
    });
    let summaries = summaries.collect::<Result<_>>()?;
    Ok(ListPipelinesOutput { pipeline_summaries: Some(summaries), next_token: page.next_token })
}

/// The pipeline with this name or ARN.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn find(cx: &Cx, name_or_arn: &str) -> Result<Resource> {
    if !name_or_arn.starts_with("arn:") {
        return records::find(cx, PIPELINE, name_or_arn).await;
    }
    let wanted = name_or_arn.to_owned();
    let found = cx.state.database.read(move |session| session.find_resource_by_arn(&wanted)).await?;
    let own = found.filter(|resource| is_own(cx, &resource.key, PIPELINE));
    own.ok_or_else(|| Error::not_found(PIPELINE, name_or_arn))
}

/// Whether a resource is of this kind and of the caller's account and region.
pub fn is_own(cx: &Cx, key: &ResourceKey, kind: &str) -> bool {
    key.kind == kind && key.account == cx.caller.account && key.region == cx.caller.region
}

/// The caller, as `UserContext`.
pub fn user(cx: &Cx) -> Value {
    user_context(&cx.caller.principal_arn, &cx.caller.principal_id)
}

/// A principal, as `UserContext`.
pub fn user_context(arn: &str, id: &str) -> Value {
    json!({"IamIdentity": {"Arn": arn, "PrincipalId": id}})
}

/// Refuses a definition that is stored now for what it cannot mean. One that is stored already is only read.
fn check(text: &str) -> Result<()> {
    let checked = Definition::parse(text).and_then(|definition| properties::check(&definition));
    checked.map_err(|flaw| flawed(&flaw))
}

fn flawed(flaw: &Flaw) -> Error {
    Error::Validation(format!("Unable to parse pipeline definition. {flaw}"))
}

/// Reads a definition.
///
/// # Errors
/// [`Error::Validation`] with the first flaw and its place.
pub fn parse(text: &str) -> Result<Definition> {
    Definition::parse(text).map_err(|flaw| flawed(&flaw))
}

async fn definition_text(
    cx: &Cx,
    text: Option<String>,
    location: Option<PipelineDefinitionS3Location>,
) -> Result<Option<String>> {
    let location = match (text, location) {
        (Some(_), Some(_)) => {
            let text = "PipelineDefinition and PipelineDefinitionS3Location cannot both be given.";
            return Err(Error::Validation(text.into()));
        }
        (text, None) => return Ok(text),
        (None, Some(location)) => location,
    };
    if location.version_id.is_some() {
        return Err(Error::field("PipelineDefinitionS3Location.VersionId"));
    }
    let uri = format!("s3://{}/{}", location.bucket, location.object_key);
    let read = crate::pipelines::files::read_text(&cx.state, &cx.caller.account, &uri, 1 << 20).await;
    read.map(Some).map_err(|problem| Error::Validation(format!("PipelineDefinitionS3Location: {problem}.")))
}
