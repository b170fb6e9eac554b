//! Integration tests of the store.

mod encryption;
mod export;
mod failures;
mod faults;
mod folders;
mod keys;
mod logs;
mod metrics;
mod objects;
mod objects_listing;
mod objects_uploads;
