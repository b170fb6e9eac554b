//! What is kept of an endpoint: the variants it deploys, with their models as they were at deployment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::components::{ComponentHost, Share};
use super::composition::{DeployedContainer, DeployedModels};
use super::model_data::ModelForm;
use super::rollout::{Deployment, Ended};
use super::serverless::Serverless;
use crate::async_inference::AsyncSettings;
use crate::registry::artifacts::Artifact;

/// The status document of an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Name of the configuration it came from.
    pub config: String,
    /// Counts the deployments; a new one gets a new fleet.
    pub generation: u64,
    /// What it serves.
    pub variants: Vec<DeployedVariant>,
    /// What gets copies of the requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<DeployedVariant>,
    /// `DataCaptureConfig`, as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_capture: Option<Value>,
    /// Why it, or its last update, failed.
    pub failure_reason: Option<String>,
    /// The deployment that has been in service; a change of its capacity takes nothing out of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_generation: Option<u64>,
    /// How it answers later, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asynchronous: Option<AsyncSettings>,
    /// The deployment that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
    /// The last one that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_deployment: Option<Ended>,
    /// `DeploymentConfig` that was given last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_deployment_config: Option<Value>,
    /// The greatest generation that there was.
    #[serde(default)]
    pub last_generation: u64,
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
    /// How long the model's archive may take to be there; no limit when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_timeout_seconds: Option<u64>,
    /// Which replica gets a request.
    #[serde(default)]
    pub routing: Routing,
    /// Worker processes in a replica where the model does not say it. Kept, so that a restarted server takes its replicas up as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_workers: Option<u32>,
    /// Image URI.
    pub image: String,
    /// S3 URI of the model's data.
    pub model_data: Option<String>,
    /// What there is at that URI.
    #[serde(default)]
    pub model_form: ModelForm,
    /// What the objects of the model's data must be, when it comes from a model package; else none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registered_artifacts: Vec<Artifact>,
    /// Environment of the container.
    pub environment: BTreeMap<String, String>,
    /// How its many models are kept, where its model data is a prefix of archives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<DeployedModels>,
    /// Its containers, where it has several; what stands above is then of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<DeployedContainer>,
    /// Whether a request names the container that answers it, where there are several.
    #[serde(default)]
    pub is_direct: bool,
    /// Role that the container's credentials are for.
    pub role_arn: Option<String>,
    /// Whether the container has no network.
    pub network_isolation: bool,
    /// Set when its replicas come and go with its invocations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serverless: Option<Serverless>,
    /// Set when it has no model of its own and inference components are put on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<ComponentHost>,
    /// What each replica takes of an instance, when it is a copy of an inference component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// Which replica of a variant gets a request, in the words of the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Routing {
    /// Any.
    #[default]
    Random,
    /// The one with the fewest requests.
    LeastOutstandingRequests,
}

impl From<Routing> for serving::RoutingStrategy {
    fn from(routing: Routing) -> serving::RoutingStrategy {
        match routing {
            Routing::Random => serving::RoutingStrategy::Random,
            Routing::LeastOutstandingRequests => serving::RoutingStrategy::LeastOutstandingRequests,
        }
    }
}

/// How many worker processes a container's environment asks for.
pub const WORKERS_VARIABLE: &str = "SAGEMAKER_MODEL_SERVER_WORKERS";

impl DeployedVariant {
    /// Worker processes in a replica: what the container's environment asks for, else the usual number; no more than are let in at once.
    pub fn workers(&self) -> u32 {
        let most = self.serverless.as_ref().map_or(u32::MAX, |serverless| serverless.max_concurrency);
        asked_workers(&self.environment).or(self.usual_workers).unwrap_or(1).min(most)
    }
}

/// Worker processes that a container's environment asks for.
pub fn asked_workers(environment: &BTreeMap<String, String>) -> Option<u32> {
    environment.get(WORKERS_VARIABLE).and_then(|text| text.parse().ok()).filter(|workers| *workers > 0)
}

impl EndpointRecord {
    /// Reads a stored document.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(document: &Value) -> store::Result<EndpointRecord> {
        Ok(EndpointRecord::deserialize(document)?)
    }

    /// Whether what is deployed has been in service.
    pub fn has_served(&self) -> bool {
        self.served_generation == Some(self.generation)
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
