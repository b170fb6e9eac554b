//! The event log: every change of a resource, in order.

use rusqlite::params;
use serde_json::Value;

use crate::database::Session;
use crate::error::Result;
use crate::resources::ResourceKey;

/// One change of a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Position in the log; grows.
    pub sequence: i64,
    /// What happened, for example `Created` or `Training`.
    pub what: String,
    /// Details.
    pub detail: Value,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Session<'_> {
    /// Appends an event.
    pub fn append_event(&self, key: &ResourceKey, what: &str, detail: &Value, at: i64) -> Result<()> {
        self.connection.prepare_cached(
            "INSERT INTO events (account, region, kind, name, what, detail, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?.execute(params![key.account, key.region, key.kind, key.name, what, detail.to_string(), at])?;
        self.changed.borrow_mut().push(key.clone());
        Ok(())
    }

    /// All events of one resource, oldest first.
    pub fn events(&self, key: &ResourceKey) -> Result<Vec<Event>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence, what, detail, at FROM events
             WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4 ORDER BY sequence",
        )?;
        let rows = statement.query_map(params![key.account, key.region, key.kind, key.name], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get(3)?))
        })?;
        let mut events = Vec::new();
        for row in rows {
            let (sequence, what, detail, at) = row?;
            events.push(Event { sequence, what, detail: serde_json::from_str(&detail)?, at });
        }
        Ok(events)
    }
}
