//! Steps that experiments and the vertices of the lineage share. Their names differ by more than case, as in the service, so
//! that they are looked up by ARN.

use serde_json::{Map, Value, json};
use store::Session;
use store::links::Narrowing;
use store::resources::{ListQuery, Page, Resource, ResourceKey, SortBy};

use super::{kinds, records};
use crate::{Cx, Error, Result};

/// Rows on a page when the caller names no number, as in the service.
const DEFAULT_ROWS: u64 = 10;

/// A kind of entity, and what its members are called.
#[derive(Clone, Copy)]
pub struct Noun {
    /// The kind.
    pub kind: &'static str,
    /// Member with the name.
    pub name: &'static str,
    /// Member with the ARN.
    pub arn: &'static str,
}

/// The text of a member, when it is set.
pub fn text<'a>(input: &'a Value, member: &str) -> Option<&'a str> {
    input[member].as_str()
}

/// The text of a member that the model requires.
pub fn required<'a>(input: &'a Value, member: &str) -> &'a str {
    text(input, member).unwrap_or_default()
}

/// Who calls, as `CreatedBy` shows it.
pub fn user(cx: &Cx) -> Value {
    json!({"IamIdentity": {"Arn": cx.caller.principal_arn, "PrincipalId": cx.caller.principal_id}})
}

/// Finds an entity of the caller's account and region by its name or ARN.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn find(cx: &Cx, kind: &'static str, name_or_arn: &str) -> Result<Resource> {
    let arn = match name_or_arn.starts_with("arn:") {
        true => name_or_arn.to_owned(),
        false => records::arn(cx, kind, name_or_arn),
    };
    let found = cx.state.database.read(move |session| session.find_resource_by_arn(&arn)).await?;
    let is_own = |one: &Resource| {
        one.key.kind == kind && one.key.account == cx.caller.account && one.key.region == cx.caller.region
    };
    found.filter(is_own).ok_or_else(|| Error::not_found(kind, name_or_arn))
}

/// The key of the entity of this kind and name, whatever the case of the name, in the account and region of `place`.
///
/// # Errors
/// [`store::Error::Missing`].
pub fn key_of(
    session: &Session<'_>,
    place: &ResourceKey,
    kind: &str,
    name: &str,
) -> store::Result<ResourceKey> {
    let arn = kinds::arn(&place.region, &place.account, kind, name);
    let found = session.find_resource_by_arn(&arn)?;
    let found = found.ok_or_else(|| store::Error::Missing { kind: kind.into(), name: name.into() })?;
    Ok(found.key)
}

/// Adds an entity with its tags and first event; `more` runs in the same transaction. Returns the ARN.
///
/// # Errors
/// [`Error::Validation`] when the name is taken, and what `more` returns.
pub async fn create(
    cx: &Cx,
    noun: Noun,
    name: &str,
    status: &str,
    more: impl FnOnce(&Session<'_>, &Resource) -> store::Result<()> + Send + 'static,
) -> Result<String> {
    let document = json!({"created_by": user(cx)});
    let resource = records::new_resource(cx, noun.kind, name, status, document);
    let tags = tags(&cx.input)?;
    let arn = resource.arn.clone();
    let taken = format!("{} with name {name} already exists ({arn}).", noun.kind);
    let stored = cx.state.database.write(move |session| {
        session.insert_resource(&resource)?;
        session.put_tags(&resource.arn, &tags)?;
        session.append_event(&resource.key, "Created", &resource.spec, resource.created_at)?;
        more(session, &resource)
    });
    stored.await.map_err(|error| match error {
        store::Error::Exists { .. } => Error::Validation(taken),
        other => missing_or(other),
    })?;
    Ok(arn)
}

/// The error of a transaction in which a resource may have been missing.
pub fn missing_or(error: store::Error) -> Error {
    match error {
        store::Error::Missing { kind, name } => {
            let known = [
                kinds::EXPERIMENT,
                kinds::TRIAL,
                kinds::TRIAL_COMPONENT,
                kinds::ARTIFACT,
                kinds::ACTION,
                kinds::CONTEXT,
            ];
            match known.into_iter().find(|known| *known == kind) {
                Some(kind) => Error::not_found(kind, name),
                None => store::Error::Missing { kind, name }.into(),
            }
        }
        store::Error::Precondition(text) => Error::Validation(text),
        other => other.into(),
    }
}

fn tags(input: &Value) -> Result<Vec<(String, String)>> {
    let given: Option<Vec<api::sagemaker::Tag>> = match &input["Tags"] {
        Value::Null => None,
        tags => Some(serde_json::from_value(tags.clone()).map_err(Error::internal)?),
    };
    records::tag_pairs(given.as_deref())
}

/// The stored request with ARN, times and users laid over it; what has no `DisplayName` is displayed by its name.
pub fn shown(resource: &Resource, noun: Noun) -> Map<String, Value> {
    let mut shown = resource.spec.as_object().cloned().unwrap_or_default();
    shown.insert(noun.name.into(), resource.key.name.clone().into());
    shown.insert(noun.arn.into(), resource.arn.clone().into());
    shown.insert("CreationTime".into(), json!(records::seconds(resource.created_at)));
    shown.insert("LastModifiedTime".into(), json!(records::seconds(resource.modified_at)));
    for (member, name) in
        [("CreatedBy", "created_by"), ("LastModifiedBy", "modified_by"), ("Source", "source")]
    {
        if !resource.document[name].is_null() {
            shown.insert(member.into(), resource.document[name].clone());
        }
    }
    shown
}

/// Changes the stored request of an entity and notes who did.
///
/// # Errors
/// [`Error::NotFound`] when it is gone, and what `edit` returns.
pub async fn update(
    cx: &Cx,
    key: ResourceKey,
    edit: impl FnOnce(&mut Resource) -> store::Result<()> + Send + 'static,
) -> Result<Resource> {
    let (by, now_ms, input) = (user(cx), cx.state.clock.now_ms(), cx.input.clone());
    let updated = cx.state.database.write(move |session| {
        let updated = session.update_resource(&key, now_ms, |resource| {
            edit(resource)?;
            resource.document["modified_by"] = by;
            Ok(())
        })?;
        session.append_event(&key, "Updated", &input, now_ms)?;
        Ok(updated)
    });
    updated.await.map_err(missing_or)
}

/// Lays the members of the input that are set over the stored request.
pub fn replace(spec: &mut Value, input: &Value, members: &[&str]) {
    for member in members {
        if !input[*member].is_null() {
            spec[*member] = input[*member].clone();
        }
    }
}

/// Lays the entries of a map of the input over those that are stored, and takes out those that are named by `to_remove`.
///
/// # Errors
/// [`store::Error::Invalid`] when more than `most` would be left.
pub fn merge(
    spec: &mut Value,
    input: &Value,
    member: &str,
    to_remove: &str,
    most: usize,
) -> store::Result<()> {
    let mut entries = spec[member].as_object().cloned().unwrap_or_default();
    for name in input[to_remove].as_array().into_iter().flatten().filter_map(Value::as_str) {
        entries.remove(name);
    }
    for (name, value) in input[member].as_object().into_iter().flatten() {
        entries.insert(name.clone(), value.clone());
    }
    if entries.len() > most {
        return Err(store::Error::Invalid(format!(
            "{member}: there would be {} entries; {most} is the most.",
            entries.len()
        )));
    }
    if !entries.is_empty() || !spec[member].is_null() {
        spec[member] = Value::Object(entries);
    }
    Ok(())
}

/// Runs a List operation over the members that all lists of entities have.
///
/// # Errors
/// [`Error::Validation`] for a token that belongs to another query.
pub async fn page(
    cx: &Cx,
    kind: &'static str,
    status: Option<&str>,
    narrowed: Vec<Narrowing>,
) -> Result<Page> {
    let input = &cx.input;
    let query = ListQuery {
        status: status.map(str::to_owned),
        narrowed,
        created_after: milliseconds(&input["CreatedAfter"]),
        created_before: milliseconds(&input["CreatedBefore"]),
        sort_by: if text(input, "SortBy") == Some("Name") { SortBy::Name } else { SortBy::CreatedAt },
        descending: text(input, "SortOrder") != Some("Ascending"),
        limit: input["MaxResults"].as_u64().unwrap_or(DEFAULT_ROWS).max(1) as usize,
        next_token: text(input, "NextToken").map(str::to_owned),
        ..Default::default()
    };
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    Ok(cx.state.database.read(move |session| session.list_resources(&account, &region, kind, &query)).await?)
}

/// A moment of an input in milliseconds since 1970.
pub fn milliseconds(moment: &Value) -> Option<i64> {
    moment.as_f64().map(|seconds| (seconds * 1000.0).round() as i64)
}

/// The answer of a List operation: the members of each row that a summary has, and the token of the next page.
pub fn listed(member: &str, rows: Vec<Value>, next_token: Option<String>) -> Value {
    let mut answer = Map::from_iter([(member.to_owned(), Value::Array(rows))]);
    answer.extend(next_token.map(|token| ("NextToken".to_owned(), Value::String(token))));
    Value::Object(answer)
}

/// Some members of a description.
pub fn picked(shown: &Map<String, Value>, members: &[&str]) -> Value {
    let picked = members.iter().filter_map(|name| Some(((*name).to_owned(), shown.get(*name)?.clone())));
    Value::Object(picked.collect())
}
