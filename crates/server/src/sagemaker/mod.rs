//! SageMaker: the control plane, a file per noun, and its runtime.

mod async_invocations;
mod component_hosts;
mod component_specifications;
mod dataset_fields;
mod deployments;
pub mod endpoint_configs;
pub mod endpoints;
pub mod entities;
pub mod experiments;
pub mod fields;
mod inference_components;
mod inference_experiment_changes;
mod inference_experiments;
mod job_stop;
pub mod kinds;
pub mod lineage;
mod listing;
mod model_card_exports;
pub mod model_cards;
pub mod model_package_groups;
mod model_package_policies;
mod model_package_specs;
mod model_package_updates;
pub mod model_packages;
pub mod models;
pub mod multi_container;
pub mod package_access;
mod package_deployment;
mod pipeline_executions;
mod pipeline_lists;
mod pipeline_versions;
mod pipelines;
mod processing_fields;
pub mod processing_jobs;
pub mod records;
pub mod runtime;
pub mod search;
mod shadow_variants;
pub mod tags;
mod training_hosts;
mod training_inputs;
pub mod training_jobs;
mod training_times;
mod training_updates;
mod transform_fields;
pub mod transform_jobs;

pub use records::key as record_key;

use crate::Registry;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    training_jobs::routes(registry);
    training_updates::routes(registry);
    processing_jobs::routes(registry);
    transform_jobs::routes(registry);
    models::routes(registry);
    model_package_groups::routes(registry);
    model_package_policies::routes(registry);
    model_packages::routes(registry);
    model_package_updates::routes(registry);
    model_cards::routes(registry);
    model_card_exports::routes(registry);
    endpoint_configs::routes(registry);
    endpoints::routes(registry);
    inference_components::routes(registry);
    pipelines::routes(registry);
    pipeline_versions::routes(registry);
    pipeline_executions::routes(registry);
    pipeline_lists::routes(registry);
    runtime::routes(registry);
    inference_experiments::routes(registry);
    inference_experiment_changes::routes(registry);
    async_invocations::routes(registry);
    experiments::routes(registry);
    lineage::routes(registry);
    search::routes(registry);
    tags::routes(registry);
}
