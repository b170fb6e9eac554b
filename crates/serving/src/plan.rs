//! What an endpoint should look like: its variants, their weights and their replicas.

use crate::composition::Composition;
use crate::on_demand::OnDemandPlan;

/// The wanted shape of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointPlan {
    /// The endpoint's key, unique in this data plane, such as `account/region/name`.
    pub endpoint: String,
    /// Counts the fleets of this endpoint. A plan with another generation than the one in service brings up a new fleet
    /// beside the old and then replaces it; one with the same generation changes weights and counts in place.
    pub generation: u64,
    /// The production variants, at least one, with distinct names.
    pub variants: Vec<VariantPlan>,
}

/// The wanted shape of one production variant.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantPlan {
    /// The variant's name, unique in its endpoint.
    pub name: String,
    /// Share of the traffic relative to the other weights; 0 gets none (but may still be targeted by name).
    pub weight: f64,
    /// How many replicas run. Those of a variant on demand follow its invocations instead.
    pub replicas: u32,
    /// Which of them gets a request.
    pub routing: RoutingStrategy,
    /// How many workers each replica runs; a worker answers one invocation at a time.
    pub workers: u32,
    /// What each replica is made of.
    pub composition: Composition,
    /// How long a replica may take until all its workers answer.
    pub startup_timeout_seconds: f64,
    /// How long a worker may take for one invocation (for a streamed answer: for each chunk).
    pub model_timeout_seconds: f64,
    /// Passed to the launcher untouched.
    pub launch: serde_json::Value,
    /// Set when its replicas come and go with its invocations.
    pub on_demand: Option<OnDemandPlan>,
}

/// Which replica of a variant gets a request. Those whose workers are all busy are left out; while all are, requests wait in one line
/// for the worker that is free first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutingStrategy {
    /// Any of them.
    #[default]
    Random,
    /// The one that has the fewest requests.
    LeastOutstandingRequests,
}

/// What is wrong with a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is nothing to serve.
    #[error("The endpoint has no variants; give at least one.")]
    NoVariants,
    /// Two variants share a name.
    #[error("The variant name {0} is used twice; variant names must differ within an endpoint.")]
    DuplicateVariant(String),
    /// A weight is negative or not a number.
    #[error("The weight of variant {0} must be a number of 0 or more.")]
    BadWeight(String),
    /// A count is zero.
    #[error("Variant {0} needs at least one worker in each replica.")]
    NoWorkers(String),
    /// Several containers are fewer than two, or two of them share a name.
    #[error("Variant {0} needs two containers or more with names that differ.")]
    BadContainers(String),
    /// A time limit is zero, negative, or not a number.
    #[error("The time limits of variant {0} must be more than 0 seconds.")]
    BadTimeout(String),
    /// What a variant on demand may do makes no sense.
    #[error("Variant {variant} needs {rule}.")]
    BadOnDemand {
        /// The variant.
        variant: String,
        /// What it needs.
        rule: &'static str,
    },
    /// Two fleets cannot stand side by side.
    #[error("Two fleets side by side belong to one endpoint and have different generations.")]
    SameFleet,
    /// A share is no part of 1.
    #[error("The share of a fleet must be from 0 to 1.")]
    BadShare,
    /// The endpoint is not known to the data plane.
    #[error("There is no endpoint {0}.")]
    NoSuchEndpoint(String),
    /// The variant is not part of the endpoint.
    #[error("The endpoint has no variant {0}.")]
    NoSuchVariant(String),
}

impl EndpointPlan {
    /// Checks the rules that the field descriptions state.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.variants.is_empty() {
            return Err(PlanError::NoVariants);
        }
        for (position, variant) in self.variants.iter().enumerate() {
            if self.variants[..position].iter().any(|other| other.name == variant.name) {
                return Err(PlanError::DuplicateVariant(variant.name.clone()));
            }
            variant.check()?;
        }
        Ok(())
    }
}

impl VariantPlan {
    fn check(&self) -> Result<(), PlanError> {
        let limit = |seconds: f64| seconds > 0.0 && seconds <= 1e9;
        check_weight(&self.name, self.weight)?;
        if self.workers == 0 {
            return Err(PlanError::NoWorkers(self.name.clone()));
        }
        if let Composition::Containers(plan) = &self.composition {
            let names: std::collections::BTreeSet<_> =
                plan.containers.iter().map(|container| &container.name).collect();
            if names.len() < 2 || names.len() != plan.containers.len() {
                return Err(PlanError::BadContainers(self.name.clone()));
            }
            if plan.containers.iter().any(|container| container.workers == 0) {
                return Err(PlanError::NoWorkers(self.name.clone()));
            }
        }
        if !limit(self.startup_timeout_seconds) || !limit(self.model_timeout_seconds) {
            return Err(PlanError::BadTimeout(self.name.clone()));
        }
        self.on_demand.as_ref().map_or(Ok(()), |on_demand| on_demand.check(&self.name))
    }
}

pub(crate) fn check_weight(variant: &str, weight: f64) -> Result<(), PlanError> {
    if weight.is_finite() && weight >= 0.0 { Ok(()) } else { Err(PlanError::BadWeight(variant.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composition::{ContainerPlan, ContainersPlan};

    fn variant(name: &str) -> VariantPlan {
        VariantPlan {
            name: name.into(),
            weight: 1.0,
            replicas: 1,
            routing: RoutingStrategy::default(),
            workers: 1,
            composition: Composition::Single,
            startup_timeout_seconds: 10.0,
            model_timeout_seconds: 60.0,
            launch: serde_json::Value::Null,
            on_demand: None,
        }
    }

    fn check(variants: Vec<VariantPlan>) -> Result<(), PlanError> {
        EndpointPlan { endpoint: "a/b/c".into(), generation: 1, variants }.check()
    }

    #[test]
    fn each_broken_rule_is_named() {
        assert_eq!(check(vec![variant("a"), variant("b")]), Ok(()));
        assert_eq!(check(vec![]), Err(PlanError::NoVariants));
        assert_eq!(check(vec![variant("a"), variant("a")]), Err(PlanError::DuplicateVariant("a".into())));
        for weight in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                check(vec![VariantPlan { weight, ..variant("a") }]),
                Err(PlanError::BadWeight("a".into()))
            );
        }
        assert_eq!(
            check(vec![VariantPlan { workers: 0, ..variant("a") }]),
            Err(PlanError::NoWorkers("a".into()))
        );
        let container = |name: &str| ContainerPlan { name: name.into(), workers: 1 };
        for containers in [vec![container("x")], vec![container("x"), container("x")]] {
            let composition = Composition::Containers(ContainersPlan { containers, is_direct: false });
            assert_eq!(
                check(vec![VariantPlan { composition, ..variant("a") }]),
                Err(PlanError::BadContainers("a".into()))
            );
        }
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(
                check(vec![VariantPlan { model_timeout_seconds: seconds, ..variant("a") }]),
                Err(PlanError::BadTimeout("a".into()))
            );
        }
    }
}
