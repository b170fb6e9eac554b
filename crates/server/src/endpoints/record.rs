//! What is kept of an endpoint: the variants it deploys, with their models as they were at deployment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The status document of an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Name of the configuration it came from.
    pub config: String,
    /// Counts the deployments; a new one gets a new fleet.
    pub generation: u64,
    /// What it serves.
    pub variants: Vec<DeployedVariant>,
    /// Why it, or its last update, failed.
    pub failure_reason: Option<String>,
}

/// One production variant with its model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployedVariant {
    /// Its name.
    pub name: String,
    /// Share of the traffic.
    pub weight: f64,
    /// Number of replicas.
    pub replicas: u32,
    /// How long a replica may take to answer its first ping.
    pub startup_timeout_seconds: u64,
    /// Image URI.
    pub image: String,
    /// S3 URI of the model's archive.
    pub model_data: Option<String>,
    /// Environment of the container.
    pub environment: BTreeMap<String, String>,
    /// Role that the container's credentials are for.
    pub role_arn: Option<String>,
    /// Whether the container has no network.
    pub network_isolation: bool,
}

impl DeployedVariant {
    /// Worker processes in a replica: what the container's environment asks for, else one.
    pub fn workers(&self) -> u32 {
        let asked = self.environment.get("SAGEMAKER_MODEL_SERVER_WORKERS");
        asked.and_then(|text| text.parse().ok()).filter(|workers| *workers > 0).unwrap_or(1)
    }
}

impl EndpointRecord {
    /// Reads a stored document.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(document: &Value) -> store::Result<EndpointRecord> {
        Ok(EndpointRecord::deserialize(document)?)
    }

    /// The document to store.
    pub fn to_document(&self) -> Value {
        serde_json::to_value(self).expect("strings, numbers and lists always serialize")
    }
}

/// Names of the variants in a stored document.
pub fn variant_names(document: &Value) -> Vec<String> {
    EndpointRecord::read(document)
        .map(|record| record.variants.into_iter().map(|variant| variant.name).collect())
        .unwrap_or_default()
}
