//! Facts that the generated tables and types must carry.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod tables;
mod types;
