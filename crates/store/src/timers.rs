//! Timers of resources: when each fires next. Whoever fires one moves it on in the same transaction.

use rusqlite::{OptionalExtension, Row, params};

use crate::database::Session;
use crate::error::Result;
use crate::resources::ResourceKey;

/// When a resource fires next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// The resource.
    pub key: ResourceKey,
    /// The moment that its timetable names, milliseconds since 1970.
    pub tick_at: i64,
    /// When it fires: at that moment or somewhat later, milliseconds since 1970.
    pub fires_at: i64,
}

impl Session<'_> {
    /// Sets the timer of a resource, in place of the one before.
    pub fn put_timer(&self, timer: &Timer) -> Result<()> {
        let key = &timer.key;
        self.connection
            .prepare_cached(
                "INSERT INTO timers (account, region, kind, name, tick_at, fires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (account, region, kind, name) DO UPDATE SET tick_at = excluded.tick_at, fires_at = excluded.fires_at",
            )?
            .execute(params![key.account, key.region, key.kind, key.name, timer.tick_at, timer.fires_at])?;
        Ok(())
    }

    /// Takes the timer of a resource away.
    pub fn delete_timer(&self, key: &ResourceKey) -> Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM timers WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4",
            )?
            .execute(params![key.account, key.region, key.kind, key.name])?;
        Ok(())
    }

    /// The timer of a resource.
    pub fn timer(&self, key: &ResourceKey) -> Result<Option<Timer>> {
        let sql = "SELECT account, region, kind, name, tick_at, fires_at FROM timers
                   WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4";
        let mut statement = self.connection.prepare_cached(sql)?;
        let values = params![key.account, key.region, key.kind, key.name];
        Ok(statement.query_row(values, timer_row).optional()?)
    }

    /// Timers whose time has come, the oldest first.
    pub fn due_timers(&self, now_ms: i64, limit: usize) -> Result<Vec<Timer>> {
        let sql = "SELECT account, region, kind, name, tick_at, fires_at FROM timers
                   WHERE fires_at <= ?1 ORDER BY fires_at, kind, name LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![now_ms, limit], timer_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// When the next timer fires.
    pub fn next_timer_at(&self) -> Result<Option<i64>> {
        let sql = "SELECT min(fires_at) FROM timers";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }
}

fn timer_row(row: &Row<'_>) -> rusqlite::Result<Timer> {
    Ok(Timer {
        key: ResourceKey { account: row.get(0)?, region: row.get(1)?, kind: row.get(2)?, name: row.get(3)? },
        tick_at: row.get(4)?,
        fires_at: row.get(5)?,
    })
}
