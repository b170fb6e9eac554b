//! Endpoint configurations: which models an endpoint serves, on how many replicas, with which share of the traffic.

use api::sagemaker::{
    CreateEndpointConfig, CreateEndpointConfigInput, CreateEndpointConfigOutput, DeleteEndpointConfig,
    DeleteEndpointConfigInput, DeleteEndpointConfigOutput, DescribeEndpointConfig,
    DescribeEndpointConfigInput, DescribeEndpointConfigOutput, EndpointConfigSummary, ListEndpointConfigs,
    ListEndpointConfigsInput, ListEndpointConfigsOutput,
};
use serde_json::{Value, json};

use super::kinds::{ENDPOINT_CONFIG, MODEL};
use super::{component_hosts, fields, listing, records, shadow_variants};
use crate::async_inference::AsyncSettings;
use crate::endpoints::{Routing, serverless};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateEndpointConfig, _, _, _>(create_endpoint_config);
    registry.on::<DescribeEndpointConfig, _, _, _>(describe_endpoint_config);
    registry.on::<ListEndpointConfigs, _, _, _>(list_endpoint_configs);
    registry.on::<DeleteEndpointConfig, _, _, _>(delete_endpoint_config);
}

const HONOURED: &[&str] = &[
    "EndpointConfigName",
    "ProductionVariants.VariantName",
    "ProductionVariants.ModelName",
    "ProductionVariants.InitialInstanceCount",
    "ProductionVariants.InstanceType",
    "ProductionVariants.InitialVariantWeight",
    "ProductionVariants.VolumeSizeInGB",
    "ProductionVariants.ManagedInstanceScaling.Status",
    "ProductionVariants.ManagedInstanceScaling.MinInstanceCount",
    "ProductionVariants.ManagedInstanceScaling.MaxInstanceCount",
    "ProductionVariants.InferenceAmiVersion",
    "ProductionVariants.ModelDataDownloadTimeoutInSeconds",
    "ProductionVariants.ContainerStartupHealthCheckTimeoutInSeconds",
    "ProductionVariants.RoutingConfig.RoutingStrategy",
    "ProductionVariants.ServerlessConfig.MemorySizeInMB",
    "ProductionVariants.ServerlessConfig.MaxConcurrency",
    "ProductionVariants.ServerlessConfig.ProvisionedConcurrency",
    "ShadowProductionVariants.VariantName",
    "ShadowProductionVariants.ModelName",
    "ShadowProductionVariants.InitialInstanceCount",
    "ShadowProductionVariants.InstanceType",
    "ShadowProductionVariants.InitialVariantWeight",
    "ShadowProductionVariants.VolumeSizeInGB",
    "ShadowProductionVariants.ModelDataDownloadTimeoutInSeconds",
    "ShadowProductionVariants.ContainerStartupHealthCheckTimeoutInSeconds",
    "ShadowProductionVariants.RoutingConfig.RoutingStrategy",
    "ExecutionRoleArn",
    "EnableNetworkIsolation",
    "DataCaptureConfig.**",
    "AsyncInferenceConfig.OutputConfig.S3OutputPath",
    "AsyncInferenceConfig.OutputConfig.S3FailurePath",
    "AsyncInferenceConfig.OutputConfig.KmsKeyId",
    "AsyncInferenceConfig.OutputConfig.NotificationConfig.SuccessTopic",
    "AsyncInferenceConfig.OutputConfig.NotificationConfig.ErrorTopic",
    "AsyncInferenceConfig.OutputConfig.NotificationConfig.IncludeInferenceResponseIn",
    "AsyncInferenceConfig.ClientConfig.MaxConcurrentInvocationsPerInstance",
    "Tags.**",
];

async fn create_endpoint_config(
    cx: Cx,
    input: CreateEndpointConfigInput,
) -> Result<CreateEndpointConfigOutput> {
    fields::check(&cx.input, HONOURED)?;
    let mut names: Vec<&str> = Vec::new();
    let none = Vec::new();
    let variants = cx.input["ProductionVariants"].as_array().unwrap_or(&none);
    for variant in variants {
        let name = variant["VariantName"].as_str().unwrap_or_default();
        if names.contains(&name) {
            return Err(Error::Validation(format!(
                "ProductionVariants: the variant name {name:?} is given twice."
            )));
        }
        names.push(name);
        routing(variant)?;
        component_hosts::check(&cx, &cx.input, variant).await?;
        let Some(model) = variant["ModelName"].as_str() else { continue };
        // The model must be there when the configuration is made, as in the service.
        let model = records::find(&cx, MODEL, model).await?;
        serverless::check(&cx.input, variant, &model.spec)?;
    }
    AsyncSettings::of(&cx.input)?;
    if variants.iter().map(weight).sum::<f64>() <= 0.0 {
        return Err(Error::Validation(
            "ProductionVariants: the sum of InitialVariantWeight must be above 0.".into(),
        ));
    }
    shadow_variants::check(&cx, &cx.input).await?;
    if !cx.input["DataCaptureConfig"].is_null() {
        crate::capture::check(&cx.input["DataCaptureConfig"])?;
    }
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let resource =
        records::new_resource(&cx, ENDPOINT_CONFIG, &input.endpoint_config_name, "Created", json!({}));
    let arn = resource.arn.clone();
    records::insert(&cx, resource, tags, "Cannot create already existing endpoint configuration", false)
        .await
        .map_err(|error| match error {
            // The service says ValidationException here.
            Error::Exists { .. } => {
                Error::Validation(format!("Cannot create already existing endpoint configuration \"{arn}\"."))
            }
            other => other,
        })?;
    Ok(CreateEndpointConfigOutput { endpoint_config_arn: Some(arn) })
}

/// Which replica of a variant gets a request.
///
/// # Errors
/// When the strategy is one that is not honoured.
pub fn routing(variant: &Value) -> Result<Routing> {
    match variant["RoutingConfig"]["RoutingStrategy"].as_str() {
        None | Some("RANDOM") => Ok(Routing::Random),
        Some("LEAST_OUTSTANDING_REQUESTS") => Ok(Routing::LeastOutstandingRequests),
        Some(other) => {
            Err(Error::field(&format!("ProductionVariants.RoutingConfig.RoutingStrategy {other}")))
        }
    }
}

/// Share of the traffic that a variant asks for; 1 when it says nothing.
pub fn weight(variant: &Value) -> f64 {
    variant["InitialVariantWeight"].as_f64().unwrap_or(1.0)
}

async fn describe_endpoint_config(
    cx: Cx,
    input: DescribeEndpointConfigInput,
) -> Result<DescribeEndpointConfigOutput> {
    let resource = records::find(&cx, ENDPOINT_CONFIG, &input.endpoint_config_name).await?;
    records::described(
        &resource,
        json!({
            "EndpointConfigArn": resource.arn,
            "CreationTime": records::seconds(resource.created_at),
        }),
    )
}

async fn list_endpoint_configs(cx: Cx, input: ListEndpointConfigsInput) -> Result<ListEndpointConfigsOutput> {
    let filters = listing::Filters {
        name_contains: input.name_contains,
        created_after: input.creation_time_after,
        created_before: input.creation_time_before,
        sort_by: input.sort_by.map(|column| column.to_string()),
        sort_order: input.sort_order.map(|order| order.to_string()),
        max_results: input.max_results,
        next_token: input.next_token,
        ..Default::default()
    };
    let page = listing::page(&cx, ENDPOINT_CONFIG, filters, "Descending").await?;
    let configs = page.resources.into_iter().map(|resource| EndpointConfigSummary {
        endpoint_config_name: Some(resource.key.name),
        endpoint_config_arn: Some(resource.arn),
        creation_time: Some(api::Timestamp::from_millis(resource.created_at)),
    });
    Ok(ListEndpointConfigsOutput { endpoint_configs: Some(configs.collect()), next_token: page.next_token })
}

async fn delete_endpoint_config(
    cx: Cx,
    input: DeleteEndpointConfigInput,
) -> Result<DeleteEndpointConfigOutput> {
    let resource = records::find(&cx, ENDPOINT_CONFIG, &input.endpoint_config_name).await?;
    records::delete(&cx, resource.key).await?;
    Ok(DeleteEndpointConfigOutput::default())
}
