//! Arbitrary input to every operation: never a fault of ours.

use bytes::Bytes;
use http::Request;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::app::TestApp;

/// Any JSON value of little depth.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        Just(Value::from("s3://b/../k")),
        Just(Value::from("arn:aws:iam::123456789012:role/R")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[A-Za-z]{1,12}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// An input with member names of the operation's own model, so that it gets past the first check.
fn shaped(service: &'static api::model::Service, operation: &str) -> BoxedStrategy<Value> {
    let model = service.operation(operation).unwrap();
    let members = match model.input.map(|input| &service.shape(input).kind) {
        Some(api::model::Kind::Structure(structure)) => structure.members,
        _ => &[],
    };
    let names: Vec<&'static str> = members.iter().map(|member| member.name).collect();
    if names.is_empty() {
        return Just(json!({})).boxed();
    }
    let member = (prop::sample::select(names), any_json());
    prop::collection::vec(member, 0..6)
        .prop_map(|members| {
            Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        })
        .boxed()
}

#[test]
fn json_operations_answer_any_input_with_a_client_error_or_success() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(TestApp::new());
    let registry = server::app::registry();
    for (service, operation) in registry.operations() {
        let service =
            *api::SERVICES.iter().find(|known| known.id == service).unwrap_or(&&server::OWN_SERVICE);
        let Some(prefix) = service.target_prefix else { continue };
        let target = format!("{prefix}.{operation}");
        let mut runner =
            TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
        let strategy = shaped(service, operation);
        runner
            .run(&strategy, |input| {
                let answer = runtime.block_on(app.call(&target, input.clone()));
                prop_assert!(
                    answer.status.as_u16() < 500,
                    "{target} {input}: {} {}",
                    answer.status,
                    answer.text()
                );
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn any_bytes_are_answered_with_a_client_error() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(TestApp::new());
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let bodies = prop::collection::vec(any::<u8>(), 0..200);
    let services = prop::sample::select(vec!["sagemaker", "sts", "iam", "logs", "kms", "nonsense", ""]);
    let strategy = (bodies, services, "[A-Za-z.]{0,30}", "/[ -~]{0,40}");
    runner
        .run(&strategy, |(body, service, target, path)| {
            let Ok(uri) = path.parse::<http::Uri>() else { return Ok(()) };
            let request = Request::post(uri).header("x-amz-target", target.as_str()).body(()).unwrap();
            let answer = runtime.block_on(app.send_signed(request, Bytes::from(body), service, &app.key()));
            prop_assert!(answer.status.is_client_error(), "{service} {target} {path}: {}", answer.status);
            Ok(())
        })
        .unwrap();
}
