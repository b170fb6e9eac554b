//! Mutated definitions, and those that are made to be dear: a definition or a flaw, soon, and never anything else.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use super::tests::WRITTEN;
use super::*;
use crate::pipelines::expressions::{Room, Scope};
use crate::pipelines::properties;

/// Mutated definitions of each that the SDK wrote.
const OF_EACH: u64 = 200;

/// How many values there are in a value, itself included.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(count).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// The value at a position in the order of the text.
fn at<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(elements) => elements.iter_mut().find_map(|element| at(element, left)),
        Value::Object(members) => members.values_mut().find_map(|member| at(member, left)),
        _ => None,
    }
}

fn junk(random: &mut StdRng) -> Value {
    let depth = random.random_range(1..100);
    let deep = |inner: Value, wrap: fn(Value) -> Value| (0..depth).fold(inner, |inner, _| wrap(inner));
    match random.random_range(0..16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1.7e308),
        5 => json!(""),
        6 => json!("x".repeat(random.random_range(1..3_000))),
        7 => json!("\u{0}\u{feff}\u{202e}😀"),
        8 => json!([]),
        9 => json!({}),
        10 => json!({"Get": "Steps.nobody.X"}),
        11 => json!({"Get": "Parameters."}),
        12 => json!({"Get": "Steps.Train.['a'][0]..x"}),
        13 => deep(json!("end"), |inner| json!({"Std:Join": {"On": "/", "Values": [inner, inner_text()]}})),
        14 => deep(
            json!({"Type": "Equals", "LeftValue": 1, "RightValue": 1}),
            |inner| json!({"Type": "Not", "Condition": inner}),
        ),
        _ => deep(json!(1), |inner| json!([inner])),
    }
}

fn inner_text() -> Value {
    json!({"Get": "Execution.PipelineName"})
}

fn mutate(whole: &mut Value, random: &mut StdRng) {
    let other = random.random_range(0..count(whole));
    let copied = at(whole, &mut other.clone()).cloned().unwrap_or_default();
    let Some(node) = at(whole, &mut random.random_range(0..count(&whole.clone()))) else { return };
    match random.random_range(0..5) {
        0 => *node = junk(random),
        1 => *node = copied,
        2 => match node {
            Value::Array(elements) if !elements.is_empty() => {
                let twice = elements[random.random_range(0..elements.len())].clone();
                elements.push(twice);
            }
            Value::Object(members) => drop(members.insert("Extra".into(), copied)),
            _ => *node = Value::Null,
        },
        3 => match node {
            Value::Array(elements) if !elements.is_empty() => {
                drop(elements.remove(random.random_range(0..elements.len())))
            }
            Value::Object(members) if !members.is_empty() => {
                let name =
                    members.keys().nth(random.random_range(0..members.len())).cloned().unwrap_or_default();
                members.remove(&name);
            }
            _ => *node = copied,
        },
        _ => match node {
            Value::Object(members) => {
                *members = members
                    .iter()
                    .map(|(name, value)| (name.to_lowercase(), value.clone()))
                    .collect::<Map<_, _>>();
            }
            Value::String(text) => *text = text.chars().rev().collect(),
            _ => *node = junk(random),
        },
    }
}

/// Reads a text, and uses what comes of it as a server would.
fn read(text: &str) -> Result<Definition, Flaw> {
    let definition = Definition::parse(text)?;
    properties::check(&definition)?;
    let nothing = BTreeMap::new();
    let parameters = definition.parameter_values(&BTreeMap::new()).unwrap_or_default();
    for step in &definition.steps {
        let property_file = |_: &str, _: &str| Ok("s3://b/k".to_owned());
        let scope = Scope {
            parameters: &parameters,
            execution: &nothing,
            properties: &nothing,
            files: &nothing,
            property_file: &property_file,
            room: Room::default(),
        };
        // References lead nowhere here; what counts is that they are answered.
        step.each_expression(&mut |expression| drop((scope.value(expression), scope.files(expression))));
        step.conditions.iter().for_each(|condition| drop(condition.holds(&scope)));
    }
    Ok(definition)
}

#[test]
fn mutated_definitions_are_definitions_or_have_a_flaw_with_its_place() {
    let (mut taken, mut refused) = (0, 0);
    for (file, (name, text)) in WRITTEN.iter().enumerate() {
        for seed in 0..OF_EACH {
            let mut random = StdRng::seed_from_u64(seed * 100 + file as u64);
            let mut whole: Value = serde_json::from_str(text).unwrap();
            for _ in 0..random.random_range(1..4) {
                mutate(&mut whole, &mut random);
            }
            let mut written = whole.to_string();
            if random.random_range(0..8) == 0 {
                let end = written
                    .char_indices()
                    .nth(random.random_range(0..written.len()))
                    .map_or(0, |(end, _)| end);
                written.truncate(end);
                written.push_str(["", "\\ud800", "1e999", "]]", "\u{0}"][random.random_range(0..5)]);
            }
            match read(&written) {
                Ok(_) => taken += 1,
                Err(flaw) => {
                    refused += 1;
                    assert!(
                        !flaw.place.is_empty() && flaw.to_string().len() < 6_000,
                        "{name} {seed}: {flaw}"
                    );
                }
            }
        }
    }
    assert!(taken > 100 && refused > 1_000, "{taken} were taken, {refused} refused");
}

/// What this thread has computed so far; others on the machine do not count.
fn computed() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    // The name of the thread, in brackets, may hold anything; behind it, in user and system, are hundredths of a second.
    let (_, numbers) = told.rsplit_once(')').unwrap();
    let ticks = numbers.split_whitespace().skip(11).take(2).map(|number| number.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// What reading a text says, and that it says so soon.
fn soon(what: &str, text: &str) -> Result<Definition, String> {
    let before = computed();
    let read = read(text).map_err(|flaw| flaw.to_string());
    let took = computed() - before;
    assert!(took < Duration::from_secs(10), "{what} took {took:?} of a debug build");
    if let Err(flaw) = &read {
        assert!(flaw.len() < 6_000, "{what}: a message of {} bytes", flaw.len());
    }
    read
}

#[test]
fn a_megabyte_that_is_made_to_be_dear_is_answered_soon() {
    let with = |arguments: &str| {
        format!(
            r#"{{"Version": "2020-12-01", "Steps": [{{"Name": "a", "Type": "Lambda", "FunctionArn": "f", "Arguments": {arguments}}}]}}"#
        )
    };
    // A place for each value, under a member whose name is half of the text.
    let long = format!(r#"{{"{}": [{}0]}}"#, "n".repeat(500_000), "0,".repeat(250_000));
    soon("a long name", &with(&long)).unwrap();
    let wide = format!("{{\"l\": [{}0]}}", "0,".repeat(500_000));
    soon("a wide list", &with(&wide)).unwrap();
    for (open, close) in [
        ("[", "]"),
        ("{\"a\":", "}"),
        ("{\"Std:Join\": {\"On\": \"\", \"Values\": [", "]}}"),
        ("{\"Type\": \"Not\", \"Condition\": ", "}"),
    ] {
        let depth = 1_000_000 / (open.len() + close.len());
        let nested = format!("{{\"x\": {}1{}}}", open.repeat(depth), close.repeat(depth));
        assert!(soon(open, &with(&nested)).unwrap_err().contains("recursion"), "{open}");
        let allowed = format!("{{\"x\": {}1{}}}", open.repeat(30), close.repeat(30));
        soon(open, &with(&allowed)).unwrap();
    }
    assert!(soon("a number", &with("{\"x\": 1e999}")).unwrap_err().contains("number out of range"));
    assert!(soon("a surrogate", &with("{\"x\": \"\\ud800\"}")).unwrap_err().contains("PipelineDefinition"));
    let text = with(&format!("{{\"x\": {{\"Get\": \"{}\"}}}}", "y".repeat(1_000_000)));
    assert!(soon("a long reference", &text).unwrap_err().starts_with("Steps[0].Arguments.x.Get: "));
    let path = with(&format!("{{\"x\": {{\"Get\": \"Steps.a{}\"}}}}", ".b".repeat(400_000)));
    assert!(soon("a long path", &path).is_err());

    let steps = |before: &dyn Fn(usize) -> usize, count: usize| {
        let steps = (0..count).map(|at| json!({"Name": format!("s{at}"), "Type": "Lambda", "FunctionArn": "f", "DependsOn": [format!("s{}", before(at))]}));
        json!({"Version": "2020-12-01", "Steps": steps.collect::<Vec<_>>()}).to_string()
    };
    let count = 14_000;
    assert!(
        soon("a long circle", &steps(&|at| (at + 1) % count, count)).unwrap_err().contains("in a circle")
    );
}

#[test]
fn references_cannot_multiply_without_end() {
    let parameters = json!([{"Name": "P", "Type": "String", "DefaultValue": "x".repeat(400_000)}]);
    let get = json!({"Get": "Parameters.P"});
    let many: Vec<&Value> = vec![&get; 20_000];
    for arguments in
        [json!({"l": many}), json!({"j": {"Std:Join": {"On": "x".repeat(1_000), "Values": many}}})]
    {
        let step = json!({"Name": "a", "Type": "Lambda", "FunctionArn": "f", "Arguments": arguments});
        let text = json!({"Version": "2020-12-01", "Parameters": parameters, "Steps": [step]}).to_string();
        let definition = soon("many references", &text).unwrap();
        let (nothing, values) = (BTreeMap::new(), definition.parameter_values(&BTreeMap::new()).unwrap());
        let scope = Scope {
            parameters: &values,
            execution: &nothing,
            properties: &nothing,
            files: &nothing,
            property_file: &|_, _| Err(String::new()),
            room: Room::default(),
        };
        let problem = scope.value(&definition.steps[0].arguments).unwrap_err();
        assert!(problem.contains("come to more than"), "{problem}");
    }
}
