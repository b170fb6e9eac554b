//! Integration tests of the store.

mod logs;
