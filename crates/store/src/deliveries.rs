//! Deliveries: what is still to be brought to a target, written in the transaction of what caused it.

use rusqlite::{OptionalExtension, Row, params};

use crate::database::Session;
use crate::error::Result;

/// Something that is to be brought to a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Names it for good: a second one with the same id is not taken.
    pub id: String,
    /// Twelve-digit account.
    pub account: String,
    /// Region.
    pub region: String,
    /// What caused it, for messages.
    pub origin: String,
    /// Where it goes, as a document that the store does not read.
    pub target: String,
    /// What is brought.
    pub payload: String,
    /// Tries so far.
    pub attempts: i64,
    /// Tries after which it is given up.
    pub most_attempts: i64,
    /// Milliseconds since 1970.
    pub enqueued_at: i64,
    /// When it is tried next, milliseconds since 1970.
    pub next_at: i64,
    /// When it is given up, milliseconds since 1970.
    pub expires_at: i64,
    /// ARN of the queue that gets it when it is given up.
    pub dead_letter: Option<String>,
}

const COLUMNS: &str = "id, account, region, origin, target, payload, attempts, most_attempts, enqueued_at, next_at, \
                       expires_at, dead_letter";

impl Session<'_> {
    /// Takes a delivery, unless one with its id is there.
    pub fn insert_delivery(&self, delivery: &Delivery) -> Result<()> {
        self.connection
            .prepare_cached(&format!(
                "INSERT INTO deliveries ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                 ON CONFLICT (id) DO NOTHING"
            ))?
            .execute(params![
                delivery.id,
                delivery.account,
                delivery.region,
                delivery.origin,
                delivery.target,
                delivery.payload,
                delivery.attempts,
                delivery.most_attempts,
                delivery.enqueued_at,
                delivery.next_at,
                delivery.expires_at,
                delivery.dead_letter
            ])?;
        Ok(())
    }

    /// Deliveries whose time has come, those that wait longest first.
    pub fn due_deliveries(&self, now_ms: i64, limit: usize) -> Result<Vec<Delivery>> {
        let sql =
            format!("SELECT {COLUMNS} FROM deliveries WHERE next_at <= ?1 ORDER BY next_at, id LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![now_ms, limit], delivery_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// When the next delivery after a moment is due.
    pub fn next_delivery_at(&self, after_ms: i64) -> Result<Option<i64>> {
        Ok(self
            .connection
            .prepare_cached("SELECT min(next_at) FROM deliveries WHERE next_at > ?1")?
            .query_row(params![after_ms], |row| row.get(0))?)
    }

    /// The delivery of an id that is not done yet.
    pub fn delivery(&self, id: &str) -> Result<Option<Delivery>> {
        let sql = format!("SELECT {COLUMNS} FROM deliveries WHERE id = ?1");
        Ok(self.connection.prepare_cached(&sql)?.query_row(params![id], delivery_row).optional()?)
    }

    /// Notes a try that failed, and when the next one is.
    pub fn retry_delivery(&self, id: &str, next_at: i64) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE deliveries SET attempts = attempts + 1, next_at = ?2 WHERE id = ?1")?
            .execute(params![id, next_at])?;
        Ok(())
    }

    /// Forgets a delivery that is done or given up; `false` when it was forgotten before.
    pub fn finish_delivery(&self, id: &str) -> Result<bool> {
        let gone =
            self.connection.prepare_cached("DELETE FROM deliveries WHERE id = ?1")?.execute(params![id])?;
        Ok(gone > 0)
    }
}

fn delivery_row(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get(0)?,
        account: row.get(1)?,
        region: row.get(2)?,
        origin: row.get(3)?,
        target: row.get(4)?,
        payload: row.get(5)?,
        attempts: row.get(6)?,
        most_attempts: row.get(7)?,
        enqueued_at: row.get(8)?,
        next_at: row.get(9)?,
        expires_at: row.get(10)?,
        dead_letter: row.get(11)?,
    })
}
