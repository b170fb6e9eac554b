//! The resource kernel: schema, migrations, typed queries, the object store and the log store. The only crate with SQL.

pub mod clock;
mod database;
mod error;
pub mod events;
pub mod identity;
pub mod logs;
pub mod objects;
pub mod resources;
pub mod tags;
pub mod work;

pub use clock::Clock;
pub use database::{Database, Session};
pub use error::{Error, Result};
