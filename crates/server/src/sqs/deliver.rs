//! Messages that the server itself sends: callbacks of pipelines, events, schedules.

use std::collections::BTreeMap;

use store::Session;
use store::queues::{NewMessage, Queue, Sent};

use super::digest;
use super::message_attributes::{Attribute, Attributes};

/// A message of the server to a queue.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// ARN of the queue.
    pub queue_arn: String,
    /// Text of the message.
    pub body: String,
    /// Group of the message, for a first-in-first-out queue.
    pub group: Option<String>,
    /// What makes a repeated delivery no second message, for a first-in-first-out queue; the hash of the body unless given.
    pub deduplication_id: Option<String>,
    /// Attributes of the message, as texts.
    pub attributes: Vec<(&'static str, String)>,
    /// More attributes of the message.
    pub own_attributes: BTreeMap<String, Attribute>,
}

/// Puts a message into a queue of `account`, in the transaction of what caused it; gives the queue as well. When the
/// transaction is done, ring `app.queue_waiters` with its id.
///
/// # Errors
/// [`store::Error::Missing`] for a queue that the account does not have, [`store::Error::Invalid`] for a message that the queue
/// does not take.
pub fn deliver(
    session: &Session<'_>,
    account: &str,
    delivery: &Delivery,
    now_ms: i64,
) -> store::Result<(Queue, Sent)> {
    let queue = session.queue_by_arn(&delivery.queue_arn)?.filter(|queue| queue.account == account);
    let Some(queue) = queue else {
        return Err(store::Error::Missing { kind: "queue".into(), name: delivery.queue_arn.clone() });
    };
    if delivery.body.len() as i64 > queue.settings.most_message_bytes {
        let most = queue.settings.most_message_bytes;
        return Err(store::Error::Invalid(format!("a message of {} has at most {most} bytes", queue.name)));
    }
    let is_fifo = queue.settings.fifo.is_some();
    if is_fifo && delivery.group.is_none() {
        return Err(store::Error::Invalid(format!("a message to {} needs a message group", queue.name)));
    }
    let deduplication_id =
        delivery.deduplication_id.clone().unwrap_or_else(|| digest::sha256_hex(&delivery.body));
    let attribute = |text: &String| Attribute {
        data_type: "String".into(),
        // An attribute without a text is none.
        text: Some(if text.is_empty() { "-".to_owned() } else { text.clone() }),
        bytes: None,
    };
    let own = delivery.attributes.iter().map(|(name, text)| ((*name).to_owned(), attribute(text)));
    let own = delivery.own_attributes.clone().into_iter().chain(own).collect();
    let attributes = Attributes { own, ..Attributes::default() };
    let message = NewMessage {
        body: delivery.body.clone(),
        attributes: serde_json::to_string(&attributes)?,
        group: delivery.group.clone().filter(|_| is_fifo),
        deduplication_id: is_fifo.then_some(deduplication_id),
        sender: account.to_owned(),
        delay_seconds: None,
    };
    let sent = session.send_message(&queue, &message, now_ms)?;
    Ok((queue, sent))
}
