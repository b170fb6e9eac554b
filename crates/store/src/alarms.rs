//! What happened to alarms, and when they were last looked at. Alarms themselves are resources.

use rusqlite::types::Value as SqlValue;
use rusqlite::{OptionalExtension, params, params_from_iter};

use crate::database::Session;
use crate::error::Result;

/// Something that happened to an alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryItem {
    /// Name of the alarm.
    pub alarm: String,
    /// What sort of alarm it is, in the words of the service.
    pub alarm_type: String,
    /// What happened, in the words of the service.
    pub kind: String,
    /// A sentence.
    pub summary: String,
    /// A document with the details.
    pub data: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// Where a page of the history ends: time and number of its last item.
pub type HistoryPosition = (i64, i64);

/// Which part of the history is wanted.
#[derive(Debug, Clone, Default)]
pub struct HistoryQuery {
    /// Only of this alarm.
    pub alarm: Option<String>,
    /// Only of these sorts of alarms; of all when there are none.
    pub alarm_types: Vec<String>,
    /// Only what happened so.
    pub kind: Option<String>,
    /// At this time or later, milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// At this time or earlier.
    pub to_ms: Option<i64>,
    /// Whether the newest comes first.
    pub descending: bool,
    /// Goes on after this item.
    pub after: Option<HistoryPosition>,
    /// Most items.
    pub limit: usize,
}

impl Session<'_> {
    /// Notes something that happened to an alarm.
    pub fn append_alarm_history(&self, account: &str, region: &str, item: &HistoryItem) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO alarm_history (account, region, alarm, alarm_type, kind, summary, data, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                account,
                region,
                item.alarm,
                item.alarm_type,
                item.kind,
                item.summary,
                item.data,
                item.at
            ])?;
        Ok(())
    }

    /// A page of what happened in an account and region.
    pub fn alarm_history(
        &self,
        account: &str,
        region: &str,
        query: &HistoryQuery,
    ) -> Result<Vec<(HistoryPosition, HistoryItem)>> {
        let (direction, beyond) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
        let mut sql = String::from(
            "SELECT sequence, alarm, alarm_type, kind, summary, data, at FROM alarm_history WHERE account = ? AND region = ?",
        );
        let mut values: Vec<SqlValue> = vec![account.to_owned().into(), region.to_owned().into()];
        for (condition, wanted) in [(" AND alarm = ?", &query.alarm), (" AND kind = ?", &query.kind)] {
            if let Some(wanted) = wanted {
                sql.push_str(condition);
                values.push(wanted.clone().into());
            }
        }
        if !query.alarm_types.is_empty() {
            let marks = vec!["?"; query.alarm_types.len()].join(", ");
            sql.push_str(&format!(" AND alarm_type IN ({marks})"));
            values.extend(query.alarm_types.iter().map(|kind| kind.clone().into()));
        }
        for (condition, bound) in [(" AND at >= ?", query.from_ms), (" AND at <= ?", query.to_ms)] {
            if let Some(bound) = bound {
                sql.push_str(condition);
                values.push(bound.into());
            }
        }
        if let Some((at, sequence)) = query.after {
            sql.push_str(&format!(" AND (at, sequence) {beyond} (?, ?)"));
            values.extend([at.into(), sequence.into()]);
        }
        sql.push_str(&format!(" ORDER BY at {direction}, sequence {direction} LIMIT ?"));
        values.push(i64::try_from(query.limit).unwrap_or(i64::MAX).into());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params_from_iter(values), |row| {
            let at = row.get(6)?;
            let item = HistoryItem {
                alarm: row.get(1)?,
                alarm_type: row.get(2)?,
                kind: row.get(3)?,
                summary: row.get(4)?,
                data: row.get(5)?,
                at,
            };
            Ok(((at, row.get(0)?), item))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Removes what happened before a time; returns how many items.
    pub fn delete_alarm_history(&self, before_ms: i64) -> Result<usize> {
        let mut statement = self.connection.prepare_cached("DELETE FROM alarm_history WHERE at < ?1")?;
        Ok(statement.execute(params![before_ms])?)
    }

    /// When alarms were last known to be looked at, milliseconds since 1970.
    pub fn alarms_alive_at(&self) -> Result<Option<i64>> {
        let mut statement =
            self.connection.prepare_cached("SELECT alive_at FROM alarm_watch WHERE id = 1")?;
        Ok(statement.query_row([], |row| row.get(0)).optional()?)
    }

    /// Notes that alarms are looked at.
    pub fn set_alarms_alive_at(&self, now_ms: i64) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO alarm_watch (id, alive_at) VALUES (1, ?1)
                 ON CONFLICT (id) DO UPDATE SET alive_at = excluded.alive_at",
            )?
            .execute(params![now_ms])?;
        Ok(())
    }
}
