//! The SageMaker control plane.

mod endpoints;
mod models;
mod search;
mod training_jobs;
