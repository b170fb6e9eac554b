//! SendMessage, one and many.

use std::collections::BTreeMap;

use api::sqs::{
    MessageAttributeValue, MessageSystemAttributeValue, SendMessage, SendMessageBatch, SendMessageBatchInput,
    SendMessageBatchOutput, SendMessageBatchResultEntry, SendMessageInput, SendMessageOutput,
};
use store::queues::{NewMessage, Queue, Sent};

use super::attributes::MOST_MESSAGE_BYTES;
use super::error::{Problem, Result};
use super::message_attributes::Attributes;
use super::{check_batch, digest, find};
use crate::{Cx, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<SendMessage, _, _, _>(send_message);
    registry.on::<SendMessageBatch, _, _, _>(send_message_batch);
}

/// What a message is made of, from either operation.
struct Draft {
    body: String,
    delay_seconds: Option<i32>,
    own: Option<BTreeMap<String, MessageAttributeValue>>,
    system: Option<BTreeMap<String, MessageSystemAttributeValue>>,
    deduplication_id: Option<String>,
    group: Option<String>,
}

/// A message that may be sent, with its digests.
struct Checked {
    message: NewMessage,
    byte_count: usize,
    body_md5: String,
    attributes_md5: Option<String>,
    system_md5: Option<String>,
}

async fn send_message(cx: Cx, input: SendMessageInput) -> Result<SendMessageOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    let draft = Draft {
        body: input.message_body,
        delay_seconds: input.delay_seconds,
        own: input.message_attributes,
        system: input.message_system_attributes,
        deduplication_id: input.message_deduplication_id,
        group: input.message_group_id,
    };
    let checked = check(&cx, &queue, draft)?;
    let is_fifo = queue.settings.fifo.is_some();
    let mut sent = store(&cx, queue, vec![checked.message]).await?;
    let Some(sent) = sent.pop() else { return Err(Problem::missing()) };
    Ok(SendMessageOutput {
        md5_of_message_body: Some(checked.body_md5),
        md5_of_message_attributes: checked.attributes_md5,
        md5_of_message_system_attributes: checked.system_md5,
        sequence_number: is_fifo.then(|| sequence_number(sent.sequence)),
        message_id: Some(sent.id),
    })
}

async fn send_message_batch(cx: Cx, input: SendMessageBatchInput) -> Result<SendMessageBatchOutput> {
    check_batch(input.entries.iter().map(|entry| entry.id.as_str()))?;
    let queue = find(&cx, &input.queue_url).await?;
    let is_fifo = queue.settings.fifo.is_some();
    let (mut failed, mut taken, mut messages, mut byte_count) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for entry in input.entries {
        let draft = Draft {
            body: entry.message_body,
            delay_seconds: entry.delay_seconds,
            own: entry.message_attributes,
            system: entry.message_system_attributes,
            deduplication_id: entry.message_deduplication_id,
            group: entry.message_group_id,
        };
        match check(&cx, &queue, draft) {
            Ok(checked) => {
                byte_count += checked.byte_count;
                messages.push(checked.message);
                taken.push((entry.id, checked.body_md5, checked.attributes_md5, checked.system_md5));
            }
            Err(problem) => failed.push(problem.of_entry(entry.id)?),
        }
    }
    if byte_count as i64 > MOST_MESSAGE_BYTES {
        let text = format!(
            "Batch requests cannot be longer than {MOST_MESSAGE_BYTES} bytes. You have sent {byte_count} bytes."
        );
        return Err(Problem::new("BatchRequestTooLong", text));
    }
    let sent = if messages.is_empty() { Vec::new() } else { store(&cx, queue, messages).await? };
    let successful = taken.into_iter().zip(sent).map(|((id, body, attributes, system), sent)| {
        SendMessageBatchResultEntry {
            id: Some(id),
            md5_of_message_body: Some(body),
            md5_of_message_attributes: attributes,
            md5_of_message_system_attributes: system,
            sequence_number: is_fifo.then(|| sequence_number(sent.sequence)),
            message_id: Some(sent.id),
        }
    });
    Ok(SendMessageBatchOutput { successful: Some(successful.collect()), failed: Some(failed) })
}

/// A position in the form in which clients see it.
pub fn sequence_number(sequence: i64) -> String {
    format!("{sequence:020}")
}

async fn store(cx: &Cx, queue: Queue, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
    let (id, now_ms, effect_id) = (queue.id, cx.state.clock.now_ms(), cx.effect_id.clone());
    let sent = cx.state.database.write(move |session| {
        let known = effect_id.as_ref().map(|id| session.effect(id)).transpose()?.flatten();
        if let Some(answer) = known.and_then(|known| known.answer) {
            return Ok(serde_json::from_value(answer)?);
        }
        // It may have been deleted meanwhile.
        let Some(queue) = session.queue_by_arn(&queue.arn)? else { return Ok(Vec::new()) };
        let sent: store::Result<Vec<Sent>> =
            messages.iter().map(|message| session.send_message(&queue, message, now_ms)).collect();
        let sent = sent?;
        if let Some(id) = effect_id {
            session.insert_effect(&id, &serde_json::to_value(&sent)?)?;
        }
        Ok(sent)
    });
    let sent = sent.await?;
    cx.state.queue_waiters.ring(id);
    if sent.is_empty() { Err(Problem::missing()) } else { Ok(sent) }
}

fn check(cx: &Cx, queue: &Queue, draft: Draft) -> Result<Checked> {
    if draft.body.is_empty() {
        return Err(Problem::new("MissingParameter", "The request must contain the parameter MessageBody."));
    }
    if let Some(wrong) = draft.body.chars().find(|letter| !is_allowed(*letter)) {
        let text =
            format!("Invalid binary character '#x{:X}' was found in the message body.", u32::from(wrong));
        return Err(Problem::new("InvalidMessageContents", text));
    }
    let delay_seconds = draft.delay_seconds.map(i64::from);
    if let Some(delay) = delay_seconds
        && !(0..=900).contains(&delay)
    {
        return Err(Problem::parameter(delay, "DelaySeconds", "DelaySeconds must be >= 0 and <= 900."));
    }
    let attributes = Attributes::read(draft.own, draft.system)?;
    let byte_count = draft.body.len() + attributes.byte_count();
    let most = queue.settings.most_message_bytes;
    if byte_count as i64 > most {
        let text =
            format!("One or more parameters are invalid. Reason: Message must be shorter than {most} bytes.");
        return Err(Problem::new("InvalidParameterValue", text));
    }
    let deduplication_id = match &queue.settings.fifo {
        None if draft.deduplication_id.is_some() => {
            let reason = "The request include parameter that is not valid for this queue type.";
            return Err(Problem::parameter("MessageDeduplicationId", "MessageDeduplicationId", reason));
        }
        None => None,
        Some(_) if delay_seconds.is_some_and(|delay| delay > 0) => {
            let reason = "The request include parameter that is not valid for this queue type.";
            return Err(Problem::parameter(delay_seconds.unwrap_or_default(), "DelaySeconds", reason));
        }
        Some(_) if draft.group.is_none() => {
            let text = "The request must contain the parameter MessageGroupId.";
            return Err(Problem::new("MissingParameter", text));
        }
        Some(fifo) => match draft.deduplication_id {
            Some(id) => Some(id),
            None if fifo.deduplicates_by_content => Some(digest::sha256_hex(&draft.body)),
            None => {
                let text = "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided \
                            explicitly";
                return Err(Problem::new("InvalidParameterValue", text));
            }
        },
    };
    for (name, value) in [("MessageGroupId", &draft.group), ("MessageDeduplicationId", &deduplication_id)] {
        let fits = |text: &String| {
            (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if let Some(text) = value.as_ref().filter(|text| !fits(text)) {
            let reason = format!(
                "{name} can only include alphanumeric and punctuation characters. 1 to 128 in length."
            );
            return Err(Problem::parameter(text, name, &reason));
        }
    }
    let body_md5 = digest::md5_hex(&draft.body);
    let attributes_md5 = digest::attributes_md5_hex(&attributes.own);
    let system_md5 = digest::attributes_md5_hex(&attributes.system);
    let message = NewMessage {
        body: draft.body,
        attributes: serde_json::to_string(&attributes).map_err(crate::Error::internal)?,
        group: draft.group,
        deduplication_id,
        sender: cx.caller.principal_id.clone(),
        // A queue that keeps order has one delay for all.
        delay_seconds: delay_seconds.filter(|_| queue.settings.fifo.is_none()),
    };
    Ok(Checked { message, byte_count, body_md5, attributes_md5, system_md5 })
}

/// Letters that XML has, which is what the service takes.
fn is_allowed(letter: char) -> bool {
    matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}
