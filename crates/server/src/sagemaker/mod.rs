//! SageMaker: the control plane, a file per noun, and its runtime.

pub mod endpoint_configs;
pub mod endpoints;
mod fields;
pub mod kinds;
mod listing;
pub mod models;
mod records;
pub mod runtime;
pub mod search;
pub mod tags;
mod training_hosts;
mod training_inputs;
pub mod training_jobs;
mod training_times;
mod training_updates;

pub use records::key as record_key;

use crate::Registry;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    training_jobs::routes(registry);
    training_updates::routes(registry);
    models::routes(registry);
    endpoint_configs::routes(registry);
    endpoints::routes(registry);
    runtime::routes(registry);
    search::routes(registry);
    tags::routes(registry);
}
