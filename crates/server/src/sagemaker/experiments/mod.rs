//! Experiments: groups of trials, their components, and the points of the metrics that clients log.

mod components;
mod groups;
mod jobs;
mod metrics;
mod trials;

use store::links::LinkPlace;
use store::resources::ResourceKey;

use super::entities::Noun;
use super::kinds;
use crate::Registry;

pub use components::{component_summaries, metric_summaries, parents};
pub use jobs::{Ending, Facts, JobKind, begin, component_arn, end, ensure_group};
pub use metrics::purge;

/// Experiments and their trials.
pub(crate) const TRIALS: &str = "experiment-trial";
/// Trials and their components.
pub(crate) const COMPONENTS: &str = "trial-component";
/// ARNs of jobs and their components.
pub(crate) const SOURCES: &str = "component-source";

pub(crate) const EXPERIMENT: Noun =
    Noun { kind: kinds::EXPERIMENT, name: "ExperimentName", arn: "ExperimentArn" };
pub(crate) const TRIAL: Noun = Noun { kind: kinds::TRIAL, name: "TrialName", arn: "TrialArn" };
pub(crate) const COMPONENT: Noun =
    Noun { kind: kinds::TRIAL_COMPONENT, name: "TrialComponentName", arn: "TrialComponentArn" };

/// Where the links of a relation between resources like `key` are.
pub(crate) fn place<'a>(key: &'a ResourceKey, relation: &'a str) -> LinkPlace<'a> {
    LinkPlace { account: &key.account, region: &key.region, relation }
}

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    groups::routes(registry);
    trials::routes(registry);
    components::routes(registry);
    metrics::routes(registry);
}
