//! Inference components: create, describe, list, update, delete. What they do while they serve is in `crate::endpoints::components`.

use api::sagemaker::{
    CreateInferenceComponent, CreateInferenceComponentInput, CreateInferenceComponentOutput,
    DeleteInferenceComponent, DeleteInferenceComponentInput, DeleteInferenceComponentOutput,
    DescribeInferenceComponent, DescribeInferenceComponentInput, DescribeInferenceComponentOutput,
    InferenceComponentSummary, ListInferenceComponents, ListInferenceComponentsInput,
    ListInferenceComponentsOutput, UpdateInferenceComponent, UpdateInferenceComponentInput,
    UpdateInferenceComponentOutput, UpdateInferenceComponentRuntimeConfig,
    UpdateInferenceComponentRuntimeConfigInput, UpdateInferenceComponentRuntimeConfigOutput,
};
use serde_json::{Value, json};
use store::resources::{Resource, ResourceKey};

use super::kinds::{self, ENDPOINT, INFERENCE_COMPONENT};
use super::{component_specifications, deployments, fields, listing, records};
use crate::endpoints::components::{
    Changed, ComponentRecord, Instances, MOST_COPIES, Wanted, admit, begin_update, check_config,
    endpoint_key, set_copies,
};
use crate::endpoints::{DeployedVariant, EndpointRecord};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateInferenceComponent, _, _, _>(create_inference_component);
    registry.on::<DescribeInferenceComponent, _, _, _>(describe_inference_component);
    registry.on::<ListInferenceComponents, _, _, _>(list_inference_components);
    registry.on::<UpdateInferenceComponent, _, _, _>(update_inference_component);
    registry.on::<UpdateInferenceComponentRuntimeConfig, _, _, _>(update_inference_component_runtime_config);
    registry.on::<DeleteInferenceComponent, _, _, _>(delete_inference_component);
}

const HONOURED: &[&str] = &[
    "InferenceComponentName",
    "EndpointName",
    "VariantName",
    "RuntimeConfig.CopyCount",
    "DeploymentConfig.RollingUpdatePolicy.MaximumBatchSize.Type",
    "DeploymentConfig.RollingUpdatePolicy.MaximumBatchSize.Value",
    "DeploymentConfig.RollingUpdatePolicy.WaitIntervalInSeconds",
    "DeploymentConfig.RollingUpdatePolicy.MaximumExecutionTimeoutInSeconds",
    "DeploymentConfig.RollingUpdatePolicy.RollbackMaximumBatchSize.Type",
    "DeploymentConfig.RollingUpdatePolicy.RollbackMaximumBatchSize.Value",
    "DeploymentConfig.AutoRollbackConfiguration.Alarms.AlarmName",
    "Tags.**",
];

fn check_fields(input: &Value) -> Result<()> {
    fields::check(input, &[HONOURED, component_specifications::HONOURED].concat())
}

/// The number of copies that a request asks for.
fn copies(config: &Value) -> Result<Option<u32>> {
    let Some(count) = config["CopyCount"].as_u64() else { return Ok(None) };
    match u32::try_from(count).ok().filter(|count| *count <= MOST_COPIES) {
        Some(count) => Ok(Some(count)),
        None => Err(Error::Validation(format!("CopyCount must be at most {MOST_COPIES}; it is {count}."))),
    }
}

/// The variant of an endpoint that components are put on.
fn host<'a>(record: &'a EndpointRecord, endpoint: &str, variant: &str) -> Result<&'a DeployedVariant> {
    let found = record.variants.iter().find(|one| one.name == variant);
    let Some(found) = found else {
        return Err(Error::Validation(format!(
            "VariantName: endpoint {endpoint} has no variant {variant:?}."
        )));
    };
    match found.host {
        Some(_) => Ok(found),
        None => Err(Error::Validation(format!(
            "VariantName: the variant {variant} of endpoint {endpoint} has a model of its own; inference components are put on variants \
             without a ModelName."
        ))),
    }
}

async fn create_inference_component(
    cx: Cx,
    input: CreateInferenceComponentInput,
) -> Result<CreateInferenceComponentOutput> {
    check_fields(&cx.input)?;
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let required = |name: &str| Error::Validation(format!("{name} must be given."));
    let specification = &cx.input["Specification"];
    if specification.is_null() {
        return Err(required("Specification"));
    }
    let variant = input.variant_name.as_deref().ok_or_else(|| required("VariantName"))?;
    let copies = copies(&cx.input["RuntimeConfig"])?.ok_or_else(|| required("RuntimeConfig.CopyCount"))?;
    let endpoint = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    if !matches!(endpoint.status.as_str(), "InService" | "Updating") {
        return Err(Error::Validation(format!(
            "Cannot create inference component on endpoint \"{}\" with status {}; wait until it is InService.",
            endpoint.arn, endpoint.status
        )));
    }
    let record = EndpointRecord::read(&endpoint.document)?;
    let host = host(&record, &endpoint.key.name, variant)?;
    let name = &input.inference_component_name;
    let mut side = component_specifications::side(&cx, name, specification, host).await?;
    side.generation = 1;
    let record = ComponentRecord {
        endpoint: endpoint.key.name.clone(),
        variant: variant.to_owned(),
        copies,
        side,
        served_generation: None,
        failure_reason: None,
        update: None,
        last_deployment_config: None,
        last_generation: 1,
    };
    let resource = records::new_resource(&cx, INFERENCE_COMPONENT, name, "Creating", record.to_document());
    let arn = resource.arn.clone();
    let (instances, now_ms) = (Instances::of(&cx.state.capacity), cx.state.clock.now_ms());
    let stored = cx.state.database.write(move |session| {
        // It may have gone since it was looked at.
        if session.resource(&endpoint.key)?.status == "Deleting" {
            return Err(store::Error::Invalid("EndpointName: the endpoint is being deleted.".into()));
        }
        session.insert_resource(&resource)?;
        session.put_tags(&resource.arn, &tags)?;
        session.append_event(&resource.key, "Created", &resource.spec, now_ms)?;
        admit(session, &resource.key, &endpoint.key, &instances, now_ms)
    });
    let changed = stored.await.map_err(|error| match error {
        store::Error::Exists { .. } => {
            Error::Validation(format!("Cannot create already existing inference component \"{arn}\"."))
        }
        store::Error::Missing { .. } => {
            Error::not_found(ENDPOINT, records::arn(&cx, ENDPOINT, &input.endpoint_name))
        }
        other => other.into(),
    })?;
    cx.state.endpoints.apply_components(&changed)?;
    Ok(CreateInferenceComponentOutput { inference_component_arn: Some(arn) })
}

async fn describe_inference_component(
    cx: Cx,
    input: DescribeInferenceComponentInput,
) -> Result<DescribeInferenceComponentOutput> {
    let resource = records::find(&cx, INFERENCE_COMPONENT, &input.inference_component_name).await?;
    let record = ComponentRecord::read(&resource.document)?;
    // During an update copies of both specifications answer.
    let current: u32 = cx.state.endpoints.status(&resource.key).map_or(0, |status| {
        let beside = status.beside.iter().flat_map(|beside| &beside.variants);
        status.variants.iter().chain(beside).map(|copies| copies.healthy_replicas).sum()
    });
    let current = current.min(record.copies);
    let described = Resource { spec: json!({}), ..resource.clone() };
    records::described(&described, record.description(&resource, current))
}

async fn list_inference_components(
    cx: Cx,
    input: ListInferenceComponentsInput,
) -> Result<ListInferenceComponentsOutput> {
    let wanted = |given: Option<&String>, found: &str| given.is_none_or(|given| given == found);
    let filters = |token: Option<String>| listing::Filters {
        name_contains: input.name_contains.clone(),
        status: input.status_equals.as_ref().map(ToString::to_string),
        created_after: input.creation_time_after,
        created_before: input.creation_time_before,
        modified_after: input.last_modified_time_after,
        modified_before: input.last_modified_time_before,
        sort_by: input.sort_by.as_ref().map(ToString::to_string),
        sort_order: input.sort_order.as_ref().map(ToString::to_string),
        max_results: input.max_results,
        next_token: token,
        ..Default::default()
    };
    // What is asked for beyond the rows is found page by page; a page that is not full but has a token is one, too.
    let mut token = input.next_token.clone();
    let mut found = Vec::new();
    loop {
        let page = listing::page(&cx, INFERENCE_COMPONENT, filters(token), "Descending").await?;
        for resource in &page.resources {
            let record = ComponentRecord::read(&resource.document)?;
            if wanted(input.endpoint_name_equals.as_ref(), &record.endpoint)
                && wanted(input.variant_name_equals.as_ref(), &record.variant)
            {
                found.push(summary(resource, record));
            }
        }
        token = page.next_token;
        if token.is_none() || !found.is_empty() {
            break;
        }
    }
    Ok(ListInferenceComponentsOutput { inference_components: Some(found), next_token: token })
}

fn summary(resource: &Resource, record: ComponentRecord) -> InferenceComponentSummary {
    let key = &resource.key;
    InferenceComponentSummary {
        creation_time: Some(api::Timestamp::from_millis(resource.created_at)),
        inference_component_arn: Some(resource.arn.clone()),
        inference_component_name: Some(key.name.clone()),
        endpoint_arn: Some(kinds::arn(&key.region, &key.account, ENDPOINT, &record.endpoint)),
        endpoint_name: Some(record.endpoint),
        variant_name: Some(record.variant),
        inference_component_status: Some(resource.status.as_str().into()),
        last_modified_time: Some(api::Timestamp::from_millis(resource.modified_at)),
    }
}

async fn update_inference_component(
    cx: Cx,
    input: UpdateInferenceComponentInput,
) -> Result<UpdateInferenceComponentOutput> {
    check_fields(&cx.input)?;
    let resource = records::find(&cx, INFERENCE_COMPONENT, &input.inference_component_name).await?;
    let record = ComponentRecord::read(&resource.document)?;
    let config = deployments::given(&cx.input);
    let specification = &cx.input["Specification"];
    let wanted = copies(&cx.input["RuntimeConfig"])?;
    if specification.is_null() {
        if config.is_some() {
            return Err(Error::Validation(
                "DeploymentConfig: nothing is deployed without a Specification; give both, or leave DeploymentConfig out.".into(),
            ));
        }
        let Some(wanted) = wanted else {
            return Err(Error::Validation("Give Specification, RuntimeConfig, or both.".into()));
        };
        change_copies(&cx, &resource, record, wanted).await?;
        return Ok(UpdateInferenceComponentOutput { inference_component_arn: Some(resource.arn) });
    }
    if let Some(config) = &config {
        check_config(config)?;
        deployments::check_alarms(&cx, Some(config)).await?;
    }
    let endpoint = records::find(&cx, ENDPOINT, &record.endpoint).await?;
    let endpoint_record = EndpointRecord::read(&endpoint.document)?;
    let host = host(&endpoint_record, &record.endpoint, &record.variant)?;
    let specification = component_specifications::updated(&record.side.specification, specification);
    let side = component_specifications::side(&cx, &resource.key.name, &specification, host).await?;
    let wanted = Wanted { side, copies: wanted.unwrap_or(record.copies), config };
    let instances = Instances::of(&cx.state.capacity);
    change(&cx, &resource, &record.endpoint, move |session, key, endpoint, now_ms| {
        begin_update(session, key, endpoint, wanted, &instances, now_ms)
    })
    .await?;
    Ok(UpdateInferenceComponentOutput { inference_component_arn: Some(resource.arn) })
}

async fn update_inference_component_runtime_config(
    cx: Cx,
    input: UpdateInferenceComponentRuntimeConfigInput,
) -> Result<UpdateInferenceComponentRuntimeConfigOutput> {
    fields::check(&cx.input, &["InferenceComponentName", "DesiredRuntimeConfig.CopyCount"])?;
    let resource = records::find(&cx, INFERENCE_COMPONENT, &input.inference_component_name).await?;
    let record = ComponentRecord::read(&resource.document)?;
    let wanted = copies(&cx.input["DesiredRuntimeConfig"])?.unwrap_or_default();
    change_copies(&cx, &resource, record, wanted).await?;
    Ok(UpdateInferenceComponentRuntimeConfigOutput { inference_component_arn: Some(resource.arn) })
}

/// Sets how many copies are wanted; what has failed is tried again with so many.
async fn change_copies(cx: &Cx, resource: &Resource, record: ComponentRecord, copies: u32) -> Result<()> {
    let instances = Instances::of(&cx.state.capacity);
    let endpoint = record.endpoint.clone();
    change(cx, resource, &endpoint, move |session, key, endpoint, now_ms| match record.has_served() {
        true => set_copies(session, key, endpoint, copies, &instances, now_ms),
        false => {
            let wanted = Wanted { side: record.side, copies, config: None };
            begin_update(session, key, endpoint, wanted, &instances, now_ms)
        }
    })
    .await
}

/// Changes a component that is not busy, in a transaction, and has the data plane follow.
async fn change(
    cx: &Cx,
    resource: &Resource,
    endpoint: &str,
    edit: impl FnOnce(&store::Session<'_>, &ResourceKey, &ResourceKey, i64) -> store::Result<Changed>
    + Send
    + 'static,
) -> Result<()> {
    let (key, now_ms) = (resource.key.clone(), cx.state.clock.now_ms());
    let endpoint = endpoint_key(&key, endpoint);
    let changed = cx.state.database.write(move |session| {
        let stored = session.resource(&key)?;
        if !matches!(stored.status.as_str(), "InService" | "Failed") {
            return Err(records::wrong_status(&stored));
        }
        edit(session, &key, &endpoint, now_ms)
    });
    let changed = changed.await.map_err(|error| match error {
        store::Error::WrongStatus { status, .. } => Error::Validation(format!(
            "Cannot update in-progress inference component \"{}\" (status {status}).",
            resource.arn
        )),
        store::Error::Missing { .. } => Error::not_found(INFERENCE_COMPONENT, resource.arn.as_str()),
        other => other.into(),
    })?;
    cx.state.endpoints.apply_components(&changed)
}

async fn delete_inference_component(
    cx: Cx,
    input: DeleteInferenceComponentInput,
) -> Result<DeleteInferenceComponentOutput> {
    let resource = records::find(&cx, INFERENCE_COMPONENT, &input.inference_component_name).await?;
    let record = ComponentRecord::read(&resource.document)?;
    let (key, now_ms) = (resource.key.clone(), cx.state.clock.now_ms());
    let marked = cx.state.database.write(move |session| {
        session.update_resource(&key, now_ms, |resource| {
            resource.status = "Deleting".into();
            Ok(())
        })?;
        session.append_event(&key, "Deleting", &Value::Null, now_ms)
    });
    marked.await.map_err(|error| match error {
        store::Error::Missing { .. } => Error::not_found(INFERENCE_COMPONENT, resource.arn.as_str()),
        other => other.into(),
    })?;
    cx.state.endpoints.remove_component(&resource.key, endpoint_key(&resource.key, &record.endpoint));
    Ok(DeleteInferenceComponentOutput::default())
}
