//! Our own questions to an endpoint: which engine answers, why that one, and how many requests at once? Which of its many models are loaded?

use serde_json::{Value, json};

use crate::sagemaker::kinds::ENDPOINT;
use crate::sagemaker::{entities, records};
use crate::{Cx, Registry, Result};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&crate::own_service::SERVICE, "DescribeEndpointEngines", describe_endpoint_engines);
    registry.on_value(&crate::own_service::SERVICE, "DescribeEndpointModels", describe_endpoint_models);
}

async fn describe_endpoint_engines(cx: Cx) -> Result<Value> {
    let name = entities::required(&cx.input, "EndpointName").to_owned();
    let endpoint = records::find(&cx, ENDPOINT, &name).await?;
    let variants = cx.state.endpoints.variant_metrics(&endpoint.key).into_iter();
    let batches = variants.filter(|metrics| metrics.batches.limit > 0).map(|metrics| {
        let counted = metrics.batches;
        json!({
            "VariantName": metrics.variant,
            "Limit": counted.limit,
            "Batches": counted.batches(),
            "Requests": counted.requests,
            "MeanSize": counted.mean_size(),
        })
    });
    let batches: Vec<Value> = batches.collect();
    Ok(json!({"Engines": cx.state.endpoints.engines(&endpoint.key).await, "Batches": batches}))
}

async fn describe_endpoint_models(cx: Cx) -> Result<Value> {
    let name = entities::required(&cx.input, "EndpointName").to_owned();
    let endpoint = records::find(&cx, ENDPOINT, &name).await?;
    let models = cx.state.endpoints.loaded_models(&endpoint.key).into_iter().map(|model| {
        json!({
            "VariantName": model.variant,
            "Model": model.model,
            "Replica": model.replica,
            "Engine": model.engine,
            "Status": if model.is_ready { "Loaded" } else { "Loading" },
            "Bytes": model.bytes,
            "Hits": model.hits,
            "IdleSeconds": model.idle_for.as_secs_f64(),
        })
    });
    let variants = cx.state.endpoints.variant_metrics(&endpoint.key).into_iter();
    let variants = variants.filter(|metrics| metrics.models.has_many).map(|metrics| {
        let models = metrics.models;
        json!({
            "VariantName": metrics.variant,
            "LoadedModels": models.loaded,
            "LoadedBytes": models.loaded_bytes,
            "Hits": models.hits,
            "Misses": models.misses,
            "LoadingWaitSeconds": {
                "P50": models.loading_waits.percentile_microseconds(0.5) / 1e6,
                "P99": models.loading_waits.percentile_microseconds(0.99) / 1e6,
            },
        })
    });
    Ok(json!({"Models": models.collect::<Vec<_>>(), "Variants": variants.collect::<Vec<_>>()}))
}
