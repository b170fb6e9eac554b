//! What was done, and what was not, to the capacity of things that scale by themselves.

use rusqlite::{OptionalExtension, Row, params};
use serde_json::Value;

use crate::database::Session;
use crate::error::Result;

/// One change of a capacity, or one that was wanted and not made.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingActivity {
    /// Its place in the order of all activities; given when it is inserted.
    pub sequence: i64,
    /// Names it.
    pub id: String,
    /// Twelve-digit account.
    pub account: String,
    /// Region.
    pub region: String,
    /// What scales.
    pub resource: String,
    /// Which of its capacities.
    pub dimension: String,
    /// What was to be done.
    pub description: String,
    /// Why.
    pub cause: String,
    /// How it stands.
    pub status: String,
    /// What came of it.
    pub message: Option<String>,
    /// More about it.
    pub details: Option<String>,
    /// Why it was not done, as a document that the store does not read; only of those that were not.
    pub refusals: Option<Value>,
    /// The capacity before.
    pub capacity_before: Option<i64>,
    /// The capacity that was to be.
    pub capacity_after: Option<i64>,
    /// Milliseconds since 1970.
    pub started_at: i64,
    /// Milliseconds since 1970, once it has ended.
    pub ended_at: Option<i64>,
}

/// Which activities a list shows.
#[derive(Debug, Clone, Default)]
pub struct ScalingActivityList {
    /// Only of this resource.
    pub resource: Option<String>,
    /// Only of this capacity.
    pub dimension: Option<String>,
    /// Whether those that were not done are shown too.
    pub with_refusals: bool,
    /// Only those before this place in the order.
    pub before: Option<i64>,
    /// Most rows.
    pub limit: usize,
}

const COLUMNS: &str = "sequence, id, account, region, resource, dimension, description, cause, status, message, details, \
                       refusals, capacity_before, capacity_after, started_at, ended_at";

impl Session<'_> {
    /// Adds an activity and removes those that began before `oldest_ms`.
    pub fn insert_scaling_activity(&self, activity: &ScalingActivity, oldest_ms: i64) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM scaling_activities WHERE started_at < ?1 AND ended_at IS NOT NULL")?
            .execute([oldest_ms])?;
        self.connection
            .prepare_cached(
                "INSERT INTO scaling_activities (id, account, region, resource, dimension, description, cause, status,
                    message, details, refusals, capacity_before, capacity_after, started_at, ended_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            )?
            .execute(params![
                activity.id,
                activity.account,
                activity.region,
                activity.resource,
                activity.dimension,
                activity.description,
                activity.cause,
                activity.status,
                activity.message,
                activity.details,
                activity.refusals.as_ref().map(Value::to_string),
                activity.capacity_before,
                activity.capacity_after,
                activity.started_at,
                activity.ended_at
            ])?;
        Ok(())
    }

    /// Ends an activity that has not ended; `false` when it had.
    pub fn end_scaling_activity(&self, id: &str, status: &str, message: &str, ended_at: i64) -> Result<bool> {
        let ended = self
            .connection
            .prepare_cached(
                "UPDATE scaling_activities SET status = ?2, message = ?3, ended_at = ?4 WHERE id = ?1 AND ended_at IS NULL",
            )?
            .execute(params![id, status, message, ended_at])?;
        Ok(ended > 0)
    }

    /// The newest activity of a resource that has not ended.
    pub fn open_scaling_activity(
        &self,
        account: &str,
        region: &str,
        resource: &str,
        dimension: &str,
    ) -> Result<Option<ScalingActivity>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM scaling_activities WHERE account = ?1 AND region = ?2 AND resource = ?3 AND dimension = ?4
             AND ended_at IS NULL ORDER BY sequence DESC LIMIT 1"
        );
        self.connection
            .prepare_cached(&sql)?
            .query_row(params![account, region, resource, dimension], |row| Ok(activity_row(row)))
            .optional()?
            .transpose()
    }

    /// Activities of an account and region, the newest first.
    pub fn scaling_activities(
        &self,
        account: &str,
        region: &str,
        list: &ScalingActivityList,
    ) -> Result<Vec<ScalingActivity>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM scaling_activities WHERE account = ?1 AND region = ?2
             AND (?3 IS NULL OR resource = ?3) AND (?4 IS NULL OR dimension = ?4)
             AND (?5 OR refusals IS NULL) AND (?6 IS NULL OR sequence < ?6) ORDER BY sequence DESC LIMIT ?7"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let limit = i64::try_from(list.limit).unwrap_or(i64::MAX);
        let values =
            params![account, region, list.resource, list.dimension, list.with_refusals, list.before, limit];
        let mut activities = Vec::new();
        for row in statement.query_map(values, |row| Ok(activity_row(row)))? {
            activities.push(row??);
        }
        Ok(activities)
    }
}

fn activity_row(row: &Row<'_>) -> Result<ScalingActivity> {
    let refusals: Option<String> = row.get(11)?;
    Ok(ScalingActivity {
        sequence: row.get(0)?,
        id: row.get(1)?,
        account: row.get(2)?,
        region: row.get(3)?,
        resource: row.get(4)?,
        dimension: row.get(5)?,
        description: row.get(6)?,
        cause: row.get(7)?,
        status: row.get(8)?,
        message: row.get(9)?,
        details: row.get(10)?,
        refusals: refusals.map(|text| serde_json::from_str(&text)).transpose()?,
        capacity_before: row.get(12)?,
        capacity_after: row.get(13)?,
        started_at: row.get(14)?,
        ended_at: row.get(15)?,
    })
}
