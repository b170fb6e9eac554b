//! The lineage: artifacts, actions and contexts, their associations, queries over the graph, and what is recorded by itself.

mod artifacts;
mod associations;
mod entities;
mod groups;
pub mod jobs;
mod processing;
mod query;
mod record;
mod trace;
pub mod transform;

pub use groups::DEFAULT_GROUP;
pub use record::{Recorder, created, deployed};

use store::resources::Resource;

use super::kinds::{ACTION, ARTIFACT, CONTEXT, EXPERIMENT, TRIAL_COMPONENT};
use crate::Registry;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    artifacts::routes(registry);
    entities::routes(registry);
    associations::routes(registry);
    groups::routes(registry);
    query::routes(registry);
    trace::routes(registry);
}

/// The kinds that are vertices, each with what `LineageType` calls it.
const VERTICES: &[(&str, &str)] = &[
    (TRIAL_COMPONENT, "TrialComponent"),
    (ARTIFACT, "Artifact"),
    (CONTEXT, "Context"),
    (ACTION, "Action"),
    (EXPERIMENT, "Experiment"),
];

/// What `LineageType` calls a kind.
fn lineage_type(kind: &str) -> Option<&'static str> {
    VERTICES.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
}

/// The type of a vertex: what it was created with, or for a component the kind of job that made it.
fn type_of(resource: &Resource) -> &str {
    match resource.key.kind.as_str() {
        TRIAL_COMPONENT => {
            resource.document["source"]["SourceType"].as_str().unwrap_or("SageMakerExperimentTrialComponent")
        }
        EXPERIMENT => "Experiment",
        // Where others have their status, what lists filter by, the vertices of the lineage have their type.
        _ => &resource.status,
    }
}
