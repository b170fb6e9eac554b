//! DescribeAsyncQueue of our own service: who waits at an asynchronous endpoint, and since when.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::async_requests::AsyncRequest;

use super::request::RequestDocument;
use crate::own_service::own_operation;
use crate::sagemaker::kinds::ENDPOINT;
use crate::sagemaker::records;
use crate::{Cx, Error, Registry, Result};

/// Requests that are shown one by one, unless the caller wants another number.
const SHOWN: usize = 100;

own_operation! {
    /// Answers what waits at an endpoint.
    DescribeAsyncQueue(DescribeAsyncQueueInput) -> DescribeAsyncQueueOutput
}

/// Input of [`DescribeAsyncQueue`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeAsyncQueueInput {
    /// The endpoint.
    pub endpoint_name: String,
    /// Most requests that are shown one by one.
    pub max_results: Option<i32>,
}

/// Output of [`DescribeAsyncQueue`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeAsyncQueueOutput {
    /// Counts, capacity, and the first requests in their order.
    pub queue: Value,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<DescribeAsyncQueue, _, _, _>(describe_async_queue);
}

async fn describe_async_queue(cx: Cx, input: DescribeAsyncQueueInput) -> Result<DescribeAsyncQueueOutput> {
    let endpoint = records::find(&cx, ENDPOINT, &input.endpoint_name).await?;
    let controller = &cx.state.endpoints;
    let Some(line) = controller.queues.line(&endpoint.key) else {
        return Err(Error::Validation(format!(
            "Endpoint {} is not asynchronous and has no queue.",
            input.endpoint_name
        )));
    };
    let shown = input.max_results.and_then(|most| usize::try_from(most).ok()).unwrap_or(SHOWN);
    let key = endpoint.key.clone();
    let read = cx
        .state
        .database
        .read(move |session| Ok((session.async_backlog(&key)?, session.async_requests(&key, shown)?)));
    let (backlog, requests) = read.await?;
    let now_ms = cx.state.clock.now_ms();
    let variants: Vec<Value> = controller
        .variants(&endpoint.key)
        .iter()
        .map(|variant| {
            json!({
                "VariantName": variant.name,
                "Instances": variant.healthy_replicas,
                "MaxConcurrentInvocationsPerInstance": line.slots().get(&variant.name),
            })
        })
        .collect();
    let mut position = 0;
    let requests: Vec<Value> = requests
        .iter()
        .map(|(is_running, request)| {
            position += i64::from(!is_running);
            described(request, if *is_running { None } else { Some(position) }, now_ms)
        })
        .collect();
    Ok(DescribeAsyncQueueOutput {
        queue: json!({
            "EndpointName": endpoint.key.name,
            "Waiting": backlog.waiting,
            "Running": backlog.running,
            "OldestRequestAgeSeconds": backlog.oldest_at.map(|oldest_at| (now_ms - oldest_at) as f64 / 1000.0),
            "Variants": variants,
            "Requests": requests,
        }),
    })
}

fn described(request: &AsyncRequest, position: Option<i64>, now_ms: i64) -> Value {
    let document: RequestDocument = serde_json::from_str(&request.document).unwrap_or_default();
    json!({
        "InferenceId": document.inference_id,
        "State": if position.is_some() { "Waiting" } else { "Running" },
        "Position": position,
        "InputLocation": document.input_location,
        "OutputLocation": document.output,
        "AcceptedAt": records::seconds(request.accepted_at),
        "ExpiresInSeconds": position.map(|_| (request.expires_at - now_ms) as f64 / 1000.0),
        "LostWorkers": request.losses,
    })
}
