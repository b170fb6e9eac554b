//! Golden requests and answers of the protocols, over hand-made models and over the real ones.

#![expect(clippy::unwrap_used, reason = "an unwrap that fails is a test that fails")]

mod botocore;
mod cbor;
mod dispatch;
mod fixture;
mod json;
mod models;
mod query;
mod rest;
mod robustness;
mod signature;
mod violations;
mod widgets;
