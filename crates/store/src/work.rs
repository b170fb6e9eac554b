//! The work queue: a row for each resource that still has something to do, claimed under a lease.

use rusqlite::{OptionalExtension, params};

use crate::database::Session;
use crate::error::{Error, Result};
use crate::resources::ResourceKey;

/// A queued or running piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The resource it is for.
    pub key: ResourceKey,
    /// Counts the claims; output of an older attempt is never committed.
    pub attempt: i64,
    /// Whether somebody asked to stop it.
    pub stop_wanted: bool,
    /// Milliseconds since 1970.
    pub enqueued_at: i64,
}

impl Session<'_> {
    /// Queues work for a resource, in the transaction that makes the resource.
    pub fn enqueue_work(&self, key: &ResourceKey, now_ms: i64) -> Result<()> {
        self.connection.prepare_cached(
            "INSERT INTO work (account, region, kind, name, attempt, stop_wanted, enqueued_at) VALUES (?1, ?2, ?3, ?4, 0, 0, ?5)",
        )?.execute(params![key.account, key.region, key.kind, key.name, now_ms])?;
        Ok(())
    }

    /// Claims the oldest work of a kind that `owner` does not hold yet. A server that starts uses a new owner name
    /// and so takes over what its predecessor left.
    pub fn claim_work(&self, kind: &str, owner: &str) -> Result<Option<Work>> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT account, region, name, attempt, stop_wanted, enqueued_at FROM work
                 WHERE kind = ?1 AND (lease_owner IS NULL OR lease_owner <> ?2) ORDER BY enqueued_at, name LIMIT 1",
            )?
            .query_row(params![kind, owner], |row| {
                Ok(Work {
                    key: ResourceKey::new(row.get::<_, String>(0)?, row.get::<_, String>(1)?, kind, row.get::<_, String>(2)?),
                    attempt: row.get::<_, i64>(3)? + 1,
                    stop_wanted: row.get(4)?,
                    enqueued_at: row.get(5)?,
                })
            })
            .optional()?;
        let Some(work) = found else { return Ok(None) };
        self.connection.prepare_cached(
            "UPDATE work SET lease_owner = ?5, attempt = ?6 WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4",
        )?.execute(params![work.key.account, work.key.region, work.key.kind, work.key.name, owner, work.attempt])?;
        Ok(Some(work))
    }

    /// Checks that `owner` still holds this attempt; call it in the transaction that commits an effect.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when it does not.
    pub fn check_lease(&self, work: &Work, owner: &str) -> Result<()> {
        let held = self.connection.prepare_cached(
            "SELECT 1 FROM work WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4 AND lease_owner = ?5 AND attempt = ?6",
        )?.exists(params![work.key.account, work.key.region, work.key.kind, work.key.name, owner, work.attempt])?;
        if held { Ok(()) } else { Err(lost(&work.key)) }
    }

    /// Removes finished work.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when `owner` does not hold this attempt.
    pub fn finish_work(&self, work: &Work, owner: &str) -> Result<()> {
        self.check_lease(work, owner)?;
        self.connection
            .prepare_cached(
                "DELETE FROM work WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4",
            )?
            .execute(params![work.key.account, work.key.region, work.key.kind, work.key.name])?;
        Ok(())
    }

    /// Asks for a stop; whoever holds the work acts on it.
    pub fn want_stop(&self, key: &ResourceKey) -> Result<()> {
        self.connection.prepare_cached(
            "UPDATE work SET stop_wanted = 1 WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4",
        )?.execute(params![key.account, key.region, key.kind, key.name])?;
        Ok(())
    }

    /// Whether a stop is wanted; `false` when there is no work.
    pub fn stop_wanted(&self, key: &ResourceKey) -> Result<bool> {
        let wanted: Option<bool> = self
            .connection
            .prepare_cached(
                "SELECT stop_wanted FROM work WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4",
            )?
            .query_row(params![key.account, key.region, key.kind, key.name], |row| row.get(0))
            .optional()?;
        Ok(wanted.unwrap_or(false))
    }
}

fn lost(key: &ResourceKey) -> Error {
    Error::LeaseLost { kind: key.kind.clone(), name: key.name.clone() }
}
