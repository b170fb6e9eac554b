//! The envelopes in which queues and functions get a notice.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::moment;
use super::publish::Notice;

/// What a queue gets, unless it gets messages raw.
pub fn for_queue(notice: &Notice, now_ms: i64) -> String {
    let mut envelope = json!({
        "Type": "Notification",
        "MessageId": notice.message_id,
        "TopicArn": notice.topic_arn,
    });
    if let Some(subject) = &notice.subject {
        envelope["Subject"] = json!(subject);
    }
    envelope["Message"] = json!(notice.message);
    envelope["Timestamp"] = json!(moment(now_ms));
    if !notice.attributes.is_empty() {
        envelope["MessageAttributes"] = attributes(notice);
    }
    envelope.to_string()
}

/// The event that a function gets.
pub fn for_function(notice: &Notice, subscription_arn: &str, now_ms: i64) -> String {
    json!({
        "Records": [{
            "EventSource": "aws:sns",
            "EventVersion": "1.0",
            "EventSubscriptionArn": subscription_arn,
            "Sns": {
                "Type": "Notification",
                "MessageId": notice.message_id,
                "TopicArn": notice.topic_arn,
                "Subject": notice.subject,
                "Message": notice.message,
                "Timestamp": moment(now_ms),
                "MessageAttributes": attributes(notice),
            },
        }],
    })
    .to_string()
}

fn attributes(notice: &Notice) -> Value {
    let shown = notice.attributes.iter().map(|(name, attribute)| {
        let value = match (&attribute.text, &attribute.bytes) {
            (Some(text), _) => text.clone(),
            (None, bytes) => STANDARD.encode(bytes.as_ref().map_or(&[][..], |bytes| &bytes.0)),
        };
        (name.clone(), json!({"Type": attribute.data_type, "Value": value}))
    });
    Value::Object(shown.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::sqs::Attribute;

    #[test]
    fn envelopes_carry_all_of_a_notice() {
        let attribute = Attribute { data_type: "Number".into(), text: Some("7".into()), bytes: None };
        let notice = Notice {
            message_id: "m".into(),
            topic_arn: "arn:aws:sns:us-east-1:123456789012:t".into(),
            subject: Some("s".into()),
            message: "text".into(),
            attributes: BTreeMap::from([("n".to_owned(), attribute)]),
        };
        let queue: Value = serde_json::from_str(&for_queue(&notice, 1_770_000_001_500)).unwrap();
        let expected = json!({
            "Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:us-east-1:123456789012:t", "Subject": "s",
            "Message": "text", "Timestamp": "2026-02-02T02:40:01.500Z",
            "MessageAttributes": {"n": {"Type": "Number", "Value": "7"}},
        });
        assert_eq!(queue, expected);
        let event: Value =
            serde_json::from_str(&for_function(&notice, "arn:sub", 1_770_000_001_500)).unwrap();
        assert_eq!(event["Records"][0]["EventSubscriptionArn"], "arn:sub");
        assert_eq!(event["Records"][0]["Sns"], expected);
    }
}
