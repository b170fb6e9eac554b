//! Resources: one record shape for everything that has a name, a spec and a status.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::types::Value as SqlValue;
use rusqlite::{OptionalExtension, Row, params, params_from_iter};
use serde_json::Value;

use crate::database::Session;
use crate::error::{Error, Result};

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
    /// Exact status.
    pub status: Option<String>,
    /// Exact status of its warm pool.
    pub warm_pool_status: Option<String>,
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
        Ok(())
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
        change(&mut resource)?;
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
        self.connection.prepare_cached("DELETE FROM tags WHERE arn = ?1")?.execute(params![resource.arn])?;
        Ok(resource)
    }

    /// Lists the resources of one kind in one account and region.
    ///
    /// # Errors
    /// [`Error::BadToken`] for a token that does not belong to this query.
    pub fn list_resources(&self, account: &str, region: &str, kind: &str, query: &ListQuery) -> Result<Page> {
        let column = match query.sort_by {
            SortBy::Name => "name",
            SortBy::CreatedAt => "created_at",
            SortBy::ModifiedAt => "modified_at",
            SortBy::Status => "status",
        };
        let (direction, beyond) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
        let mut sql =
            format!("SELECT {COLUMNS} FROM resources WHERE account = ? AND region = ? AND kind = ?");
        let mut values: Vec<SqlValue> =
            vec![account.to_owned().into(), region.to_owned().into(), kind.to_owned().into()];
        if let Some(text) = &query.name_contains {
            sql.push_str(" AND lower(name) LIKE ? ESCAPE '\\'");
            values.push(format!("%{}%", escape_like(&text.to_lowercase())).into());
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
        for (condition, bound) in [
            ("created_at > ?", query.created_after),
            ("created_at < ?", query.created_before),
            ("modified_at > ?", query.modified_after),
            ("modified_at < ?", query.modified_before),
        ] {
            if let Some(bound) = bound {
                sql.push_str(" AND ");
                sql.push_str(condition);
                values.push(bound.into());
            }
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
        for row in statement.query_map(params_from_iter(values), |row| Ok(resource_row(row)))? {
            resources.push(row??);
        }
        let more = resources.len() > query.limit;
        resources.truncate(query.limit);
        let next_token = match resources.last() {
            Some(last) if more => Some(encode_token(last, query.sort_by, column, query.descending)),
            _ => None,
        };
        Ok(Page { resources, next_token })
    }
}

fn resource_row(row: &Row<'_>) -> Result<Resource> {
    Ok(Resource {
        key: ResourceKey { account: row.get(0)?, region: row.get(1)?, kind: row.get(2)?, name: row.get(3)? },
        arn: row.get(4)?,
        status: row.get(5)?,
        spec: serde_json::from_str(&row.get::<_, String>(6)?)?,
        document: serde_json::from_str(&row.get::<_, String>(7)?)?,
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
