//! Search over every kind that is in the table [`kinds::SEARCHABLE`], and suggestions for it.
//!
//! What the database can answer is asked of it: names, tags, parents, times, the order of the columns. Rows are then read in that
//! order, only until the page is full, and judged by the whole expression.

mod expression;
mod kinds;
mod suggestions;

use api::sagemaker::SERVICE;
use serde_json::{Map, Value, json};
use store::resources::{ListQuery, Resource, SortBy};
use store::{Members, Session};

use self::expression::Expression;
use self::kinds::Searchable;
use super::{entities, fields};
use crate::training::warm_pool;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "Search", search);
    suggestions::routes(registry);
}

const HONOURED: &[&str] = &[
    "Resource",
    "SearchExpression.**",
    "SortBy",
    "SortOrder",
    "NextToken",
    "MaxResults",
    "CrossAccountFilterOption",
];

/// Rows on a page when the caller names no number, as in the service.
const DEFAULT_ROWS: u64 = 100;

/// Rows that are read from the database at a time.
const BATCH: usize = 500;

/// What a search does: the same for all of its pages.
struct Plan {
    kind: &'static Searchable,
    expression: Expression,
    /// Properties that are needed beside those of the record.
    extras: Vec<usize>,
    /// A property to sort by that is no column.
    sort_by: Option<String>,
    descending: bool,
    rows: usize,
    now_ms: i64,
}

async fn search(cx: Cx) -> Result<Value> {
    fields::check(&cx.input, HONOURED)?;
    let input = &cx.input;
    if entities::text(input, "CrossAccountFilterOption") == Some("CrossAccount") {
        return Err(Error::field("CrossAccountFilterOption CrossAccount"));
    }
    let kind = kinds::find(entities::required(input, "Resource"))?;
    warm_pool::expire(&cx.state).await?;
    let expression = Expression::parse(&input["SearchExpression"])?;
    let sort_by = entities::text(input, "SortBy").unwrap_or("LastModifiedTime");
    let descending = entities::text(input, "SortOrder") != Some("Ascending");
    let column = match sort_by {
        "CreationTime" => Some(SortBy::CreatedAt),
        "LastModifiedTime" => Some(SortBy::ModifiedAt),
        name if name == kind.name => Some(SortBy::Name),
        _ => None,
    };
    let mut used = vec![expression::top(sort_by).to_owned()];
    expression.properties(&mut used);
    let is_used = |(_, (name, _)): &(usize, &(&str, kinds::Extra))| used.iter().any(|used| used == name);
    let extras = kind.extras.iter().enumerate().filter(is_used).map(|(at, _)| at).collect();
    let plan = Plan {
        kind,
        extras,
        sort_by: column.is_none().then(|| sort_by.to_owned()),
        descending,
        rows: input["MaxResults"].as_u64().unwrap_or(DEFAULT_ROWS).max(1) as usize,
        expression,
        now_ms: cx.state.clock.now_ms(),
    };
    let mut query = ListQuery {
        sort_by: column.unwrap_or(SortBy::CreatedAt),
        descending,
        limit: BATCH,
        ..Default::default()
    };
    plan.expression.narrow(kind, &mut query);
    // Rows are judged by what they are asked for, and read whole when they are shown.
    query.members = kind
        .needs_document
        .map(|needs_document| Members { document: (!needs_document(&used)).then(Vec::new), spec: used });
    let token = entities::text(input, "NextToken").map(str::to_owned);
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let found = cx.state.database.read(move |session| {
        let (rows, next_token) = match column {
            Some(_) => plan.in_order(session, &account, &region, query, token)?,
            None => plan.sorted(session, &account, &region, query, token.as_deref())?,
        };
        let mut shown = Vec::with_capacity(rows.len());
        for row in rows {
            let whole = match row {
                Found::Whole(resource) => Some(resource),
                // One that was deleted meanwhile is left out.
                Found::Judged(resource) => session.find_resource(&resource.key)?,
            };
            if let Some(whole) = whole {
                shown.push(plan.shown(session, &whole)?);
            }
        }
        Ok((shown, next_token))
    });
    let (results, next_token) = found.await?;
    Ok(json!({"Results": results, "NextToken": next_token}))
}

/// A row that matches, and how much of it was read.
enum Found {
    Whole(Resource),
    Judged(Resource),
}

impl Found {
    fn resource(&self) -> &Resource {
        match self {
            Found::Whole(resource) | Found::Judged(resource) => resource,
        }
    }
}

impl Plan {
    /// A resource with the properties that the expression looks at.
    fn judged(&self, session: &Session<'_>, resource: &Resource) -> store::Result<Value> {
        self.described(session, resource, &self.extras)
    }

    /// A resource with all of its properties, as a result.
    fn shown(&self, session: &Session<'_>, resource: &Resource) -> store::Result<Value> {
        let all: Vec<usize> = (0..self.kind.extras.len()).collect();
        Ok(json!({self.kind.member: self.described(session, resource, &all)?}))
    }

    fn described(
        &self,
        session: &Session<'_>,
        resource: &Resource,
        extras: &[usize],
    ) -> store::Result<Value> {
        let mut shown: Map<String, Value> = (self.kind.describe)(resource)?;
        for (name, extra) in extras.iter().map(|at| &self.kind.extras[*at]) {
            let value = extra(session, resource, self.now_ms)?;
            if !value.is_null() {
                shown.insert((*name).to_owned(), value);
            }
        }
        Ok(Value::Object(shown))
    }

    /// A page in the order of a column: reading ends when it is full and one more row is known.
    fn in_order(
        &self,
        session: &Session<'_>,
        account: &str,
        region: &str,
        mut query: ListQuery,
        token: Option<String>,
    ) -> store::Result<(Vec<Found>, Option<String>)> {
        let mut taken: Vec<Found> = Vec::new();
        query.next_token = token;
        // A first look that may be all there is to read, at rows that are shown if they match; further ones are larger.
        query.limit = self.rows.saturating_add(1).min(BATCH);
        let mut members = query.members.take();
        loop {
            let page = session.list_resources(account, region, self.kind.kind, &query)?;
            for resource in page.resources {
                if !self.expression.holds(&self.judged(session, &resource)?) {
                    continue;
                }
                if taken.len() == self.rows {
                    let token = taken.last().map(|last| query.token_after(last.resource()));
                    return Ok((taken, token));
                }
                let is_whole = query.members.is_none();
                taken.push(if is_whole { Found::Whole(resource) } else { Found::Judged(resource) });
            }
            match page.next_token {
                Some(token) => (query.next_token, query.limit) = (Some(token), BATCH),
                None => return Ok((taken, None)),
            }
            query.members = members.take().or(query.members);
        }
    }

    /// A page in the order of any property: all rows that match are sorted.
    fn sorted(
        &self,
        session: &Session<'_>,
        account: &str,
        region: &str,
        mut query: ListQuery,
        token: Option<&str>,
    ) -> store::Result<(Vec<Found>, Option<String>)> {
        let start: usize = match token {
            None => 0,
            Some(token) => {
                token.strip_prefix("row/").and_then(|row| row.parse().ok()).ok_or(store::Error::BadToken)?
            }
        };
        let property = self.sort_by.as_deref().unwrap_or_default();
        let mut matching = Vec::new();
        loop {
            let page = session.list_resources(account, region, self.kind.kind, &query)?;
            for resource in page.resources {
                let judged = self.judged(session, &resource)?;
                if self.expression.holds(&judged) {
                    matching.push((expression::sort_key(&judged, property), resource));
                }
            }
            query.next_token = page.next_token;
            if query.next_token.is_none() {
                break;
            }
        }
        matching.sort_by(|(left, one), (right, other)| left.cmp(right).then(one.key.cmp(&other.key)));
        if self.descending {
            matching.reverse();
        }
        let end = start.saturating_add(self.rows);
        let is_whole = query.members.is_none();
        let found = |row| if is_whole { Found::Whole(row) } else { Found::Judged(row) };
        let next_token = (end < matching.len()).then(|| format!("row/{end}"));
        Ok((
            matching.into_iter().skip(start).take(self.rows).map(|(_, row)| found(row)).collect(),
            next_token,
        ))
    }
}
