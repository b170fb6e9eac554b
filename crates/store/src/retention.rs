//! What the collector of old things asks: a page at a time, in an order in which it can go on, however many rows there are.

use rusqlite::{OptionalExtension, params, params_from_iter};
use serde::{Deserialize, Serialize};

use crate::database::Session;
use crate::error::Result;
use crate::resources::{Resource, ResourceKey};

/// Where a walk through the resources of a kind has come to: account, region, time of the last change, name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgePosition(pub String, pub String, pub i64, pub String);

/// Which resources a page wants.
#[derive(Debug, Clone)]
pub struct OldQuery {
    /// Their kind.
    pub kind: &'static str,
    /// Their statuses.
    pub statuses: &'static [&'static str],
    /// Only those that were last changed before this time, milliseconds since 1970.
    pub before_ms: i64,
    /// Goes on after this one.
    pub after: AgePosition,
    /// Most rows.
    pub limit: usize,
}

/// A resource that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldResource {
    /// Its key.
    pub key: ResourceKey,
    /// Size of its record.
    pub bytes: u64,
    /// Where it stands.
    pub position: AgePosition,
}

/// An event that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldEvent {
    /// When it happened, milliseconds since 1970.
    pub at: i64,
    /// Its position in the log.
    pub sequence: i64,
    /// Its size.
    pub bytes: u64,
}

impl Session<'_> {
    /// Resources of a kind that have not changed since a time, by account and region, those that are longest unchanged first. A
    /// page may be empty and not the last one; without a position there is nothing more.
    pub fn old_resources(&self, query: &OldQuery) -> Result<(Vec<OldResource>, Option<AgePosition>)> {
        let AgePosition(account, region, modified_at, name) = &query.after;
        let marks = vec!["?"; query.statuses.len()].join(", ");
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT name, modified_at, length(spec) + length(document) FROM resources
             WHERE account = ? AND region = ? AND kind = ? AND (modified_at, name) > (?, ?) AND modified_at < ?
             AND status IN ({marks}) ORDER BY modified_at, name LIMIT ?"
        ))?;
        let mut values: Vec<rusqlite::types::Value> = vec![
            account.clone().into(),
            region.clone().into(),
            query.kind.to_owned().into(),
            (*modified_at).into(),
            name.clone().into(),
            query.before_ms.into(),
        ];
        values.extend(query.statuses.iter().map(|status| (*status).to_owned().into()));
        values.push(i64::try_from(query.limit).unwrap_or(i64::MAX).into());
        let rows = statement.query_map(params_from_iter(values), |row| {
            let (name, modified_at): (String, i64) = (row.get(0)?, row.get(1)?);
            Ok(OldResource {
                key: ResourceKey::new(account, region, query.kind, &name),
                bytes: row.get::<_, i64>(2)?.unsigned_abs(),
                position: AgePosition(account.clone(), region.clone(), modified_at, name),
            })
        })?;
        let found: Vec<OldResource> = rows.collect::<Result<_, _>>()?;
        if found.len() == query.limit {
            let position = found.last().map(|last| last.position.clone());
            return Ok((found, position));
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT account, region FROM resources WHERE (account, region) > (?1, ?2)
             ORDER BY account, region LIMIT 1",
        )?;
        let next = statement
            .query_row(params![account, region], |row| {
                Ok(AgePosition(row.get(0)?, row.get(1)?, i64::MIN, String::new()))
            })
            .optional()?;
        Ok((found, next))
    }

    /// Resources of a kind in these statuses, in all accounts and regions: what is under way, however many have ended.
    pub fn resources_in(&self, kind: &str, statuses: &[&str]) -> Result<Vec<Resource>> {
        let mut found = Vec::new();
        let mut place = Some((String::new(), String::new()));
        while let Some((account, region)) = place {
            for status in statuses {
                let mut statement = self.connection.prepare_cached(
                    "SELECT name FROM resources WHERE account = ?1 AND region = ?2 AND kind = ?3 AND status = ?4",
                )?;
                let mut names = statement.query(params![account, region, kind, status])?;
                while let Some(row) = names.next()? {
                    let key = ResourceKey::new(&*account, &*region, kind, row.get::<_, String>(0)?);
                    found.push(self.resource(&key)?);
                }
            }
            place = self
                .connection
                .prepare_cached(
                    "SELECT account, region FROM resources WHERE (account, region) > (?1, ?2)
                     ORDER BY account, region LIMIT 1",
                )?
                .query_row(params![account, region], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
        }
        Ok(found)
    }

    /// Whether an execution is still asked for: it is the last one of its pipeline, or has the newest result of one of its steps,
    /// which a later execution may reuse.
    pub fn is_execution_wanted(&self, execution: &ResourceKey) -> Result<bool> {
        let key = params![execution.account, execution.region, execution.name];
        let newest = "SELECT 1 FROM pipeline_executions e WHERE e.account = ?1 AND e.region = ?2 AND e.execution = ?3
             AND NOT EXISTS (SELECT 1 FROM pipeline_executions n WHERE n.account = e.account AND n.region = e.region
             AND n.pipeline = e.pipeline AND (n.created_at, n.execution) > (e.created_at, e.execution))";
        let source = "SELECT 1 FROM pipeline_executions e
             JOIN pipeline_steps s ON s.account = e.account AND s.region = e.region AND s.execution = e.execution
             JOIN pipeline_results r ON r.account = e.account AND r.region = e.region AND r.pipeline = e.pipeline
             AND r.step = s.step AND r.execution = e.execution
             WHERE e.account = ?1 AND e.region = ?2 AND e.execution = ?3
             AND NOT EXISTS (SELECT 1 FROM pipeline_results n WHERE n.account = r.account AND n.region = r.region
             AND n.pipeline = r.pipeline AND n.step = r.step AND n.ended_at > r.ended_at)";
        Ok(self.connection.prepare_cached(newest)?.exists(key)?
            || self.connection.prepare_cached(source)?.exists(key)?)
    }

    /// Removes an execution with its steps, results and tokens.
    ///
    /// # Errors
    /// [`crate::Error::Missing`] when there is none.
    pub fn delete_pipeline_execution(&self, execution: &ResourceKey) -> Result<()> {
        let removed = self.delete_resource(execution)?;
        let (account, region, name) = (&execution.account, &execution.region, &execution.name);
        for sql in [
            "DELETE FROM pipeline_results WHERE account = ?1 AND region = ?2 AND execution = ?3
             AND pipeline IN (SELECT pipeline FROM pipeline_executions WHERE account = ?1 AND region = ?2 AND execution = ?3)
             AND step IN (SELECT step FROM pipeline_steps WHERE account = ?1 AND region = ?2 AND execution = ?3)",
            "DELETE FROM pipeline_steps WHERE account = ?1 AND region = ?2 AND execution = ?3",
            "DELETE FROM pipeline_callbacks WHERE account = ?1 AND region = ?2 AND execution = ?3",
            "DELETE FROM pipeline_executions WHERE account = ?1 AND region = ?2 AND execution = ?3",
            "DELETE FROM pipeline_requests WHERE account = ?1 AND region = ?2 AND subject = ?3
             AND operation = 'RetryPipelineExecution'",
        ] {
            self.connection.prepare_cached(sql)?.execute(params![account, region, name])?;
        }
        self.connection
            .prepare_cached(
                "DELETE FROM pipeline_requests WHERE account = ?1 AND region = ?2 AND answer = ?3",
            )?
            .execute(params![account, region, removed.arn])?;
        Ok(())
    }

    /// Events before a time, oldest first, after a time and position. Those of `read_kinds` that a reader with a cursor has still
    /// to see are not among them, nor is the newest of all: the position of the next event follows from it.
    pub fn old_events(
        &self,
        before_ms: i64,
        after: (i64, i64),
        read_kinds: &[&str],
        limit: usize,
    ) -> Result<Vec<OldEvent>> {
        let marks = vec!["?"; read_kinds.len()].join(", ");
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT at, sequence, length(what) + length(detail) + length(name) FROM events
             WHERE at < ? AND (at, sequence) > (?, ?)
             AND (what NOT IN ({marks}) OR sequence <= (SELECT min(position) FROM event_cursors))
             AND sequence < (SELECT max(sequence) FROM events)
             ORDER BY at, sequence LIMIT ?"
        ))?;
        let mut values: Vec<rusqlite::types::Value> = vec![before_ms.into(), after.0.into(), after.1.into()];
        values.extend(read_kinds.iter().map(|kind| (*kind).to_owned().into()));
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let rows = statement.query_map(params_from_iter(values), |row| {
            let (at, sequence) = (row.get(0)?, row.get(1)?);
            Ok(OldEvent { at, sequence, bytes: row.get::<_, i64>(2)?.unsigned_abs() })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Removes events.
    pub fn delete_events(&self, events: &[OldEvent]) -> Result<()> {
        let mut statement = self.connection.prepare_cached("DELETE FROM events WHERE sequence = ?1")?;
        for event in events {
            statement.execute(params![event.sequence])?;
        }
        Ok(())
    }
}
