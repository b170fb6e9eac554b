//! What pipelines have beside their resource: versions, the order of their executions, steps, results that can be reused.

use rusqlite::types::Value as SqlValue;
use rusqlite::{OptionalExtension, Row, params, params_from_iter};
use serde_json::Value;

use crate::database::Session;
use crate::error::{Error, Result};
use crate::resources::{Resource, ResourceKey};

/// Kind of the resource of an execution.
const EXECUTION: &str = "pipeline-execution";

/// A version of a pipeline; its definition never changes.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineVersion {
    /// Counts from 1.
    pub version: i64,
    /// Definition as received; empty where a list left it out.
    pub definition: String,
    /// Names and aliases.
    pub document: Value,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// A step of an execution that has begun.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineStep {
    /// Name.
    pub name: String,
    /// Milliseconds since 1970.
    pub started_at: i64,
    /// All that is known of it.
    pub document: Value,
}

/// A result that a later execution may reuse.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineResult {
    /// The execution that has it.
    pub execution: String,
    /// Digest of all that it depends on.
    pub fingerprint: String,
    /// What it depends on, field by field.
    pub facts: Value,
    /// Milliseconds since 1970.
    pub ended_at: i64,
}

/// A step that waits, or waited, to be told its result.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineCallback {
    /// Its execution.
    pub execution: ResourceKey,
    /// Its name.
    pub step: String,
    /// What it was told.
    pub answer: Option<Value>,
}

/// Which executions or versions a list asks for; positions are creation time and name of the last one seen.
#[derive(Debug, Clone, Default)]
pub struct TimedQuery {
    /// Created strictly after, milliseconds since 1970.
    pub created_after: Option<i64>,
    /// Created strictly before.
    pub created_before: Option<i64>,
    /// Whether the newest comes first.
    pub descending: bool,
    /// Where the page before ended.
    pub after: Option<(i64, String)>,
    /// Most rows.
    pub limit: usize,
}

impl Session<'_> {
    /// Adds a version after those that the pipeline has, and answers its number.
    pub fn add_pipeline_version(
        &self,
        pipeline: &ResourceKey,
        definition: &str,
        document: &Value,
        now_ms: i64,
    ) -> Result<i64> {
        let version: i64 = self.connection.prepare_cached(
            "SELECT coalesce(max(version), 0) + 1 FROM pipeline_versions WHERE account = ?1 AND region = ?2 AND pipeline = ?3",
        )?.query_row(params![pipeline.account, pipeline.region, pipeline.name], |row| row.get(0))?;
        self.connection.prepare_cached(
            "INSERT INTO pipeline_versions (account, region, pipeline, version, definition, document, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?.execute(params![
            pipeline.account, pipeline.region, pipeline.name, version, definition, document.to_string(), now_ms,
        ])?;
        Ok(version)
    }

    /// Reads a version; the newest one unless a number is given.
    pub fn pipeline_version(
        &self,
        pipeline: &ResourceKey,
        version: Option<i64>,
    ) -> Result<Option<PipelineVersion>> {
        self.connection
            .prepare_cached(
                "SELECT version, definition, document, created_at FROM pipeline_versions
                 WHERE account = ?1 AND region = ?2 AND pipeline = ?3 AND (?4 IS NULL OR version = ?4)
                 ORDER BY version DESC LIMIT 1",
            )?
            .query_row(params![pipeline.account, pipeline.region, pipeline.name, version], |row| {
                Ok(version_row(row))
            })
            .optional()?
            .transpose()
    }

    /// Every version, newest first, without definitions.
    pub fn pipeline_versions(&self, pipeline: &ResourceKey) -> Result<Vec<PipelineVersion>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT version, '', document, created_at FROM pipeline_versions
             WHERE account = ?1 AND region = ?2 AND pipeline = ?3 ORDER BY version DESC",
        )?;
        let key = params![pipeline.account, pipeline.region, pipeline.name];
        let mut versions = Vec::new();
        for row in statement.query_map(key, |row| Ok(version_row(row)))? {
            versions.push(row??);
        }
        Ok(versions)
    }

    /// Replaces names and aliases of a version.
    pub fn set_pipeline_version(&self, pipeline: &ResourceKey, version: i64, document: &Value) -> Result<()> {
        self.connection.prepare_cached(
            "UPDATE pipeline_versions SET document = ?5 WHERE account = ?1 AND region = ?2 AND pipeline = ?3 AND version = ?4",
        )?.execute(params![pipeline.account, pipeline.region, pipeline.name, version, document.to_string()])?;
        Ok(())
    }

    /// Enters an execution, in the transaction that adds its resource.
    pub fn add_pipeline_execution(
        &self,
        execution: &ResourceKey,
        pipeline: &str,
        version: i64,
        now_ms: i64,
    ) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO pipeline_executions (account, region, pipeline, execution, version, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                execution.account,
                execution.region,
                pipeline,
                execution.name,
                version,
                now_ms
            ])?;
        Ok(())
    }

    /// Executions of a pipeline in the order of their creation.
    pub fn pipeline_executions(&self, pipeline: &ResourceKey, query: &TimedQuery) -> Result<Vec<Resource>> {
        let (order, beyond) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
        let mut sql =
            "SELECT execution FROM pipeline_executions WHERE account = ? AND region = ? AND pipeline = ?"
                .to_owned();
        let mut values: Vec<SqlValue> = vec![
            pipeline.account.clone().into(),
            pipeline.region.clone().into(),
            pipeline.name.clone().into(),
        ];
        for (condition, bound) in
            [("created_at > ?", query.created_after), ("created_at < ?", query.created_before)]
        {
            if let Some(bound) = bound {
                sql.push_str(" AND ");
                sql.push_str(condition);
                values.push(bound.into());
            }
        }
        if let Some((at, name)) = &query.after {
            sql.push_str(&format!(" AND (created_at, execution) {beyond} (?, ?)"));
            values.push((*at).into());
            values.push(name.clone().into());
        }
        sql.push_str(&format!(" ORDER BY created_at {order}, execution {order} LIMIT ?"));
        values.push(i64::try_from(query.limit).unwrap_or(i64::MAX).into());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let names: Vec<String> = statement
            .query_map(params_from_iter(values), |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        names
            .into_iter()
            .map(|name| {
                self.resource(&ResourceKey::new(&*pipeline.account, &*pipeline.region, EXECUTION, name))
            })
            .collect()
    }

    /// Whether an execution of the pipeline is in one of these statuses.
    pub fn pipeline_has_execution_in(&self, pipeline: &ResourceKey, statuses: &[&str]) -> Result<bool> {
        let marks = vec!["?"; statuses.len()].join(", ");
        let sql = format!(
            "SELECT 1 FROM pipeline_executions JOIN resources
             ON resources.account = pipeline_executions.account AND resources.region = pipeline_executions.region
             AND resources.kind = '{EXECUTION}' AND resources.name = pipeline_executions.execution
             WHERE pipeline_executions.account = ? AND pipeline_executions.region = ? AND pipeline_executions.pipeline = ?
             AND resources.status IN ({marks})"
        );
        let mut values = vec![pipeline.account.as_str(), &pipeline.region, &pipeline.name];
        values.extend(statuses);
        Ok(self.connection.prepare(&sql)?.exists(params_from_iter(values))?)
    }

    /// Removes versions, executions, steps and results of a pipeline.
    pub fn delete_pipeline_rows(&self, pipeline: &ResourceKey) -> Result<()> {
        let key = params![pipeline.account, pipeline.region, pipeline.name];
        let executions =
            "SELECT execution FROM pipeline_executions WHERE account = ?1 AND region = ?2 AND pipeline = ?3";
        for sql in [
            format!(
                "DELETE FROM pipeline_steps WHERE account = ?1 AND region = ?2 AND execution IN ({executions})"
            ),
            format!(
                "DELETE FROM pipeline_callbacks WHERE account = ?1 AND region = ?2 AND execution IN ({executions})"
            ),
            format!(
                "DELETE FROM tags WHERE arn IN (SELECT arn FROM resources
                 WHERE account = ?1 AND region = ?2 AND kind = '{EXECUTION}' AND name IN ({executions}))"
            ),
            format!(
                "DELETE FROM properties WHERE arn IN (SELECT arn FROM resources
                 WHERE account = ?1 AND region = ?2 AND kind = '{EXECUTION}' AND name IN ({executions}))"
            ),
            format!(
                "DELETE FROM resources WHERE account = ?1 AND region = ?2 AND kind = '{EXECUTION}' AND name IN ({executions})"
            ),
            "DELETE FROM pipeline_executions WHERE account = ?1 AND region = ?2 AND pipeline = ?3".to_owned(),
            "DELETE FROM pipeline_results WHERE account = ?1 AND region = ?2 AND pipeline = ?3".to_owned(),
            "DELETE FROM pipeline_versions WHERE account = ?1 AND region = ?2 AND pipeline = ?3".to_owned(),
        ] {
            self.connection.prepare(&sql)?.execute(key)?;
        }
        Ok(())
    }

    /// Every step of an execution that has begun, in the order in which they began.
    pub fn pipeline_steps(&self, execution: &ResourceKey) -> Result<Vec<PipelineStep>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT step, started_at, document FROM pipeline_steps
             WHERE account = ?1 AND region = ?2 AND execution = ?3 ORDER BY started_at, step",
        )?;
        let key = params![execution.account, execution.region, execution.name];
        let rows =
            statement.query_map(key, |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
        let mut steps = Vec::new();
        for row in rows {
            let (name, started_at, document) = row?;
            steps.push(PipelineStep { name, started_at, document: serde_json::from_str(&document)? });
        }
        Ok(steps)
    }

    /// Reads one step.
    pub fn pipeline_step(&self, execution: &ResourceKey, name: &str) -> Result<Option<PipelineStep>> {
        let found: Option<(i64, String)> = self
            .connection
            .prepare_cached(
                "SELECT started_at, document FROM pipeline_steps
                 WHERE account = ?1 AND region = ?2 AND execution = ?3 AND step = ?4",
            )?
            .query_row(params![execution.account, execution.region, execution.name, name], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let Some((started_at, document)) = found else { return Ok(None) };
        Ok(Some(PipelineStep {
            name: name.to_owned(),
            started_at,
            document: serde_json::from_str(&document)?,
        }))
    }

    /// Writes a step as it is now.
    pub fn put_pipeline_step(&self, execution: &ResourceKey, step: &PipelineStep) -> Result<()> {
        self.connection.prepare_cached(
            "INSERT INTO pipeline_steps (account, region, execution, step, started_at, document) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (account, region, execution, step) DO UPDATE SET started_at = excluded.started_at, document = excluded.document",
        )?.execute(params![
            execution.account, execution.region, execution.name, step.name, step.started_at, step.document.to_string(),
        ])?;
        Ok(())
    }

    /// Forgets a step, so that it begins anew.
    pub fn delete_pipeline_step(&self, execution: &ResourceKey, name: &str) -> Result<()> {
        self.connection
            .prepare_cached(
                "DELETE FROM pipeline_steps WHERE account = ?1 AND region = ?2 AND execution = ?3 AND step = ?4",
            )?
            .execute(params![execution.account, execution.region, execution.name, name])?;
        Ok(())
    }

    /// Enters the token of a step that waits to be told its result.
    pub fn put_pipeline_callback(&self, token: &str, execution: &ResourceKey, step: &str) -> Result<()> {
        self.connection.prepare_cached(
            "INSERT INTO pipeline_callbacks (token, account, region, execution, step) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
        )?.execute(params![token, execution.account, execution.region, execution.name, step])?;
        Ok(())
    }

    /// The execution and step that a token belongs to, and what the step was told.
    pub fn pipeline_callback(&self, token: &str) -> Result<Option<PipelineCallback>> {
        let found: Option<(ResourceKey, String, Option<String>)> = self
            .connection
            .prepare_cached(
                "SELECT account, region, execution, step, answer FROM pipeline_callbacks WHERE token = ?1",
            )?
            .query_row(params![token], |row| {
                let key = ResourceKey::new(
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    EXECUTION,
                    row.get::<_, String>(2)?,
                );
                Ok((key, row.get(3)?, row.get(4)?))
            })
            .optional()?;
        let Some((execution, step, answer)) = found else { return Ok(None) };
        let answer = answer.map(|answer| serde_json::from_str(&answer)).transpose()?;
        Ok(Some(PipelineCallback { execution, step, answer }))
    }

    /// Tells a step its result; what it was told before stands.
    pub fn answer_pipeline_callback(&self, token: &str, answer: &Value) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE pipeline_callbacks SET answer = ?2 WHERE token = ?1 AND answer IS NULL")?
            .execute(params![token, answer.to_string()])?;
        Ok(())
    }

    /// Keeps a result for later executions.
    pub fn put_pipeline_result(
        &self,
        pipeline: &ResourceKey,
        step: &str,
        result: &PipelineResult,
    ) -> Result<()> {
        self.connection.prepare_cached(
            "INSERT INTO pipeline_results (account, region, pipeline, step, execution, fingerprint, facts, ended_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (account, region, pipeline, step, execution)
             DO UPDATE SET fingerprint = excluded.fingerprint, facts = excluded.facts, ended_at = excluded.ended_at",
        )?.execute(params![
            pipeline.account, pipeline.region, pipeline.name, step, result.execution, result.fingerprint,
            result.facts.to_string(), result.ended_at,
        ])?;
        Ok(())
    }

    /// The newest result of a step, and the newest one with this fingerprint.
    pub fn pipeline_results(
        &self,
        pipeline: &ResourceKey,
        step: &str,
        fingerprint: &str,
    ) -> Result<(Option<PipelineResult>, Option<PipelineResult>)> {
        let newest = |wanted: Option<&str>| -> Result<Option<PipelineResult>> {
            self.connection
                .prepare_cached(
                    "SELECT execution, fingerprint, facts, ended_at FROM pipeline_results
                     WHERE account = ?1 AND region = ?2 AND pipeline = ?3 AND step = ?4 AND (?5 IS NULL OR fingerprint = ?5)
                     ORDER BY ended_at DESC, execution LIMIT 1",
                )?
                .query_row(params![pipeline.account, pipeline.region, pipeline.name, step, wanted], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get(3)?))
                })
                .optional()?
                .map(|(execution, fingerprint, facts, ended_at)| {
                    Ok(PipelineResult { execution, fingerprint, facts: serde_json::from_str(&facts)?, ended_at })
                })
                .transpose()
        };
        Ok((newest(None)?, newest(Some(fingerprint))?))
    }

    /// The answer that a request with this token was given, and what it was about.
    pub fn pipeline_request(
        &self,
        caller: &ResourceKey,
        operation: &str,
        token: &str,
    ) -> Result<Option<(String, String)>> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT subject, answer FROM pipeline_requests WHERE account = ?1 AND region = ?2 AND operation = ?3 AND token = ?4",
            )?
            .query_row(params![caller.account, caller.region, operation, token], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?)
    }

    /// Remembers the answer to a request with a token.
    ///
    /// # Errors
    /// [`Error::Exists`] when another request had the token.
    pub fn put_pipeline_request(
        &self,
        caller: &ResourceKey,
        operation: &str,
        token: &str,
        subject: &str,
        answer: &str,
    ) -> Result<()> {
        let added = self.connection.prepare_cached(
            "INSERT INTO pipeline_requests (account, region, operation, token, subject, answer) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO NOTHING",
        )?.execute(params![caller.account, caller.region, operation, token, subject, answer])?;
        if added == 0 {
            return Err(Error::Exists { kind: "request".into(), name: token.into() });
        }
        Ok(())
    }
}

fn version_row(row: &Row<'_>) -> Result<PipelineVersion> {
    Ok(PipelineVersion {
        version: row.get(0)?,
        definition: row.get(1)?,
        document: serde_json::from_str(&row.get::<_, String>(2)?)?,
        created_at: row.get(3)?,
    })
}
