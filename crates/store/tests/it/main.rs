//! Integration tests of the store.

mod export;
mod failures;
mod logs;
mod metrics;
mod objects;
mod objects_listing;
mod objects_uploads;
