//! ReceiveMessage: at once, or when a message comes within the time that the caller waits.

use std::collections::BTreeMap;
use std::time::Duration;

use api::sqs::{Message, ReceiveMessage, ReceiveMessageInput, ReceiveMessageOutput};
use store::queues::{Queue, Received};
use tokio::time::Instant;

use super::error::{Problem, Result};
use super::message_attributes::{Attributes, to_wire};
use super::send::sequence_number;
use super::{digest, find};
use crate::{Cx, Error, Registry};

/// Most messages of a queue that were received and not deleted, while they are hidden.
const MOST_IN_FLIGHT: usize = 120_000;

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<ReceiveMessage, _, _, _>(receive_message);
}

async fn receive_message(cx: Cx, input: ReceiveMessageInput) -> Result<ReceiveMessageOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    if input.receive_request_attempt_id.is_some() {
        return Err(Error::field("ReceiveRequestAttemptId").into());
    }
    let ranged = |value: Option<i32>, default: i64, name: &str, least: i64, most: i64| {
        let value = value.map_or(default, i64::from);
        let reason = format!("Must be between {least} and {most}, if provided.");
        if (least..=most).contains(&value) {
            Ok(value)
        } else {
            Err(Problem::parameter(value, name, &reason))
        }
    };
    let most = ranged(input.max_number_of_messages, 1, "MaxNumberOfMessages", 1, 10)? as usize;
    let wait = ranged(input.wait_time_seconds, queue.settings.wait_seconds, "WaitTimeSeconds", 0, 20)?;
    let hidden = queue.settings.visibility_timeout_seconds;
    let hidden = ranged(input.visibility_timeout, hidden, "VisibilityTimeout", 0, 43_200)?;
    let received = wait_and_receive(&cx, queue, most, hidden, wait).await?;

    let names = input.message_attribute_names.unwrap_or_default();
    let mut system: Vec<String> =
        input.attribute_names.unwrap_or_default().iter().map(|name| name.as_str().to_owned()).collect();
    system.extend(
        input.message_system_attribute_names.unwrap_or_default().iter().map(|name| name.as_str().to_owned()),
    );
    let messages =
        received.into_iter().map(|one| message(one, &names, &system)).collect::<Result<Vec<_>>>()?;
    Ok(ReceiveMessageOutput { messages: Some(messages).filter(|messages| !messages.is_empty()) })
}

/// Waits for messages without asking again and again: for the bell of the queue, or the moment at which the next hidden message
/// shows itself.
async fn wait_and_receive(
    cx: &Cx,
    queue: Queue,
    most: usize,
    hidden_seconds: i64,
    wait_seconds: i64,
) -> Result<Vec<Received>> {
    let deadline = Instant::now() + Duration::from_secs(wait_seconds.unsigned_abs());
    let bell = cx.state.queue_waiters.bell(queue.id);
    let arn = queue.arn;
    loop {
        // Before the look, so that what comes after it is not missed.
        let mut rung = std::pin::pin!(bell.notified());
        rung.as_mut().enable();
        let now_ms = cx.state.clock.now_ms();
        let wanted = arn.clone();
        let look = cx.state.database.read(move |session| {
            let Some(queue) = session.queue_by_arn(&wanted)? else { return Ok(None) };
            let next_at = session.next_visible_at(&queue, now_ms)?;
            let has_any = next_at.is_some_and(|next_at| next_at <= now_ms);
            let is_full = has_any && session.has_in_flight(&queue, MOST_IN_FLIGHT, now_ms)?;
            Ok(Some((queue, next_at, has_any, is_full)))
        });
        let (queue, next_at, has_any, is_full) = look.await?.ok_or_else(Problem::missing)?;
        // As in the service, who waits and who wants messages in order is told nothing.
        if is_full && wait_seconds == 0 && queue.settings.fifo.is_none() {
            let text = format!(
                "{MOST_IN_FLIGHT} messages of the queue are in flight, which is the most; delete some."
            );
            return Err(Problem::new("OverLimit", text));
        }
        if has_any && !is_full {
            let (id, dead_letter) = (queue.id, queue.settings.redrive.clone());
            let write = cx.state.database.write(move |session| {
                let received = session.receive_messages(&queue, most, hidden_seconds, now_ms)?;
                let moved_to = match dead_letter {
                    Some(redrive) => session.queue_by_arn(&redrive.dead_letter_arn)?.map(|queue| queue.id),
                    None => None,
                };
                Ok((received, moved_to))
            });
            let (received, moved_to) = write.await?;
            if let Some(moved_to) = moved_to {
                cx.state.queue_waiters.ring(moved_to);
            }
            if !received.is_empty() {
                // Others may wait for messages that are left, or that show themselves at once.
                cx.state.queue_waiters.ring(id);
                return Ok(received);
            }
        }
        if Instant::now() >= deadline {
            return Ok(Vec::new());
        }
        let pause = next_at
            .filter(|next_at| *next_at > now_ms)
            .map(|next_at| Instant::now() + Duration::from_millis((next_at - now_ms).unsigned_abs()));
        let until = pause.map_or(deadline, |pause| pause.min(deadline));
        tokio::select! {
            () = rung => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

fn message(received: Received, names: &[String], system: &[String]) -> Result<Message> {
    let attributes: Attributes = serde_json::from_str(&received.attributes).map_err(Error::internal)?;
    let own = attributes.asked_for(names);
    let mut all: BTreeMap<&str, String> = BTreeMap::from([
        ("SenderId", received.sender),
        ("SentTimestamp", received.sent_at.to_string()),
        ("ApproximateReceiveCount", received.receive_count.to_string()),
        ("ApproximateFirstReceiveTimestamp", received.first_received_at.to_string()),
    ]);
    if received.deduplication_id.is_some() {
        all.insert("SequenceNumber", sequence_number(received.sequence));
    }
    let more = [
        ("MessageGroupId", received.group),
        ("MessageDeduplicationId", received.deduplication_id),
        ("DeadLetterQueueSourceArn", received.dead_letter_source),
        ("AWSTraceHeader", attributes.system.get("AWSTraceHeader").and_then(|header| header.text.clone())),
    ];
    all.extend(more.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let wanted = |name: &str| system.iter().any(|asked| asked == "All" || asked == name);
    let shown: BTreeMap<String, String> = all
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    Ok(Message {
        message_id: Some(received.id),
        receipt_handle: Some(received.receipt.to_text()),
        md5_of_body: Some(digest::md5_hex(&received.body)),
        body: Some(received.body),
        attributes: Some(shown).filter(|shown| !shown.is_empty()),
        md5_of_message_attributes: digest::attributes_md5_hex(&own),
        message_attributes: Some(own.into_iter().map(|(name, one)| (name, to_wire(one))).collect())
            .filter(|own: &BTreeMap<_, _>| !own.is_empty()),
    })
}
