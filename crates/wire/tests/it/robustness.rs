//! Nothing that a client can send is our fault.

use bytes::Bytes;
use http::{Method, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixture::{Answered, Door, NOW_MS, sign};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// JSON that is near to what the models want, and JSON that is not.
fn near() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "[a-z]{0,9}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("AAEC")),
        Just(json!("2026-01-31T12:00:00Z")),
    ];
    let name = prop_oneof![
        Just("WidgetName"),
        Just("Colour"),
        Just("Count"),
        Just("Size"),
        Just("Ratio"),
        Just("Flag"),
        Just("MadeAt"),
        Just("Bytes"),
        Just("Any"),
        Just("Names"),
        Just("FlatNames"),
        Just("Tags"),
        Just("FlatTags"),
        Just("Parts"),
        Just("Choice"),
        Just("Grid"),
        Just("PartMap"),
        Just("SoldAt"),
        Just("PartName"),
        Just("Sub"),
        Just("__type"),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name.clone().prop_map(String::from), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn near_form() -> impl Strategy<Value = String> {
    let key = "(WidgetName|Count|Flag|MadeAt|Bytes|Names|Item|Tags|FlatTags|Parts|PartMap)(\\.(member|entry|[0-3]|key|value|PartName|Sub)){0,5}";
    proptest::collection::vec((key, "[a-z0-9%+]{0,4}"), 0..6).prop_map(|pairs| {
        let parts: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("Action=PutMeter&{}", parts.join("&"))
    })
}

fn is_ours(answer: &Answered) -> bool {
    answer.status >= 500
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_json_has_an_answer(body in near()) {
        let door = Door::new();
        let answer = runtime().block_on(door.json("widgets", "Widgets_2026.CreateWidget", body.to_string()));
        prop_assert!(!is_ours(&answer), "{} {}", body, answer.text());
    }

    #[test]
    fn any_bytes_have_an_answer(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let door = Door::new();
        let body = Bytes::from(body);
        let runtime = runtime();
        for target in ["Widgets_2026.CreateWidget", "Widgets_2026.Ping", "Meters.PutMeter"] {
            let service = if target.starts_with('M') { "meters" } else { "widgets" };
            let answer = runtime.block_on(door.json(service, target, body.clone()));
            prop_assert!(!is_ours(&answer), "{target} {}", answer.text());
        }
        for (method, path) in [("POST", "/things/k/ask"), ("PUT", "/things/k"), ("POST", "/widgets/a/invocations")] {
            let request = Request::builder().method(method).uri(path);
            let answer = runtime.block_on(door.signed("widgets", request, body.clone()));
            prop_assert!(!is_ours(&answer), "{path} {:?}", answer.body);
        }
    }

    #[test]
    fn any_form_has_an_answer(form in prop_oneof![near_form(), "Action=PutMeter&[ -~]{0,60}"]) {
        let answer = runtime().block_on(Door::new().query(&form));
        prop_assert!(!is_ours(&answer), "{form} {}", answer.text());
    }

    #[test]
    fn any_head_has_an_answer(
        method in prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::PUT), Just(Method::DELETE), Just(Method::HEAD)],
        path in "(/[a-z%0-9.~]{0,6}){0,4}",
        query in "[a-zA-Z=&%+0-9.-]{0,40}",
        target in proptest::option::of("[ -~]{0,30}"),
        service in "widgets|meters|s3|other",
        signed in any::<bool>(),
    ) {
        let mut request = Request::builder().method(method).uri(format!("/{}?{query}", path.trim_start_matches('/')));
        if let Some(target) = target {
            request = request.header("x-amz-target", target);
        }
        let request = if signed {
            sign(&service, request, &Bytes::new(), NOW_MS)
        } else {
            request.header("host", "h").body(Bytes::new()).unwrap()
        };
        let answer = runtime().block_on(Door::new().send(request));
        prop_assert!(!is_ours(&answer), "{:?}", answer);
    }
}
