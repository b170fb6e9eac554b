//! Pipelines: definitions, and executions driven from their first step to an end, taken up again after a restart.

mod begin;
mod cache;
mod conditions;
pub mod definition;
pub mod diff;
mod driver;
mod duration;
pub mod engine;
mod experiment;
pub mod explain;
pub mod expressions;
pub mod files;
mod graph;
pub mod outputs;
mod path;
pub mod properties;
mod reading;
pub mod record;
pub mod restart;
mod retry;
pub mod selective;
pub mod state_events;
mod step_arguments;
mod steps;
mod walk;

pub use driver::PipelineDriver;
pub use steps::token_of;
