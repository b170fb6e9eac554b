//! Message queues: the queues themselves. A message is a row, so that a send can share a transaction with what caused it.

mod messages;
mod receive;

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

pub use messages::{NewMessage, Sent};
pub use receive::{Receipt, Received, VisibilityProblem};

use crate::database::Session;
use crate::error::{Error, Result};

/// A queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Its number.
    pub id: i64,
    /// Twelve-digit account.
    pub account: String,
    /// Region.
    pub region: String,
    /// Name, unique within account and region.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// How it treats messages.
    pub settings: QueueSettings,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub modified_at: i64,
    /// When it was last emptied on demand, milliseconds since 1970.
    pub purged_at: Option<i64>,
}

/// How a queue treats messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueSettings {
    /// How long a received message is hidden.
    pub visibility_timeout_seconds: i64,
    /// How long a new message is hidden.
    pub delay_seconds: i64,
    /// How long a message is kept.
    pub retention_seconds: i64,
    /// Longest message with its attributes.
    pub most_message_bytes: i64,
    /// How long a receive waits for a message.
    pub wait_seconds: i64,
    /// Order and de-duplication, for queues that have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fifo: Option<FifoSettings>,
    /// Where messages go that are received too often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive: Option<Redrive>,
    /// Which queues may name this one as their dead-letter queue, as the caller wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_allow: Option<String>,
    /// The access policy, as the caller wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// What a first-in-first-out queue has beside the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FifoSettings {
    /// Whether the hash of the body stands in for a missing de-duplication id.
    pub deduplicates_by_content: bool,
    /// Whether a de-duplication id counts within its group only.
    pub deduplicates_by_group: bool,
    /// Whether throughput is limited per group, as the caller asked.
    pub limits_by_group: bool,
}

/// Where messages go that are received too often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Redrive {
    /// ARN of the dead-letter queue.
    pub dead_letter_arn: String,
    /// Receives after which a message goes there.
    pub most_receives: i64,
}

/// How many messages a queue has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// That can be received.
    pub visible: i64,
    /// That were received and not deleted.
    pub in_flight: i64,
    /// That are not to be received yet.
    pub delayed: i64,
}

const COLUMNS: &str = "id, account, region, name, arn, settings, created_at, modified_at, purged_at";

/// Kind of the errors about queues.
const KIND: &str = "queue";

impl Session<'_> {
    /// Adds a queue; its id is given here.
    ///
    /// # Errors
    /// [`Error::Exists`] when the name is taken.
    pub fn insert_queue(&self, queue: &Queue) -> Result<()> {
        let added = self
            .connection
            .prepare_cached(
                "INSERT INTO queues (account, region, name, arn, settings, last_sequence, created_at, modified_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?6) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                queue.account,
                queue.region,
                queue.name,
                queue.arn,
                serde_json::to_string(&queue.settings)?,
                queue.created_at
            ])?;
        match added {
            0 => Err(Error::Exists { kind: KIND.into(), name: queue.name.clone() }),
            _ => Ok(()),
        }
    }

    /// The queue of a name.
    pub fn queue(&self, account: &str, region: &str, name: &str) -> Result<Option<Queue>> {
        let sql = format!("SELECT {COLUMNS} FROM queues WHERE account = ?1 AND region = ?2 AND name = ?3");
        let found = self
            .connection
            .prepare_cached(&sql)?
            .query_row(params![account, region, name], |row| Ok(queue_row(row)))
            .optional()?;
        found.transpose()
    }

    /// The queue with this ARN, whatever its account.
    pub fn queue_by_arn(&self, arn: &str) -> Result<Option<Queue>> {
        let sql = format!("SELECT {COLUMNS} FROM queues WHERE arn = ?1");
        let found = self
            .connection
            .prepare_cached(&sql)?
            .query_row(params![arn], |row| Ok(queue_row(row)))
            .optional()?;
        found.transpose()
    }

    /// Queues of an account and region whose names begin with `prefix` and come after `after`, by name.
    pub fn queues(
        &self,
        account: &str,
        region: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Queue>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM queues WHERE account = ?1 AND region = ?2 AND substr(name, 1, ?5) = ?3 AND name > ?4
             ORDER BY name LIMIT ?6"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let (length, limit) = (prefix.chars().count() as i64, i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = statement
            .query_map(params![account, region, prefix, after, length, limit], |row| Ok(queue_row(row)))?;
        let mut queues = Vec::new();
        for row in rows {
            queues.push(row??);
        }
        Ok(queues)
    }

    /// Every queue of an account and region that sends its dead letters to this one, by name.
    pub fn dead_letter_sources(&self, queue: &Queue) -> Result<Vec<Queue>> {
        let mut sources = self.queues(&queue.account, &queue.region, "", "", usize::MAX)?;
        sources.retain(|source| {
            source.settings.redrive.as_ref().is_some_and(|redrive| redrive.dead_letter_arn == queue.arn)
        });
        Ok(sources)
    }

    /// Changes how a queue treats messages.
    pub fn set_queue_settings(&self, id: i64, settings: &QueueSettings, now_ms: i64) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE queues SET settings = ?2, modified_at = ?3 WHERE id = ?1")?
            .execute(params![id, serde_json::to_string(settings)?, now_ms])?;
        Ok(())
    }

    /// Removes a queue with its messages and tags.
    pub fn delete_queue(&self, queue: &Queue) -> Result<()> {
        self.delete_messages_of(queue.id)?;
        self.connection
            .prepare_cached("DELETE FROM queue_deduplications WHERE queue = ?1")?
            .execute(params![queue.id])?;
        self.connection.prepare_cached("DELETE FROM queues WHERE id = ?1")?.execute(params![queue.id])?;
        self.connection.prepare_cached("DELETE FROM tags WHERE arn = ?1")?.execute(params![queue.arn])?;
        Ok(())
    }

    /// Removes all messages of a queue and notes when.
    pub fn purge_queue(&self, id: i64, now_ms: i64) -> Result<()> {
        self.delete_messages_of(id)?;
        self.connection
            .prepare_cached("UPDATE queues SET purged_at = ?2 WHERE id = ?1")?
            .execute(params![id, now_ms])?;
        Ok(())
    }

    fn delete_messages_of(&self, id: i64) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM queue_messages WHERE queue = ?1")?
            .execute(params![id])?;
        Ok(())
    }

    /// Counts the messages of a queue that are not too old.
    pub fn count_messages(&self, queue: &Queue, now_ms: i64) -> Result<MessageCounts> {
        let sql = "SELECT coalesce(sum(visible_at <= ?2), 0), coalesce(sum(visible_at > ?2 AND receipt IS NOT NULL), 0),
                   coalesce(sum(visible_at > ?2 AND receipt IS NULL), 0)
                   FROM queue_messages WHERE queue = ?1 AND sent_at > ?3";
        let kept_since = now_ms - queue.settings.retention_seconds * 1000;
        let counts =
            self.connection.prepare_cached(sql)?.query_row(params![queue.id, now_ms, kept_since], |row| {
                Ok(MessageCounts { visible: row.get(0)?, in_flight: row.get(1)?, delayed: row.get(2)? })
            })?;
        Ok(counts)
    }

    /// Removes the messages of all queues that are older than their queue keeps them.
    pub fn expire_messages(&self, now_ms: i64) -> Result<()> {
        let sql = format!("SELECT {COLUMNS} FROM queues");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut queues = Vec::new();
        for row in statement.query_map([], |row| Ok(queue_row(row)))? {
            queues.push(row??);
        }
        for queue in queues {
            self.expire_messages_of(&queue, now_ms)?;
        }
        Ok(())
    }
}

fn queue_row(row: &Row<'_>) -> Result<Queue> {
    Ok(Queue {
        id: row.get(0)?,
        account: row.get(1)?,
        region: row.get(2)?,
        name: row.get(3)?,
        arn: row.get(4)?,
        settings: serde_json::from_str(&row.get::<_, String>(5)?)?,
        created_at: row.get(6)?,
        modified_at: row.get(7)?,
        purged_at: row.get(8)?,
    })
}
