//! Endpoints: create, describe, list, update, delete. What they do while they serve is in `crate::endpoints`.

use api::sagemaker::{
    CreateEndpoint, CreateEndpointInput, CreateEndpointOutput, DeleteEndpoint, DeleteEndpointInput,
    DeleteEndpointOutput, DescribeEndpoint, DescribeEndpointInput, DescribeEndpointOutput, EndpointSummary,
    ListEndpoints, ListEndpointsInput, ListEndpointsOutput, UpdateEndpoint, UpdateEndpointInput,
    UpdateEndpointOutput, UpdateEndpointWeightsAndCapacities, UpdateEndpointWeightsAndCapacitiesInput,
    UpdateEndpointWeightsAndCapacitiesOutput,
};
use std::collections::BTreeMap;

use serde_json::{Value, json};
use store::resources::Resource;

use super::kinds::{ENDPOINT, ENDPOINT_CONFIG, MODEL};
use super::{
    component_hosts, deployments, endpoint_configs, fields, listing, models, multi_container,
    package_deployment, records,
};
use crate::async_inference::AsyncSettings;
use crate::endpoints::components::{components_of, host};
use crate::endpoints::rollout::Side;
use crate::endpoints::serverless::{self, Serverless};
use crate::endpoints::{
    DeployedContainer, DeployedModels, DeployedVariant, EndpointRecord, Routing, Wish, workers,
};
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
pub const DEFAULT_STARTUP_SECONDS: u64 = 480;

async fn create_endpoint(cx: Cx, input: CreateEndpointInput) -> Result<CreateEndpointOutput> {
    let own = ["EndpointName", "EndpointConfigName", "Tags.**"];
    fields::check(&cx.input, &[&own[..], deployments::HONOURED].concat())?;
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let (variants, asynchronous) = deployment(&cx, &input.endpoint_config_name).await?;
    let last_deployment_config = deployments::given(&cx.input);
    deployments::check(&cx, last_deployment_config.as_ref(), &variants).await?;
    let record = EndpointRecord {
        config: input.endpoint_config_name.clone(),
        generation: 1,
        variants,
        shadows: shadows(&cx, &input.endpoint_config_name).await?,
        data_capture: data_capture(&cx, &input.endpoint_config_name).await?,
        failure_reason: None,
        served_generation: None,
        asynchronous,
        deployment: None,
        last_deployment: None,
        last_deployment_config,
        last_generation: 1,
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
async fn deployment(cx: &Cx, config: &str) -> Result<(Vec<DeployedVariant>, Option<AsyncSettings>)> {
    let config = records::find(cx, ENDPOINT_CONFIG, config).await?;
    let asynchronous = AsyncSettings::of(&config.spec)?;
    let deployed = deployed_variants(cx, &config.spec, "ProductionVariants").await?;
    if asynchronous.is_some() {
        deployed.iter().try_for_each(DeployedVariant::check_asynchronous).map_err(Error::Validation)?;
    }
    Ok((deployed, asynchronous))
}

/// What a configuration deploys to get copies of the requests.
async fn shadows(cx: &Cx, config: &str) -> Result<Vec<DeployedVariant>> {
    let config = records::find(cx, ENDPOINT_CONFIG, config).await?;
    deployed_variants(cx, &config.spec, "ShadowProductionVariants").await
}

async fn deployed_variants(cx: &Cx, config: &Value, member: &str) -> Result<Vec<DeployedVariant>> {
    let mut deployed = Vec::new();
    let none = Vec::new();
    for variant in config[member].as_array().unwrap_or(&none) {
        if component_hosts::is_host(variant) {
            deployed.push(component_hosts::deployed(config, variant)?);
            continue;
        }
        let model = records::find(cx, MODEL, variant["ModelName"].as_str().unwrap_or_default()).await?;
        let made = self::deployed(&model)?;
        let models = made
            .models
            .clone()
            .map(|models| DeployedModels { memory_bytes: models_memory(cx, variant), ..models });
        deployed.push(DeployedVariant {
            name: text(&variant["VariantName"]).unwrap_or_default(),
            weight: endpoint_configs::weight(variant),
            replicas: variant["InitialInstanceCount"].as_u64().unwrap_or(1) as u32,
            startup_timeout_seconds: variant["ContainerStartupHealthCheckTimeoutInSeconds"]
                .as_u64()
                .unwrap_or(DEFAULT_STARTUP_SECONDS),
            download_timeout_seconds: variant["ModelDataDownloadTimeoutInSeconds"].as_u64(),
            routing: endpoint_configs::routing(variant)?,
            usual_workers: Some(usual_workers(cx, variant)),
            serverless: Serverless::of(variant)?,
            models,
            ..made
        });
    }
    Ok(deployed)
}

/// Workers of a replica on a variant's instances.
fn usual_workers(cx: &Cx, variant: &Value) -> u32 {
    let capacity = &cx.state.capacity;
    let memory = variant["ServerlessConfig"]["MemorySizeInMB"].as_u64();
    if let Some(memory_mib) = memory {
        return serverless::workers(memory_mib, capacity.machine_cpus());
    }
    let profile =
        variant["InstanceType"].as_str().and_then(|instance| capacity.instance_types().find(instance));
    workers::usual_workers(profile.as_ref(), capacity.machine_cpus())
}

/// The memory that many models may take on a variant's instances.
fn models_memory(cx: &Cx, variant: &Value) -> u64 {
    let capacity = &cx.state.capacity;
    let profile =
        variant["InstanceType"].as_str().and_then(|instance| capacity.instance_types().find(instance));
    let set = cx.state.config.endpoints.multi_model_memory_bytes();
    DeployedModels::memory_bytes(set, profile.as_ref(), capacity.machine_memory_bytes())
}

/// The `DataCaptureConfig` of a configuration.
async fn data_capture(cx: &Cx, config: &str) -> Result<Option<Value>> {
    let config = records::find(cx, ENDPOINT_CONFIG, config).await?;
    Ok(config.spec.get("DataCaptureConfig").filter(|given| !given.is_null()).cloned())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A model as one replica serves it; whoever deploys it gives it a name, a weight and a number.
///
/// # Errors
/// When the stored document is damaged; [`Error::Validation`] when the environment asks for an engine that there is not.
pub fn deployed(model: &Resource) -> Result<DeployedVariant> {
    let container = models::container(&model.spec);
    let environment = serde_json::from_value(container["Environment"].clone()).unwrap_or_default();
    Wish::of(&environment).map_err(Error::Validation)?;
    serverless::idle_seconds(&environment).map_err(Error::Validation)?;
    let models = models::has_many_models(container).then(|| DeployedModels {
        keeps: container["MultiModelConfig"]["ModelCacheSetting"] != "Disabled",
        // Whoever deploys it knows the instances.
        memory_bytes: 0,
    });
    Ok(DeployedVariant {
        name: model.key.name.clone(),
        weight: 1.0,
        replicas: 1,
        startup_timeout_seconds: DEFAULT_STARTUP_SECONDS,
        download_timeout_seconds: None,
        routing: Routing::default(),
        usual_workers: None,
        image: text(&container["Image"]).unwrap_or_default(),
        model_data: models::model_data(container).map(str::to_owned),
        model_form: models::model_form(container),
        registered_artifacts: package_deployment::expected_artifacts(model)?,
        environment,
        models,
        containers: containers(model)?,
        is_direct: multi_container::is_direct(&model.spec),
        role_arn: text(&model.spec["ExecutionRoleArn"]),
        network_isolation: model.spec["EnableNetworkIsolation"] == true,
        serverless: None,
        host: None,
        share: None,
    })
}

/// The containers of a model that has several.
fn containers(model: &Resource) -> Result<Vec<DeployedContainer>> {
    let given = models::containers(&model.spec);
    if given.len() < 2 {
        return Ok(Vec::new());
    }
    let container = |(container, name): (&Value, String)| {
        let environment: BTreeMap<String, String> =
            serde_json::from_value(container["Environment"].clone()).unwrap_or_default();
        Wish::of(&environment).map_err(Error::Validation)?;
        Ok(DeployedContainer {
            name,
            image: text(&container["Image"]).unwrap_or_default(),
            model_data: models::model_data(container).map(str::to_owned),
            model_form: models::model_form(container),
            environment,
        })
    };
    given.into_iter().zip(multi_container::names(&model.spec)).map(container).collect()
}

async fn describe_endpoint(cx: Cx, input: DescribeEndpointInput) -> Result<DescribeEndpointOutput> {
    let resource = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    let record = EndpointRecord::read(&resource.document)?;
    let live = cx.state.endpoints.variants(&resource.key);
    let shown = |variant: &DeployedVariant, is_shadow: bool| {
        let now = live.iter().find(|live| live.name == variant.name);
        let shown = json!({
            "VariantName": variant.name,
            "DeployedImages": variant.images().into_iter().map(|image| json!({
                "SpecifiedImage": image,
                "ResolvedImage": image,
                "ResolutionTime": records::seconds(resource.created_at),
            })).collect::<Vec<Value>>(),
            // The data plane knows no weights of shadows.
            "CurrentWeight": now.map_or(0.0, |now| if is_shadow { variant.weight } else { now.weight }),
            "DesiredWeight": variant.weight,
            "CurrentInstanceCount": now.map_or(0, |now| now.healthy_replicas),
            "DesiredInstanceCount": variant.replicas,
            "RoutingConfig": {"RoutingStrategy": variant.routing},
        });
        host::described(serverless::described(shown, variant), variant)
    };
    let variants: Vec<Value> = record.variants.iter().map(|variant| shown(variant, false)).collect();
    let shadows: Vec<Value> = record.shadows.iter().map(|variant| shown(variant, true)).collect();
    records::described(
        &resource,
        json!({
            "EndpointArn": resource.arn,
            "EndpointConfigName": record.config,
            "ProductionVariants": variants,
            "ShadowProductionVariants": (!shadows.is_empty()).then_some(shadows),
            "DataCaptureConfig": record.data_capture.as_ref().map(|config| crate::capture::summary(config, !live.is_empty())),
            "LastDeploymentConfig": record.last_deployment_config,
            "PendingDeploymentSummary": record.pending_summary(),
            "AsyncInferenceConfig": record.asynchronous.as_ref().map(AsyncSettings::described),
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
    let honoured = [
        "EndpointName",
        "EndpointConfigName",
        "RetainAllVariantProperties",
        "ExcludeRetainedVariantProperties.VariantPropertyType",
        "RetainDeploymentConfig",
    ];
    fields::check(&cx.input, &[&honoured[..], deployments::HONOURED].concat())?;
    let resource = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    let (mut variants, asynchronous) = deployment(&cx, &input.endpoint_config_name).await?;
    let mut shadows = shadows(&cx, &input.endpoint_config_name).await?;
    let data_capture = data_capture(&cx, &input.endpoint_config_name).await?;
    let excluded = input.exclude_retained_variant_properties.unwrap_or_default();
    let excluded: Vec<String> =
        excluded.into_iter().map(|property| property.variant_property_type.to_string()).collect();
    let retain_all = input.retain_all_variant_properties;
    let config = deployments::wanted(&cx.input, &resource)?;
    deployments::check_alarms(&cx, config.as_ref()).await?;
    let (by, now_ms) = (super::entities::user(&cx), cx.state.clock.now_ms());
    let in_use = component_hosts::variants_in_use(&cx, &resource.key).await?;
    let record = change(&cx, &resource, move |record| {
        if record.asynchronous.is_some() != asynchronous.is_some() {
            return Err(store::Error::Invalid(
                "An endpoint stays asynchronous or real-time: create another endpoint for a configuration that differs in \
                 AsyncInferenceConfig."
                    .into(),
            ));
        }
        serverless::check_update(record, &variants)?;
        host::check_update(record, &variants, &in_use)?;
        let retained = |property: &str| crate::capture::retained(retain_all, &excluded, property);
        for variant in variants.iter_mut().chain(&mut shadows) {
            let mut before = record.variants.iter().chain(&record.shadows);
            let Some(before) = before.find(|before| before.name == variant.name) else {
                continue;
            };
            if retained("DesiredInstanceCount") {
                variant.replicas = before.replicas;
            }
            if retained("DesiredWeight") {
                variant.weight = before.weight;
            }
        }
        let retained_capture = record.data_capture.clone().filter(|_| retained("DataCaptureConfig"));
        let side = Side {
            config: input.endpoint_config_name,
            generation: record.next_generation(),
            variants,
            shadows,
            data_capture: if retained("DataCaptureConfig") { retained_capture } else { data_capture },
            asynchronous,
        };
        deployments::begin(record, side, config, by, now_ms)
    })
    .await?;
    cx.state.endpoints.apply(&resource.key, &record)?;
    cx.state.endpoints.settle_components(&cx.state, &resource.key).await?;
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
            "DesiredWeightsAndCapacities.ServerlessUpdateConfig.MaxConcurrency",
            "DesiredWeightsAndCapacities.ServerlessUpdateConfig.ProvisionedConcurrency",
        ],
    )?;
    let resource = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    let record = change(&cx, &resource, move |record| {
        for wanted in &input.desired_weights_and_capacities {
            let name = &wanted.variant_name;
            let variant = record.variant_mut(name).ok_or_else(|| {
                store::Error::Invalid(format!(
                    "DesiredWeightsAndCapacities: the endpoint has no variant {name:?}."
                ))
            })?;
            if let Some(weight) = wanted.desired_weight {
                variant.weight = weight;
            }
            serverless::change(variant, wanted)?;
            component_hosts::check_change(variant, wanted)?;
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
    cx.state.endpoints.settle_components(&cx.state, &resource.key).await?;
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
    let by = super::entities::user(cx);
    let changed = cx.state.database.write(move |session| {
        let mut record = None;
        let mut config_before = None;
        let updated = session.update_resource(&key, now_ms, |resource| {
            if !matches!(resource.status.as_str(), "InService" | "Failed") {
                return Err(store::Error::WrongStatus {
                    kind: ENDPOINT.into(),
                    name: resource.key.name.clone(),
                    status: resource.status.clone(),
                });
            }
            let mut edited = EndpointRecord::read(&resource.document)?;
            config_before = Some((edited.config.clone(), edited.generation));
            edited.end_keeping();
            edit(&mut edited)?;
            edited.failure_reason = None;
            resource.document = edited.to_document();
            resource.status = "Updating".into();
            record = Some(edited);
            Ok(())
        })?;
        session.append_event(&key, "Updating", &Value::Null, now_ms)?;
        crate::events::append_state(session, &updated, now_ms)?;
        // Other weights are no other deployment.
        if record.as_ref().map(|record| (record.config.clone(), record.generation)) != config_before {
            super::lineage::deployed(session, &updated, &by, now_ms)?;
        }
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
            if !components_of(session, &key)?.is_empty() {
                return Err(store::Error::Invalid(
                    "Cannot delete endpoint with inference component associated. Please delete inference component and try it \
                     again."
                        .into(),
                ));
            }
            let updated = session.update_resource(&key, now_ms, |resource| {
                resource.status = "Deleting".into();
                Ok(())
            })?;
            session.append_event(&key, "Deleting", &Value::Null, now_ms)?;
            crate::events::append_state(session, &updated, now_ms)
        })
        .await?;
    cx.state.endpoints.remove(&resource.key);
    Ok(DeleteEndpointOutput::default())
}
