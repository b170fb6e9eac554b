//! Events of all resources in the order in which they happened.

use rusqlite::params;

use crate::database::Session;
use crate::error::Result;
use crate::events::Event;

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
