//! Endpoints: create, describe, list, update, delete. What they do while they serve is in `crate::endpoints`.

use api::sagemaker::{
    CreateEndpoint, CreateEndpointInput, CreateEndpointOutput, DeleteEndpoint, DeleteEndpointInput,
    DeleteEndpointOutput, DescribeEndpoint, DescribeEndpointInput, DescribeEndpointOutput, EndpointSummary,
    ListEndpoints, ListEndpointsInput, ListEndpointsOutput, UpdateEndpoint, UpdateEndpointInput,
    UpdateEndpointOutput, UpdateEndpointWeightsAndCapacities, UpdateEndpointWeightsAndCapacitiesInput,
    UpdateEndpointWeightsAndCapacitiesOutput,
};
use serde_json::{Value, json};
use store::resources::Resource;

use super::kinds::{ENDPOINT, ENDPOINT_CONFIG, MODEL};
use super::{endpoint_configs, fields, listing, models, records};
use crate::endpoints::{DeployedVariant, EndpointRecord};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateEndpoint, _, _, _>(create_endpoint);
    registry.on::<DescribeEndpoint, _, _, _>(describe_endpoint);
    registry.on::<ListEndpoints, _, _, _>(list_endpoints);
    registry.on::<UpdateEndpoint, _, _, _>(update_endpoint);
    registry.on::<UpdateEndpointWeightsAndCapacities, _, _, _>(update_endpoint_weights_and_capacities);
    registry.on::<DeleteEndpoint, _, _, _>(delete_endpoint);
}

/// How long a container may take to answer its first ping when the variant says nothing, as in the service.
const DEFAULT_STARTUP_SECONDS: u64 = 480;

async fn create_endpoint(cx: Cx, input: CreateEndpointInput) -> Result<CreateEndpointOutput> {
    fields::check(&cx.input, &["EndpointName", "EndpointConfigName", "Tags.**"])?;
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let record = EndpointRecord {
        config: input.endpoint_config_name.clone(),
        generation: 1,
        variants: deployed_variants(&cx, &input.endpoint_config_name).await?,
        failure_reason: None,
    };
    let resource =
        records::new_resource(&cx, ENDPOINT, &input.endpoint_name, "Creating", record.to_document());
    let arn = resource.arn.clone();
    let key = resource.key.clone();
    records::insert(&cx, resource, tags, "Cannot create already existing endpoint", false).await.map_err(
        |error| {
            match error {
                // The service says ValidationException here.
                Error::Exists { .. } => {
                    Error::Validation(format!("Cannot create already existing endpoint \"{arn}\"."))
                }
                other => other,
            }
        },
    )?;
    cx.state.endpoints.apply(&key, &record)?;
    Ok(CreateEndpointOutput { endpoint_arn: Some(arn) })
}

/// What a configuration deploys, with the models as they are now: later deletions do not touch a running endpoint.
async fn deployed_variants(cx: &Cx, config: &str) -> Result<Vec<DeployedVariant>> {
    let config = records::find(cx, ENDPOINT_CONFIG, config).await?;
    let mut deployed = Vec::new();
    let none = Vec::new();
    for variant in config.spec["ProductionVariants"].as_array().unwrap_or(&none) {
        let model = records::find(cx, MODEL, variant["ModelName"].as_str().unwrap_or_default()).await?;
        let container = models::container(&model.spec);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        deployed.push(DeployedVariant {
            name: text(&variant["VariantName"]).unwrap_or_default(),
            weight: endpoint_configs::weight(variant),
            replicas: variant["InitialInstanceCount"].as_u64().unwrap_or(1) as u32,
            startup_timeout_seconds: variant["ContainerStartupHealthCheckTimeoutInSeconds"]
                .as_u64()
                .unwrap_or(DEFAULT_STARTUP_SECONDS),
            image: text(&container["Image"]).unwrap_or_default(),
            model_data: models::model_data(container).map(str::to_owned),
            environment: serde_json::from_value(container["Environment"].clone()).unwrap_or_default(),
            role_arn: text(&model.spec["ExecutionRoleArn"]),
            network_isolation: model.spec["EnableNetworkIsolation"] == true,
        });
    }
    Ok(deployed)
}

async fn describe_endpoint(cx: Cx, input: DescribeEndpointInput) -> Result<DescribeEndpointOutput> {
    let resource = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    let record = EndpointRecord::read(&resource.document)?;
    let live = cx.state.endpoints.variants(&resource.key);
    let variants: Vec<Value> = record
        .variants
        .iter()
        .map(|variant| {
            let now = live.iter().find(|live| live.name == variant.name);
            json!({
                "VariantName": variant.name,
                "DeployedImages": [{
                    "SpecifiedImage": variant.image,
                    "ResolvedImage": variant.image,
                    "ResolutionTime": records::seconds(resource.created_at),
                }],
                "CurrentWeight": now.map_or(0.0, |now| now.weight),
                "DesiredWeight": variant.weight,
                "CurrentInstanceCount": now.map_or(0, |now| now.healthy_replicas),
                "DesiredInstanceCount": variant.replicas,
            })
        })
        .collect();
    records::described(
        &resource,
        json!({
            "EndpointArn": resource.arn,
            "EndpointConfigName": record.config,
            "ProductionVariants": variants,
            "EndpointStatus": resource.status,
            "FailureReason": record.failure_reason,
            "CreationTime": records::seconds(resource.created_at),
            "LastModifiedTime": records::seconds(resource.modified_at),
        }),
    )
}

async fn list_endpoints(cx: Cx, input: ListEndpointsInput) -> Result<ListEndpointsOutput> {
    let filters = listing::Filters {
        name_contains: input.name_contains,
        status: input.status_equals.map(|status| status.to_string()),
        warm_pool_status: None,
        created_after: input.creation_time_after,
        created_before: input.creation_time_before,
        modified_after: input.last_modified_time_after,
        modified_before: input.last_modified_time_before,
        sort_by: input.sort_by.map(|column| column.to_string()),
        sort_order: input.sort_order.map(|order| order.to_string()),
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let page = listing::page(&cx, ENDPOINT, filters, "Descending").await?;
    let summaries = page.resources.iter().map(summary).collect::<Result<_>>()?;
    Ok(ListEndpointsOutput { endpoints: Some(summaries), next_token: page.next_token })
}

fn summary(resource: &Resource) -> Result<EndpointSummary> {
    let shown = json!({
        "EndpointName": resource.key.name,
        "EndpointArn": resource.arn,
        "EndpointStatus": resource.status,
        "CreationTime": records::seconds(resource.created_at),
        "LastModifiedTime": records::seconds(resource.modified_at),
    });
    serde_json::from_value(shown).map_err(Error::internal)
}

async fn update_endpoint(cx: Cx, input: UpdateEndpointInput) -> Result<UpdateEndpointOutput> {
    fields::check(&cx.input, &["EndpointName", "EndpointConfigName"])?;
    let resource = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    let variants = deployed_variants(&cx, &input.endpoint_config_name).await?;
    let record = change(&cx, &resource, move |record| {
        record.generation += 1;
        record.config = input.endpoint_config_name;
        record.variants = variants;
        Ok(())
    })
    .await?;
    cx.state.endpoints.apply(&resource.key, &record)?;
    Ok(UpdateEndpointOutput { endpoint_arn: Some(resource.arn) })
}

async fn update_endpoint_weights_and_capacities(
    cx: Cx,
    input: UpdateEndpointWeightsAndCapacitiesInput,
) -> Result<UpdateEndpointWeightsAndCapacitiesOutput> {
    fields::check(
        &cx.input,
        &[
            "EndpointName",
            "DesiredWeightsAndCapacities.VariantName",
            "DesiredWeightsAndCapacities.DesiredWeight",
            "DesiredWeightsAndCapacities.DesiredInstanceCount",
        ],
    )?;
    let resource = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    let record = change(&cx, &resource, move |record| {
        for wanted in &input.desired_weights_and_capacities {
            let name = &wanted.variant_name;
            let variant =
                record.variants.iter_mut().find(|variant| variant.name == *name).ok_or_else(|| {
                    store::Error::Invalid(format!(
                        "DesiredWeightsAndCapacities: the endpoint has no variant {name:?}."
                    ))
                })?;
            if let Some(weight) = wanted.desired_weight {
                variant.weight = weight;
            }
            if let Some(count) = wanted.desired_instance_count {
                variant.replicas = count.max(0) as u32;
            }
        }
        if record.variants.iter().map(|variant| variant.weight).sum::<f64>() <= 0.0 {
            return Err(store::Error::Invalid(
                "DesiredWeight: the sum of all weights must be above 0.".into(),
            ));
        }
        Ok(())
    })
    .await?;
    cx.state.endpoints.apply(&resource.key, &record)?;
    Ok(UpdateEndpointWeightsAndCapacitiesOutput { endpoint_arn: Some(resource.arn) })
}

/// Changes the record of an endpoint that is not busy, and sets it to `Updating`.
async fn change(
    cx: &Cx,
    resource: &Resource,
    edit: impl FnOnce(&mut EndpointRecord) -> store::Result<()> + Send + 'static,
) -> Result<EndpointRecord> {
    let (key, now_ms) = (resource.key.clone(), cx.state.clock.now_ms());
    let arn = resource.arn.clone();
    let changed = cx.state.database.write(move |session| {
        let mut record = None;
        session.update_resource(&key, now_ms, |resource| {
            if !matches!(resource.status.as_str(), "InService" | "Failed") {
                return Err(store::Error::WrongStatus {
                    kind: ENDPOINT.into(),
                    name: resource.key.name.clone(),
                    status: resource.status.clone(),
                });
            }
            let mut edited = EndpointRecord::read(&resource.document)?;
            edit(&mut edited)?;
            edited.failure_reason = None;
            resource.document = edited.to_document();
            resource.status = "Updating".into();
            record = Some(edited);
            Ok(())
        })?;
        session.append_event(&key, "Updating", &Value::Null, now_ms)?;
        record.ok_or_else(|| store::Error::Invalid("the endpoint was not changed".into()))
    });
    changed.await.map_err(|error| match error {
        store::Error::WrongStatus { status, .. } => {
            Error::Validation(format!("Cannot update in-progress endpoint \"{arn}\" (status {status})."))
        }
        other => other.into(),
    })
}

async fn delete_endpoint(cx: Cx, input: DeleteEndpointInput) -> Result<DeleteEndpointOutput> {
    let resource = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    let (key, now_ms) = (resource.key.clone(), cx.state.clock.now_ms());
    cx.state
        .database
        .write(move |session| {
            session.update_resource(&key, now_ms, |resource| {
                resource.status = "Deleting".into();
                Ok(())
            })?;
            session.append_event(&key, "Deleting", &Value::Null, now_ms)
        })
        .await?;
    cx.state.endpoints.remove(&resource.key);
    Ok(DeleteEndpointOutput::default())
}
