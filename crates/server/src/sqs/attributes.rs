//! Attributes of a queue: from the texts of the service to settings, and back.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use store::queues::{FifoSettings, MessageCounts, Queue, QueueSettings, Redrive};

use super::error::{Problem, Result};
use crate::Error;

/// Longest message that a queue can take.
pub const MOST_MESSAGE_BYTES: i64 = 1024 * 1024;

/// Settings of a queue that nobody changed.
pub fn defaults() -> QueueSettings {
    QueueSettings {
        visibility_timeout_seconds: 30,
        delay_seconds: 0,
        retention_seconds: 4 * 24 * 60 * 60,
        most_message_bytes: MOST_MESSAGE_BYTES,
        wait_seconds: 0,
        fifo: None,
        redrive: None,
        redrive_allow: None,
        policy: None,
    }
}

/// The settings of a new queue.
///
/// # Errors
/// For an attribute that breaks a rule, or that is not honoured.
pub fn of_new_queue(name: &str, attributes: &BTreeMap<String, String>) -> Result<QueueSettings> {
    let mut settings = defaults();
    let is_fifo = match attributes.get("FifoQueue").map(String::as_str) {
        None => false,
        Some("true") => true,
        Some(_) => {
            return Err(Problem::new(
                "InvalidAttributeValue",
                "Invalid value for the parameter FifoQueue. It can only be true.",
            ));
        }
    };
    if is_fifo != name.ends_with(".fifo") {
        let text = "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo \
                    suffix and be 1 to 80 in length; a queue whose name ends so needs the attribute FifoQueue.";
        return Err(Problem::new("InvalidParameterValue", text));
    }
    if is_fifo {
        settings.fifo = Some(FifoSettings {
            deduplicates_by_content: false,
            deduplicates_by_group: false,
            limits_by_group: false,
        });
    }
    let mut rest = attributes.clone();
    rest.remove("FifoQueue");
    change(&mut settings, &rest)?;
    Ok(settings)
}

/// Lays attributes over settings.
///
/// # Errors
/// As [`of_new_queue`].
pub fn change(settings: &mut QueueSettings, attributes: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in attributes {
        match name.as_str() {
            "DelaySeconds" => settings.delay_seconds = number(name, value, 0, 900)?,
            "MaximumMessageSize" => {
                settings.most_message_bytes = number(name, value, 1024, MOST_MESSAGE_BYTES)?
            }
            "MessageRetentionPeriod" => settings.retention_seconds = number(name, value, 60, 1_209_600)?,
            "ReceiveMessageWaitTimeSeconds" => settings.wait_seconds = number(name, value, 0, 20)?,
            "VisibilityTimeout" => settings.visibility_timeout_seconds = number(name, value, 0, 43_200)?,
            "Policy" => settings.policy = document(name, value)?,
            "RedrivePolicy" => settings.redrive = redrive(value)?,
            "RedriveAllowPolicy" => {
                settings.redrive_allow = document(name, value)?;
                allowance(settings.redrive_allow.as_deref())?;
            }
            "ContentBasedDeduplication" => fifo(settings, name)?.deduplicates_by_content = flag(name, value)?,
            "DeduplicationScope" => {
                fifo(settings, name)?.deduplicates_by_group = choice(name, value, "messageGroup", "queue")?;
            }
            "FifoThroughputLimit" => {
                fifo(settings, name)?.limits_by_group = choice(name, value, "perMessageGroupId", "perQueue")?;
            }
            // Messages at rest are not encrypted here, and saying so is all that can be asked for.
            "SqsManagedSseEnabled" if value == "false" => {}
            "KmsMasterKeyId" if value.is_empty() => {}
            "KmsMasterKeyId" | "KmsDataKeyReusePeriodSeconds" | "SqsManagedSseEnabled" => {
                return Err(Error::field(&format!("Attributes.{name}")).into());
            }
            _ => return Err(Problem::new("InvalidAttributeName", format!("Unknown Attribute {name}."))),
        }
    }
    let by_group =
        settings.fifo.as_ref().is_some_and(|fifo| fifo.limits_by_group && !fifo.deduplicates_by_group);
    if by_group {
        let text = "FifoThroughputLimit can be perMessageGroupId only with DeduplicationScope messageGroup.";
        return Err(Problem::new("InvalidAttributeValue", text));
    }
    Ok(())
}

fn invalid(name: &str) -> Problem {
    Problem::new("InvalidAttributeValue", format!("Invalid value for the parameter {name}."))
}

fn number(name: &str, value: &str, least: i64, most: i64) -> Result<i64> {
    value.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| invalid(name))
}

fn flag(name: &str, value: &str) -> Result<bool> {
    choice(name, value, "true", "false")
}

fn choice(name: &str, value: &str, yes: &str, no: &str) -> Result<bool> {
    match value {
        value if value == yes => Ok(true),
        value if value == no => Ok(false),
        _ => Err(invalid(name)),
    }
}

fn fifo<'a>(settings: &'a mut QueueSettings, name: &str) -> Result<&'a mut FifoSettings> {
    settings.fifo.as_mut().ok_or_else(|| {
        Problem::new(
            "InvalidAttributeName",
            format!("You can specify the {name} only when FifoQueue is set to true."),
        )
    })
}

/// A JSON document; an empty text removes it.
fn document(name: &str, value: &str) -> Result<Option<String>> {
    match serde_json::from_str::<Value>(value) {
        _ if value.is_empty() => Ok(None),
        Ok(Value::Object(_)) => Ok(Some(value.to_owned())),
        _ => Err(invalid(name)),
    }
}

fn redrive(value: &str) -> Result<Option<Redrive>> {
    if value.is_empty() {
        return Ok(None);
    }
    let problem = |reason: &str| Problem::parameter(value, "RedrivePolicy", reason);
    let document: Value =
        serde_json::from_str(value).map_err(|_| problem("Redrive policy is not a valid JSON map."))?;
    let arn = document["deadLetterTargetArn"].as_str();
    let arn = arn.ok_or_else(|| {
        problem("Redrive policy does not contain mandatory attribute: deadLetterTargetArn.")
    })?;
    let most = &document["maxReceiveCount"];
    let most = most.as_i64().or_else(|| most.as_str()?.parse().ok());
    let most =
        most.ok_or_else(|| problem("Redrive policy does not contain mandatory attribute: maxReceiveCount."))?;
    if !(1..=1000).contains(&most) {
        return Err(problem("Invalid value for maxReceiveCount. Must be between 1 and 1000."));
    }
    Ok(Some(Redrive { dead_letter_arn: arn.to_owned(), most_receives: most }))
}

/// Which queues may name a queue as their dead-letter queue.
enum Allowance {
    All,
    None,
    Some(Vec<String>),
}

fn allowance(document: Option<&str>) -> Result<Allowance> {
    let Some(document) = document else { return Ok(Allowance::All) };
    let document: Value = serde_json::from_str(document).unwrap_or_default();
    let sources = document["sourceQueueArns"].as_array();
    let sources = sources.map(|arns| arns.iter().filter_map(|arn| arn.as_str().map(str::to_owned)).collect());
    match (document["redrivePermission"].as_str(), sources) {
        (Some("allowAll"), None) => Ok(Allowance::All),
        (Some("denyAll"), None) => Ok(Allowance::None),
        (Some("byQueue"), Some(arns)) => Ok(Allowance::Some(arns)),
        _ => Err(invalid("RedriveAllowPolicy")),
    }
}

/// Checks that a queue may send its dead letters to `target`, which is the queue that its settings name.
///
/// # Errors
/// When there is no such queue of the account, it is of the other kind, or it does not allow it.
pub fn check_redrive(
    settings: &QueueSettings,
    arn: &str,
    account: &str,
    target: Option<&Queue>,
) -> Result<()> {
    let Some(redrive) = &settings.redrive else { return Ok(()) };
    let problem = |reason: &str| Err(Problem::parameter(&redrive.dead_letter_arn, "RedrivePolicy", reason));
    let Some(target) = target.filter(|target| target.account == account) else {
        return problem("Dead letter target does not exist.");
    };
    if target.settings.fifo.is_some() != settings.fifo.is_some() {
        return problem("Dead-letter queue must be same type of queue as the source.");
    }
    match allowance(target.settings.redrive_allow.as_deref())? {
        Allowance::All => Ok(()),
        Allowance::Some(arns) if arns.iter().any(|allowed| allowed == arn) => Ok(()),
        Allowance::None | Allowance::Some(_) => {
            problem("Dead letter target does not allow this queue as a source.")
        }
    }
}

/// All attributes of a queue in the texts of the service.
pub fn to_wire(queue: &Queue, counts: MessageCounts) -> BTreeMap<String, String> {
    let settings = &queue.settings;
    let mut all: BTreeMap<String, String> = [
        ("QueueArn", queue.arn.clone()),
        ("CreatedTimestamp", (queue.created_at / 1000).to_string()),
        ("LastModifiedTimestamp", (queue.modified_at / 1000).to_string()),
        ("ApproximateNumberOfMessages", counts.visible.to_string()),
        ("ApproximateNumberOfMessagesNotVisible", counts.in_flight.to_string()),
        ("ApproximateNumberOfMessagesDelayed", counts.delayed.to_string()),
        ("DelaySeconds", settings.delay_seconds.to_string()),
        ("MaximumMessageSize", settings.most_message_bytes.to_string()),
        ("MessageRetentionPeriod", settings.retention_seconds.to_string()),
        ("ReceiveMessageWaitTimeSeconds", settings.wait_seconds.to_string()),
        ("VisibilityTimeout", settings.visibility_timeout_seconds.to_string()),
        ("SqsManagedSseEnabled", "false".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            all.insert(name.to_owned(), value);
        }
    };
    add("Policy", settings.policy.clone());
    add("RedriveAllowPolicy", settings.redrive_allow.clone());
    let redrive = settings.redrive.as_ref().map(|redrive| {
        json!({"deadLetterTargetArn": redrive.dead_letter_arn, "maxReceiveCount": redrive.most_receives})
            .to_string()
    });
    add("RedrivePolicy", redrive);
    if let Some(fifo) = &settings.fifo {
        let one_of = |yes: bool, first: &str, second: &str| Some(if yes { first } else { second }.to_owned());
        add("FifoQueue", Some("true".to_owned()));
        add("ContentBasedDeduplication", Some(fifo.deduplicates_by_content.to_string()));
        add("DeduplicationScope", one_of(fifo.deduplicates_by_group, "messageGroup", "queue"));
        add("FifoThroughputLimit", one_of(fifo.limits_by_group, "perMessageGroupId", "perQueue"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn attributes_have_their_ranges_and_kinds() {
        let code = |name: &str, pairs: &[(&str, &str)]| match of_new_queue(name, &map(pairs)) {
            Ok(_) => "ok",
            Err(Problem::Code(code, _)) => code,
            Err(_) => "other",
        };
        assert_eq!(code("q", &[("VisibilityTimeout", "43200"), ("DelaySeconds", "0")]), "ok");
        assert_eq!(code("q", &[("VisibilityTimeout", "43201")]), "InvalidAttributeValue");
        assert_eq!(code("q", &[("Colour", "red")]), "InvalidAttributeName");
        assert_eq!(code("q.fifo", &[]), "InvalidParameterValue");
        assert_eq!(
            code("q.fifo", &[("FifoQueue", "true"), ("FifoThroughputLimit", "perMessageGroupId")]),
            "InvalidAttributeValue"
        );
        assert_eq!(code("q", &[("ContentBasedDeduplication", "true")]), "InvalidAttributeName");
        assert_eq!(code("q", &[("KmsMasterKeyId", "alias/k")]), "other");
        assert_eq!(
            code("q", &[("RedrivePolicy", "{\"maxReceiveCount\": 0, \"deadLetterTargetArn\": \"a\"}")]),
            "InvalidParameterValue"
        );
        let settings = of_new_queue(
            "q",
            &map(&[("RedrivePolicy", "{\"maxReceiveCount\":\"3\",\"deadLetterTargetArn\":\"a\"}")]),
        );
        assert_eq!(
            settings.unwrap().redrive,
            Some(Redrive { dead_letter_arn: "a".into(), most_receives: 3 })
        );
    }
}
