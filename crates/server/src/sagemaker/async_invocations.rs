//! The runtime's InvokeEndpointAsync: the request is taken down, and answered in S3 later.

use api::sagemaker_runtime::{InvokeEndpointAsync, InvokeEndpointAsyncInput, InvokeEndpointAsyncOutput};

use super::kinds::ENDPOINT;
use super::record_key;
use crate::async_inference::request;
use crate::{Cx, Registry, Result};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<InvokeEndpointAsync, _, _, _>(invoke_endpoint_async);
}

async fn invoke_endpoint_async(cx: Cx, input: InvokeEndpointAsyncInput) -> Result<InvokeEndpointAsyncOutput> {
    let key = record_key(&cx, ENDPOINT, &input.endpoint_name);
    let accepted = request::accept(&cx, &key, input).await?;
    cx.state.endpoints.queues.ring(&key);
    Ok(InvokeEndpointAsyncOutput {
        inference_id: Some(accepted.inference_id),
        output_location: Some(accepted.output),
        failure_location: Some(accepted.failure),
    })
}
