//! The product: handlers by noun, neighbours of SageMaker, configuration and command line.

use std::sync::Arc;

pub mod app;
mod authorize;
pub mod autoscaling;
pub mod capacity;
pub mod cli;
pub mod config;
pub mod containers;
pub mod data_dir;
pub mod endpoints;
mod error;
pub mod events;
mod exposition;
mod hook;
pub mod iam;
pub mod identity;
mod job_log;
pub mod kms;
pub mod listener;
pub mod logs;
pub mod monitoring;
mod own;
mod own_service;
mod requests;
pub mod s3;
pub mod sagemaker;
pub mod sts;
pub mod training;
mod workloads;

pub use app::{App, router};
pub use error::{Error, Result};
pub use own_service::SERVICE as OWN_SERVICE;

/// The caller's context: who calls, and the process state.
pub type Cx = wire::Context<Arc<App>>;

/// The table of operations.
pub type Registry = wire::Registry<Arc<App>>;
