//! Warm pools: what a resource that has ended keeps for the next one of its kind, and until when.

use rusqlite::{OptionalExtension, Row, params};

use crate::database::Session;
use crate::error::Result;
use crate::resources::ResourceKey;

/// Status of a pool whose resource is at work.
pub const IN_USE: &str = "InUse";
/// Status of a pool that waits for a matching resource.
pub const AVAILABLE: &str = "Available";
/// Status of a pool that went over to another resource.
pub const REUSED: &str = "Reused";
/// Status of a pool that nobody can have any more.
pub const TERMINATED: &str = "Terminated";

/// The pool of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmPool {
    /// The resource.
    pub key: ResourceKey,
    /// One of the words above.
    pub status: String,
    /// What a resource must have in common with this one to get the pool.
    pub matching: String,
    /// Since when it could be had, milliseconds since 1970.
    pub available_at: Option<i64>,
    /// Until when it can be had, milliseconds since 1970.
    pub ends_at: Option<i64>,
    /// When it was had or given up, milliseconds since 1970.
    pub ended_at: Option<i64>,
    /// Name of the resource that got it.
    pub reused_by: Option<String>,
}

const COLUMNS: &str =
    "account, region, kind, name, status, matching, available_at, ends_at, ended_at, reused_by";

impl WarmPool {
    /// The pool of a resource that is at work.
    pub fn in_use(key: ResourceKey, matching: String) -> WarmPool {
        WarmPool {
            key,
            status: IN_USE.into(),
            matching,
            available_at: None,
            ends_at: None,
            ended_at: None,
            reused_by: None,
        }
    }

    /// Whether it can be had.
    pub fn is_available(&self) -> bool {
        self.status == AVAILABLE
    }

    /// Can be had for some seconds from now on.
    pub fn keep(&mut self, seconds: i64, now_ms: i64) {
        self.status = AVAILABLE.into();
        self.available_at.get_or_insert(now_ms);
        self.ends_at = Some(now_ms + seconds * 1000);
    }

    /// Cannot be had any more.
    pub fn terminate(&mut self, now_ms: i64) {
        self.status = TERMINATED.into();
        self.ended_at = Some(now_ms);
    }

    /// How long it has been kept, in milliseconds; 0 for one that never could be had.
    pub fn kept_ms(&self, now_ms: i64) -> i64 {
        let end = self.ended_at.unwrap_or_else(|| self.ends_at.map_or(now_ms, |ends_at| ends_at.min(now_ms)));
        self.available_at.map_or(0, |since| (end - since).max(0))
    }
}

impl Session<'_> {
    /// Writes a pool, in place of what was known of it.
    pub fn put_warm_pool(&self, pool: &WarmPool) -> Result<()> {
        let key = &pool.key;
        self.connection
            .prepare_cached(&format!(
                "INSERT INTO warm_pools ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (account, region, kind, name) DO UPDATE SET status = excluded.status,
                 matching = excluded.matching, available_at = excluded.available_at, ends_at = excluded.ends_at,
                 ended_at = excluded.ended_at, reused_by = excluded.reused_by"
            ))?
            .execute(params![
                key.account,
                key.region,
                key.kind,
                key.name,
                pool.status,
                pool.matching,
                pool.available_at,
                pool.ends_at,
                pool.ended_at,
                pool.reused_by
            ])?;
        Ok(())
    }

    /// The pool of a resource, if it ever had one.
    pub fn warm_pool(&self, key: &ResourceKey) -> Result<Option<WarmPool>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM warm_pools WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        Ok(statement
            .query_row(params![key.account, key.region, key.kind, key.name], warm_pool_row)
            .optional()?)
    }

    /// Every pool that can be had, in all accounts and regions.
    pub fn available_warm_pools(&self) -> Result<Vec<WarmPool>> {
        let sql = format!("SELECT {COLUMNS} FROM warm_pools WHERE status = ?1 ORDER BY ends_at, name");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![AVAILABLE], warm_pool_row)?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Gives the pool that `key` matches to it: the one that would end first. `None` when there is none.
    pub fn reuse_warm_pool(
        &self,
        key: &ResourceKey,
        matching: &str,
        now_ms: i64,
    ) -> Result<Option<WarmPool>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM warm_pools WHERE status = ?1 AND account = ?2 AND region = ?3 AND kind = ?4
             AND matching = ?5 AND ends_at > ?6 ORDER BY ends_at, name LIMIT 1"
        );
        let found = self
            .connection
            .prepare_cached(&sql)?
            .query_row(params![AVAILABLE, key.account, key.region, key.kind, matching, now_ms], warm_pool_row)
            .optional()?;
        let Some(mut pool) = found else { return Ok(None) };
        pool.status = REUSED.into();
        pool.ended_at = Some(now_ms);
        pool.reused_by = Some(key.name.clone());
        self.put_warm_pool(&pool)?;
        Ok(Some(pool))
    }

    /// Ends the pools whose time is up, and says which.
    pub fn terminate_warm_pools(&self, now_ms: i64) -> Result<Vec<WarmPool>> {
        let mut ended = self.available_warm_pools()?;
        ended.retain(|pool| pool.ends_at.is_none_or(|ends_at| ends_at <= now_ms));
        for pool in &mut ended {
            pool.terminate(pool.ends_at.unwrap_or(now_ms));
            self.put_warm_pool(pool)?;
        }
        Ok(ended)
    }

    /// Forgets the pool of a resource that goes.
    pub fn delete_warm_pool(&self, key: &ResourceKey) -> Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM warm_pools WHERE account = ?1 AND region = ?2 AND kind = ?3 AND name = ?4",
            )?
            .execute(params![key.account, key.region, key.kind, key.name])?;
        Ok(())
    }
}

fn warm_pool_row(row: &Row<'_>) -> rusqlite::Result<WarmPool> {
    Ok(WarmPool {
        key: ResourceKey { account: row.get(0)?, region: row.get(1)?, kind: row.get(2)?, name: row.get(3)? },
        status: row.get(4)?,
        matching: row.get(5)?,
        available_at: row.get(6)?,
        ends_at: row.get(7)?,
        ended_at: row.get(8)?,
        reused_by: row.get(9)?,
    })
}
