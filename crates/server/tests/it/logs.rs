//! Log groups, streams and events over the wire.

use serde_json::{Value, json};

use crate::app::TestApp;

const GROUP: &str = "/aws/sagemaker/TrainingJobs";

/// Calls an operation of the logs service that must succeed.
async fn ok(app: &TestApp, operation: &str, input: Value) -> Value {
    app.ok(&format!("Logs_20140328.{operation}"), input).await
}

/// Calls an operation of the logs service that must be refused; returns code and message.
async fn refused(app: &TestApp, operation: &str, input: Value) -> (String, String) {
    app.refused(&format!("Logs_20140328.{operation}"), input).await
}

async fn with_stream(app: &TestApp, stream: &str) {
    ok(app, "CreateLogStream", json!({"logGroupName": GROUP, "logStreamName": stream})).await;
}

async fn put(app: &TestApp, stream: &str, events: &[(i64, &str)]) -> Value {
    let event = |(at, text): &(i64, &str)| json!({"timestamp": app.clock.now_ms() + at, "message": text});
    let events: Vec<Value> = events.iter().map(event).collect();
    ok(app, "PutLogEvents", json!({"logGroupName": GROUP, "logStreamName": stream, "logEvents": events}))
        .await
}

fn messages(answer: &Value) -> Vec<&str> {
    answer["events"].as_array().unwrap().iter().map(|event| event["message"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_is_missing_or_taken_is_said_in_the_words_of_the_service() {
    let app = TestApp::new().await;
    let missing = |kind: &str| {
        ("ResourceNotFoundException".to_owned(), format!("The specified log {kind} does not exist."))
    };
    let read = json!({"logGroupName": GROUP, "logStreamName": "job/algo-1"});
    assert_eq!(refused(&app, "GetLogEvents", read.clone()).await, missing("group"));
    assert_eq!(refused(&app, "DescribeLogStreams", json!({"logGroupName": GROUP})).await, missing("group"));
    assert_eq!(refused(&app, "FilterLogEvents", json!({"logGroupName": GROUP})).await, missing("group"));
    assert_eq!(refused(&app, "DeleteLogGroup", json!({"logGroupName": GROUP})).await, missing("group"));
    assert_eq!(refused(&app, "CreateLogStream", read.clone()).await, missing("group"));
    ok(&app, "CreateLogGroup", json!({"logGroupName": GROUP})).await;
    let (code, message) = refused(&app, "CreateLogGroup", json!({"logGroupName": GROUP})).await;
    assert_eq!(code, "ResourceAlreadyExistsException");
    assert_eq!(message, "The specified log group already exists");
    assert_eq!(refused(&app, "GetLogEvents", read.clone()).await, missing("stream"));
    assert_eq!(refused(&app, "DeleteLogStream", read.clone()).await, missing("stream"));
    with_stream(&app, "job/algo-1").await;
    let (code, message) = refused(&app, "CreateLogStream", read).await;
    assert_eq!(code, "ResourceAlreadyExistsException");
    assert_eq!(message, "The specified log stream already exists");
}

#[tokio::test]
async fn a_client_that_follows_a_stream_sees_each_event_once() {
    let app = TestApp::new().await;
    ok(&app, "CreateLogGroup", json!({"logGroupName": GROUP})).await;
    with_stream(&app, "job/algo-1").await;
    put(&app, "job/algo-1", &[(-3, "a"), (-2, "b"), (-1, "c\nd")]).await;
    let mut seen = Vec::new();
    let mut input = json!({
        "logGroupName": GROUP, "logStreamName": "job/algo-1", "startFromHead": true, "startTime": 0, "limit": 2,
    });
    for round in 0..2 {
        loop {
            let page = ok(&app, "GetLogEvents", input.clone()).await;
            seen.extend(messages(&page).into_iter().map(str::to_owned));
            let done = page["events"].as_array().unwrap().is_empty();
            if done {
                assert_eq!(page["nextForwardToken"], input["nextToken"]);
                break;
            }
            input["nextToken"] = page["nextForwardToken"].clone();
        }
        if round == 0 {
            put(&app, "job/algo-1", &[(0, "e")]).await;
        }
    }
    assert_eq!(seen, ["a", "b", "c\nd", "e"]);
    let page =
        ok(&app, "GetLogEvents", json!({"logGroupName": GROUP, "logStreamName": "job/algo-1", "limit": 1}))
            .await;
    assert_eq!(messages(&page), ["e"]);
    assert_eq!(page["events"][0]["timestamp"], app.clock.now_ms());
    assert_eq!(page["events"][0]["ingestionTime"], app.clock.now_ms());
    let bad = json!({"logGroupName": GROUP, "logStreamName": "job/algo-1", "nextToken": "f/12"});
    assert_eq!(refused(&app, "GetLogEvents", bad).await.0, "InvalidParameterException");
}

#[tokio::test]
async fn rejected_events_are_reported_and_bad_batches_refused() {
    let app = TestApp::new().await;
    ok(&app, "CreateLogGroup", json!({"logGroupName": GROUP})).await;
    with_stream(&app, "s").await;
    let day_ms = 24 * 3_600_000;
    let answer = put(&app, "s", &[(-15 * day_ms, "old"), (0, "now"), (day_ms, "new")]).await;
    let rejected = json!({"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2});
    assert_eq!(answer["rejectedLogEventsInfo"], rejected);
    assert!(answer["nextSequenceToken"].is_string());
    let batch = |events: Value| json!({"logGroupName": GROUP, "logStreamName": "s", "logEvents": events});
    let now = app.clock.now_ms();
    let unordered =
        batch(json!([{"timestamp": now, "message": "x"}, {"timestamp": now - 1, "message": "y"}]));
    let (code, message) = refused(&app, "PutLogEvents", unordered).await;
    assert_eq!(code, "InvalidParameterException");
    assert!(message.contains("chronological"), "{message}");
    let large = batch(json!([{"timestamp": now, "message": "x".repeat(1_048_576)}]));
    assert!(refused(&app, "PutLogEvents", large).await.1.starts_with("Upload too large"));
    let read = json!({"logGroupName": GROUP, "logStreamName": "s", "startFromHead": true});
    assert_eq!(messages(&ok(&app, "GetLogEvents", read).await), ["now"]);
}

#[tokio::test]
async fn groups_and_streams_are_listed_page_by_page() {
    let app = TestApp::new().await;
    for name in ["b", "a", "c"] {
        ok(&app, "CreateLogGroup", json!({"logGroupName": name})).await;
    }
    let page = ok(&app, "DescribeLogGroups", json!({"limit": 2})).await;
    let names = |page: &Value, list: &str, name: &str| -> Vec<String> {
        page[list].as_array().unwrap().iter().map(|one| one[name].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&page, "logGroups", "logGroupName"), ["a", "b"]);
    assert_eq!(page["logGroups"][0]["arn"], "arn:aws:logs:us-east-1:123456789012:log-group:a:*");
    let page = ok(&app, "DescribeLogGroups", json!({"limit": 2, "nextToken": page["nextToken"]})).await;
    assert_eq!(names(&page, "logGroups", "logGroupName"), ["c"]);
    assert!(page.get("nextToken").is_none());
    let arn = "arn:aws:logs:us-east-1:123456789012:log-group:b";
    let page = ok(&app, "DescribeLogGroups", json!({"logGroupIdentifiers": [arn, "none"]})).await;
    assert_eq!(names(&page, "logGroups", "logGroupName"), ["b"]);
    let page = ok(&app, "DescribeLogGroups", json!({"logGroupNamePattern": "c"})).await;
    assert_eq!(names(&page, "logGroups", "logGroupName"), ["c"]);

    ok(&app, "CreateLogGroup", json!({"logGroupName": GROUP})).await;
    for (stream, at) in [("job/1", -10), ("job/2", -30), ("job/3", -20), ("other", -5)] {
        with_stream(&app, stream).await;
        put(&app, stream, &[(at, "x")]).await;
    }
    let mut list =
        json!({"logGroupName": GROUP, "logStreamNamePrefix": "job/", "orderBy": "LogStreamName", "limit": 2});
    let page = ok(&app, "DescribeLogStreams", list.clone()).await;
    assert_eq!(names(&page, "logStreams", "logStreamName"), ["job/1", "job/2"]);
    let stream = &page["logStreams"][0];
    assert_eq!(stream["lastEventTimestamp"], app.clock.now_ms() - 10);
    assert_eq!(
        stream["arn"],
        format!("arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}:log-stream:job/1")
    );
    list["nextToken"] = page["nextToken"].clone();
    assert_eq!(
        names(&ok(&app, "DescribeLogStreams", list.clone()).await, "logStreams", "logStreamName"),
        ["job/3"]
    );
    list["descending"] = json!(true);
    assert_eq!(refused(&app, "DescribeLogStreams", list.clone()).await.0, "InvalidParameterException");
    let mut list =
        json!({"logGroupIdentifier": GROUP, "orderBy": "LastEventTime", "descending": true, "limit": 3});
    let page = ok(&app, "DescribeLogStreams", list.clone()).await;
    assert_eq!(names(&page, "logStreams", "logStreamName"), ["other", "job/1", "job/3"]);
    list["nextToken"] = page["nextToken"].clone();
    assert_eq!(names(&ok(&app, "DescribeLogStreams", list).await, "logStreams", "logStreamName"), ["job/2"]);
}

#[tokio::test]
async fn a_filter_finds_across_streams() {
    let app = TestApp::new().await;
    ok(&app, "CreateLogGroup", json!({"logGroupName": GROUP})).await;
    for stream in ["a", "b"] {
        with_stream(&app, stream).await;
        put(&app, stream, &[(-20, "ERROR 1"), (-10, "{\"loss\": 0.5}"), (0, "fine")]).await;
    }
    let search = |pattern: &str| json!({"logGroupName": GROUP, "filterPattern": pattern});
    let found = ok(&app, "FilterLogEvents", search("")).await;
    assert_eq!(messages(&found).len(), 6);
    let streams: Vec<_> =
        found["events"].as_array().unwrap().iter().map(|event| &event["logStreamName"]).collect();
    assert_eq!(streams, ["a", "b", "a", "b", "a", "b"]);
    assert_eq!(messages(&ok(&app, "FilterLogEvents", search("?ERROR ?none")).await), ["ERROR 1", "ERROR 1"]);
    assert_eq!(messages(&ok(&app, "FilterLogEvents", search("{ $.loss < 1 }")).await).len(), 2);
    assert_eq!(refused(&app, "FilterLogEvents", search("\"open")).await.0, "InvalidParameterException");
    let mut paged = search("-ERROR");
    paged["limit"] = json!(3);
    // The end is included, other than in GetLogEvents.
    paged["endTime"] = json!(app.clock.now_ms());
    let first = ok(&app, "FilterLogEvents", paged.clone()).await;
    assert_eq!(messages(&first).len(), 3);
    paged["nextToken"] = first["nextToken"].clone();
    let second = ok(&app, "FilterLogEvents", paged).await;
    assert_eq!(messages(&second), ["fine"]);
    assert!(second.get("nextToken").is_none());
}

#[tokio::test]
async fn what_is_not_honoured_is_refused_by_name() {
    let app = TestApp::new().await;
    for (operation, input, field) in [
        ("CreateLogGroup", json!({"logGroupName": "g", "kmsKeyId": "k"}), "kmsKeyId"),
        ("CreateLogGroup", json!({"logGroupName": "g", "logGroupClass": "DELIVERY"}), "logGroupClass"),
        ("GetLogEvents", json!({"logGroupName": "g", "logStreamName": "s", "unmask": true}), "unmask"),
        ("FilterLogEvents", json!({"logGroupName": "g", "startFromHead": false}), "startFromHead"),
        ("DescribeLogStreams", json!({}), "logGroupName"),
        ("DescribeLogStreams", json!({"logGroupName": "g", "logGroupIdentifier": "g"}), "not both"),
        ("DescribeLogStreams", json!({"logGroupIdentifier": "arn:aws:s3:::x"}), "not the ARN"),
    ] {
        let (code, message) = refused(&app, operation, input).await;
        assert_eq!(code, "InvalidParameterException", "{operation} {field}");
        assert!(message.contains(field), "{message}");
    }
}

#[tokio::test]
async fn accounts_do_not_see_each_others_logs() {
    let app = TestApp::new().await;
    let other = app.other_account("210987654321").await;
    ok(&app, "CreateLogGroup", json!({"logGroupName": GROUP})).await;
    with_stream(&app, "s").await;
    put(&app, "s", &[(0, "secret")]).await;
    for group in [GROUP.to_owned(), format!("arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}")] {
        let input = json!({"logGroupIdentifier": group, "logStreamName": "s"});
        let (code, message) = app.refused_as("Logs_20140328.GetLogEvents", input, &other).await;
        assert_eq!(code, "ResourceNotFoundException", "{message}");
    }
    let groups = app.call_as("Logs_20140328.DescribeLogGroups", json!({}), &other).await.json();
    assert_eq!(groups["logGroups"], json!([]));
}
