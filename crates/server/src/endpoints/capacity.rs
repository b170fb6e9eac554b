//! The capacity of a variant, changed while it serves: the record first, the fleet after the commit.

use serde_json::json;
use serving::{EndpointPhase, EndpointStatus};
use store::Session;
use store::resources::ResourceKey;

use super::components;
use super::record::{DeployedVariant, EndpointRecord};
use super::scaled::Scaled;

/// Sets how much a variant has of what scales, where it still has `expected`; `None` when it has not, or its endpoint cannot be changed now.
/// Call [`super::EndpointController::apply`] after the commit.
///
/// # Errors
/// When the database fails, or the stored record is damaged.
pub fn set(
    session: &Session<'_>,
    key: &ResourceKey,
    (variant, scaled): (&str, Scaled),
    (expected, wanted): (u32, u32),
    now_ms: i64,
) -> store::Result<Option<EndpointRecord>> {
    let Some(resource) = session.find_resource(key)? else { return Ok(None) };
    let mut record = EndpointRecord::read(&resource.document)?;
    record.end_keeping();
    // One that is updated to another deployment is left alone, as in the service.
    let can_change = record.has_served()
        && record.deployment.is_none()
        && matches!(resource.status.as_str(), "InService" | "Updating");
    let found =
        record.variants.iter_mut().find(|one| one.name == variant && scaled.of(one) == Some(expected));
    let Some(found) = found.filter(|_| can_change) else { return Ok(None) };
    scaled.set(found, wanted.min(scaled.most(found)));
    let updated = session.update_resource(key, now_ms, |resource| {
        resource.document = record.to_document();
        resource.status = "Updating".into();
        Ok(())
    })?;
    let detail = json!({"VariantName": variant, scaled.member(): wanted});
    session.append_event(key, "Updating", &detail, now_ms)?;
    crate::events::append_state(session, &updated, now_ms)?;
    Ok(Some(record))
}

/// How much a variant is to have of what scales by the stored record; `None` when there is no such variant.
///
/// # Errors
/// When the database fails, or the stored record is damaged.
pub fn wanted(
    session: &Session<'_>,
    key: &ResourceKey,
    (variant, scaled): (&str, Scaled),
) -> store::Result<Option<u32>> {
    if scaled == Scaled::Copies {
        return components::scaling::wanted(session, key);
    }
    let Some(resource) = session.find_resource(key)? else { return Ok(None) };
    let record = EndpointRecord::read(&resource.document)?;
    Ok(record.variants.iter().find(|one| one.name == variant).and_then(|one| scaled.of(one)))
}

/// The wanted numbers of replicas by variant.
pub type Counts = Vec<(String, u32)>;

/// Those of a record. What follows its invocations has none, nor has what only holds components.
pub fn counts(record: &EndpointRecord) -> Counts {
    let is_counted = |variant: &&DeployedVariant| variant.serverless.is_none() && variant.host.is_none();
    let counted = record.variants.iter().chain(&record.shadows).filter(is_counted);
    counted.map(|variant| (variant.name.clone(), variant.replicas)).collect()
}

/// Whether an endpoint has the replicas that are wanted, or shows that it does not get them; `failure` is what failed before.
pub fn is_reached(status: &EndpointStatus, counts: &Counts, failure: Option<&String>) -> bool {
    if status.phase != EndpointPhase::InService {
        return true;
    }
    let has_failed = status.last_failure.as_ref() != failure;
    counts.iter().all(|(name, wanted)| {
        let variant = status.variants.iter().find(|variant| variant.name == *name);
        variant.is_none_or(|variant| {
            variant.desired_replicas == *wanted && (variant.healthy_replicas >= *wanted || has_failed)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serving::VariantStatus;

    #[test]
    fn a_count_is_reached_when_all_answer_or_one_fails() {
        let status = |desired, healthy, failure: Option<&str>| EndpointStatus {
            phase: EndpointPhase::InService,
            generation: 1,
            wanted_generation: 1,
            variants: vec![VariantStatus {
                name: "a".into(),
                weight: 1.0,
                desired_replicas: desired,
                healthy_replicas: healthy,
            }],
            last_failure: failure.map(str::to_owned),
            beside: None,
        };
        let wanted = vec![("a".to_owned(), 3)];
        let reached = |status: &EndpointStatus| is_reached(status, &wanted, None);
        assert!(!reached(&status(2, 2, None)), "the change is still on its way");
        assert!(!reached(&status(3, 2, None)));
        assert!(reached(&status(3, 3, None)));
        assert!(reached(&status(3, 2, Some("no luck"))));
        assert!(!is_reached(&status(3, 2, Some("old")), &wanted, Some(&"old".to_owned())));
        assert!(reached(&EndpointStatus { phase: EndpointPhase::Removed, ..status(2, 2, None) }));
    }
}
