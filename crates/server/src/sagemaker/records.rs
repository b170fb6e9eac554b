//! Steps that the handlers of all nouns share: name a resource, add it, read it, describe it.

use serde::de::DeserializeOwned;
use serde_json::Value;
use store::Session;
use store::resources::{Resource, ResourceKey};

use super::kinds;
use crate::{Cx, Error, Result, tags};

/// The key of a resource in the caller's account and region.
pub fn key(cx: &Cx, kind: &str, name: &str) -> ResourceKey {
    ResourceKey::new(&*cx.caller.account, &*cx.caller.region, kind, name)
}

/// The ARN of a resource in the caller's account and region.
pub fn arn(cx: &Cx, kind: &str, name: &str) -> String {
    kinds::arn(&cx.caller.region, &cx.caller.account, kind, name)
}

/// A new resource made of the request as received.
pub fn new_resource(cx: &Cx, kind: &'static str, name: &str, status: &str, document: Value) -> Resource {
    let mut spec = (*cx.input).clone();
    if let Some(members) = spec.as_object_mut() {
        // Tags live in a table of their own.
        members.remove("Tags");
    }
    let now_ms = cx.state.clock.now_ms();
    Resource {
        key: key(cx, kind, name),
        arn: arn(cx, kind, name),
        status: status.into(),
        spec,
        document,
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    }
}

/// Tags as pairs; a key that is given twice is refused.
///
/// # Errors
/// [`Error::Validation`] for a duplicate or reserved key.
pub fn tag_pairs(given: Option<&[api::sagemaker::Tag]>) -> Result<Vec<(String, String)>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for tag in given.unwrap_or_default() {
        if tags::is_reserved(&tag.key) {
            return Err(Error::Validation(tags::RESERVED.into()));
        }
        if pairs.iter().any(|(key, _)| *key == tag.key) {
            return Err(Error::Validation(format!("Tags: the key {:?} is given twice.", tag.key)));
        }
        pairs.push((tag.key.clone(), tag.value.clone()));
    }
    Ok(pairs)
}

/// Adds a resource with its tags and its first event.
///
/// # Errors
/// [`Error::Exists`] with `taken` when the name is in use.
pub async fn insert(
    cx: &Cx,
    resource: Resource,
    tags: Vec<(String, String)>,
    taken: &str,
    queued: bool,
) -> Result<()> {
    insert_where(cx, resource, tags, taken, queued, |_| Ok(())).await
}

/// The same where `allows`, which looks within the transaction, does not refuse it.
///
/// # Errors
/// Also [`Error::InUse`] with the text of its [`store::Error::Precondition`].
pub async fn insert_where(
    cx: &Cx,
    resource: Resource,
    tags: Vec<(String, String)>,
    taken: &str,
    queued: bool,
    allows: impl FnOnce(&Session<'_>) -> store::Result<()> + Send + 'static,
) -> Result<()> {
    let arn = resource.arn.clone();
    let by = super::entities::user(cx);
    let stored = cx.state.database.write(move |session| {
        allows(session)?;
        session.insert_resource(&resource)?;
        super::lineage::created(session, &resource, &by)?;
        session.put_tags(&resource.arn, &tags)?;
        session.append_event(&resource.key, "Created", &resource.spec, resource.created_at)?;
        crate::events::append_state(session, &resource, resource.created_at)?;
        if queued {
            session.enqueue_work(&resource.key, resource.created_at)?;
        }
        Ok(())
    });
    stored.await.map_err(|error| match error {
        store::Error::Exists { .. } => Error::exists("resource", format!("{taken} ({arn}).")),
        store::Error::Precondition(text) => Error::InUse(text),
        other => other.into(),
    })
}

/// Reads a resource of the caller's account and region; the error names the ARN, as the service does.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn find(cx: &Cx, kind: &'static str, name: &str) -> Result<Resource> {
    let wanted = key(cx, kind, name);
    let found = cx.state.database.look(|session| session.find_resource(&wanted))?;
    found.ok_or_else(|| Error::not_found(kind, arn(cx, kind, name)))
}

/// The stored request with `more` laid over it, as the typed output of a Describe operation.
///
/// # Errors
/// [`Error::Internal`] when a stored document does not fit the output any more.
pub fn described<T: DeserializeOwned>(resource: &Resource, more: Value) -> Result<T> {
    let mut merged = resource.spec.clone();
    if let (Value::Object(merged), Value::Object(more)) = (&mut merged, more) {
        merged.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    serde_json::from_value(merged).map_err(Error::internal)
}

/// Milliseconds since 1970 as the wire form of a timestamp.
pub fn seconds(at_ms: i64) -> f64 {
    at_ms as f64 / 1000.0
}

/// The refusal of a change that does not go with the resource's status.
pub fn wrong_status(resource: &Resource) -> store::Error {
    store::Error::WrongStatus {
        kind: resource.key.kind.clone(),
        name: resource.key.name.clone(),
        status: resource.status.clone(),
    }
}

/// Deletes a resource that nothing else depends on.
///
/// # Errors
/// [`Error::NotFound`] when it is gone already.
pub async fn delete(cx: &Cx, key: ResourceKey) -> Result<()> {
    let now_ms = cx.state.clock.now_ms();
    Ok(cx
        .state
        .database
        .write(move |session| {
            session.delete_resource(&key)?;
            session.append_event(&key, "Deleted", &Value::Null, now_ms)
        })
        .await?)
}
