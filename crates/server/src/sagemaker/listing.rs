//! What all List operations share: filters, sort order, pages.

use api::Timestamp;
use store::resources::{ListQuery, Page, SortBy};

use crate::{Cx, Error, Result};

/// Rows on a page when the caller names no number, as in the service.
const DEFAULT_ROWS: i32 = 10;

/// The filters that List operations have in common.
#[derive(Default)]
pub struct Filters {
    /// `NameContains`.
    pub name_contains: Option<String>,
    /// `StatusEquals`.
    pub status: Option<String>,
    /// `WarmPoolStatusEquals`.
    pub warm_pool_status: Option<String>,
    /// `CreationTimeAfter`.
    pub created_after: Option<Timestamp>,
    /// `CreationTimeBefore`.
    pub created_before: Option<Timestamp>,
    /// `LastModifiedTimeAfter`.
    pub modified_after: Option<Timestamp>,
    /// `LastModifiedTimeBefore`.
    pub modified_before: Option<Timestamp>,
    /// `SortBy`, in the operation's own words.
    pub sort_by: Option<String>,
    /// `SortOrder`, in the operation's own words.
    pub sort_order: Option<String>,
    /// `MaxResults`.
    pub max_results: Option<i32>,
    /// `NextToken`.
    pub next_token: Option<String>,
}

/// Runs a List operation. Without `SortOrder` the order is `default_order`, which differs between operations.
///
/// # Errors
/// [`Error::Validation`] for a token that belongs to another query.
pub async fn page(cx: &Cx, kind: &'static str, filters: Filters, default_order: &str) -> Result<Page> {
    let sort_by = match filters.sort_by.as_deref() {
        Some("Name") => SortBy::Name,
        Some("Status") => SortBy::Status,
        Some("LastModifiedTime") => SortBy::ModifiedAt,
        Some("CreationTime") | None => SortBy::CreatedAt,
        Some(other) => return Err(Error::field(&format!("SortBy {other}"))),
    };
    let query = ListQuery {
        name_contains: filters.name_contains,
        name_prefix: None,
        status: filters.status,
        warm_pool_status: filters.warm_pool_status,
        narrowed: Vec::new(),
        members: None,
        created_after: filters.created_after.map(|at| at.as_millis()),
        created_before: filters.created_before.map(|at| at.as_millis()),
        modified_after: filters.modified_after.map(|at| at.as_millis()),
        modified_before: filters.modified_before.map(|at| at.as_millis()),
        sort_by,
        descending: filters.sort_order.as_deref().unwrap_or(default_order) == "Descending",
        limit: filters.max_results.unwrap_or(DEFAULT_ROWS).max(1) as usize,
        next_token: filters.next_token,
        ..Default::default()
    };
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    Ok(cx.state.database.read(move |session| session.list_resources(&account, &region, kind, &query)).await?)
}
