//! Glue: the catalogue of tables over objects in S3, which queries read.

mod databases;
mod error;
mod partition_filter;
mod partitions;
mod tables;

use serde_json::Value;
use store::Session;
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};

use crate::{Cx, Registry};
use error::{Problem, Result};

/// Kind of a database in the store.
const DATABASE: &str = "glue-database";
/// Kind of a table in the store; its name is `DATABASE/TABLE`.
const TABLE: &str = "glue-table";
/// Kind of a partition in the store; its name is `DATABASE/TABLE/VALUE/VALUE…`, each value encoded.
const PARTITION: &str = "glue-partition";

/// Rows on a page, unless the caller wants another number.
const PAGE_ROWS: i32 = 100;
/// Rows that are removed at a time with what they belong to.
const REMOVED_ROWS: usize = 1_000;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    databases::routes(registry);
    tables::routes(registry);
    partitions::routes(registry);
}

/// The name of a database, table or key in the form in which the catalogue has it: lower case.
fn plain_name(field: &str, name: &str) -> Result<String> {
    let lower = name.trim().to_lowercase();
    let is_plain = !lower.is_empty()
        && lower.chars().all(|one| one.is_alphanumeric() || one == '_' || one == '-')
        && lower.len() <= 255;
    if is_plain {
        return Ok(lower);
    }
    Err(Problem::invalid(format!(
        "{field}: {name:?} cannot be a name here; take letters, digits, underscores and hyphens, at most 255."
    )))
}

/// Refuses the catalogue of another account; the own one may be named.
fn check_catalogue(cx: &Cx, catalogue: Option<&str>) -> Result<()> {
    match catalogue {
        Some(id) if id != cx.caller.account => Err(Problem::Code(
            "AccessDeniedException",
            format!("CatalogId: {id} is not the catalogue of this account, {}.", cx.caller.account),
        )),
        _ => Ok(()),
    }
}

fn key(cx: &Cx, kind: &str, name: &str) -> ResourceKey {
    ResourceKey::new(&*cx.caller.account, &*cx.caller.region, kind, name)
}

/// A new entry of the catalogue; `place` is what follows the account in its ARN.
fn entry(cx: &Cx, kind: &str, name: &str, place: &str, spec: Value) -> Resource {
    let key = key(cx, kind, name);
    let now_ms = cx.state.clock.now_ms();
    Resource {
        arn: format!("arn:aws:glue:{}:{}:{place}", key.region, key.account),
        key,
        status: "ACTIVE".into(),
        spec,
        document: Value::Object(serde_json::Map::new()),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    }
}

/// The member of the request with its name in the form of the catalogue.
fn member(cx: &Cx, member: &str, name: &str) -> Value {
    let mut value = cx.input[member].clone();
    value["Name"] = name.into();
    value
}

/// A page of entries by name: those below `parent`, or all of a kind.
fn page_query(parent: Option<String>, max_results: Option<i32>, next_token: Option<String>) -> ListQuery {
    ListQuery {
        below: parent,
        sort_by: SortBy::Name,
        limit: usize::try_from(max_results.unwrap_or(PAGE_ROWS)).unwrap_or(1).max(1),
        next_token,
        ..ListQuery::default()
    }
}

/// Removes all entries of a kind below a parent, with their events, in the transaction of the session.
fn remove_below(session: &Session<'_>, parent: &ResourceKey, kind: &str, now_ms: i64) -> store::Result<()> {
    let query = ListQuery {
        below: Some(parent.name.clone()),
        sort_by: SortBy::Name,
        limit: REMOVED_ROWS,
        ..ListQuery::default()
    };
    loop {
        let page = session.list_resources(&parent.account, &parent.region, kind, &query)?;
        for one in &page.resources {
            session.delete_resource(&one.key)?;
            session.append_event(&one.key, "Deleted", &Value::Null, now_ms)?;
        }
        if page.next_token.is_none() {
            return Ok(());
        }
    }
}

fn seconds(at_ms: i64) -> f64 {
    at_ms as f64 / 1000.0
}
