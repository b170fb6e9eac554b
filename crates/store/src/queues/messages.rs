//! Sending: a message becomes a row, once per de-duplication id.

use rusqlite::{OptionalExtension, params};

use super::Queue;
use crate::database::Session;
use crate::error::Result;

/// How long a first-in-first-out queue remembers a de-duplication id.
const DEDUPLICATION_MS: i64 = 5 * 60 * 1000;

/// A message that is to be sent.
#[derive(Debug, Clone, Default)]
pub struct NewMessage {
    /// Its text.
    pub body: String,
    /// What the caller attached, as a document that the store does not read.
    pub attributes: String,
    /// The group that it keeps its order in.
    pub group: Option<String>,
    /// A second message with the same is not sent.
    pub deduplication_id: Option<String>,
    /// Who sends it.
    pub sender: String,
    /// How long it is hidden; the queue's own time unless given.
    pub delay_seconds: Option<i64>,
}

/// What became of a send.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sent {
    /// Id of the message; of the first one with this de-duplication id.
    pub id: String,
    /// Its position in the queue.
    pub sequence: i64,
}

impl Session<'_> {
    /// Puts a message into a queue, unless one with its de-duplication id was sent a short time ago.
    pub fn send_message(&self, queue: &Queue, message: &NewMessage, now_ms: i64) -> Result<Sent> {
        let scope = match &queue.settings.fifo {
            Some(fifo) if fifo.deduplicates_by_group => message.group.as_deref().unwrap_or_default(),
            _ => "",
        };
        let deduplicated = message.deduplication_id.as_ref().filter(|_| queue.settings.fifo.is_some());
        if let Some(deduplication_id) = deduplicated
            && let Some(sent) = self.sent_before(queue.id, scope, deduplication_id, now_ms)?
        {
            return Ok(sent);
        }
        let sequence = self.next_sequence(queue.id)?;
        let sent = Sent { id: uuid::Uuid::new_v4().to_string(), sequence };
        let delay_seconds = message.delay_seconds.unwrap_or(queue.settings.delay_seconds);
        self.connection
            .prepare_cached(
                "INSERT INTO queue_messages (queue, sequence, id, body, attributes, message_group, deduplication_id, sender,
                 sent_at, visible_at, receive_count) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0)",
            )?
            .execute(params![
                queue.id,
                sequence,
                sent.id,
                message.body,
                message.attributes,
                message.group,
                message.deduplication_id,
                message.sender,
                now_ms,
                now_ms + delay_seconds * 1000
            ])?;
        if let Some(deduplication_id) = deduplicated {
            self.connection
                .prepare_cached(
                    "INSERT INTO queue_deduplications (queue, message_group, deduplication_id, message, sequence, expires_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    queue.id,
                    scope,
                    deduplication_id,
                    sent.id,
                    sequence,
                    now_ms + DEDUPLICATION_MS
                ])?;
        }
        Ok(sent)
    }

    /// The next position in a queue; positions are never used twice, whatever is deleted.
    pub(super) fn next_sequence(&self, queue: i64) -> Result<i64> {
        self.connection
            .prepare_cached("UPDATE queues SET last_sequence = last_sequence + 1 WHERE id = ?1")?
            .execute(params![queue])?;
        let sequence = self
            .connection
            .prepare_cached("SELECT last_sequence FROM queues WHERE id = ?1")?
            .query_row(params![queue], |row| row.get(0))?;
        Ok(sequence)
    }

    /// The message that was sent with a de-duplication id which is still remembered.
    fn sent_before(
        &self,
        queue: i64,
        scope: &str,
        deduplication_id: &str,
        now_ms: i64,
    ) -> Result<Option<Sent>> {
        self.connection
            .prepare_cached("DELETE FROM queue_deduplications WHERE queue = ?1 AND expires_at <= ?2")?
            .execute(params![queue, now_ms])?;
        let found = self
            .connection
            .prepare_cached(
                "SELECT message, sequence FROM queue_deduplications
                 WHERE queue = ?1 AND message_group = ?2 AND deduplication_id = ?3",
            )?
            .query_row(params![queue, scope, deduplication_id], |row| {
                Ok(Sent { id: row.get(0)?, sequence: row.get(1)? })
            })
            .optional()?;
        Ok(found)
    }

    /// Removes the messages that are older than their queue keeps them.
    pub(super) fn expire_messages_of(&self, queue: &Queue, now_ms: i64) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM queue_messages WHERE queue = ?1 AND sent_at <= ?2")?
            .execute(params![queue.id, now_ms - queue.settings.retention_seconds * 1000])?;
        Ok(())
    }
}
