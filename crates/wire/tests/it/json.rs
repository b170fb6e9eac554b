//! AWS JSON 1.0 and 1.1.

use serde_json::json;

use crate::fixture::Door;

#[tokio::test]
async fn all_types_go_in_and_out() {
    let door = Door::new();
    let widget = json!({
        "WidgetName": "a-b", "Colour": "Red", "Count": 7, "Size": 9_007_199_254_740_993_i64, "Ratio": 0.25, "Flag": false,
        "MadeAt": 1_769_860_800.5, "Bytes": "AAEC", "Any": {"deep": [1, null]}, "Names": ["a", "b"], "FlatNames": ["c"],
        "Tags": {"k": "v"}, "Parts": [{"PartName": "p", "Sub": [{"PartName": "q"}]}], "Choice": {"One": "1"}, "Text": "ä😀",
    });
    let answer = door.json("widgets", "Widgets_2026.CreateWidget", widget.to_string()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/x-amz-json-1.1");
    // Order is kept, so that the bytes are the same.
    assert_eq!(answer.text(), widget.to_string());
}

#[tokio::test]
async fn forms_that_clients_vary_are_made_one() {
    let door = Door::new();
    let given = r#"{"WidgetName":"a","__type":"Widget","Count":7.0,"MadeAt":"2026-01-31T12:00:00Z","SoldAt":1769860800,
        "Bytes":"AAE","Text":null,"Parts":[{"PartName":"p","Sub":null}]}"#;
    let answer = door.json("widgets", "Widgets_2026.CreateWidget", given).await;
    let expected = r#"{"WidgetName":"a","Count":7,"MadeAt":1769860800,"SoldAt":"2026-01-31T12:00:00Z","Bytes":"AAE=","Parts":[{"PartName":"p"}]}"#;
    assert_eq!(answer.text(), expected);
}

#[tokio::test]
async fn operations_without_input_or_output_answer_an_empty_object() {
    let door = Door::new();
    for body in ["", "{}", " \n"] {
        let answer = door.json("widgets", "Widgets_2026.Ping", body).await;
        assert_eq!((answer.status, answer.text()), (200, "{}"));
    }
    let answer = door.json("meters", "Meters.ResetMeter", "{}").await;
    assert_eq!((answer.text(), answer.header("content-type")), ("{}", "application/x-amz-json-1.0"));
    assert_eq!(door.json("widgets", "Widgets_2026.Ping", r#"{"Extra":1}"#).await.status, 400);
}

#[tokio::test]
async fn errors_have_type_message_and_header() {
    let door = Door::new();
    let answer = door.json("widgets", "Widgets_2026.FailWidget", r#"{"WidgetName":"in-use"}"#).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("x-amzn-errortype"), "WidgetInUse");
    assert_eq!(answer.text(), r#"{"__type":"WidgetInUse","Holder":"me","Message":"the widget <in-use>"}"#);
    // The model names status and, for query, another code.
    let answer = door.json("widgets", "Widgets_2026.FailWidget", r#"{"WidgetName":"missing"}"#).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.text(), r#"{"__type":"WidgetMissing","message":"the widget <missing>"}"#);
    let answer = door.json("widgets", "Widgets_2026.FailWidget", r#"{"WidgetName":"other"}"#).await;
    assert_eq!(answer.text(), r#"{"__type":"OtherError","message":"the widget <other>"}"#);
}

#[tokio::test]
async fn clients_that_came_from_query_get_the_query_code_too() {
    let door = Door::new();
    let request = http::Request::post("/")
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", "Meters.PutMeter")
        .header("x-amzn-query-mode", "true");
    let answer = door.signed("meters", request, r#"{"WidgetName":"missing"}"#).await;
    assert_eq!(answer.header("x-amzn-query-error"), "Widgets.Missing;Sender");
    assert_eq!(answer.json()["__type"], "WidgetMissing");
}

#[tokio::test]
async fn a_panic_is_an_internal_error() {
    let door = Door::new();
    let answer = door.json("widgets", "Widgets_2026.FailWidget", r#"{"WidgetName":"panic"}"#).await;
    assert_eq!((answer.status, &*answer.code()), (500, "InternalFailure"));
    assert!(!answer.text().contains("on purpose"));
    assert_eq!(door.json("widgets", "Widgets_2026.Ping", "{}").await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_read_is_a_serialization_error_that_names_the_place() {
    let door = Door::new();
    for (body, place) in [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("\u{0}", "not valid JSON"),
        (r#"{"WidgetName":1}"#, "WidgetName must be a string, not a number."),
        (r#"{"Count":"7"}"#, "Count must be a number, not a string."),
        (r#"{"Count":1.5}"#, "Count must be a whole number"),
        (r#"{"Count":4294967296}"#, "Count must be a whole number"),
        (r#"{"Size":1e300}"#, "Size must be a whole number"),
        (r#"{"Flag":"true"}"#, "Flag must be true or false, not a string."),
        (r#"{"MadeAt":"soon"}"#, "MadeAt must be a timestamp"),
        (r#"{"MadeAt":1e300}"#, "MadeAt must be a timestamp"),
        (r#"{"MadeAt":true}"#, "MadeAt must be a timestamp"),
        (r#"{"Bytes":"%"}"#, "Bytes must be base64 text."),
        (r#"{"Names":{}}"#, "Names must be a list, not a structure."),
        (r#"{"Tags":[]}"#, "Tags must be a map, not a list."),
        (r#"{"Tags":{"a":1}}"#, "Tags.a must be a string"),
        (
            r#"{"Parts":[{"PartName":"a"},{"Sub":[{"PartName":7}]}]}"#,
            "Parts[1].Sub[0].PartName must be a string",
        ),
        (r#"{"Parts":[7]}"#, "Parts[0] must be a structure"),
    ] {
        let answer = door.json("widgets", "Widgets_2026.CreateWidget", body).await;
        assert_eq!((answer.status, &*answer.code()), (400, "SerializationException"), "{body}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(place), "{body}: {message}");
    }
    let deep = format!("{{\"Any\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(
        door.json("widgets", "Widgets_2026.CreateWidget", deep).await.code(),
        "SerializationException"
    );
}

#[tokio::test]
async fn members_that_the_model_does_not_have_are_refused_by_name() {
    let door = Door::new();
    for (body, name) in [
        (r#"{"WidgetName":"a","Novel":1}"#, "\"Novel\""),
        (r#"{"WidgetName":"a","Parts":[{"PartName":"p","Novel":null}]}"#, "\"Parts[0].Novel\""),
        (r#"{"widgetName":"a"}"#, "\"widgetName\""),
    ] {
        let answer = door.json("widgets", "Widgets_2026.CreateWidget", body).await;
        assert_eq!((answer.status, &*answer.code()), (400, "ValidationException"), "{body}");
        assert!(answer.json()["message"].as_str().unwrap().contains(name), "{}", answer.text());
    }
}

#[tokio::test]
async fn gzip_is_undone_up_to_the_limit() {
    use std::io::Write;
    let door = Door::new();
    let gzip = |plain: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let request = |encoding: &str| {
        http::Request::post("/")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "Widgets_2026.CreateWidget")
            .header("content-encoding", encoding)
    };
    let answer = door.signed("widgets", request("gzip"), gzip(br#"{"WidgetName":"a"}"#)).await;
    assert_eq!((answer.status, answer.text()), (200, r#"{"WidgetName":"a"}"#));
    let bomb = gzip(&vec![b' '; 1024 * 1024]);
    assert!(bomb.len() < 2_000);
    let answer = door.signed("widgets", request("gzip"), bomb).await;
    assert_eq!((answer.status, &*answer.code()), (413, "RequestEntityTooLargeException"));
    let answer = door.signed("widgets", request("gzip"), "plain").await;
    assert_eq!((answer.status, &*answer.code()), (400, "SerializationException"));
    for encoding in ["br", "aws-chunked", "gzip, gzip"] {
        let answer = door.signed("widgets", request(encoding), "{}").await;
        assert_eq!((answer.status, &*answer.code()), (415, "UnsupportedMediaTypeException"), "{encoding}");
    }
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused() {
    let door = Door::new();
    let large = format!(r#"{{"WidgetName":"a","Text":"{}"}}"#, "x".repeat(64 * 1024));
    let answer = door.json("widgets", "Widgets_2026.CreateWidget", large).await;
    assert_eq!((answer.status, &*answer.code()), (413, "RequestEntityTooLargeException"));
}

#[tokio::test]
async fn the_caller_must_be_allowed() {
    let door = Door::new();
    let answer = door.json("widgets", "Widgets_2026.CreateWidget", r#"{"WidgetName":"secret"}"#).await;
    assert_eq!(answer.text(), r#"{"__type":"AccessDeniedException","message":"no widgets:CreateWidget"}"#);
}
