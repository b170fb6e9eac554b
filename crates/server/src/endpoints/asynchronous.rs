//! What requests that are answered later need of the endpoints: a long time, large bodies, and who is free.

use serving::{EndpointStatus, InvokeError, InvokeRequest, InvokeResponse};
use store::resources::ResourceKey;
use tokio::sync::watch;

use super::{EndpointController, plane_key};

/// How long a model may take for one answer, unless the request says less; the longest time that one may ask for.
pub const MODEL_TIMEOUT_SECONDS: f64 = 3600.0;

impl EndpointController {
    /// The state of an endpoint that the data plane has, to be looked at or waited on.
    pub fn watch(&self, key: &ResourceKey) -> Option<watch::Receiver<EndpointStatus>> {
        self.plane.watch(&plane_key(key))
    }

    /// Invokes a model with bodies of up to `max_bytes` each way.
    ///
    /// # Errors
    /// As the data plane says.
    pub async fn invoke_large(
        &self,
        key: &ResourceKey,
        request: InvokeRequest,
        max_bytes: u64,
    ) -> Result<InvokeResponse, InvokeError> {
        self.plane.invoke_large(&plane_key(key), request, max_bytes).await
    }
}
