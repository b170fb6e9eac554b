//! The rows of log groups and streams.

use rusqlite::{OptionalExtension, Row, params};

use super::names::after_prefix;
use super::{GroupKey, LogGroup, LogStream, StreamKey};
use crate::database::Session;
use crate::error::{Error, Result};

/// Which groups a list wants, in name order.
#[derive(Debug, Clone, Default)]
pub struct GroupList {
    /// Start of the name.
    pub prefix: Option<String>,
    /// Part of the name, case-sensitive.
    pub name_contains: Option<String>,
    /// Only names greater than this one.
    pub after: Option<String>,
    /// Most rows.
    pub limit: usize,
}

/// Which streams of a group a list wants, in name order.
#[derive(Debug, Clone, Default)]
pub struct StreamList {
    /// Start of the name.
    pub prefix: Option<String>,
    /// Only names beyond this one, in the direction of the list.
    pub after: Option<String>,
    /// Whether the greatest name comes first.
    pub descending: bool,
    /// Most rows.
    pub limit: usize,
}

pub(super) fn missing_group(key: &GroupKey) -> Error {
    Error::Missing { kind: super::GROUP_KIND.into(), name: key.group.clone() }
}

pub(super) fn missing_stream(key: &StreamKey) -> Error {
    Error::Missing { kind: super::STREAM_KIND.into(), name: key.stream.clone() }
}

impl Session<'_> {
    /// Adds a log group; false when there is one of this name.
    pub(super) fn insert_log_group(&self, key: &GroupKey, now_ms: i64) -> Result<bool> {
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO log_groups (account, region, name, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            )?
            .execute(params![key.account, key.region, key.group, now_ms])?;
        Ok(added > 0)
    }

    /// Reads a log group.
    pub(super) fn log_group(&self, key: &GroupKey) -> Result<LogGroup> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name, created_at, retention_days FROM log_groups WHERE account = ?1 AND region = ?2 AND name = ?3",
        )?;
        let found = statement.query_row(params![key.account, key.region, key.group], group_row).optional()?;
        found.ok_or_else(|| missing_group(key))
    }

    /// Makes sure that there is such a group.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn require_log_group(&self, key: &GroupKey) -> Result<()> {
        self.log_group(key).map(drop)
    }

    /// Removes a log group with its streams.
    pub(super) fn delete_log_group(&self, key: &GroupKey) -> Result<()> {
        let removed = self
            .connection
            .prepare_cached("DELETE FROM log_groups WHERE account = ?1 AND region = ?2 AND name = ?3")?
            .execute(params![key.account, key.region, key.group])?;
        if removed == 0 { Err(missing_group(key)) } else { Ok(()) }
    }

    /// Says how many days the events of a group are kept.
    pub(super) fn set_log_retention(&self, key: &GroupKey, days: Option<u32>) -> Result<()> {
        let changed = self
            .connection
            .prepare_cached(
                "UPDATE log_groups SET retention_days = ?4 WHERE account = ?1 AND region = ?2 AND name = ?3",
            )?
            .execute(params![key.account, key.region, key.group, days])?;
        if changed == 0 { Err(missing_group(key)) } else { Ok(()) }
    }

    /// Streams of all accounts whose events are kept for some days only, in the order of their names, each with these days.
    /// `default_days` holds for groups that have none of their own.
    pub(super) fn log_streams_with_retention(
        &self,
        after: &StreamKey,
        default_days: Option<u32>,
        limit: usize,
    ) -> Result<Vec<(StreamKey, LogStream, u32)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT s.name, s.created_at, s.disorder_ms, s.oldest_at, s.newest_at, s.account, s.region, s.group_name,
             coalesce(g.retention_days, ?5) FROM log_streams s JOIN log_groups g
             ON g.account = s.account AND g.region = s.region AND g.name = s.group_name
             WHERE (s.account, s.region, s.group_name, s.name) > (?1, ?2, ?3, ?4)
             AND coalesce(g.retention_days, ?5) IS NOT NULL
             ORDER BY s.account, s.region, s.group_name, s.name LIMIT ?6",
        )?;
        let group = &after.group;
        let values =
            params![group.account, group.region, group.group, after.stream, default_days, row_limit(limit)];
        let rows = statement.query_map(values, |row| {
            let stream = stream_row(row)?;
            let group = GroupKey { account: row.get(5)?, region: row.get(6)?, group: row.get(7)? };
            Ok((group.stream(stream.name.clone()), stream, row.get(8)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes that a stream holds nothing older than this; nothing at all, where no time is given.
    pub(super) fn set_log_stream_oldest(&self, key: &StreamKey, oldest_at: Option<i64>) -> Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE log_streams SET oldest_at = ?5
                 WHERE account = ?1 AND region = ?2 AND group_name = ?3 AND name = ?4",
            )?
            .execute(params![key.group.account, key.group.region, key.group.group, key.stream, oldest_at])?;
        Ok(())
    }

    /// Lists log groups.
    pub(super) fn log_groups(&self, account: &str, region: &str, list: &GroupList) -> Result<Vec<LogGroup>> {
        let prefix = list.prefix.as_deref().unwrap_or_default();
        let mut statement = self.connection.prepare_cached(
            "SELECT name, created_at, retention_days FROM log_groups WHERE account = ?1 AND region = ?2 AND name >= ?3
             AND (?4 IS NULL OR name < ?4) AND (?5 IS NULL OR name > ?5) AND (?6 IS NULL OR instr(name, ?6) > 0)
             ORDER BY name LIMIT ?7",
        )?;
        let rows = statement.query_map(
            params![
                account,
                region,
                prefix,
                after_prefix(prefix),
                list.after,
                list.name_contains,
                row_limit(list.limit),
            ],
            group_row,
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds a log stream; false when there is one of this name. The group must exist.
    pub(super) fn insert_log_stream(&self, key: &StreamKey, now_ms: i64) -> Result<bool> {
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO log_streams (account, region, group_name, name, created_at, disorder_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, 0) ON CONFLICT DO NOTHING",
            )?
            .execute(params![key.group.account, key.group.region, key.group.group, key.stream, now_ms])?;
        Ok(added > 0)
    }

    /// Reads a log stream; says which is missing, the group or the stream.
    pub(super) fn log_stream(&self, key: &StreamKey) -> Result<LogStream> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name, created_at, disorder_ms, oldest_at, newest_at FROM log_streams
             WHERE account = ?1 AND region = ?2 AND group_name = ?3 AND name = ?4",
        )?;
        let values = params![key.group.account, key.group.region, key.group.group, key.stream];
        match statement.query_row(values, stream_row).optional()? {
            Some(stream) => Ok(stream),
            None => self.log_group(&key.group).and(Err(missing_stream(key))),
        }
    }

    /// Removes a log stream.
    pub(super) fn delete_log_stream(&self, key: &StreamKey) -> Result<()> {
        self.log_stream(key)?;
        self.connection
            .prepare_cached(
                "DELETE FROM log_streams WHERE account = ?1 AND region = ?2 AND group_name = ?3 AND name = ?4",
            )?
            .execute(params![key.group.account, key.group.region, key.group.group, key.stream])?;
        Ok(())
    }

    /// Lists the streams of a group.
    pub(super) fn log_streams(&self, group: &GroupKey, list: &StreamList) -> Result<Vec<LogStream>> {
        self.log_group(group)?;
        let prefix = list.prefix.as_deref().unwrap_or_default();
        let (direction, beyond) = if list.descending { ("DESC", "<") } else { ("ASC", ">") };
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT name, created_at, disorder_ms, oldest_at, newest_at FROM log_streams
             WHERE account = ?1 AND region = ?2 AND group_name = ?3 AND name >= ?4
             AND (?5 IS NULL OR name < ?5) AND (?6 IS NULL OR name {beyond} ?6)
             ORDER BY name {direction} LIMIT ?7"
        ))?;
        let rows = statement.query_map(
            params![
                group.account,
                group.region,
                group.group,
                prefix,
                after_prefix(prefix),
                list.after,
                row_limit(list.limit),
            ],
            stream_row,
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Widens what is known of the disorder of a stream.
    pub(super) fn widen_log_stream_disorder(
        &self,
        key: &StreamKey,
        disorder_ms: i64,
        oldest_at: i64,
        newest_at: i64,
    ) -> Result<()> {
        let stream = self.log_stream(key)?;
        self.connection
            .prepare_cached(
                "UPDATE log_streams SET disorder_ms = ?5, oldest_at = ?6, newest_at = ?7
             WHERE account = ?1 AND region = ?2 AND group_name = ?3 AND name = ?4",
            )?
            .execute(params![
                key.group.account,
                key.group.region,
                key.group.group,
                key.stream,
                stream.disorder_ms.max(disorder_ms),
                stream.oldest_at.map_or(oldest_at, |known| known.min(oldest_at)),
                stream.newest_at.map_or(newest_at, |known| known.max(newest_at)),
            ])?;
        Ok(())
    }
}

fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn group_row(row: &Row<'_>) -> rusqlite::Result<LogGroup> {
    Ok(LogGroup { name: row.get(0)?, created_at: row.get(1)?, retention_days: row.get(2)?, stored_bytes: 0 })
}

fn stream_row(row: &Row<'_>) -> rusqlite::Result<LogStream> {
    Ok(LogStream {
        name: row.get(0)?,
        created_at: row.get(1)?,
        disorder_ms: row.get(2)?,
        oldest_at: row.get(3)?,
        newest_at: row.get(4)?,
        extent: None,
    })
}
