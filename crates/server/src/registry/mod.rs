//! The model registry: what is kept of model packages, their artifacts, and who may use them from another account.

pub mod artifacts;
pub mod card;
pub mod card_content;
pub mod card_pdf;
pub mod history;
pub mod package;
pub mod policy;
pub mod settings;
pub mod validation;
