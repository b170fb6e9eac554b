//! Settings of the model registry.

use serde::Deserialize;

/// The `[registry]` table of the settings file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// Whether a model package needs somebody else's approval than that of who registered it.
    pub approver_is_not_author: bool,
}
