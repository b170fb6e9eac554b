//! What a policy may scale: the instances of a variant, the concurrency that a serverless one has provisioned, or the copies of an inference
//! component.

use super::record::DeployedVariant;

/// A number that scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaled {
    /// Instances of a variant that has some.
    Instances,
    /// Provisioned concurrency of a serverless variant.
    ProvisionedConcurrency,
    /// Copies of an inference component.
    Copies,
}

impl Scaled {
    /// What a scalable dimension of the service means; `None` for one that is not scaled here.
    pub fn of_dimension(dimension: &str) -> Option<Scaled> {
        [Scaled::Instances, Scaled::ProvisionedConcurrency, Scaled::Copies]
            .into_iter()
            .find(|one| one.dimension() == dimension)
    }

    /// The scalable dimension, in the words of the service.
    pub fn dimension(self) -> &'static str {
        match self {
            Scaled::Instances => "sagemaker:variant:DesiredInstanceCount",
            Scaled::ProvisionedConcurrency => "sagemaker:variant:DesiredProvisionedConcurrency",
            Scaled::Copies => "sagemaker:inference-component:DesiredCopyCount",
        }
    }

    /// Its name in events.
    pub fn member(self) -> &'static str {
        match self {
            Scaled::Instances => "DesiredInstanceCount",
            Scaled::ProvisionedConcurrency => "DesiredProvisionedConcurrency",
            Scaled::Copies => "DesiredCopyCount",
        }
    }

    /// What it counts, for people.
    pub fn words(self) -> &'static str {
        match self {
            Scaled::Instances => "desired instance count",
            Scaled::ProvisionedConcurrency => "desired provisioned concurrency",
            Scaled::Copies => "desired copy count",
        }
    }

    /// What one of it is called, several at once.
    pub fn unit(self) -> &'static str {
        match self {
            Scaled::Instances => "instances",
            Scaled::ProvisionedConcurrency => "provisioned invocations at once",
            Scaled::Copies => "copies",
        }
    }

    /// Whether a request that finds none of it brings up the first.
    pub fn is_woken(self) -> bool {
        matches!(self, Scaled::Instances | Scaled::Copies)
    }

    /// How much of it a variant has; `None` when it has none of the kind.
    pub fn of(self, variant: &DeployedVariant) -> Option<u32> {
        match (self, &variant.serverless) {
            // Those follow the components that are put on them.
            (Scaled::Instances, None) if variant.host.is_some() => None,
            (Scaled::Instances, None) => Some(variant.replicas),
            (Scaled::ProvisionedConcurrency, Some(serverless)) => {
                Some(serverless.provisioned_concurrency.unwrap_or(0))
            }
            _ => None,
        }
    }

    /// Gives a variant so much of it.
    pub fn set(self, variant: &mut DeployedVariant, wanted: u32) {
        match (self, &mut variant.serverless) {
            (Scaled::Instances, None) => variant.replicas = wanted,
            (Scaled::ProvisionedConcurrency, Some(serverless)) => {
                serverless.provisioned_concurrency = Some(wanted).filter(|wanted| *wanted > 0);
            }
            _ => {}
        }
    }

    /// The most that a variant can have of it.
    pub fn most(self, variant: &DeployedVariant) -> u32 {
        match (self, &variant.serverless) {
            (Scaled::ProvisionedConcurrency, Some(serverless)) => serverless.max_concurrency,
            _ => u32::MAX,
        }
    }
}
