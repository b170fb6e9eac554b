//! What a variant's replicas are made of beyond one model: many models below a prefix, or several containers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serving::{Composition, ContainerPlan, ContainersPlan, ModelsPlan};

use super::model_data::ModelForm;
use super::record::{DeployedVariant, asked_workers};
use crate::capacity::Profile;

/// The part of an instance's memory that loaded models may take, where the settings do not say it: the rest is for the processes around them.
const SHARE_OF_MEMORY: (u64, u64) = (4, 5);

/// How many models of a variant are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedModels {
    /// Whether models stay loaded when their request is answered.
    pub keeps: bool,
    /// The memory that loaded models may take in one replica.
    pub memory_bytes: u64,
}

/// One of a variant's containers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployedContainer {
    /// Its name, given or by its position.
    pub name: String,
    /// Image URI.
    pub image: String,
    /// S3 URI of the model's data.
    pub model_data: Option<String>,
    /// What there is at that URI.
    #[serde(default)]
    pub model_form: ModelForm,
    /// Environment of the container.
    pub environment: BTreeMap<String, String>,
}

impl DeployedModels {
    /// How much of an instance the models may take: what the settings say, or a share of the instance type's memory, of which the
    /// machine must have as much.
    pub fn memory_bytes(set: Option<u64>, profile: Option<&Profile>, machine_bytes: u64) -> u64 {
        let share = |bytes: u64| bytes / SHARE_OF_MEMORY.1 * SHARE_OF_MEMORY.0;
        let of_type = profile.map_or(machine_bytes, Profile::memory_bytes);
        set.unwrap_or_else(|| share(of_type.min(machine_bytes)))
    }
}

impl DeployedVariant {
    /// What the data plane makes of it; `usual_workers` run in a container whose environment does not say how many.
    pub fn composition(&self, usual_workers: Option<u32>) -> Composition {
        if let Some(models) = &self.models {
            return Composition::Models(ModelsPlan {
                memory_bytes: models.memory_bytes,
                keeps: models.keeps,
            });
        }
        if self.containers.is_empty() {
            return Composition::Single;
        }
        let container = |container: &DeployedContainer| ContainerPlan {
            name: container.name.clone(),
            workers: asked_workers(&container.environment).or(usual_workers).unwrap_or(1),
        };
        let containers = self.containers.iter().map(container).collect();
        Composition::Containers(ContainersPlan { containers, is_direct: self.is_direct })
    }

    /// The variant as one of its containers sees it.
    pub fn part(&self, part: Option<u32>) -> Cow<'_, DeployedVariant> {
        let Some(container) = part.and_then(|part| self.containers.get(part as usize)) else {
            return Cow::Borrowed(self);
        };
        let container = container.clone();
        Cow::Owned(DeployedVariant {
            image: container.image,
            model_data: container.model_data,
            model_form: container.model_form,
            // A package stands for one container.
            registered_artifacts: Vec::new(),
            environment: container.environment,
            containers: Vec::new(),
            ..self.clone()
        })
    }

    /// The name of one of its containers.
    pub fn part_name(&self, part: Option<u32>) -> Option<&str> {
        Some(self.containers.get(part? as usize)?.name.as_str())
    }

    /// The images of its containers.
    pub fn images(&self) -> Vec<&str> {
        match self.containers.as_slice() {
            [] => vec![&self.image],
            several => several.iter().map(|container| container.image.as_str()).collect(),
        }
    }

    /// Whether a transform job can use the model.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn check_transform(&self) -> Result<(), String> {
        if self.models.is_some() {
            return Err(
                "Batch transform does not support multi-model endpoints' models; create a model of the one archive.".into()
            );
        }
        if self.is_direct {
            return Err(
                "Batch transform does not support models with InferenceExecutionConfig Mode Direct; use Serial.".into()
            );
        }
        Ok(())
    }

    /// Whether an endpoint that answers later can use the model.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn check_asynchronous(&self) -> Result<(), String> {
        if self.models.is_some() || self.is_direct {
            return Err(format!(
                "AsyncInferenceConfig: InvokeEndpointAsync names neither a model nor a container, which the model of variant {} needs.",
                self.name
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_models_follows_setting_instance_and_machine() {
        let profile = Profile { vcpus: 2.0, memory_gib: 8.0, gpus: 0, gpu: None };
        let gib = 1 << 30;
        assert_eq!(DeployedModels::memory_bytes(Some(5), Some(&profile), 16 * gib), 5);
        assert_eq!(DeployedModels::memory_bytes(None, Some(&profile), 16 * gib), 8 * gib / 5 * 4);
        assert_eq!(DeployedModels::memory_bytes(None, Some(&profile), 4 * gib), 4 * gib / 5 * 4);
        assert_eq!(DeployedModels::memory_bytes(None, None, 10 * gib), 8 * gib);
    }
}
