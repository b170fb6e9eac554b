//! Handler tests: the real router over a real database, in process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod accounts;
mod app;
mod bombs;
mod events;
mod exposition;
mod hostile;
mod logs;
mod monitoring;
mod operations;
mod sagemaker;
mod sts;
