//! How far the logs of a job have been read for metrics, so that a restart goes on where its predecessor was.

use std::collections::BTreeMap;

use rusqlite::params;

use crate::database::Session;
use crate::error::Result;
use crate::resources::ResourceKey;

/// A job whose logs are read for metrics.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FollowedJob {
    /// Twelve-digit account.
    pub account: String,
    /// Region.
    pub region: String,
    /// Name of the job.
    pub name: String,
}

impl FollowedJob {
    /// The job with this key.
    pub fn of(key: &ResourceKey) -> FollowedJob {
        FollowedJob { account: key.account.clone(), region: key.region.clone(), name: key.name.clone() }
    }
}

impl Session<'_> {
    /// Notes that the logs of a job are to be read.
    pub fn follow_job(&self, job: &FollowedJob) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO metric_cursors (account, region, job, stream, cursor) VALUES (?1, ?2, ?3, '', '')
                 ON CONFLICT (account, region, job, stream) DO NOTHING",
            )?
            .execute(params![job.account, job.region, job.name])?;
        Ok(())
    }

    /// All jobs whose logs have not been read to the end.
    pub fn followed_jobs(&self) -> Result<Vec<FollowedJob>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT account, region, job FROM metric_cursors WHERE stream = ''")?;
        let rows = statement.query_map([], |row| {
            Ok(FollowedJob { account: row.get(0)?, region: row.get(1)?, name: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How far each stream of a job has been read.
    pub fn metric_cursors(&self, job: &FollowedJob) -> Result<BTreeMap<String, String>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT stream, cursor FROM metric_cursors
             WHERE account = ?1 AND region = ?2 AND job = ?3 AND stream <> ''",
        )?;
        let rows = statement
            .query_map(params![job.account, job.region, job.name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes how far a stream has been read.
    pub fn set_metric_cursor(&self, job: &FollowedJob, stream: &str, cursor: &str) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO metric_cursors (account, region, job, stream, cursor) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (account, region, job, stream) DO UPDATE SET cursor = excluded.cursor",
            )?
            .execute(params![job.account, job.region, job.name, stream, cursor])?;
        Ok(())
    }

    /// Forgets how far the streams of a job have been read whose names begin with `prefix`.
    pub fn forget_metric_places(&self, job: &FollowedJob, prefix: &str) -> Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM metric_cursors
                 WHERE account = ?1 AND region = ?2 AND job = ?3 AND substr(stream, 1, length(?4)) = ?4",
            )?
            .execute(params![job.account, job.region, job.name, prefix])?;
        Ok(())
    }

    /// Forgets a job whose logs have been read to the end.
    pub fn unfollow_job(&self, job: &FollowedJob) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM metric_cursors WHERE account = ?1 AND region = ?2 AND job = ?3")?
            .execute(params![job.account, job.region, job.name])?;
        Ok(())
    }
}
