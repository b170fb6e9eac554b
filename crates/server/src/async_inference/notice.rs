//! What topics are told of a request that has ended, in the shape of the service.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use store::async_requests::AsyncRequest;
use store::resources::ResourceKey;

use super::ending::End;
use super::request::RequestDocument;
use crate::sns::{self, Notice};

/// Largest answer that a notice carries, as in the service.
pub const MOST_RESPONSE_BYTES: usize = 128 * 1024;

/// The notice of an end, when the endpoint has a topic for it.
pub fn of(
    key: &ResourceKey,
    request: &AsyncRequest,
    document: &RequestDocument,
    end: &End,
    now_ms: i64,
) -> Option<Notice> {
    let (topic, has_response) = document.settings.topic(matches!(end, End::Answered(_)))?;
    let mut message = json!({
        "awsRegion": key.region,
        "eventTime": sns::moment(now_ms),
        "receivedTime": sns::moment(request.accepted_at),
        "invocationStatus": if matches!(end, End::Answered(_)) { "Completed" } else { "Failed" },
        "requestParameters": {
            "contentType": document.content_type,
            "endpointName": key.name,
            "inputLocation": document.input_location,
        },
        "inferenceId": document.inference_id,
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    });
    match end {
        End::Answered(answer) => {
            message["responseParameters"] =
                json!({"contentType": answer.content_type, "outputLocation": document.output});
            // Of an answer that is found again and is too large there are no bytes.
            if has_response && !answer.body.is_empty() && answer.body.len() <= MOST_RESPONSE_BYTES {
                message["responseParameters"]["responseBody"] = content(&answer.body);
            }
        }
        End::Failed(failure) => {
            message["failureReason"] = json!(failure.message);
            message["responseParameters"] = json!({"outputLocation": document.failure});
            if has_response {
                let body = failure.to_json().to_string();
                message["responseParameters"]["responseBody"] = content(body.as_bytes());
            }
        }
    }
    Some(Notice {
        // The same for the same request, so that a repeated end tells nobody twice.
        message_id: crate::deliveries::id_of(&["async-inference", &request.id]),
        topic_arn: topic.to_owned(),
        subject: None,
        message: message.to_string(),
        attributes: Default::default(),
    })
}

fn content(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({"content": text, "encoding": "UTF-8"}),
        Err(_) => json!({"content": STANDARD.encode(bytes), "encoding": "BASE64"}),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::AsyncSettings;
    use super::super::ending::{Answer, Failure};
    use super::*;

    #[test]
    fn each_end_has_its_notice_and_its_topic() {
        let key = ResourceKey::new("123456789012", "us-east-1", "endpoint", "e");
        let request = AsyncRequest {
            id: "r".into(),
            inference_id: None,
            document: String::new(),
            body: None,
            losses: 0,
            accepted_at: 1_770_000_000_000,
            expires_at: 1_770_000_060_000,
            started_at: None,
        };
        let settings = AsyncSettings {
            success_topic: Some("arn:good".into()),
            response_in: vec!["SUCCESS_NOTIFICATION_TOPIC".into()],
            ..AsyncSettings::default()
        };
        let document = RequestDocument {
            inference_id: "mine".into(),
            output: "s3://b/r.out".into(),
            settings,
            ..RequestDocument::default()
        };
        let answer = |body: &'static [u8]| {
            End::Answered(Answer { content_type: None, body: Bytes::from_static(body), is_stored: true })
        };
        let told = |end: &End| of(&key, &request, &document, end, 1_770_000_001_500);
        let notice = told(&answer(b"[1]")).unwrap();
        let message: Value = serde_json::from_str(&notice.message).unwrap();
        assert_eq!(notice.topic_arn, "arn:good");
        assert_eq!(message["invocationStatus"], "Completed");
        assert_eq!(message["eventTime"], "2026-02-02T02:40:01.500Z");
        assert_eq!(
            message["responseParameters"]["responseBody"],
            json!({"content": "[1]", "encoding": "UTF-8"})
        );
        let message: Value = serde_json::from_str(&told(&answer(&[0xff])).unwrap().message).unwrap();
        assert_eq!(message["responseParameters"]["responseBody"]["encoding"], "BASE64");
        assert_eq!(told(&End::Failed(Failure::of_deletion("e"))), None, "it has no topic for failures");
    }
}
