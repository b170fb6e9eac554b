//! Which requests go where.

use http::Request;
use wire::Registry;

use crate::fixture::{CreateWidget, Door, InvokeWidget, NOW_MS, PutMeter, Seen, operations, sign, signer};

/// What a request came to: `s3`, `own`, or status and code.
async fn outcome(door: &Door, request: Request<&'static str>) -> String {
    let answer = door.send(request.map(|body| bytes::Bytes::from_static(body.as_bytes()))).await;
    match std::str::from_utf8(&answer.body).unwrap_or_default().split_once(' ') {
        Some((who @ ("s3" | "own"), _)) => who.to_owned(),
        _ => format!("{} {}", answer.status, answer.code()),
    }
}

fn bare(request: http::request::Builder, body: &'static str) -> Request<&'static str> {
    request.header("host", "localhost").body(body).unwrap()
}

#[tokio::test]
async fn unsigned_requests() {
    let door = Door::new();
    let form = "application/x-www-form-urlencoded";
    for (request, expected) in [
        (bare(Request::get("/_modelyard/health"), ""), "own"),
        (bare(Request::get("/"), ""), "s3"),
        (bare(Request::put("/bucket/key"), "x"), "s3"),
        (bare(Request::get("/_modelyard"), ""), "s3"),
        (bare(Request::post("/widgets/a/invocations"), "x"), "s3"),
        (bare(Request::get("/bucket/key?AWSAccessKeyId=A&Signature=s&Expires=1"), ""), "s3"),
        // An object that looks like an operation.
        (
            bare(
                Request::put("/b/k?AWSAccessKeyId=A&Signature=s").header("content-type", form),
                "Action=PutMeter",
            ),
            "s3",
        ),
        (bare(Request::get("/bucket/key").header("authorization", "AWS key:signature"), ""), "s3"),
        (bare(Request::post("/bucket").header("content-type", form), "a=1"), "s3"),
        (
            bare(Request::post("/").header("x-amz-target", "Widgets_2026.Ping"), "{}"),
            "403 MissingAuthenticationTokenException",
        ),
        (
            bare(Request::post("/").header("content-type", form), "Action=PutMeter"),
            "403 MissingAuthenticationToken",
        ),
        (bare(Request::get("/?Action=PutMeter"), ""), "403 MissingAuthenticationToken"),
        (
            bare(Request::post("/service/X/operation/Y").header("smithy-protocol", "rpc-v2-cbor"), ""),
            "403 MissingAuthenticationTokenException",
        ),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(outcome(&door, request).await, expected, "{shown}");
    }
}

#[tokio::test]
async fn signed_requests() {
    let door = Door::new();
    let target = |name: &str| Request::post("/").header("x-amz-target", name.to_owned());
    let form = || Request::post("/").header("content-type", "application/x-www-form-urlencoded");
    for (service, request, body, expected) in [
        ("s3", Request::put("/bucket/key"), "", "s3"),
        ("s3", Request::put("/bucket/key?x-id=PutObject"), "", "s3"),
        ("s3", Request::post("/widgets/a/invocations"), "", "s3"),
        ("s3", Request::get("/_modelyard/health"), "", "own"),
        ("widgets", target("Widgets_2026.Ping"), "{}", "200 "),
        ("widgets", target("Widgets_2026.Nothing"), "{}", "400 UnknownOperationException"),
        ("widgets", target("Others.Ping"), "{}", "400 UnknownOperationException"),
        ("widgets", target("Ping"), "{}", "400 UnknownOperationException"),
        ("widgets", target("Widgets_2026.ForgetWidget"), "{}", "400 NotImplemented"),
        (
            "widgets",
            Request::get("/").header("x-amz-target", "Widgets_2026.Ping"),
            "",
            "400 SerializationException",
        ),
        // A target of one service under the signing name of another.
        ("meters", target("Widgets_2026.Ping"), "{}", "400 UnknownOperationException"),
        ("meters", target("Meters.ResetMeter"), "{}", "200 "),
        ("meters", form(), "Action=ResetMeter", "200 "),
        ("meters", form(), "Action=Nothing", "400 InvalidAction"),
        ("widgets", form(), "Action=Ping", "415 UnsupportedProtocol"),
        (
            "meters",
            Request::post("/service/Meters/operation/ResetMeter").header("smithy-protocol", "rpc-v2-cbor"),
            "",
            "200 ",
        ),
        (
            "meters",
            Request::post("/any/service/Meters/operation/Nothing").header("smithy-protocol", "rpc-v2-cbor"),
            "",
            "400 UnknownOperationException",
        ),
        (
            "meters",
            Request::get("/service/Meters/operation/ResetMeter").header("smithy-protocol", "rpc-v2-cbor"),
            "",
            "400 SerializationException",
        ),
        (
            "meters",
            Request::post("/service/Widgets_2026/operation/Ping").header("smithy-protocol", "rpc-v2-cbor"),
            "",
            "400 UnknownOperationException",
        ),
        (
            "widgets",
            Request::post("/service/Widgets_2026/operation/Ping").header("smithy-protocol", "rpc-v2-cbor"),
            "",
            "415 UnsupportedProtocol",
        ),
        ("widgets", Request::post("/widgets/a/invocations"), "x", "200 "),
        ("widgets", Request::post("//widgets/a//invocations/"), "x", "200 "),
        ("widgets", Request::get("/widgets/a/invocations"), "", "404 UnknownOperationException"),
        ("widgets", Request::post("/widgets/a/b/invocations"), "x", "404 UnknownOperationException"),
        ("widgets", Request::post("/widgets/../widgets/a/invocations"), "x", "404 UnknownOperationException"),
        ("widgets", Request::post("/widgets/%2e%2E/invocations"), "x", "404 UnknownOperationException"),
        ("meters", Request::post("/widgets/a/invocations"), "x", "404 UnknownOperationException"),
        ("gadgets", target("Gadgets.Ping"), "{}", "400 UnknownService"),
        ("gadgets", form(), "Action=Ping", "400 UnknownService"),
        ("gadgets", Request::get("/things"), "", "400 UnknownService"),
    ] {
        let request =
            sign(service, request, &bytes::Bytes::from_static(body.as_bytes()), NOW_MS).map(|_| body);
        let shown = format!("{service} {request:?}");
        assert_eq!(outcome(&door, request).await, expected, "{shown}");
    }
}

#[tokio::test]
async fn the_error_of_an_unknown_service_or_operation_names_it() {
    let door = Door::new();
    let answer = door.json("gadgets", "Gadgets.Ping", "{}").await;
    assert!(answer.json()["message"].as_str().unwrap().contains("\"gadgets\""));
    let answer = door.json("widgets", "Widgets_2026.Nothing", "{}").await;
    assert!(answer.json()["message"].as_str().unwrap().contains("widgets has no operation Nothing"));
    let answer = door.json("widgets", "Widgets_2026.ForgetWidget", "{}").await;
    let expected =
        "Modelyard does not implement widgets ForgetWidget yet; docs/compatibility.md lists what it does.";
    assert_eq!(answer.json()["message"], expected);
}

#[tokio::test]
async fn presigned_requests_reach_their_service() {
    let door = Door::new();
    let url = "http://localhost:8080/?Action=PutMeter&WidgetName=a".parse().unwrap();
    let url = signer("meters").presign(&http::Method::GET, &url, 60, NOW_MS).unwrap();
    assert_eq!(outcome(&door, bare_at(&url)).await, "200 ");
    let url = "http://localhost:8080/bucket/key".parse().unwrap();
    let url = signer("s3").presign(&http::Method::GET, &url, 60, NOW_MS).unwrap();
    assert_eq!(outcome(&door, bare_at(&url)).await, "s3");
}

fn bare_at(url: &http::Uri) -> Request<&'static str> {
    Request::get(url.path_and_query().unwrap().as_str()).header("host", "localhost:8080").body("").unwrap()
}

#[test]
fn the_registry_lists_what_it_has_in_order() {
    let mut registry: Registry<Seen> = Registry::new();
    registry.on_raw::<InvokeWidget, _, _, _>(async |_, _| -> Result<_, wire::Error> {
        Ok(http::Response::new(wire::empty()))
    });
    registry.on::<PutMeter, _, _, _>(async |_, input| -> Result<_, wire::Error> { Ok(input) });
    let expected = [("meters", "PutMeter"), ("widgets-runtime", "InvokeWidget")];
    assert_eq!(registry.operations().collect::<Vec<_>>(), expected);
}

#[test]
#[should_panic(expected = "widgets CreateWidget is registered twice")]
fn a_second_handler_is_a_mistake() {
    let mut registry: Registry<Seen> = Registry::new();
    registry.on::<CreateWidget, _, _, _>(async |_, input| -> Result<_, wire::Error> { Ok(input) });
    registry.on::<CreateWidget, _, _, _>(async |_, input| -> Result<_, wire::Error> { Ok(input) });
}

operations! { Stranger of &crate::widgets::WIDGETS; }

#[test]
#[should_panic(expected = "widgets has no operation Stranger")]
fn a_handler_for_an_unknown_operation_is_a_mistake() {
    let mut registry: Registry<Seen> = Registry::new();
    registry.on::<Stranger, _, _, _>(async |_, input| -> Result<_, wire::Error> { Ok(input) });
}

#[tokio::test]
async fn requests_are_counted_by_operation_and_code() {
    let door = Door::new();
    door.json("widgets", "Widgets_2026.CreateWidget", r#"{"WidgetName":"a"}"#).await;
    door.json("widgets", "Widgets_2026.FailWidget", r#"{"WidgetName":"in-use"}"#).await;
    door.json("widgets", "Widgets_2026.FailWidget", r#"{"WidgetName":"panic"}"#).await;
    door.json("widgets", "Widgets_2026.ForgetWidget", r#"{"WidgetName":"a"}"#).await;
    door.json("widgets", "Widgets_2026.Nothing", "{}").await;
    door.query("Action=ResetMeter").await;
    outcome(&door, bare(Request::get("/bucket/key"), "")).await;
    outcome(&door, bare(Request::get("/_modelyard/health"), "")).await;
    outcome(&door, bare(Request::post("/").header("x-amz-target", "Widgets_2026.Ping"), "{}")).await;
    let observed = door.take_observed();
    let shown: Vec<(&str, &str, &str)> =
        observed.iter().map(|(service, operation, code)| (*service, *operation, &**code)).collect();
    let expected = [
        ("widgets", "CreateWidget", "OK"),
        ("widgets", "FailWidget", "WidgetInUse"),
        ("widgets", "FailWidget", "InternalFailure"),
        ("widgets", "ForgetWidget", "NotImplemented"),
        ("widgets", "", "UnknownOperationException"),
        ("meters", "ResetMeter", "OK"),
        ("s3", "GET", "OK"),
        ("", "", "MissingAuthenticationTokenException"),
    ];
    assert_eq!(shown, expected);
}
