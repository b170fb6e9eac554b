//! Publish: a delivery for each subscription of the topic, in one transaction.

use std::collections::BTreeMap;

use api::sns::{Publish, PublishInput, PublishOutput};
use store::Session;

use super::subscription_attributes::RAW;
use super::{arn, envelope, find, invalid, key_of, missing, subscriptions_of};
use crate::deliveries::{self, Target};
use crate::problem::Result;
use crate::sqs::{Attribute, checked_attribute};
use crate::{Cx, Registry};

/// Most bytes of a message with its attributes, as in the service.
const MOST_BYTES: usize = 262_144;
/// Most attributes of a message that a queue gets raw.
const MOST_ATTRIBUTES: usize = 10;

/// What a topic is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Names it for good: telling it again tells nobody twice.
    pub message_id: String,
    /// ARN of the topic.
    pub topic_arn: String,
    /// Its headline.
    pub subject: Option<String>,
    /// Its text.
    pub message: String,
    /// What goes with it.
    pub attributes: BTreeMap<String, Attribute>,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<Publish, _, _, _>(publish_message);
}

/// Tells a topic of `account`, in the transaction of what caused it; `false` when the account has no such topic. When the
/// transaction is done, ring `app.deliveries`.
///
/// # Errors
/// When the database fails.
pub fn publish(session: &Session<'_>, account: &str, notice: &Notice, now_ms: i64) -> store::Result<bool> {
    let Some(topic) = key_of(&notice.topic_arn).filter(|topic| topic.account == account) else {
        return Ok(false);
    };
    if session.find_resource(&topic)?.is_none() {
        return Ok(false);
    }
    let topic_arn = arn(&topic);
    for subscription in subscriptions_of(session, &topic)? {
        let endpoint = subscription.spec["Endpoint"].as_str().unwrap_or_default().to_owned();
        let is_function = subscription.spec["Protocol"] == "lambda";
        let is_raw = subscription.document[RAW] == true;
        let payload = if is_function {
            envelope::for_function(notice, &subscription.arn, now_ms)
        } else if is_raw {
            notice.message.clone()
        } else {
            envelope::for_queue(notice, now_ms)
        };
        let attributes = if is_raw { notice.attributes.clone() } else { BTreeMap::new() };
        let target = match is_function {
            true => Target::Function { arn: endpoint },
            false => Target::Queue { arn: endpoint, group: None, attributes },
        };
        let id = deliveries::id_of(&["sns", &notice.message_id, &subscription.arn]);
        let delivery = deliveries::new(id, account, &topic.region, &topic_arn, &target, payload, now_ms);
        session.insert_delivery(&delivery)?;
    }
    Ok(true)
}

async fn publish_message(cx: Cx, input: PublishInput) -> Result<PublishOutput> {
    crate::sagemaker::fields::check(
        &cx.input,
        &["TopicArn", "TargetArn", "Message", "Subject", "MessageAttributes.**"],
    )?;
    let topic_arn = match (input.topic_arn, input.target_arn) {
        (Some(arn), None) | (None, Some(arn)) => arn,
        _ => return Err(invalid("TopicArn or TargetArn", "exactly one of them must be given")),
    };
    let topic = find(&cx, &topic_arn).await?;
    if input.message.is_empty() {
        return Err(invalid("Empty message", "a message has at least one character"));
    }
    if let Some(subject) = &input.subject {
        let fits = (1..=100).contains(&subject.chars().count())
            && !subject.starts_with(char::is_whitespace)
            && !subject.chars().any(char::is_control);
        if !fits {
            return Err(invalid("Subject", "a subject has 1 to 100 characters of one line"));
        }
    }
    let mut attributes = BTreeMap::new();
    for (name, value) in input.message_attributes.unwrap_or_default() {
        let checked = checked_attribute(&name, value.data_type, value.string_value, value.binary_value);
        attributes.insert(name, checked.map_err(|text| invalid("MessageAttributes", text))?);
    }
    let attribute_bytes: usize =
        attributes.iter().map(|(name, one)| name.len() + one.data_type.len() + one.value().1.len()).sum();
    if input.message.len() + attribute_bytes > MOST_BYTES {
        return Err(invalid("Message too long", format!("a message has at most {MOST_BYTES} bytes")));
    }
    let notice = Notice {
        message_id: uuid::Uuid::new_v4().to_string(),
        topic_arn: topic.arn,
        subject: input.subject,
        message: input.message,
        attributes,
    };
    let (account, now_ms, message_id) =
        (topic.key.account.clone(), cx.state.clock.now_ms(), notice.message_id.clone());
    let published = cx.state.database.write(move |session| {
        let subscriptions = subscriptions_of(session, &topic.key)?;
        let has_raw = subscriptions.iter().any(|one| one.document[RAW] == true);
        if has_raw && notice.attributes.len() > MOST_ATTRIBUTES {
            let reason = format!("a queue that gets messages raw takes at most {MOST_ATTRIBUTES} attributes");
            return Ok(Err(invalid("MessageAttributes", reason)));
        }
        publish(session, &account, &notice, now_ms).map(Ok)
    });
    if !published.await?? {
        return Err(missing("Topic"));
    }
    cx.state.deliveries.ring();
    Ok(PublishOutput { message_id: Some(message_id), sequence_number: None })
}
