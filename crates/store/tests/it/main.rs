//! Integration tests of the store.

mod alarms;
mod encryption;
mod export;
mod failures;
mod faults;
mod folders;
mod keys;
mod lineage;
mod logs;
mod logs_trim;
mod metrics;
mod objects;
mod objects_listing;
mod objects_uploads;
mod points;
mod properties;
mod scaling;
