//! Requests that wait for an answer in a queue of their endpoint: accepted, held by a server while they run, ended once.

use rusqlite::{OptionalExtension, Row, params};

use crate::database::Session;
use crate::error::Result;
use crate::resources::ResourceKey;

/// A request that is to be accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAsyncRequest {
    /// Names it for good.
    pub id: String,
    /// The endpoint that it is for.
    pub endpoint: ResourceKey,
    /// The caller's name for it.
    pub inference_id: Option<String>,
    /// The same for two requests that ask for the same.
    pub digest: String,
    /// What is asked, as a document that the store does not read.
    pub document: String,
    /// What the model gets, when it came with the request.
    pub body: Option<Vec<u8>>,
    /// Milliseconds since 1970.
    pub accepted_at: i64,
    /// When it has waited too long, milliseconds since 1970.
    pub expires_at: i64,
}

/// An accepted request.
#[derive(Debug, Clone, PartialEq)]
pub struct AsyncRequest {
    /// Names it for good.
    pub id: String,
    /// The caller's name for it.
    pub inference_id: Option<String>,
    /// What is asked.
    pub document: String,
    /// What the model gets, when it came with the request.
    pub body: Option<Vec<u8>>,
    /// How often a worker was lost that had it.
    pub losses: i64,
    /// Milliseconds since 1970.
    pub accepted_at: i64,
    /// When it has waited too long, milliseconds since 1970.
    pub expires_at: i64,
    /// When it was first taken out of the line.
    pub started_at: Option<i64>,
}

/// How long the line of an endpoint is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AsyncBacklog {
    /// Requests that wait.
    pub waiting: i64,
    /// Requests that are being answered.
    pub running: i64,
    /// When the one that waits longest was accepted, milliseconds since 1970.
    pub oldest_at: Option<i64>,
    /// When the next one that waits has waited too long, milliseconds since 1970.
    pub expires_at: Option<i64>,
}

const COLUMNS: &str = "id, inference_id, document, body, losses, accepted_at, expires_at, started_at";

impl Session<'_> {
    /// Puts a request into its line. A known one of the same inference id that asks for the same takes its place: its id and
    /// document are given instead.
    pub fn accept_async_request(&self, request: &NewAsyncRequest) -> Result<(String, String)> {
        let endpoint = &request.endpoint;
        if let Some(inference_id) = &request.inference_id {
            let known = self
                .connection
                .prepare_cached(
                    "SELECT id, document FROM async_requests WHERE account = ?1 AND region = ?2 AND endpoint = ?3
                     AND inference_id = ?4 AND digest = ?5 ORDER BY sequence LIMIT 1",
                )?
                .query_row(
                    params![endpoint.account, endpoint.region, endpoint.name, inference_id, request.digest],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            if let Some(known) = known {
                return Ok(known);
            }
        }
        self.connection
            .prepare_cached(
                "INSERT INTO async_requests (id, account, region, endpoint, inference_id, digest, document, body, state, losses,
                 accepted_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'waiting', 0, ?9, ?10)",
            )?
            .execute(params![
                request.id,
                endpoint.account,
                endpoint.region,
                endpoint.name,
                request.inference_id,
                request.digest,
                request.document,
                request.body,
                request.accepted_at,
                request.expires_at
            ])?;
        Ok((request.id.clone(), request.document.clone()))
    }

    /// Takes up to `limit` requests out of the line for `owner`: those that an earlier server held, then those that wait
    /// longest. One that has waited too long stays for [`Session::claim_expired_async_requests`].
    pub fn claim_async_requests(
        &self,
        endpoint: &ResourceKey,
        owner: &str,
        limit: usize,
        now_ms: i64,
    ) -> Result<Vec<AsyncRequest>> {
        let held = format!(
            "SELECT {COLUMNS} FROM async_requests WHERE account = ?1 AND region = ?2 AND endpoint = ?3 AND state = 'running'
             AND owner <> ?4 ORDER BY sequence LIMIT ?5"
        );
        let waiting = format!(
            "SELECT {COLUMNS} FROM async_requests WHERE account = ?1 AND region = ?2 AND endpoint = ?3 AND state = 'waiting'
             AND expires_at > ?4 ORDER BY sequence LIMIT ?5"
        );
        let mut claimed = {
            let mut statement = self.connection.prepare_cached(&held)?;
            let rows = statement.query_map(
                params![endpoint.account, endpoint.region, endpoint.name, owner, limit as i64],
                request_row,
            )?;
            rows.collect::<rusqlite::Result<Vec<_>>>()?
        };
        let left = limit.saturating_sub(claimed.len());
        if left > 0 {
            let mut statement = self.connection.prepare_cached(&waiting)?;
            let rows = statement.query_map(
                params![endpoint.account, endpoint.region, endpoint.name, now_ms, left as i64],
                request_row,
            )?;
            claimed.extend(rows.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        self.hold(&claimed, owner, now_ms)?;
        Ok(claimed)
    }

    /// Takes up to `limit` requests out of the line for `owner` that have waited until `until_ms` or longer allowed.
    pub fn claim_expired_async_requests(
        &self,
        endpoint: &ResourceKey,
        owner: &str,
        limit: usize,
        until_ms: i64,
        now_ms: i64,
    ) -> Result<Vec<AsyncRequest>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM async_requests WHERE account = ?1 AND region = ?2 AND endpoint = ?3 AND state = 'waiting'
             AND expires_at <= ?4 ORDER BY expires_at LIMIT ?5"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(
            params![endpoint.account, endpoint.region, endpoint.name, until_ms, limit as i64],
            request_row,
        )?;
        let claimed = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        self.hold(&claimed, owner, now_ms)?;
        Ok(claimed)
    }

    fn hold(&self, requests: &[AsyncRequest], owner: &str, now_ms: i64) -> Result<()> {
        for request in requests {
            self.connection
                .prepare_cached(
                    "UPDATE async_requests SET state = 'running', owner = ?2, started_at = coalesce(started_at, ?3) WHERE id = ?1",
                )?
                .execute(params![request.id, owner, now_ms])?;
        }
        Ok(())
    }

    /// Puts a request back to its place in the line; `lost` says that a worker was lost that had it.
    pub fn give_back_async_request(&self, id: &str, owner: &str, lost: bool) -> Result<()> {
        self.connection
            .prepare_cached(
                "UPDATE async_requests SET state = 'waiting', owner = NULL, losses = losses + ?3
                 WHERE id = ?1 AND owner = ?2 AND state = 'running'",
            )?
            .execute(params![id, owner, i64::from(lost)])?;
        Ok(())
    }

    /// Ends a request; `false` when `owner` does not hold it. One that the caller named is known for a while longer.
    pub fn end_async_request(&self, id: &str, owner: &str, now_ms: i64) -> Result<bool> {
        let gone = self
            .connection
            .prepare_cached(
                "DELETE FROM async_requests WHERE id = ?1 AND owner = ?2 AND state = 'running' AND inference_id IS NULL",
            )?
            .execute(params![id, owner])?;
        if gone > 0 {
            return Ok(true);
        }
        let ended = self
            .connection
            .prepare_cached(
                "UPDATE async_requests SET state = 'ended', body = NULL, ended_at = ?3
                 WHERE id = ?1 AND owner = ?2 AND state = 'running'",
            )?
            .execute(params![id, owner, now_ms])?;
        Ok(ended > 0)
    }

    /// How long the line of an endpoint is.
    pub fn async_backlog(&self, endpoint: &ResourceKey) -> Result<AsyncBacklog> {
        let key = params![endpoint.account, endpoint.region, endpoint.name];
        let (waiting, oldest_at, expires_at) = self
            .connection
            .prepare_cached(
                "SELECT count(*), min(accepted_at), min(expires_at) FROM async_requests
                 WHERE account = ?1 AND region = ?2 AND endpoint = ?3 AND state = 'waiting'",
            )?
            .query_row(key, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let running = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM async_requests WHERE account = ?1 AND region = ?2 AND endpoint = ?3 AND state = 'running'",
            )?
            .query_row(key, |row| row.get(0))?;
        Ok(AsyncBacklog { waiting, running, oldest_at, expires_at })
    }

    /// Whether another server than `owner` held requests of an endpoint.
    pub fn has_async_requests_of_others(&self, endpoint: &ResourceKey, owner: &str) -> Result<bool> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT 1 FROM async_requests WHERE account = ?1 AND region = ?2 AND endpoint = ?3 AND state = 'running'
                 AND owner <> ?4 LIMIT 1",
            )?
            .exists(params![endpoint.account, endpoint.region, endpoint.name, owner])?)
    }

    /// When the next request that waits at an endpoint has waited too long, milliseconds since 1970.
    pub fn next_async_expiry(&self, endpoint: &ResourceKey) -> Result<Option<i64>> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT min(expires_at) FROM async_requests
                 WHERE account = ?1 AND region = ?2 AND endpoint = ?3 AND state = 'waiting'",
            )?
            .query_row(params![endpoint.account, endpoint.region, endpoint.name], |row| row.get(0))?)
    }

    /// The first requests of an endpoint that have not ended, in their order, without their bodies; each says whether it runs.
    pub fn async_requests(&self, endpoint: &ResourceKey, limit: usize) -> Result<Vec<(bool, AsyncRequest)>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, inference_id, document, NULL, losses, accepted_at, expires_at, started_at, state = 'running'
             FROM async_requests WHERE account = ?1 AND region = ?2 AND endpoint = ?3 AND state IN ('running', 'waiting')
             ORDER BY sequence LIMIT ?4",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement
            .query_map(params![endpoint.account, endpoint.region, endpoint.name, limit], |row| {
                Ok((row.get(8)?, request_row(row)?))
            })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Forgets the requests of a deleted endpoint that have ended: another endpoint may get its name.
    pub fn forget_async_requests_of(&self, endpoint: &ResourceKey) -> Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM async_requests WHERE account = ?1 AND region = ?2 AND endpoint = ?3 AND state = 'ended'",
            )?
            .execute(params![endpoint.account, endpoint.region, endpoint.name])?;
        Ok(())
    }

    /// Forgets requests that ended before a moment.
    pub fn forget_async_requests(&self, before_ms: i64) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM async_requests WHERE ended_at < ?1")?
            .execute(params![before_ms])?;
        Ok(())
    }
}

fn request_row(row: &Row<'_>) -> rusqlite::Result<AsyncRequest> {
    Ok(AsyncRequest {
        id: row.get(0)?,
        inference_id: row.get(1)?,
        document: row.get(2)?,
        body: row.get(3)?,
        losses: row.get(4)?,
        accepted_at: row.get(5)?,
        expires_at: row.get(6)?,
        started_at: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Database;

    fn request(id: &str, inference_id: Option<&str>, expires_at: i64) -> NewAsyncRequest {
        NewAsyncRequest {
            id: id.into(),
            endpoint: ResourceKey::new("1", "r", "endpoint", "e"),
            inference_id: inference_id.map(str::to_owned),
            digest: "d".into(),
            document: format!("document of {id}"),
            body: Some(b"body".to_vec()),
            accepted_at: 1,
            expires_at,
        }
    }

    fn ids(requests: &[AsyncRequest]) -> Vec<&str> {
        requests.iter().map(|request| request.id.as_str()).collect()
    }

    #[tokio::test]
    async fn a_request_is_held_by_one_server_and_ends_once() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("test.db")).unwrap();
        database
            .write(|session| {
                let key = ResourceKey::new("1", "r", "endpoint", "e");
                for id in ["a", "b", "c"] {
                    session.accept_async_request(&request(id, None, 100))?;
                }
                session.accept_async_request(&request("late", None, 5))?;
                assert_eq!(ids(&session.claim_async_requests(&key, "one", 2, 10)?), ["a", "b"]);
                assert_eq!(ids(&session.claim_async_requests(&key, "one", 9, 10)?), ["c"]);
                assert_eq!(session.next_async_expiry(&key)?, Some(5));
                assert_eq!(ids(&session.claim_expired_async_requests(&key, "one", 9, 10, 10)?), ["late"]);
                session.give_back_async_request("b", "one", true)?;
                let backlog = session.async_backlog(&key)?;
                assert_eq!((backlog.waiting, backlog.running, backlog.expires_at), (1, 3, Some(100)));
                assert!(session.end_async_request("a", "one", 11)?);
                assert!(!session.end_async_request("a", "one", 11)?, "it ended before");

                // The next server takes up what the first one held, before what waits.
                let taken = session.claim_async_requests(&key, "two", 9, 20)?;
                assert_eq!(ids(&taken), ["c", "late", "b"]);
                assert_eq!((taken[0].started_at, taken[2].losses), (Some(10), 1));
                assert!(!session.end_async_request("c", "one", 21)?, "it is the second one's");
                assert!(session.end_async_request("c", "two", 21)?);
                Ok(())
            })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn the_same_request_under_the_same_inference_id_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("test.db")).unwrap();
        database
            .write(|session| {
                let key = ResourceKey::new("1", "r", "endpoint", "e");
                let first = session.accept_async_request(&request("a", Some("mine"), 100))?;
                assert_eq!(session.accept_async_request(&request("b", Some("mine"), 100))?, first);
                let other = NewAsyncRequest { digest: "other".into(), ..request("c", Some("mine"), 100) };
                assert_eq!(session.accept_async_request(&other)?.0, "c", "it asks for something else");
                session.claim_async_requests(&key, "one", 1, 10)?;
                assert!(session.end_async_request("a", "one", 11)?);
                assert_eq!(session.accept_async_request(&request("d", Some("mine"), 100))?, first);
                session.forget_async_requests(12)?;
                assert_eq!(session.accept_async_request(&request("e", Some("mine"), 100))?.0, "e");
                assert_eq!(session.async_requests(&key, 10)?.len(), 2);
                Ok(())
            })
            .await
            .unwrap();
    }
}
