//! The copies of a component as a number that policies scale.

use store::Session;
use store::resources::ResourceKey;

use super::record::ComponentRecord;
use super::scene::{Changed, Instances, endpoint_key, set_copies};

/// Sets how many copies are wanted, where `expected` still are; `None` when they are not, or the component cannot be changed now.
/// Apply what is given back after the commit.
///
/// # Errors
/// When the database fails, or the stored record is damaged.
pub fn set(
    session: &Session<'_>,
    key: &ResourceKey,
    (expected, wanted): (u32, u32),
    instances: &Instances,
    now_ms: i64,
) -> store::Result<Option<Changed>> {
    let Some(resource) = session.find_resource(key)? else { return Ok(None) };
    let record = ComponentRecord::read(&resource.document)?;
    let can_change = record.has_served()
        && record.update.is_none()
        && matches!(resource.status.as_str(), "InService" | "Updating");
    if !can_change || record.copies != expected {
        return Ok(None);
    }
    let endpoint = endpoint_key(key, &record.endpoint);
    set_copies(session, key, &endpoint, wanted, instances, now_ms).map(Some)
}

/// How many copies are wanted by the stored record; `None` when there is no such component.
///
/// # Errors
/// When the database fails, or the stored record is damaged.
pub fn wanted(session: &Session<'_>, key: &ResourceKey) -> store::Result<Option<u32>> {
    let Some(resource) = session.find_resource(key)? else { return Ok(None) };
    Ok(Some(ComponentRecord::read(&resource.document)?.copies))
}
