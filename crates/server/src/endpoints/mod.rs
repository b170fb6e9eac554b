//! Endpoints at work: the stored record is what is wanted, the data plane makes it so and reports back.

mod launcher;
mod record;

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use runner::executor::Executor;
use serde_json::Value;
use serving::{
    DataPlane, DataPlaneSettings, EndpointPhase, EndpointPlan, EndpointStatus, InvokeError, InvokeRequest,
    InvokeResponse, InvokeStream, VariantPlan, VariantStatus,
};
use store::resources::ResourceKey;
use tokio::sync::watch;

use crate::app::App;
use crate::sagemaker::kinds::ENDPOINT;
use crate::{Error, Result};

pub use record::{DeployedVariant, EndpointRecord, variant_names};

/// How long a model may take for one answer, as in the service.
const MODEL_TIMEOUT_SECONDS: f64 = 60.0;

/// Drives the data plane from the stored endpoints.
pub struct EndpointController {
    app: Weak<App>,
    plane: Arc<DataPlane>,
}

impl EndpointController {
    /// A controller whose replicas listen under `socket_directory`.
    pub fn new(app: Weak<App>, socket_directory: PathBuf, executor: Arc<dyn Executor>) -> EndpointController {
        let launcher = Arc::new(launcher::ReplicaLauncher::new(app.clone(), executor));
        let plane = DataPlane::new(launcher, socket_directory, DataPlaneSettings::default());
        EndpointController { app, plane: Arc::new(plane) }
    }

    /// Takes up the endpoints that the database knows, and stops replicas that belong to none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resume(&self) -> Result<()> {
        let Some(app) = self.app.upgrade() else { return Ok(()) };
        for resource in app.database.read(|session| session.all_resources(ENDPOINT)).await? {
            if resource.status == "Deleting" {
                self.remove(&resource.key);
            } else {
                self.apply(&resource.key, &EndpointRecord::read(&resource.document)?)?;
            }
        }
        let plane = self.plane.clone();
        tokio::spawn(async move { plane.stop_strays().await });
        Ok(())
    }

    /// Makes the data plane follow the record, and writes its status to the database as it settles.
    ///
    /// # Errors
    /// [`Error::Validation`] when the plan is not possible.
    pub fn apply(&self, key: &ResourceKey, record: &EndpointRecord) -> Result<()> {
        let variants = record.variants.iter().map(|variant| VariantPlan {
            name: variant.name.clone(),
            weight: variant.weight,
            replicas: variant.replicas,
            workers: variant.workers(),
            startup_timeout_seconds: variant.startup_timeout_seconds as f64,
            model_timeout_seconds: MODEL_TIMEOUT_SECONDS,
            launch: launcher::payload(key, variant),
        });
        let plan = EndpointPlan {
            endpoint: plane_key(key),
            generation: record.generation,
            variants: variants.collect(),
        };
        let status = self.plane.apply(plan).map_err(|error| Error::Validation(error.to_string()))?;
        tokio::spawn(follow(self.app.clone(), key.clone(), record.generation, status));
        Ok(())
    }

    /// Takes the endpoint out of service, and its record away once the replicas are gone.
    pub fn remove(&self, key: &ResourceKey) {
        let (plane, app, key) = (self.plane.clone(), self.app.clone(), key.clone());
        tokio::spawn(async move {
            plane.remove(&plane_key(&key)).await;
            let Some(app) = app.upgrade() else { return };
            let now_ms = app.clock.now_ms();
            let gone = app.database.write(move |session| {
                session.delete_resource(&key)?;
                session.append_event(&key, "Deleted", &Value::Null, now_ms)
            });
            match gone.await {
                Ok(()) | Err(store::Error::Missing { .. }) => {}
                Err(error) => tracing::error!(%error, "a deleted endpoint could not be taken off the books"),
            }
        });
    }

    /// The variants as they serve now; empty when the endpoint does not.
    pub fn variants(&self, key: &ResourceKey) -> Vec<VariantStatus> {
        self.plane.watch(&plane_key(key)).map(|status| status.borrow().variants.clone()).unwrap_or_default()
    }

    /// Invokes a model and gives its whole answer.
    ///
    /// # Errors
    /// As the data plane says.
    pub async fn invoke(
        &self,
        key: &ResourceKey,
        request: InvokeRequest,
    ) -> Result<InvokeResponse, InvokeError> {
        self.plane.invoke(&plane_key(key), request).await
    }

    /// Invokes a model and gives its answer piece by piece.
    ///
    /// # Errors
    /// As the data plane says.
    pub async fn invoke_stream(
        &self,
        key: &ResourceKey,
        request: InvokeRequest,
    ) -> Result<InvokeStream, InvokeError> {
        self.plane.invoke_stream(&plane_key(key), request).await
    }
}

fn plane_key(key: &ResourceKey) -> String {
    // Endpoint names differ by more than case, as in the service.
    format!("{}/{}/{}", key.account, key.region, key.name.to_lowercase())
}

/// Writes the settled status of one generation to the database.
async fn follow(
    app: Weak<App>,
    key: ResourceKey,
    generation: u64,
    mut status: watch::Receiver<EndpointStatus>,
) {
    let settled = status
        .wait_for(|status| status.has_settled(generation) || status.wanted_generation > generation)
        .await;
    let Ok(settled) = settled.map(|status| status.clone()) else { return };
    let Some(app) = app.upgrade() else { return };
    if settled.wanted_generation != generation {
        return;
    }
    let (status, reason) = match settled.phase {
        EndpointPhase::InService => ("InService", None),
        // The old fleet still serves: the endpoint is in service with the reason shown.
        EndpointPhase::UpdateFailed { reason } => ("InService", Some(reason)),
        EndpointPhase::Failed { reason } => ("Failed", Some(reason)),
        _ => return,
    };
    let now_ms = app.clock.now_ms();
    let written = app.database.write(move |session| {
        session.update_resource(&key, now_ms, |resource| {
            let mut record = EndpointRecord::read(&resource.document)?;
            if record.generation == generation && resource.status != "Deleting" {
                record.failure_reason = reason.map(crate::training::record::shorten);
                resource.document = record.to_document();
                resource.status = status.into();
            }
            Ok(())
        })?;
        session.append_event(&key, status, &Value::Null, now_ms)
    });
    match written.await {
        Ok(()) | Err(store::Error::Missing { .. }) => {}
        Err(error) => tracing::error!(%error, "the status of an endpoint could not be written"),
    }
}
