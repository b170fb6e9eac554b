//! What happens once however often it is asked for: what was begun under an id, and the answer that it had.

use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use crate::database::Session;
use crate::error::Result;

/// Something that happens once.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// Chosen by who asks.
    pub id: String,
    /// Workload that brings it about, where one does.
    pub instance: Option<String>,
    /// When that workload's time is over, in milliseconds since 1970.
    pub ends_at: Option<i64>,
    /// How it ended.
    pub answer: Option<Value>,
}

impl Session<'_> {
    /// Takes down that a workload is about to bring an effect about, in place of one before it.
    pub fn begin_effect(&self, id: &str, instance: &str, ends_at: i64) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO effects (id, instance, ends_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET instance = excluded.instance, ends_at = excluded.ends_at, answer = NULL",
            )?
            .execute(params![id, instance, ends_at])?;
        Ok(())
    }

    /// Keeps the answer of an effect that was begun, unless nobody wants to know any more.
    pub fn end_effect(&self, id: &str, answer: &Value) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE effects SET answer = ?2 WHERE id = ?1")?
            .execute(params![id, answer.to_string()])?;
        Ok(())
    }

    /// Keeps the answer of an effect in the transaction that brings it about.
    pub fn insert_effect(&self, id: &str, answer: &Value) -> Result<()> {
        self.connection
            .prepare_cached("INSERT INTO effects (id, answer) VALUES (?1, ?2)")?
            .execute(params![id, answer.to_string()])?;
        Ok(())
    }

    /// What is known of an effect.
    pub fn effect(&self, id: &str) -> Result<Option<Effect>> {
        let found = self
            .connection
            .prepare_cached("SELECT instance, ends_at, answer FROM effects WHERE id = ?1")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<String>>(2)?)))
            .optional()?;
        let Some((instance, ends_at, answer)) = found else { return Ok(None) };
        let answer = answer.map(|text| serde_json::from_str(&text)).transpose()?;
        Ok(Some(Effect { id: id.to_owned(), instance, ends_at, answer }))
    }

    /// The workloads of effects that have no answer yet.
    pub fn busy_effect_instances(&self) -> Result<Vec<String>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT instance FROM effects WHERE answer IS NULL AND instance IS NOT NULL")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Forgets an effect whose end was recorded by who asked for it.
    pub fn forget_effect(&self, id: &str) -> Result<()> {
        self.connection.prepare_cached("DELETE FROM effects WHERE id = ?1")?.execute([id])?;
        Ok(())
    }
}
