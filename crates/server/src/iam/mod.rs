//! IAM: the roles that jobs run as, and the questions that SDKs ask about them.

mod roles;
mod simulate;

use crate::Registry;

pub use roles::{check_assumable, is_assumable, split_role_arn};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    roles::routes(registry);
    simulate::routes(registry);
}
