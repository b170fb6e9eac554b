//! Integration tests of the store.

mod export;
mod logs;
