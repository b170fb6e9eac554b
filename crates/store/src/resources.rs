//! Resources: one record shape for everything that has a name, a spec and a status.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::types::Value as SqlValue;
use rusqlite::{OptionalExtension, Row, params, params_from_iter};
use serde_json::Value;

use crate::database::Session;
use crate::error::{Error, Result};
use crate::links::{ColumnRange, Narrowing};
use crate::partial::{self, Members};
use crate::properties::{self, FEW};

/// What names a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// Twelve-digit account.
    pub account: String,
    /// Region, for example `us-east-1`.
    pub region: String,
    /// Kind, for example `training-job`.
    pub kind: String,
    /// Name, unique within account, region and kind.
    pub name: String,
}

impl ResourceKey {
    /// A key from its four parts.
    pub fn new(
        account: impl Into<String>,
        region: impl Into<String>,
        kind: impl Into<String>,
        name: impl Into<String>,
    ) -> ResourceKey {
        ResourceKey { account: account.into(), region: region.into(), kind: kind.into(), name: name.into() }
    }
}

/// A stored resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its name.
    pub key: ResourceKey,
    /// Its ARN.
    pub arn: String,
    /// Its status, in the words of the service.
    pub status: String,
    /// The request that made or last replaced it, as received.
    pub spec: Value,
    /// What happened since: transitions, results, times.
    pub document: Value,
    /// Counts the changes.
    pub generation: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub modified_at: i64,
}

/// Column that a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortBy {
    /// By name.
    Name,
    /// By creation time.
    #[default]
    CreatedAt,
    /// By time of the last change.
    ModifiedAt,
    /// By status.
    Status,
}

/// What a list asks for; all given conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Substring of the name, case-insensitive for ASCII letters.
    pub name_contains: Option<String>,
    /// Beginning of the name, exact.
    pub name_prefix: Option<String>,
    /// Exact status.
    pub status: Option<String>,
    /// Exact status of its warm pool.
    pub warm_pool_status: Option<String>,
    /// Only what belongs to this one: names that begin with it and a slash.
    pub below: Option<String>,
    /// Only what belongs to another one, which has a slash in its name, or only what does not.
    pub belongs: Option<bool>,
    /// Conditions that look beyond the rows.
    pub narrowed: Vec<Narrowing>,
    /// What of spec and document is read; all unless given.
    pub members: Option<Members>,
    /// Created strictly after, milliseconds since 1970.
    pub created_after: Option<i64>,
    /// Created strictly before.
    pub created_before: Option<i64>,
    /// Changed strictly after.
    pub modified_after: Option<i64>,
    /// Changed strictly before.
    pub modified_before: Option<i64>,
    /// Sort column; the name breaks ties.
    pub sort_by: SortBy,
    /// Whether the greatest comes first.
    pub descending: bool,
    /// Most rows on a page.
    pub limit: usize,
    /// Token of the page before.
    pub next_token: Option<String>,
}

impl ListQuery {
    /// The token of the page that begins after `last` in the order of this query.
    pub fn token_after(&self, last: &Resource) -> String {
        encode_token(last, self.sort_by, self.column(), self.descending)
    }

    fn column(&self) -> &'static str {
        match self.sort_by {
            SortBy::Name => "name",
            SortBy::CreatedAt => "created_at",
            SortBy::ModifiedAt => "modified_at",
            SortBy::Status => "status",
        }
    }

    /// The ranges that rows must lie in.
    fn ranges(&self) -> Vec<ColumnRange> {
        let time = |column, above: Option<i64>, below: Option<i64>| {
            let is_given = above.is_some() || below.is_some();
            is_given.then(|| ColumnRange {
                column,
                above: above.map(Into::into),
                below: below.map(Into::into),
            })
        };
        let times = [
            time("created_at", self.created_after, self.created_before),
            time("modified_at", self.modified_after, self.modified_before),
        ];
        times.into_iter().flatten().chain(self.narrowed.iter().filter_map(Narrowing::range)).collect()
    }
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its rows.
    pub resources: Vec<Resource>,
    /// Token of the next page, when there is one.
    pub next_token: Option<String>,
}

const COLUMNS: &str =
    "account, region, kind, name, arn, status, spec, document, generation, created_at, modified_at";

impl Session<'_> {
    /// Adds a resource; its generation starts at 1.
    ///
    /// # Errors
    /// [`Error::Exists`] when the name is taken.
    pub fn insert_resource(&self, resource: &Resource) -> Result<()> {
        let key = &resource.key;
        let added = self.connection.prepare_cached(
            "INSERT INTO resources (account, region, kind, name, arn, status, spec, document, generation, created_at, modified_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9, ?9) ON CONFLICT DO NOTHING",
        )?.execute(params![
            key.account, key.region, key.kind, key.name, resource.arn, resource.status,
            resource.spec.to_string(), resource.document.to_string(), resource.created_at,
        ])?;
        if added == 0 {
            return Err(Error::Exists { kind: key.kind.clone(), name: key.name.clone() });
        }
        self.index_properties(&resource.arn, &[], &properties::of(resource))
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none.
    pub fn resource(&self, key: &ResourceKey) -> Result<Resource> {
        self.find_resource(key)?
            .ok_or_else(|| Error::Missing { kind: key.kind.clone(), name: key.name.clone() })
    }

    /// Reads a resource that may be missing.
    pub fn find_resource(&self, key: &ResourceKey) -> Result<Option<Resource>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM resources WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4"
        );
        self.connection
            .prepare_cached(&sql)?
            .query_row(params![key.account, key.region, key.kind, key.name], |row| Ok(resource_row(row)))
            .optional()?
            .transpose()
    }

    /// Reads the resource with this ARN, whatever its account.
    pub fn find_resource_by_arn(&self, arn: &str) -> Result<Option<Resource>> {
        let sql = format!("SELECT {COLUMNS} FROM resources WHERE arn = ?1");
        self.connection
            .prepare_cached(&sql)?
            .query_row(params![arn], |row| Ok(resource_row(row)))
            .optional()?
            .transpose()
    }

    /// Whether there is a resource with this ARN.
    pub fn has_resource(&self, arn: &str) -> Result<bool> {
        Ok(self.connection.prepare_cached("SELECT 1 FROM resources WHERE arn = ?1")?.exists(params![arn])?)
    }

    /// Every resource of a kind, in all accounts and regions: what a server takes up when it starts.
    pub fn all_resources(&self, kind: &str) -> Result<Vec<Resource>> {
        let sql = format!("SELECT {COLUMNS} FROM resources WHERE kind = ?1 ORDER BY account, region, name");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut resources = Vec::new();
        for row in statement.query_map(params![kind], |row| Ok(resource_row(row)))? {
            resources.push(row??);
        }
        Ok(resources)
    }

    /// Changes a resource: `change` sees the stored record and edits status, spec or document; generation and
    /// modification time follow.
    ///
    /// # Errors
    /// [`Error::Missing`], or what `change` returns.
    pub fn update_resource(
        &self,
        key: &ResourceKey,
        now_ms: i64,
        change: impl FnOnce(&mut Resource) -> Result<()>,
    ) -> Result<Resource> {
        let mut resource = self.resource(key)?;
        let before = properties::of(&resource);
        change(&mut resource)?;
        self.index_properties(&resource.arn, &before, &properties::of(&resource))?;
        resource.generation += 1;
        resource.modified_at = now_ms;
        self.connection.prepare_cached(
            "UPDATE resources SET status = ?5, spec = ?6, document = ?7, generation = ?8, modified_at = ?9
             WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4",
        )?.execute(params![
            key.account, key.region, key.kind, key.name, resource.status, resource.spec.to_string(),
            resource.document.to_string(), resource.generation, resource.modified_at,
        ])?;
        Ok(resource)
    }

    /// Removes a resource with its tags; its events stay.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none.
    pub fn delete_resource(&self, key: &ResourceKey) -> Result<Resource> {
        let resource = self.resource(key)?;
        self.connection
            .prepare_cached(
                "DELETE FROM resources WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4",
            )?
            .execute(params![key.account, key.region, key.kind, key.name])?;
        self.delete_all_tags(&resource.arn)?;
        self.forget_properties(&resource)?;
        Ok(resource)
    }

    /// Lists the resources of one kind in one account and region.
    ///
    /// # Errors
    /// [`Error::BadToken`] for a token that does not belong to this query.
    pub fn list_resources(&self, account: &str, region: &str, kind: &str, query: &ListQuery) -> Result<Page> {
        let column = query.column();
        let (direction, beyond) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
        let mut led = Vec::new();
        for arns in query.narrowed.iter().filter_map(Narrowing::arns) {
            led.push((self.are_few(&arns)?, arns));
        }
        // What is concatenated is in no index: few ARNs are looked up one by one, and many rows are read in the order of the list.
        let is_led = led.iter().any(|(are_few, _)| *are_few);
        let own = if is_led { " || ''" } else { "" };
        let mut sql = format!(
            "SELECT {COLUMNS} FROM resources WHERE account{own} = ? AND region{own} = ? AND kind{own} = ?"
        );
        let mut values: Vec<SqlValue> =
            vec![account.to_owned().into(), region.to_owned().into(), kind.to_owned().into()];
        if let Some(text) = &query.name_contains {
            // What belongs to another one is told apart by what follows the slash.
            let start = query.below.as_ref().map_or(1, |parent| parent.chars().count() + 2);
            sql.push_str(&format!(" AND lower(substr(name, {start})) LIKE ? ESCAPE '\\'"));
            values.push(format!("%{}%", escape_like(&text.to_lowercase())).into());
        }
        if let Some(parent) = &query.below {
            // The character after the slash ends the range.
            sql.push_str(" AND name > ? AND name < ?");
            values.push(format!("{parent}/").into());
            values.push(format!("{parent}0").into());
        }
        if let Some(belongs) = query.belongs {
            sql.push_str(if belongs { " AND name LIKE '%/%'" } else { " AND name NOT LIKE '%/%'" });
        }
        if let Some(prefix) = &query.name_prefix {
            sql.push_str(" AND substr(name, 1, length(?)) = ?");
            values.extend([prefix.clone().into(), prefix.clone().into()]);
        }
        if let Some(status) = &query.status {
            sql.push_str(" AND status = ?");
            values.push(status.clone().into());
        }
        if let Some(status) = &query.warm_pool_status {
            sql.push_str(
                " AND name IN (SELECT name FROM warm_pools WHERE account = ? AND region = ? AND kind = ? AND status = ?)",
            );
            for value in [account, region, kind, status.as_str()] {
                values.push(value.to_owned().into());
            }
        }
        for (are_few, arns) in led {
            let column = if are_few { "arn" } else { "arn || ''" };
            sql.push_str(&format!(" AND {column} IN ({})", arns.query));
            values.extend(arns.values);
        }
        for (condition, wanted) in query.narrowed.iter().filter_map(|one| one.condition(account, region)) {
            sql.push_str(" AND ");
            sql.push_str(condition);
            values.extend(wanted);
        }
        for range in query.ranges() {
            // The indexes of these orders hold what ranges are about.
            let is_covered = matches!(query.sort_by, SortBy::CreatedAt | SortBy::ModifiedAt);
            let is_led =
                range.column == column || !is_covered || self.is_short(account, region, kind, &range)?;
            sql.push_str(&range.condition(is_led));
            values.extend(range.values());
        }
        if let Some(token) = &query.next_token {
            let (position, name) = decode_token(token, column, query.descending)?;
            sql.push_str(&format!(" AND ({column}, name) {beyond} (?, ?)"));
            values.push(position);
            values.push(name.into());
        }
        sql.push_str(&format!(" ORDER BY {column} {direction}, name {direction} LIMIT ?"));
        values.push(i64::try_from(query.limit.saturating_add(1)).unwrap_or(i64::MAX).into());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut resources: Vec<Resource> = Vec::new();
        let members = query.members.as_ref();
        for row in statement.query_map(params_from_iter(values), |row| Ok(partial_row(row, members)))? {
            resources.push(row??);
        }
        let more = resources.len() > query.limit;
        resources.truncate(query.limit);
        let next_token = match resources.last() {
            Some(last) if more => Some(query.token_after(last)),
            _ => None,
        };
        Ok(Page { resources, next_token })
    }

    /// Whether a list should begin with a range, because so few rows lie in it.
    fn is_short(&self, account: &str, region: &str, kind: &str, range: &ColumnRange) -> Result<bool> {
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM resources WHERE account = ? AND region = ? AND kind = ?{} LIMIT {})",
            range.condition(true),
            FEW + 1,
        );
        let place = [account, region, kind].map(|text| SqlValue::from(text.to_owned()));
        let values = params_from_iter(place.into_iter().chain(range.values()));
        let count: i64 = self.connection.prepare_cached(&sql)?.query_row(values, |row| row.get(0))?;
        Ok(count <= FEW)
    }
}

fn resource_row(row: &Row<'_>) -> Result<Resource> {
    partial_row(row, None)
}

fn partial_row(row: &Row<'_>, members: Option<&Members>) -> Result<Resource> {
    let text = |column: usize| Ok::<_, Error>(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?);
    Ok(Resource {
        key: ResourceKey { account: row.get(0)?, region: row.get(1)?, kind: row.get(2)?, name: row.get(3)? },
        arn: row.get(4)?,
        status: row.get(5)?,
        spec: partial::parse(text(6)?, members.map(|members| &*members.spec))?,
        document: partial::parse(text(7)?, members.and_then(|members| members.document.as_deref()))?,
        generation: row.get(8)?,
        created_at: row.get(9)?,
        modified_at: row.get(10)?,
    })
}

fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// A token holds the sort order and the position of the last row, so that it cannot be used with another order.
fn encode_token(last: &Resource, sort_by: SortBy, column: &str, descending: bool) -> String {
    let position = match sort_by {
        SortBy::Name => Value::from(last.key.name.as_str()),
        SortBy::CreatedAt => Value::from(last.created_at),
        SortBy::ModifiedAt => Value::from(last.modified_at),
        SortBy::Status => Value::from(last.status.as_str()),
    };
    let token = serde_json::json!([column, descending, position, last.key.name]);
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn decode_token(token: &str, column: &str, descending: bool) -> Result<(SqlValue, String)> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::BadToken)?;
    let (token_column, token_descending, position, name): (String, bool, Value, String) =
        serde_json::from_slice(&bytes).map_err(|_| Error::BadToken)?;
    if token_column != column || token_descending != descending {
        return Err(Error::BadToken);
    }
    let position = match (column, position) {
        ("created_at" | "modified_at", Value::Number(number)) => number.as_i64().map(SqlValue::from),
        ("name" | "status", Value::String(text)) => Some(SqlValue::from(text)),
        _ => None,
    };
    Ok((position.ok_or(Error::BadToken)?, name))
}
