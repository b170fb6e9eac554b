//! The SageMaker control plane.

mod attempts;
mod capacity;
mod endpoints;
mod failures;
mod models;
mod search;
mod spot;
mod training_hosts;
mod training_inputs;
mod training_jobs;
mod warm_pools;
