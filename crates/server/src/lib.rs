//! The product: handlers by noun, neighbours of SageMaker, configuration and command line.

use std::sync::Arc;

pub mod app;
pub mod async_inference;
mod authorize;
pub mod autoscaling;
pub mod capacity;
pub mod capture;
pub mod cli;
pub mod config;
pub mod containers;
pub mod data_dir;
pub mod deliveries;
pub mod emr;
mod emr_serverless;
pub mod endpoints;
mod error;
pub mod eventbridge;
pub mod events;
mod exposition;
pub mod glue;
mod hook;
pub mod iam;
pub mod identity;
pub mod inference_experiments;
pub mod internal_call;
mod job_log;
pub mod kms;
pub mod lambda;
pub mod listener;
pub mod logs;
pub mod monitoring;
pub mod open_protocols;
mod own;
mod own_service;
pub mod pipelines;
mod problem;
mod query;
pub mod registry;
mod requests;
pub mod retention;
pub mod s3;
pub mod sagemaker;
pub mod scheduler;
pub mod shadow;
pub mod sns;
pub mod sqs;
mod statistics;
pub mod sts;
mod tags;
pub mod training;
pub mod transform;
mod workloads;

pub use app::{App, router};
pub use error::{Error, Result};
pub use own_service::SERVICE as OWN_SERVICE;

/// The caller's context: who calls, and the process state.
pub type Cx = wire::Context<Arc<App>>;

/// The table of operations.
pub type Registry = wire::Registry<Arc<App>>;
