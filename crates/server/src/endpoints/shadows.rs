//! Shadow variants in the record of an endpoint.

use super::record::{DeployedVariant, EndpointRecord};
use super::rollout::Side;

impl Side {
    /// Every variant that has replicas. Shadows have no weight there: no request goes to them but copies.
    pub fn planned(&self) -> Vec<DeployedVariant> {
        let shadows = self.shadows.iter().map(|shadow| DeployedVariant { weight: 0.0, ..shadow.clone() });
        self.variants.iter().cloned().chain(shadows).collect()
    }
}

impl EndpointRecord {
    /// The production or shadow variant of this name.
    pub fn variant_mut(&mut self, name: &str) -> Option<&mut DeployedVariant> {
        self.variants.iter_mut().chain(&mut self.shadows).find(|variant| variant.name == name)
    }
}

/// Share of production's requests that are copied to the shadow, from 0 to 1.
pub fn shadow_share(production: &DeployedVariant, shadow: &DeployedVariant) -> f64 {
    if production.weight > 0.0 { (shadow.weight / production.weight).clamp(0.0, 1.0) } else { 0.0 }
}
