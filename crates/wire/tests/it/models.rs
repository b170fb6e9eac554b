//! The real models: each operation can be reached, each pattern compiles, and no input is our fault.

use api::model::{Kind, Location, Member, OperationModel, Protocol, Service, ShapeId, Structure};
use bytes::Bytes;
use http::Request;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wire::Registry;

use crate::fixture::{Answered, Door};

/// The services that the protocols of this crate serve.
fn services() -> impl Iterator<Item = &'static Service> {
    let services: &'static [&'static Service] = api::SERVICES;
    services.iter().copied().filter(|service| service.id != "s3")
}

fn operations() -> Vec<(&'static Service, &'static OperationModel)> {
    services()
        .flat_map(|service| service.operations.iter().map(move |operation| (service, operation)))
        .collect()
}

fn structure(service: &'static Service, shape: Option<ShapeId>) -> Option<&'static Structure> {
    match &service.shape(shape?).kind {
        Kind::Structure(structure) => Some(structure),
        _ => None,
    }
}

/// Calls an operation in the first protocol of its service that is served.
async fn call(
    door: &Door,
    service: &'static Service,
    operation: &'static OperationModel,
    input: &Value,
) -> Answered {
    let served = |protocol: &&Protocol| !matches!(protocol, Protocol::RpcV2Cbor | Protocol::RestXml);
    match service.protocols.iter().find(served) {
        Some(Protocol::Query) => {
            let mut form = format!("Action={}", operation.name);
            flatten(input, "", &mut form);
            let request = Request::post("/").header("content-type", "application/x-www-form-urlencoded");
            door.signed(service.signing_name, request, form).await
        }
        Some(Protocol::RestJson) => {
            let request = Request::builder().method(operation.method).uri(path(operation.uri));
            door.signed(service.signing_name, request, rest_body(service, operation, input)).await
        }
        _ => {
            let target = format!("{}.{}", service.target_prefix.unwrap(), operation.name);
            let request = Request::post("/").header("x-amz-target", target);
            door.signed(service.signing_name, request, input.to_string()).await
        }
    }
}

/// Fills the labels of a template.
fn path(template: &str) -> String {
    let mut path = String::new();
    for (index, part) in template.split(['{', '}']).enumerate() {
        path.push_str(if index % 2 == 1 { "a" } else { part });
    }
    path
}

fn rest_body(service: &'static Service, operation: &OperationModel, input: &Value) -> Bytes {
    let Some(structure) = structure(service, operation.input) else { return Bytes::new() };
    let in_body = |member: &&Member| member.location == Location::Body;
    if let Some(payload) = structure.payload {
        return input.get(payload).map(Value::to_string).unwrap_or_default().into();
    }
    let members = structure.members.iter().filter(in_body);
    let body: Map<String, Value> = members
        .filter_map(|member| Some((member.wire_name.to_owned(), input.get(member.name)?.clone())))
        .collect();
    Value::Object(body).to_string().into()
}

/// Writes a value as form keys; lists and maps as the unflattened forms, which is wrong for some, as noise is.
fn flatten(value: &Value, prefix: &str, form: &mut String) {
    let below = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| flatten(value, &below(name), form)),
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                flatten(element, &below(&format!("member.{}", index + 1)), form);
            }
        }
        Value::Null => {}
        Value::String(text) => form.push_str(&format!("&{prefix}={}", text.replace(['%', '&', '+'], ""))),
        other => form.push_str(&format!("&{prefix}={other}")),
    }
}

#[test]
fn the_models_are_there() {
    let ids: Vec<&str> = services().map(|service| service.id).collect();
    for id in [
        "sagemaker",
        "sagemaker-runtime",
        "sagemaker-featurestore-runtime",
        "sts",
        "iam",
        "logs",
        "cloudwatch",
    ] {
        assert!(ids.contains(&id), "{id} is not among {ids:?}");
    }
}

#[test]
fn every_pattern_compiles() {
    let mut problems = Vec::new();
    for service in services() {
        for shape in service.shapes {
            if let Kind::String { pattern: Some(pattern), .. } = &shape.kind
                && let Err(problem) = wire::validation::check_pattern(pattern)
            {
                problems.push(format!("{} {}: {problem}", service.id, shape.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[tokio::test]
async fn every_operation_is_found_and_named_when_it_is_not_implemented() {
    let door = Door::over(Registry::new(), api::SERVICES);
    for (service, operation) in operations() {
        let answer = call(&door, service, operation, &json!({})).await;
        let expected = format!("Modelyard does not implement {} {} yet;", service.id, operation.name);
        assert!(answer.text().contains(&expected), "{expected} {}", answer.text());
        assert_eq!((answer.status, &*answer.code()), (400, "NotImplemented"));
    }
}

/// A value near to a shape: mostly fitting, sometimes anything. `seed` decides.
struct Sample(u64);

impl Sample {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn value(&mut self, service: &'static Service, shape: ShapeId, depth: u32) -> Value {
        if self.next(30) == 0 {
            let noise = [
                json!(null),
                json!(-1),
                json!(1e300),
                json!("x"),
                json!([]),
                json!({}),
                json!(true),
                json!([null]),
            ];
            let at = self.next(noise.len() as u64) as usize;
            return noise[at].clone();
        }
        let few = if depth > 5 { 1 } else { self.next(3) };
        match &service.shape(shape).kind {
            Kind::Structure(structure) => self.structure(service, structure, depth),
            Kind::List { member, .. } => (0..few).map(|_| self.value(service, *member, depth + 1)).collect(),
            Kind::Map { value, .. } => {
                let entries =
                    (0..few).map(|index| (format!("key{index}"), self.value(service, *value, depth + 1)));
                Value::Object(entries.collect())
            }
            Kind::String { values, .. } if !values.is_empty() => {
                json!(values[self.next(values.len() as u64) as usize])
            }
            Kind::String { min, .. } => {
                let length = min.unwrap_or(0).max(self.next(12)).min(64);
                (0..length)
                    .map(|_| b"abcXYZ019-:/ "[self.next(13) as usize] as char)
                    .collect::<String>()
                    .into()
            }
            Kind::Integer { min, .. } | Kind::Long { min, .. } => {
                json!(min.unwrap_or(0.0) as i64 + self.next(100) as i64)
            }
            Kind::Float { .. } => json!(self.next(1000) as f64 / 8.0),
            Kind::Boolean => json!(self.next(2) == 0),
            Kind::Timestamp { .. } => json!(1_769_860_800.25),
            Kind::Blob { .. } => json!("AAEC"),
            Kind::Document => json!({"any": [1, null]}),
        }
    }

    fn structure(&mut self, service: &'static Service, structure: &'static Structure, depth: u32) -> Value {
        let mut members = Map::new();
        for member in structure.members {
            if member.required || (depth < 5 && self.next(2) == 0) {
                if depth > 12 {
                    continue;
                }
                members.insert(member.name.to_owned(), self.value(service, member.shape, depth + 1));
            }
        }
        Value::Object(members)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn inputs_near_to_the_models_have_an_answer(seed in any::<u64>(), pick in any::<prop::sample::Index>()) {
        let door = Door::of_models();
        let operations = operations();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut sample = Sample(seed);
        // A few operations a case, as the door is what costs.
        for step in 0..8 {
            let (service, operation) = operations[(pick.index(operations.len()) + step * 131) % operations.len()];
            let input = structure(service, operation.input).map_or(json!({}), |structure| sample.structure(service, structure, 0));
            let answer = runtime.block_on(call(&door, service, operation, &input));
            prop_assert!(answer.status < 500, "{} {} {input} {}", service.id, operation.name, answer.text());
        }
    }
}
