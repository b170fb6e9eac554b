//! Requests as botocore 1.43 signs and writes them at 2026-01-31T12:00:00Z, one a line in `botocore_requests.json`: each
//! must verify, and must be read as what the caller of botocore gave.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use serde_json::Value;

use crate::fixture::Door;

fn requests() -> Vec<Value> {
    serde_json::from_str(include_str!("botocore_requests.json")).unwrap()
}

fn request(case: &Value) -> Request<Bytes> {
    let mut request =
        Request::builder().method(case["method"].as_str().unwrap()).uri(case["path"].as_str().unwrap());
    for (name, value) in case["headers"].as_object().unwrap() {
        request = request.header(name, value.as_str().unwrap());
    }
    request.body(STANDARD.decode(case["body"].as_str().unwrap()).unwrap().into()).unwrap()
}

/// Botocore fills idempotency tokens in by itself; what the caller gave must be there.
fn assert_holds(given: &Value, read: &Value, what: &str) {
    match given {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| assert_holds(value, &read[name], what))
        }
        given => assert_eq!(given, read, "{what}"),
    }
}

#[tokio::test]
async fn requests_verify_and_are_read() {
    let door = Door::of_models();
    for case in requests() {
        let what = format!("{} {}", case["service"], case["operation"]);
        let answer = door.send(request(&case)).await;
        assert!(matches!(answer.status, 200..=204), "{what}: {} {}", answer.status, answer.text());
        let (operation, input) = door.take_seen().unwrap();
        assert_eq!(operation, case["operation"]);
        assert_holds(&case["input"], &input, &what);
    }
}

#[tokio::test]
async fn requests_do_not_verify_with_another_body() {
    let door = Door::of_models();
    for case in requests() {
        let what = format!("{} {}", case["service"], case["operation"]);
        let mut request = request(&case);
        let mut body = request.body().to_vec();
        body.push(b' ');
        *request.body_mut() = body.into();
        let answer = door.send(request).await;
        assert!(
            matches!(&*answer.code(), "InvalidSignatureException" | "SignatureDoesNotMatch"),
            "{what}: {}",
            answer.text()
        );
    }
}
