//! Failures by fingerprint: which resources failed for the same cause, and when. They outlive the resources.

use rusqlite::{OptionalExtension, params};

use crate::database::Session;
use crate::error::Result;
use crate::resources::ResourceKey;

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The resource that failed.
    pub key: ResourceKey,
    /// The same for all failures of one cause.
    pub fingerprint: String,
    /// Its word for people and programs.
    pub cause: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// A resource and when it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// Name of the resource.
    pub name: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// Several failures of the same cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occurrences {
    /// How many.
    pub count: i64,
    /// The first of them.
    pub first: Option<Occurrence>,
    /// The last of them.
    pub last: Option<Occurrence>,
}

impl Session<'_> {
    /// Notes a failure; noting it twice is once.
    pub fn record_failure(&self, failure: &Failure) -> Result<()> {
        let key = &failure.key;
        self.connection
            .prepare_cached(
                "INSERT INTO failures (account, region, kind, fingerprint, at, name, cause)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                key.account,
                key.region,
                key.kind,
                failure.fingerprint,
                failure.at,
                key.name,
                failure.cause
            ])?;
        Ok(())
    }

    /// Failures of the same fingerprint, account, region and kind: those before this one, and those after it.
    pub fn failures_around(&self, failure: &Failure) -> Result<(Occurrences, Occurrences)> {
        Ok((self.failures_beside(failure, "<")?, self.failures_beside(failure, ">")?))
    }

    fn failures_beside(&self, failure: &Failure, side: &str) -> Result<Occurrences> {
        let key = &failure.key;
        let from = format!(
            "FROM failures WHERE account = ?1 AND region = ?2 AND kind = ?3 AND fingerprint = ?4 AND (at, name) {side} (?5, ?6)"
        );
        let place = params![key.account, key.region, key.kind, failure.fingerprint, failure.at, key.name];
        let count: i64 = self
            .connection
            .prepare_cached(&format!("SELECT count(*) {from}"))?
            .query_row(place, |row| row.get(0))?;
        let end = |direction: &str| -> Result<Option<Occurrence>> {
            let sql = format!("SELECT name, at {from} ORDER BY at {direction}, name {direction} LIMIT 1");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let found =
                statement.query_row(place, |row| Ok(Occurrence { name: row.get(0)?, at: row.get(1)? }));
            Ok(found.optional()?)
        };
        Ok(Occurrences { count, first: end("ASC")?, last: end("DESC")? })
    }
}
