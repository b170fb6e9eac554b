//! Wire types of the AWS services that Modelyard speaks, generated from their public models.
//!
//! A module per service has the structures and enumerations of its model, a marker per operation that ties it to its
//! input and output, and `SERVICE`, the constant tables that the protocols and the validator read.

mod blob;
pub mod form;
#[rustfmt::skip]
#[expect(missing_docs, reason = "the models are kept without their documentation")]
mod generated;
pub mod model;
mod table;
mod timestamp;

pub use blob::Blob;
pub use form::Nothing;
pub use generated::*;
pub use model::Operation;
pub use timestamp::Timestamp;
