//! Functions: create, change, show, list, delete.

use api::lambda::{
    CreateFunction, CreateFunctionInput, CreateFunctionOutput, DeleteFunction, DeleteFunctionInput,
    DeleteFunctionOutput, FunctionCode, FunctionCodeLocation, GetFunction, GetFunctionConfiguration,
    GetFunctionConfigurationInput, GetFunctionConfigurationOutput, GetFunctionInput, GetFunctionOutput,
    ListFunctions, ListFunctionsInput, ListFunctionsOutput, UpdateFunctionCode, UpdateFunctionCodeInput,
    UpdateFunctionCodeOutput, UpdateFunctionConfiguration, UpdateFunctionConfigurationInput,
    UpdateFunctionConfigurationOutput,
};
use serde_json::Value;
use store::resources::{ListQuery, Resource, SortBy};

use super::error::{Problem, Result};
use super::record::{self, FunctionRecord, HONOURED, Settings};
use super::{FUNCTION, arn, code, find, key};
use crate::sagemaker::fields;
use crate::{Cx, Error, Registry};

/// Functions on a page.
const PAGE_FUNCTIONS: i32 = 50;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateFunction, _, _, _>(create_function);
    registry.on::<UpdateFunctionCode, _, _, _>(update_function_code);
    registry.on::<UpdateFunctionConfiguration, _, _, _>(update_function_configuration);
    registry.on::<GetFunction, _, _, _>(get_function);
    registry.on::<GetFunctionConfiguration, _, _, _>(get_function_configuration);
    registry.on::<ListFunctions, _, _, _>(list_functions);
    registry.on::<DeleteFunction, _, _, _>(delete_function);
}

fn new_revision() -> String {
    uuid::Uuid::new_v4().to_string()
}

async fn create_function(cx: Cx, input: CreateFunctionInput) -> Result<CreateFunctionOutput> {
    fields::check(&cx.input, HONOURED)?;
    Settings::read(&cx, &cx.input)?;
    let key = key(&cx, &input.function_name, None)?;
    let tags: Vec<(String, String)> = input.tags.unwrap_or_default().into_iter().collect();
    super::tags::check(&tags)?;
    let package = code::package(&cx, input.code).await?;
    let mut spec = (*cx.input).clone();
    if let Some(members) = spec.as_object_mut() {
        for name in ["Code", "Tags", "FunctionName"] {
            members.shift_remove(name);
        }
    }
    let now_ms = cx.state.clock.now_ms();
    let record = FunctionRecord {
        revision_id: new_revision(),
        code_sha256: package.sha256,
        code_size: package.bytes.len() as i64,
        statements: Vec::new(),
    };
    let resource = Resource {
        arn: arn(&key),
        key,
        status: "Active".into(),
        spec,
        document: record.to_value(),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    let shown = record::configuration(&resource)?;
    let name = resource.key.name.clone();
    let made = cx.state.database.write(move |session| {
        session.insert_resource(&resource)?;
        session.put_tags(&resource.arn, &tags)?;
        session.put_function_package(&resource.key, &package.bytes)?;
        session.append_event(&resource.key, "Created", &resource.spec, now_ms)
    });
    made.await.map_err(|error| match error {
        store::Error::Exists { .. } => {
            Problem::Code("ResourceConflictException", format!("Function already exist: {name}"))
        }
        other => other.into(),
    })?;
    Ok(shown)
}

async fn update_function_code(cx: Cx, input: UpdateFunctionCodeInput) -> Result<UpdateFunctionCodeOutput> {
    let honoured = [
        "FunctionName",
        "ZipFile",
        "S3Bucket",
        "S3Key",
        "S3ObjectVersion",
        "S3ObjectStorageMode",
        "ImageUri",
        "SourceKMSKeyArn",
        "Architectures",
        "DryRun",
        "RevisionId",
    ];
    fields::check(&cx.input, &honoured)?;
    let found = find(&cx, &input.function_name, None).await?;
    let mut spec = found.spec.clone();
    if let Some(names) = cx.input.get("Architectures") {
        spec["Architectures"] = names.clone();
    }
    Settings::read(&cx, &spec)?;
    let source = FunctionCode {
        zip_file: input.zip_file,
        s3_bucket: input.s3_bucket,
        s3_key: input.s3_key,
        s3_object_version: input.s3_object_version,
        s3_object_storage_mode: input.s3_object_storage_mode,
        image_uri: input.image_uri,
        source_kms_key_arn: input.source_kms_key_arn,
    };
    let package = code::package(&cx, source).await?;
    if input.dry_run == Some(true) {
        check_revision(&found, input.revision_id.as_deref())?;
        let mut would_be = found;
        let mut record = FunctionRecord::read(&would_be)?;
        (record.code_sha256, record.code_size) = (package.sha256, package.bytes.len() as i64);
        would_be.document = record.to_value();
        return record::configuration(&would_be);
    }
    change(&cx, found, input.revision_id, move |session, resource| {
        let mut record = FunctionRecord::read(resource).map_err(|error| damaged(&error))?;
        record.revision_id = new_revision();
        (record.code_sha256, record.code_size) = (package.sha256, package.bytes.len() as i64);
        resource.document = record.to_value();
        session.put_function_package(&resource.key, &package.bytes)
    })
    .await
}

async fn update_function_configuration(
    cx: Cx,
    input: UpdateFunctionConfigurationInput,
) -> Result<UpdateFunctionConfigurationOutput> {
    fields::check(&cx.input, HONOURED)?;
    let found = find(&cx, &input.function_name, None).await?;
    let mut spec = found.spec.clone();
    if let (Some(members), Some(given)) = (spec.as_object_mut(), cx.input.as_object()) {
        let given = given.iter().filter(|(name, _)| !matches!(name.as_str(), "FunctionName" | "RevisionId"));
        members.extend(given.map(|(name, value)| (name.clone(), value.clone())));
    }
    Settings::read(&cx, &spec)?;
    change(&cx, found, input.revision_id, move |_, resource| {
        let mut record = FunctionRecord::read(resource).map_err(|error| damaged(&error))?;
        record.revision_id = new_revision();
        resource.document = record.to_value();
        resource.spec = spec;
        Ok(())
    })
    .await
}

fn damaged(error: &Error) -> store::Error {
    store::Error::Invalid(format!("the record of a function is damaged: {error}"))
}

fn check_revision(resource: &Resource, wanted: Option<&str>) -> Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    if FunctionRecord::read(resource)?.revision_id == wanted {
        return Ok(());
    }
    let text = "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the \
                latest Revision Id";
    Err(Problem::Code("PreconditionFailedException", text.into()))
}

/// Changes a function if nobody else did meanwhile; the instances of the old revision end when they are idle.
async fn change(
    cx: &Cx,
    found: Resource,
    revision_id: Option<String>,
    edit: impl FnOnce(&store::Session<'_>, &mut Resource) -> store::Result<()> + Send + 'static,
) -> Result<api::lambda::FunctionConfiguration> {
    check_revision(&found, revision_id.as_deref())?;
    let now_ms = cx.state.clock.now_ms();
    let (key, generation) = (found.key.clone(), found.generation);
    let changed = cx.state.database.write(move |session| {
        let changed = session.update_resource(&key, now_ms, |resource| {
            if resource.generation != generation {
                return Err(store::Error::Precondition("it was changed meanwhile".into()));
            }
            edit(session, resource)
        })?;
        session.append_event(&key, "Updated", &changed.spec, now_ms)?;
        Ok(changed)
    });
    let changed = changed.await.map_err(|error| match error {
        store::Error::Precondition(_) => Problem::Code(
            "ResourceConflictException",
            format!(
                "The operation cannot be performed at this time. An update is in progress for resource: {}",
                found.arn
            ),
        ),
        store::Error::Missing { .. } => Problem::missing(&found.arn),
        other => other.into(),
    })?;
    cx.state.functions.retire(&changed.key);
    record::configuration(&changed)
}

async fn get_function(cx: Cx, input: GetFunctionInput) -> Result<GetFunctionOutput> {
    let found = find(&cx, &input.function_name, input.qualifier.as_deref()).await?;
    let arn = found.arn.clone();
    let tags = cx.state.database.read(move |session| session.tags(&arn)).await?;
    Ok(GetFunctionOutput {
        configuration: Some(record::configuration(&found)?),
        code: Some(FunctionCodeLocation { repository_type: Some("S3".into()), ..Default::default() }),
        tags: Some(tags.into_iter().collect())
            .filter(|tags: &std::collections::BTreeMap<_, _>| !tags.is_empty()),
        ..Default::default()
    })
}

async fn get_function_configuration(
    cx: Cx,
    input: GetFunctionConfigurationInput,
) -> Result<GetFunctionConfigurationOutput> {
    record::configuration(&find(&cx, &input.function_name, input.qualifier.as_deref()).await?)
}

async fn list_functions(cx: Cx, input: ListFunctionsInput) -> Result<ListFunctionsOutput> {
    if input.master_region.is_some() {
        return Err(Problem::field("MasterRegion"));
    }
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let query = ListQuery {
        sort_by: SortBy::Name,
        limit: input.max_items.unwrap_or(PAGE_FUNCTIONS).clamp(1, PAGE_FUNCTIONS).unsigned_abs() as usize,
        next_token: input.marker,
        ..ListQuery::default()
    };
    let page = cx
        .state
        .database
        .read(move |session| session.list_resources(&account, &region, FUNCTION, &query))
        .await?;
    let functions = page.resources.iter().map(record::configuration).collect::<Result<Vec<_>>>()?;
    Ok(ListFunctionsOutput { next_marker: page.next_token, functions: Some(functions) })
}

async fn delete_function(cx: Cx, input: DeleteFunctionInput) -> Result<DeleteFunctionOutput> {
    let found = find(&cx, &input.function_name, input.qualifier.as_deref()).await?;
    let (key, now_ms) = (found.key.clone(), cx.state.clock.now_ms());
    let deleted = cx.state.database.write(move |session| {
        session.delete_function_package(&key)?;
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    deleted.await.map_err(|error| match error {
        store::Error::Missing { .. } => Problem::missing(&found.arn),
        other => other.into(),
    })?;
    cx.state.functions.retire(&found.key);
    Ok(DeleteFunctionOutput { status_code: Some(204) })
}
