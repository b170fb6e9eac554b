//! Events of all resources in the order in which they happened.

use rusqlite::{OptionalExtension, params};

use crate::database::Session;
use crate::error::Result;
use crate::events::Event;
use crate::resources::ResourceKey;

impl Session<'_> {
    /// Events of an account and region with `what`, after the position `after`, oldest first.
    pub fn events_after(
        &self,
        account: &str,
        region: &str,
        what: &[&str],
        after: i64,
        limit: usize,
    ) -> Result<Vec<Event>> {
        let marks = vec!["?"; what.len()].join(", ");
        let sql = format!(
            "SELECT sequence, what, detail, at FROM events
             WHERE sequence > ? AND account = ? AND region = ? AND what IN ({marks}) ORDER BY sequence LIMIT ?"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut values: Vec<rusqlite::types::Value> =
            vec![after.into(), account.to_owned().into(), region.to_owned().into()];
        values.extend(what.iter().map(|what| (*what).to_owned().into()));
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get(3)?))
        })?;
        let mut events = Vec::new();
        for row in rows {
            let (sequence, what, detail, at) = row?;
            events.push(Event { sequence, what, detail: serde_json::from_str(&detail)?, at });
        }
        Ok(events)
    }

    /// Events of all accounts with `what`, after the position `after`, oldest first, with the resources that they are about.
    pub fn all_events_after(
        &self,
        what: &[&str],
        after: i64,
        limit: usize,
    ) -> Result<Vec<(ResourceKey, Event)>> {
        let marks = vec!["?"; what.len()].join(", ");
        let sql = format!(
            "SELECT sequence, what, detail, at, account, region, kind, name FROM events
             WHERE sequence > ? AND what IN ({marks}) ORDER BY sequence LIMIT ?"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut values: Vec<rusqlite::types::Value> = vec![after.into()];
        values.extend(what.iter().map(|what| (*what).to_owned().into()));
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            let key = ResourceKey {
                account: row.get(4)?,
                region: row.get(5)?,
                kind: row.get(6)?,
                name: row.get(7)?,
            };
            let detail = serde_json::from_str(&row.get::<_, String>(2)?)?;
            events.push((key, Event { sequence: row.get(0)?, what: row.get(1)?, detail, at: row.get(3)? }));
        }
        Ok(events)
    }

    /// How far a reader of the event log has come; `None` for one that has not begun.
    pub fn event_cursor(&self, name: &str) -> Result<Option<i64>> {
        let mut statement =
            self.connection.prepare_cached("SELECT position FROM event_cursors WHERE name = ?1")?;
        Ok(statement.query_row(params![name], |row| row.get(0)).optional()?)
    }

    /// Notes how far a reader of the event log has come, in the transaction of what it made of the events.
    pub fn set_event_cursor(&self, name: &str, position: i64) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO event_cursors (name, position) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET position = excluded.position",
            )?
            .execute(params![name, position])?;
        Ok(())
    }

    /// Position of the newest event; 0 when there is none.
    pub fn last_event(&self) -> Result<i64> {
        Ok(self
            .connection
            .query_row("SELECT coalesce(max(sequence), 0) FROM events", params![], |row| row.get(0))?)
    }

    /// How many resources of each kind and status there are.
    pub fn count_resources(&self) -> Result<Vec<(String, String, i64)>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT kind, status, count(*) FROM resources GROUP BY kind, status")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many objects there are in all buckets, and their bytes.
    pub fn count_objects(&self) -> Result<(i64, i64)> {
        let sql = "SELECT count(*), coalesce(sum(size), 0) FROM objects";
        Ok(self.connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }
}
