//! The resource kernel: schema, migrations, typed queries, and the stores of objects, logs and metrics. The only crate with SQL.

pub mod clock;
mod database;
mod error;
mod event_list;
pub mod events;
pub mod failures;
pub mod identity;
pub mod keys;
pub mod logs;
pub mod metrics;
pub mod objects;
pub mod resources;
pub mod seal;
pub mod tags;
pub mod warm_pools;
pub mod work;

pub use clock::Clock;
pub use database::{Database, Session};
pub use error::{DiskProblem, Error, Result};
