//! What is kept of an inference component: where it is put, what it serves, and the update that goes on.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::resources::Resource;

use super::room::Share;
use crate::endpoints::record::DeployedVariant;
use crate::endpoints::rollout::{Policy, Progress};
use crate::sagemaker::{kinds, records};

/// The status document of an inference component.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// Name of its endpoint.
    pub endpoint: String,
    /// Name of the endpoint's variant that it is put on.
    pub variant: String,
    /// Copies that are wanted. Those that have room are the replicas of what it serves.
    pub copies: u32,
    /// What it serves.
    pub side: ComponentSide,
    /// The generation that has been in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_generation: Option<u64>,
    /// Why it, or its last change, failed, or why copies are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
    /// The update that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<ComponentUpdate>,
    /// `DeploymentConfig` that was given last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_deployment_config: Option<Value>,
    /// The greatest generation that there was.
    pub last_generation: u64,
}

/// What the copies of a component are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ComponentSide {
    /// Tells its copies from those of other specifications.
    pub generation: u64,
    /// `Specification`, as it was given.
    pub specification: Value,
    /// The model as one copy serves it. Its name is the component's, and its replicas are the copies that have room.
    pub deployed: DeployedVariant,
}

/// An update to another specification. Everything that a restarted server needs to go on with it is here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ComponentUpdate {
    /// What comes.
    pub other: ComponentSide,
    /// Copies that were wanted before.
    pub copies_before: u32,
    /// `DeploymentConfig`, as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// Milliseconds since 1970.
    pub started_at: i64,
    /// Where it stands.
    pub progress: Progress,
    /// Why it goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ComponentRecord {
    /// Reads a stored document.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(document: &Value) -> store::Result<ComponentRecord> {
        Ok(ComponentRecord::deserialize(document)?)
    }

    /// The document to store.
    pub fn to_document(&self) -> Value {
        serde_json::to_value(self).expect("strings, numbers and lists always serialize")
    }

    /// Whether what it serves has been in service.
    pub fn has_served(&self) -> bool {
        self.served_generation == Some(self.side.generation)
    }

    /// Copies that have room on the instances.
    pub fn placed(&self) -> u32 {
        self.side.deployed.replicas
    }

    /// The generation of the next specification: none comes again, since copies of an earlier one may still be on their way out.
    pub fn next_generation(&mut self) -> u64 {
        self.last_generation = self.last_generation.max(self.side.generation) + 1;
        self.last_generation
    }

    /// What each copy takes of its instance; while an update goes on, each new one.
    pub fn share(&self) -> Option<&Share> {
        let side = self.update.as_ref().map_or(&self.side, |update| &update.other);
        side.deployed.share.as_ref()
    }

    /// The component as DescribeInferenceComponent shows it, with so many copies that answer.
    pub fn description(&self, resource: &Resource, current_copies: u32) -> Value {
        let key = &resource.key;
        json!({
            "InferenceComponentName": key.name,
            "InferenceComponentArn": resource.arn,
            "EndpointName": self.endpoint,
            "EndpointArn": kinds::arn(&key.region, &key.account, kinds::ENDPOINT, &self.endpoint),
            "VariantName": self.variant,
            "FailureReason": self.failure_reason,
            "Specification": self.side.summary(resource.created_at),
            "RuntimeConfig": {"DesiredCopyCount": self.copies, "CurrentCopyCount": current_copies},
            "CreationTime": records::seconds(resource.created_at),
            "LastModifiedTime": records::seconds(resource.modified_at),
            "InferenceComponentStatus": resource.status,
            "LastDeploymentConfig": self.last_deployment_config,
        })
    }
}

impl ComponentSide {
    /// The specification with what the image was found to be.
    fn summary(&self, resolved_at: i64) -> Value {
        let mut summary = self.specification.clone();
        if let Some(container) = summary.get_mut("Container").and_then(Value::as_object_mut)
            && let Some(image) = container.shift_remove("Image")
        {
            let deployed = json!({
                "SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": records::seconds(resolved_at),
            });
            container.insert("DeployedImage".into(), deployed);
        }
        summary
    }
}

impl ComponentUpdate {
    /// How it replaces the copies.
    pub fn policy(&self) -> Policy {
        super::update::policy(self.config.as_ref(), self.other.deployed.replicas)
    }
}
