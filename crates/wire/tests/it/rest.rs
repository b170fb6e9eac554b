//! HTTP bindings with JSON bodies.

use http::Request;
use serde_json::{Value, json};

use crate::fixture::{Door, NOW_MS, sign};

#[tokio::test]
async fn members_come_from_path_query_headers_and_body() {
    let door = Door::new();
    let request = Request::post("/things/a%20b/c/ask?name=x&name=y&limit=5&since=2026-01-31T12%3A00%3A00Z")
        .header("x-flag", "true")
        .header("if-since", "Sat, 31 Jan 2026 12:00:00 GMT")
        .header("x-meta-one", "1");
    let answer = door.signed("widgets", request, r#"{"colour":"Green"}"#).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(
        answer.json()["Input"],
        json!({
            "Key": "a b/c", "Names": ["x", "y"], "Limit": 5, "Since": 1_769_860_800, "Flag": true, "IfSince": 1_769_860_800,
            "Meta": {"one": "1"}, "Colour": "Green",
        })
    );
}

#[tokio::test]
async fn members_go_to_status_headers_and_body() {
    let door = Door::new();
    let answer = door.signed("widgets", Request::post("/things/k/ask"), "").await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("x-count"), "3");
    assert_eq!(answer.header("last-modified"), "Sat, 31 Jan 2026 12:00:00 GMT");
    assert_eq!(answer.header("x-meta-a"), "1");
    assert_eq!(answer.header("content-type"), "application/json");
    let expected =
        r#"{"colour":"Red","madeAt":1769860800.5,"soldAt":"2026-01-31T12:00:00Z","Input":{"Key":"k"}}"#;
    assert_eq!(answer.text(), expected);
}

#[tokio::test]
async fn a_payload_member_is_the_body() {
    let door = Door::new();
    let answer = door.signed("widgets", Request::put("/things/k"), r#"{"PartName":"p"}"#).await;
    assert_eq!((answer.status, answer.text(), answer.header("content-type")), (204, "", ""));
    let answer = door.signed("widgets", Request::put("/things/k"), r#"{"PartName":7}"#).await;
    assert!(answer.json()["message"].as_str().unwrap().contains("Part.PartName must be a string"));
    let answer = door.signed("widgets", Request::put("/things/k"), r#"{"PartName":"NOT"}"#).await;
    assert!(answer.json()["message"].as_str().unwrap().contains("Value 'NOT' at 'part.partName'"));
}

#[tokio::test]
async fn raw_operations_get_their_body_untouched() {
    let door = Door::new();
    let body: Vec<u8> = (0..16).map(|byte| byte ^ 0xf5).collect();
    let request = Request::post("/widgets/a-b/invocations?z=1&y=%202")
        .header("x-custom", "kept")
        .header("content-type", "application/x-amz-json-1.1")
        .header("content-encoding", "gzip");
    let answer = door.signed("widgets", request, body.clone()).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(answer.body, body);
    let told: Value = serde_json::from_str(answer.header("x-told")).unwrap();
    assert_eq!(
        told,
        json!({
            "labels": {"WidgetName": "a-b"}, "query": [["z", "1"], ["y", " 2"]],
            "input": {"WidgetName": "a-b", "Custom": "kept"},
        })
    );
}

#[tokio::test]
async fn raw_operations_are_checked_and_authorized_too() {
    let door = Door::new();
    let answer = door.signed("widgets", Request::post("/widgets/NOT/invocations"), "x").await;
    assert_eq!((answer.status, &*answer.code()), (400, "ValidationException"));
    let answer = door.signed("widgets", Request::post("/widgets/a/invocations"), "x".repeat(17)).await;
    let expected = "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length less than or equal to 16";
    assert_eq!(answer.json()["message"], expected);
    let answer = door.signed("widgets", Request::post("/widgets/secret/invocations"), "x").await;
    assert_eq!(answer.json()["message"], "no widgets:InvokeWidget");
}

#[tokio::test]
async fn what_was_understood_before_counts_only_for_heads_that_say_the_same() {
    let door = Door::new();
    let invoke = async |path: &str, headers: &[(&str, &str)], body: &'static str| {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = door.signed("widgets", request, body).await;
        let told = if answer.status == 200 { answer.header("x-told").to_owned() } else { answer.code() };
        (answer.text().to_owned(), told)
    };
    let of = |name: &str, custom: Option<&str>| {
        let mut input = json!({"WidgetName": name});
        if let Some(custom) = custom {
            input["Custom"] = custom.into();
        }
        json!({"labels": {"WidgetName": name}, "query": [], "input": input}).to_string()
    };
    // Each of these stands between two that are the same, so that it could be taken for them.
    let others = [
        ("/widgets/b/invocations", &[("x-custom", "one")][..], of("b", Some("one"))),
        ("/widgets/a/invocations", &[("x-custom", "two")], of("a", Some("two"))),
        ("/widgets/a/invocations", &[], of("a", None)),
        ("/widgets/a/invocations", &[("x-other", "one")], of("a", None)),
        ("/widgets/a/invocations", &[("x-custom", "one"), ("x-other", "1")], of("a", Some("one"))),
        ("/widgets//a/invocations", &[("x-custom", "one")], of("a", Some("one"))),
    ];
    for _ in 0..40 {
        for (path, headers, told) in &others {
            let usual = invoke("/widgets/a/invocations", &[("x-custom", "one")], "usual").await;
            assert_eq!(usual, ("usual".to_owned(), of("a", Some("one"))));
            assert_eq!(invoke(path, headers, "other").await, ("other".to_owned(), told.clone()));
        }
        // What is checked beside the head is checked each time.
        let (text, code) =
            invoke("/widgets/a/invocations", &[("x-custom", "one")], "far more than sixteen").await;
        assert_eq!(code, "ValidationException");
        assert!(text.contains("at 'body' failed to satisfy constraint"), "{text}");
        let twice = invoke("/widgets/a/invocations", &[("x-custom", "one"), ("x-custom", "one")], "x").await;
        assert!(twice.0.contains("Custom must be given once"), "{}", twice.0);
        assert_eq!(invoke("/widgets/a/invocations?z=1", &[("x-custom", "one")], "x").await.0, "x");
        let mut request = sign(
            "widgets",
            Request::post("/widgets/a/invocations").header("x-custom", "one"),
            &"usual".into(),
            NOW_MS,
        );
        *request.body_mut() = "other".into();
        assert_eq!(door.send(request).await.code(), "InvalidSignatureException");
        let get = door
            .signed("widgets", Request::get("/widgets/a/invocations").header("x-custom", "one"), "")
            .await;
        assert_eq!(get.code(), "UnknownOperationException");
    }
    for _ in 0..40 {
        let secret = invoke("/widgets/secret/invocations", &[], "x").await;
        assert_eq!(secret.1, "AccessDeniedException");
    }
}

#[tokio::test]
async fn errors_have_their_code_in_a_header() {
    let door = Door::new();
    let answer = door.signed("widgets", Request::post("/things/gone/ask"), "").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("x-amzn-errortype"), "WidgetMissing");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.text(), r#"{"message":"it is gone"}"#);
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let door = Door::new();
    for (request, text) in [
        (Request::post("/things/k/ask?limit=x"), "Limit must be a whole number"),
        (Request::post("/things/k/ask?limit=1&limit=2"), "Limit must be given once"),
        (Request::post("/things/k/ask?novel=1"), "\"novel\""),
        (Request::post("/things/k/ask").header("x-flag", "maybe"), "Flag must be true or false"),
        (
            Request::post("/things/k/ask").header("x-flag", "true").header("x-flag", "false"),
            "Flag must be given once",
        ),
        (Request::post("/things/k/ask").header("if-since", "soon"), "IfSince must be a timestamp"),
    ] {
        let answer = door.signed("widgets", request, "").await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().replace("\\\"", "\"").contains(text), "{}", answer.text());
    }
    for body in ["{", "[]", r#"{"Colour":"Red"}"#] {
        assert_eq!(door.signed("widgets", Request::post("/things/k/ask"), body).await.status, 400, "{body}");
    }
}
