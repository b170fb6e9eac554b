//! Whether an endpoint answers, asked without a look at the database.

use serving::EndpointPhase;
use store::resources::ResourceKey;

use super::EndpointController;

impl EndpointController {
    /// Whether an endpoint, or one variant of it, can answer now; `None` when there is none of that name.
    pub fn is_ready(&self, key: &ResourceKey, variant: Option<&str>) -> Option<bool> {
        let status = self.watch(key)?;
        let status = status.borrow();
        let serves = matches!(
            status.phase,
            EndpointPhase::InService | EndpointPhase::Updating | EndpointPhase::UpdateFailed { .. }
        );
        // A shadow answers nobody.
        let shadow = self.shadows.variant(key);
        let answering = status.variants.iter().filter(|one| shadow.as_ref() != Some(&one.name));
        let mut named = answering.filter(|one| variant.is_none_or(|name| one.name == name)).peekable();
        named.peek()?;
        let plane_key = super::plane_key(key);
        // One that is woken by its first request answers that.
        Some(
            serves && named.any(|one| one.healthy_replicas > 0 || self.plane.is_woken(&plane_key, &one.name)),
        )
    }
}
