//! Handler tests: the real router over a real database, in process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod accounts;
mod alarms;
mod app;
mod autoscaling;
mod bombs;
mod deletions;
mod emr;
mod events;
mod exposition;
mod foreign;
mod glue;
mod hostile;
mod logs;
mod monitoring;
mod neighbours;
mod open_protocols;
mod operations;
mod retention;
mod sagemaker;
mod sns;
mod sqs;
mod sts;
mod tags;
