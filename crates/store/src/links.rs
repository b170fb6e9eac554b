//! Links between resources of one account and region, and lists that follow them.

use rusqlite::params;
use rusqlite::types::Value as SqlValue;

use crate::database::Session;
use crate::error::Result;
use crate::properties::{PropertyTest, SeriesTest};

/// A condition of a list that looks beyond the rows of the resources.
#[derive(Debug, Clone, PartialEq)]
pub enum Narrowing {
    /// This very name.
    Name(String),
    /// This very ARN.
    Arn(String),
    /// What belongs to another resource: its ARN goes on with a slash after that of the other one.
    ArnBelow(String),
    /// A tag with this value.
    Tag {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
    /// What a link of `relation` leads to from `source`.
    TargetsOf {
        /// The relation.
        relation: &'static str,
        /// Name where the links begin.
        source: String,
    },
    /// From where a link of `relation` leads to `target`.
    SourcesOf {
        /// The relation.
        relation: &'static str,
        /// Name where the links end.
        target: String,
    },
    /// What two links in a row lead to from `source`.
    TargetsOfTargets {
        /// The first relation.
        first: &'static str,
        /// The second.
        second: &'static str,
        /// Name where the first links begin.
        source: String,
    },
    /// The vertices of the lineage that stand for a URI.
    Uri(String),
    /// One of the properties that [`crate::properties`] knows.
    Property {
        /// Paths, any of which does.
        paths: Vec<String>,
        /// What its value is to be.
        test: PropertyTest,
    },
    /// A series of points, any of which does.
    Series(Vec<SeriesTest>),
}

impl Narrowing {
    /// The condition as SQL, with its values in the order of their marks; none for those that [`Narrowing::arns`] or [`Narrowing::range`] has.
    pub(crate) fn condition(&self, account: &str, region: &str) -> Option<(&'static str, Vec<SqlValue>)> {
        let text = |value: &str| SqlValue::from(value.to_owned());
        let (account, region) = (text(account), text(region));
        Some(match self {
            Narrowing::Name(name) => ("name = ?", vec![text(name)]),
            Narrowing::Arn(arn) => ("arn = ?", vec![text(arn)]),
            Narrowing::ArnBelow(_)
            | Narrowing::Tag { .. }
            | Narrowing::Property { .. }
            | Narrowing::Series(_) => return None,
            Narrowing::TargetsOf { relation, source } => (
                "name IN (SELECT target FROM resource_links
                          WHERE account = ? AND region = ? AND relation = ? AND source = ?)",
                vec![account, region, text(relation), text(source)],
            ),
            Narrowing::SourcesOf { relation, target } => (
                "name IN (SELECT source FROM resource_links
                          WHERE account = ? AND region = ? AND relation = ? AND target = ?)",
                vec![account, region, text(relation), text(target)],
            ),
            Narrowing::TargetsOfTargets { first, second, source } => (
                "name IN (SELECT later.target FROM resource_links earlier
                          JOIN resource_links later ON later.account = earlier.account AND later.region = earlier.region
                               AND later.relation = ? AND later.source = earlier.target
                          WHERE earlier.account = ? AND earlier.region = ? AND earlier.relation = ? AND earlier.source = ?)",
                vec![text(second), account, region, text(first), text(source)],
            ),
            Narrowing::Uri(uri) => (
                "arn IN (SELECT arn FROM lineage_uris WHERE account = ? AND region = ? AND uri = ?)",
                vec![account, region, text(uri)],
            ),
        })
    }

    /// The ARNs between which the rows lie.
    pub(crate) fn range(&self) -> Option<ColumnRange> {
        let Narrowing::ArnBelow(parent) = self else { return None };
        // The character after the slash ends the range.
        let (low, high) = (format!("{parent}/"), format!("{parent}0"));
        Some(ColumnRange { column: "arn", above: Some(low.into()), below: Some(high.into()) })
    }
}

/// Values of a column between two others, neither included.
pub(crate) struct ColumnRange {
    pub(crate) column: &'static str,
    pub(crate) above: Option<SqlValue>,
    pub(crate) below: Option<SqlValue>,
}

impl ColumnRange {
    /// The condition as SQL, about a column that no index leads to where `is_led` is false.
    pub(crate) fn condition(&self, is_led: bool) -> String {
        let column = format!("{}{}", if is_led { "" } else { "+" }, self.column);
        let above = self.above.as_ref().map(|_| format!(" AND {column} > ?"));
        let below = self.below.as_ref().map(|_| format!(" AND {column} < ?"));
        above.unwrap_or_default() + &below.unwrap_or_default()
    }

    /// The values, in the order of the condition's marks.
    pub(crate) fn values(&self) -> impl Iterator<Item = SqlValue> {
        self.above.iter().chain(&self.below).cloned()
    }
}

/// Where links are.
#[derive(Debug, Clone, Copy)]
pub struct LinkPlace<'a> {
    /// Twelve-digit account.
    pub account: &'a str,
    /// Region.
    pub region: &'a str,
    /// What the link means, and what kinds its ends are.
    pub relation: &'a str,
}

impl Session<'_> {
    /// Links two resources; whether they were not linked before.
    pub fn link(&self, place: LinkPlace<'_>, source: &str, target: &str, now_ms: i64) -> Result<bool> {
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO resource_links (account, region, relation, source, target, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            )?
            .execute(params![place.account, place.region, place.relation, source, target, now_ms])?;
        Ok(added > 0)
    }

    /// Takes a link away; whether there was one.
    pub fn unlink(&self, place: LinkPlace<'_>, source: &str, target: &str) -> Result<bool> {
        let removed = self
            .connection
            .prepare_cached(
                "DELETE FROM resource_links
                 WHERE account = ?1 AND region = ?2 AND relation = ?3 AND source = ?4 AND target = ?5",
            )?
            .execute(params![place.account, place.region, place.relation, source, target])?;
        Ok(removed > 0)
    }

    /// Takes all links to `target` away.
    pub fn unlink_target(&self, place: LinkPlace<'_>, target: &str) -> Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM resource_links WHERE account = ?1 AND region = ?2 AND relation = ?3 AND target = ?4",
            )?
            .execute(params![place.account, place.region, place.relation, target])?;
        Ok(())
    }

    /// The first names, at most `limit`, that links from `source` lead to.
    pub fn link_targets(&self, place: LinkPlace<'_>, source: &str, limit: usize) -> Result<Vec<String>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT target FROM resource_links
             WHERE account = ?1 AND region = ?2 AND relation = ?3 AND source = ?4 ORDER BY target LIMIT ?5",
        )?;
        let values = params![place.account, place.region, place.relation, source, limit as i64];
        let rows = statement.query_map(values, |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The first names, at most `limit`, from which links lead to `target`.
    pub fn link_sources(&self, place: LinkPlace<'_>, target: &str, limit: usize) -> Result<Vec<String>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT source FROM resource_links
             WHERE account = ?1 AND region = ?2 AND relation = ?3 AND target = ?4 ORDER BY source LIMIT ?5",
        )?;
        let values = params![place.account, place.region, place.relation, target, limit as i64];
        let rows = statement.query_map(values, |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
