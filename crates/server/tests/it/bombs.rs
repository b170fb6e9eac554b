//! Small requests that would grow without end: answered soon, with an error of the caller's. Archives and manifests have
//! such tests beside their readers, XML in the client tests.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::app::{TestApp, training_job};

/// Far more than any of these takes, far less than a bomb would.
const SOON: Duration = Duration::from_secs(10);
/// Nesting that would overflow the stack of a reader that follows it.
const DEEP: usize = 500_000;

async fn refused(app: &TestApp, what: &str, service: &str, request: Request<()>, body: Vec<u8>) {
    let begun = Instant::now();
    let answer = app.send_signed(request, Bytes::from(body), service, &app.key()).await;
    assert!(begun.elapsed() < SOON, "{what} takes {:?}", begun.elapsed());
    assert!(answer.status.is_client_error(), "{what}: {} {}", answer.status, answer.text());
}

fn post(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let request = Request::post(path);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

fn json_call(target: &str) -> Request<()> {
    post("/", &[("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)])
}

#[tokio::test]
async fn deep_documents_are_refused() {
    let app = TestApp::new().await;
    let nested = |open: &str, close: &str| open.repeat(DEEP) + &close.repeat(DEEP);
    for document in [
        nested("[", "]"),
        "[".repeat(DEEP),
        nested(r#"{"a":"#, "}"),
        format!(r#"{{"TrainingJobName": "a", "HyperParameters": {}}}"#, nested("[", "]")),
        format!(r#"{{"TrainingJobName": "a", "Unknown": {}}}"#, nested("[", "]")),
    ] {
        let call = json_call("SageMaker.CreateTrainingJob");
        refused(&app, "deep JSON", "sagemaker", call, document.into()).await;
    }
    let cbor = [("content-type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")];
    let path = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
    for byte in [0x81, 0x9f, 0xa1, 0xbf, 0xc1] {
        refused(&app, "deep CBOR", "monitoring", post(path, &cbor), vec![byte; DEEP]).await;
    }
    // A length is no promise: nothing is set aside for what does not come.
    for head in [0x9b, 0xbb, 0x5b, 0x7b] {
        let body = [vec![head], vec![0xff; 7], vec![0xfe]].concat();
        refused(&app, "long CBOR", "monitoring", post(path, &cbor), body).await;
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let name = "MetricData.member.1".to_owned() + &".member.1".repeat(100_000);
    let body = format!("Action=PutMetricData&Version=2010-08-01&Namespace=a&{name}=1");
    refused(&app, "a deep form", "monitoring", post("/", &form), body.into()).await;
    let body = "Action=PutMetricData&Namespace=a&MetricData.member.4294967295.MetricName=b".to_owned();
    refused(&app, "a form with a long list", "monitoring", post("/", &form), body.into()).await;
}

#[tokio::test]
async fn expressions_and_patterns_of_users_are_bounded() {
    let app = TestApp::new().await;
    let with_regex = |name: &str, regex: String| {
        let mut job = training_job(name);
        job["AlgorithmSpecification"]["MetricDefinitions"] = json!([{"Name": "m", "Regex": regex}]);
        job
    };
    for regex in ["(a{99}){99}".to_owned(), "(".repeat(200) + "a" + &")".repeat(200), "(?=a)b".to_owned()] {
        let begun = Instant::now();
        app.refused("SageMaker.CreateTrainingJob", with_regex("bomb", regex)).await;
        assert!(begun.elapsed() < SOON);
    }
    // These are quick here, and would not be with a search that goes back.
    let begun = Instant::now();
    app.ok("SageMaker.CreateTrainingJob", with_regex("linear", "(a+)+$|(a|aa)+b".into())).await;
    assert!(begun.elapsed() < SOON);
    let filter = |depth: usize| -> Value {
        (0..depth).fold(json!({"Filters": []}), |inner, _| json!({"SubExpressions": [inner]}))
    };
    let search = json!({"Resource": "TrainingJob", "SearchExpression": filter(100)});
    app.refused("SageMaker.Search", search).await;
    let group = json!({"logGroupName": "g"});
    app.ok("Logs_20140328.CreateLogGroup", group).await;
    for pattern in
        ["(".repeat(1000), "{ ".to_owned() + &"(".repeat(1000), "{ $.a".to_owned() + &".a".repeat(500)]
    {
        let begun = Instant::now();
        let input = json!({"logGroupName": "g", "filterPattern": pattern});
        let answer = app.call("Logs_20140328.FilterLogEvents", input).await;
        assert!(answer.status.as_u16() < 500 && begun.elapsed() < SOON, "{}", answer.text());
    }
}
