//! Receiving: a message is hidden for a time, deleted by its receipt, and moved away when it is received too often.

use rusqlite::{OptionalExtension, Row, params};

use super::Queue;
use crate::database::Session;
use crate::error::Result;

/// Longest time from a receive during which a message can be hidden, in milliseconds.
const LONGEST_HIDING_MS: i64 = 12 * 60 * 60 * 1000;

/// A message as a receiver gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Its id.
    pub id: String,
    /// Position in its queue.
    pub sequence: i64,
    /// What deletes it.
    pub receipt: Receipt,
    /// Its text.
    pub body: String,
    /// What the sender attached.
    pub attributes: String,
    /// The group that it keeps its order in.
    pub group: Option<String>,
    /// What de-duplicated it.
    pub deduplication_id: Option<String>,
    /// Who sent it.
    pub sender: String,
    /// Milliseconds since 1970.
    pub sent_at: i64,
    /// Milliseconds since 1970.
    pub first_received_at: i64,
    /// With this one.
    pub receive_count: i64,
    /// ARN of the queue that it was moved from.
    pub dead_letter_source: Option<String>,
}

/// Names one receive of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Number of the queue.
    pub queue: i64,
    /// Position of the message.
    pub sequence: i64,
    /// Differs with each receive.
    pub token: String,
}

impl Receipt {
    /// As a text that tells nothing.
    pub fn to_text(&self) -> String {
        use base64::Engine;
        let plain = format!("{}:{}:{}", self.queue, self.sequence, self.token);
        base64::engine::general_purpose::STANDARD.encode(plain)
    }

    /// Reads [`Receipt::to_text`].
    pub fn parse(text: &str) -> Option<Receipt> {
        use base64::Engine;
        let plain = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        let plain = String::from_utf8(plain).ok()?;
        let mut parts = plain.splitn(3, ':');
        let receipt = Receipt {
            queue: parts.next()?.parse().ok()?,
            sequence: parts.next()?.parse().ok()?,
            token: parts.next()?.to_owned(),
        };
        uuid::Uuid::try_parse(&receipt.token).is_ok().then_some(receipt)
    }
}

/// Why a receipt does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisibilityProblem {
    /// The message is gone, or was received again.
    Missing,
    /// Its time is over: anybody may receive the message.
    Expired,
    /// It would be hidden for longer than a message can be.
    TooLong,
}

const COLUMNS: &str = "sequence, id, body, attributes, message_group, deduplication_id, sender, sent_at, first_received_at, \
                       receive_count, dead_letter_source";

impl Session<'_> {
    /// When the next message of a queue can be received: a moment up to `now_ms` when there is one now.
    pub fn next_visible_at(&self, queue: &Queue, now_ms: i64) -> Result<Option<i64>> {
        let kept_since = now_ms - queue.settings.retention_seconds * 1000;
        if queue.settings.fifo.is_some() && !self.receivable(queue, now_ms, 1)?.is_empty() {
            return Ok(Some(now_ms));
        }
        // Of a group that waits for a message in flight, only that one's time counts.
        let after = if queue.settings.fifo.is_some() { now_ms } else { i64::MIN };
        Ok(self
            .connection
            .prepare_cached(
                "SELECT min(visible_at) FROM queue_messages WHERE queue = ?1 AND sent_at > ?2 AND visible_at > ?3",
            )?
            .query_row(params![queue.id, kept_since, after], |row| row.get(0))?)
    }

    /// Whether at least so many messages of a queue were received and are hidden now. That takes as long as there are hidden ones, up to
    /// `count`.
    pub fn has_in_flight(&self, queue: &Queue, count: usize, now_ms: i64) -> Result<bool> {
        // The index alone says how many are hidden; which of them only wait for their delay, the rows do.
        let hidden = "SELECT 1 FROM queue_messages WHERE queue = ?1 AND visible_at > ?2";
        let sql = format!(
            "SELECT CASE WHEN EXISTS ({hidden} LIMIT 1 OFFSET ?3)
             THEN EXISTS ({hidden} AND receipt IS NOT NULL LIMIT 1 OFFSET ?3) ELSE FALSE END"
        );
        let others = i64::try_from(count.saturating_sub(1)).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(&sql)?;
        Ok(statement.query_row(params![queue.id, now_ms, others], |row| row.get(0))?)
    }

    /// Receives up to `limit` messages and hides them.
    pub fn receive_messages(
        &self,
        queue: &Queue,
        limit: usize,
        hidden_seconds: i64,
        now_ms: i64,
    ) -> Result<Vec<Received>> {
        self.expire_messages_of(queue, now_ms)?;
        let mut received = Vec::new();
        loop {
            let found = self.receivable(queue, now_ms, limit)?;
            let mut moved = false;
            for mut message in found {
                if self.move_dead_letter(queue, &message, now_ms)? {
                    moved = true;
                    continue;
                }
                message.receive_count += 1;
                if message.receive_count == 1 {
                    message.first_received_at = now_ms;
                }
                self.connection
                    .prepare_cached(
                        "UPDATE queue_messages SET visible_at = ?3, receipt = ?4, received_at = ?5, first_received_at = ?6,
                         receive_count = ?7 WHERE queue = ?1 AND sequence = ?2",
                    )?
                    .execute(params![
                        queue.id,
                        message.sequence,
                        now_ms + hidden_seconds * 1000,
                        message.receipt.token,
                        now_ms,
                        message.first_received_at,
                        message.receive_count
                    ])?;
                received.push(message);
            }
            // Behind dead letters that went away there may be messages.
            if !received.is_empty() || !moved {
                return Ok(received);
            }
        }
    }

    /// Messages that can be received now. Within a group, none overtakes another or goes beside one in flight.
    fn receivable(&self, queue: &Queue, now_ms: i64, limit: usize) -> Result<Vec<Received>> {
        let sql = match queue.settings.fifo {
            None => format!(
                "SELECT {COLUMNS} FROM queue_messages WHERE queue = ?1 AND visible_at <= ?2 AND sent_at > ?3
                 ORDER BY visible_at, sequence LIMIT ?4"
            ),
            Some(_) => format!(
                "SELECT {COLUMNS} FROM queue_messages AS message WHERE queue = ?1 AND visible_at <= ?2 AND sent_at > ?3
                 AND NOT EXISTS (SELECT 1 FROM queue_messages AS other WHERE other.queue = message.queue
                     AND other.message_group = message.message_group AND other.visible_at > ?2
                     AND (other.receipt IS NOT NULL OR other.sequence < message.sequence))
                 ORDER BY sequence LIMIT ?4"
            ),
        };
        let mut statement = self.connection.prepare_cached(&sql)?;
        let kept_since = now_ms - queue.settings.retention_seconds * 1000;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement
            .query_map(params![queue.id, now_ms, kept_since, limit], |row| received_row(queue.id, row))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Moves a message that was received often enough to the dead-letter queue, if there is one.
    fn move_dead_letter(&self, queue: &Queue, message: &Received, now_ms: i64) -> Result<bool> {
        let Some(redrive) = &queue.settings.redrive else { return Ok(false) };
        if message.receive_count < redrive.most_receives {
            return Ok(false);
        }
        let Some(target) = self.queue_by_arn(&redrive.dead_letter_arn)? else { return Ok(false) };
        let sequence = self.next_sequence(target.id)?;
        // An ordered queue starts the time of the message anew.
        let sent_at = if target.settings.fifo.is_some() { now_ms } else { message.sent_at };
        self.connection
            .prepare_cached(
                "UPDATE queue_messages SET queue = ?3, sequence = ?4, sent_at = ?5, visible_at = ?6, receipt = NULL,
                 received_at = NULL, dead_letter_source = ?7 WHERE queue = ?1 AND sequence = ?2",
            )?
            .execute(params![queue.id, message.sequence, target.id, sequence, sent_at, now_ms, queue.arn])?;
        Ok(true)
    }

    /// Deletes a message by its receipt. One that is gone is no problem; `false` when the receipt's time is over and the
    /// queue keeps order, so that another receiver may have the message.
    pub fn delete_message(&self, queue: &Queue, receipt: &Receipt, now_ms: i64) -> Result<bool> {
        if queue.settings.fifo.is_some()
            && let Some((visible_at, _)) = self.held(receipt)?
            && visible_at <= now_ms
        {
            return Ok(false);
        }
        self.connection
            .prepare_cached("DELETE FROM queue_messages WHERE queue = ?1 AND sequence = ?2 AND receipt = ?3")?
            .execute(params![receipt.queue, receipt.sequence, receipt.token])?;
        Ok(true)
    }

    /// Hides a received message until some seconds from now; with 0 it can be received at once.
    pub fn change_visibility(
        &self,
        receipt: &Receipt,
        seconds: i64,
        now_ms: i64,
    ) -> Result<Result<(), VisibilityProblem>> {
        let Some((visible_at, received_at)) = self.held(receipt)? else {
            return Ok(Err(VisibilityProblem::Missing));
        };
        let until = now_ms + seconds * 1000;
        if visible_at <= now_ms {
            return Ok(Err(VisibilityProblem::Expired));
        }
        if until - received_at > LONGEST_HIDING_MS {
            return Ok(Err(VisibilityProblem::TooLong));
        }
        self.connection
            .prepare_cached("UPDATE queue_messages SET visible_at = ?3 WHERE queue = ?1 AND sequence = ?2")?
            .execute(params![receipt.queue, receipt.sequence, until])?;
        Ok(Ok(()))
    }

    /// Until when a receipt hides its message, and since when.
    fn held(&self, receipt: &Receipt) -> Result<Option<(i64, i64)>> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT visible_at, coalesce(received_at, sent_at) FROM queue_messages
                 WHERE queue = ?1 AND sequence = ?2 AND receipt = ?3",
            )?
            .query_row(params![receipt.queue, receipt.sequence, receipt.token], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?)
    }
}

fn received_row(queue: i64, row: &Row<'_>) -> rusqlite::Result<Received> {
    let sequence = row.get(0)?;
    Ok(Received {
        id: row.get(1)?,
        sequence,
        receipt: Receipt { queue, sequence, token: uuid::Uuid::new_v4().to_string() },
        body: row.get(2)?,
        attributes: row.get(3)?,
        group: row.get(4)?,
        deduplication_id: row.get(5)?,
        sender: row.get(6)?,
        sent_at: row.get(7)?,
        first_received_at: row.get::<_, Option<i64>>(8)?.unwrap_or_default(),
        receive_count: row.get(9)?,
        dead_letter_source: row.get(10)?,
    })
}
