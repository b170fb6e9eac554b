//! The Rust types of a service's shapes, and the markers of its operations.

use std::collections::BTreeMap;

use serde_json::Value;

use super::constants::{self, text};
use super::model::{self, Model, is_set, target};
use super::reach::{self, Reach};
use super::{HEADING, names};
use crate::setup::Step;

/// What the types are written in, each with its path.
const WORDS: &[(&str, &str)] = &[
    ("enumeration! {", "crate::form::enumeration"),
    ("structure! {", "crate::form::structure"),
    ("Blob>", "crate::Blob"),
    (": Blob,", "crate::Blob"),
    ("Timestamp>", "crate::Timestamp"),
    (": Timestamp,", "crate::Timestamp"),
    ("<Value>", "serde_json::Value"),
    (": Value,", "serde_json::Value"),
    ("BTreeMap<", "std::collections::BTreeMap"),
];

/// Source of a service's `types.rs`.
pub fn types(model: &Model) -> Step<String> {
    let reach = Reach::of(model);
    let mut source = String::new();
    let mut taken = BTreeMap::new();
    for (name, shape) in model.shapes().into_iter().filter(|(name, _)| reach.contains(name)) {
        let declared = match shape["type"].as_str() {
            Some("structure") if !is_set(shape, "document") => structure(model, &reach, name, shape)?,
            Some("string") if !model::enumerated(shape).is_empty() => enumeration(model, name, shape)?,
            _ => continue,
        };
        claim(&mut taken, names::type_name(name), name)
            .map_err(|reason| format!("{}: {reason}", model.id))?;
        source.push_str(&declared);
    }
    let imports = constants::imports(&source, WORDS);
    Ok(format!(
        "{HEADING}//! The structures and enumerations of the service `{}`.\n\n{imports}\n{}\n",
        model.id,
        source.trim_end()
    ))
}

/// Source of a service's `operations.rs`: the markers, and the uniform names of inputs and outputs.
pub fn operations(model: &Model) -> Step<String> {
    let mut source = format!(
        "{HEADING}//! The operations of the service `{}`.\n\n\
         use super::SERVICE;\nuse super::types::*;\nuse crate::form::operation;\n\n",
        model.id
    );
    for (name, operation) in model.typed_operations() {
        if model.shape(name).is_object() {
            return Err(format!("{}: {name} is an operation and a shape", model.id));
        }
        let input = side(model, name, "Input", &operation["input"], &mut source);
        let output = side(model, name, "Output", &operation["output"], &mut source);
        source.push_str(&format!("operation! {{ {name}: {input} => {output} }}\n"));
    }
    Ok(source)
}

/// The type of an input or output; adds its uniform name unless the model has a shape of that name.
fn side(model: &Model, operation: &str, side: &str, reference: &Value, source: &mut String) -> String {
    let shape = target(reference);
    let declared = if shape.is_empty() { "crate::Nothing".to_owned() } else { names::type_name(shape) };
    let uniform = format!("{operation}{side}");
    if declared != uniform && !model.shape(&uniform).is_object() {
        let article = if side == "Input" { "The input" } else { "The output" };
        source.push_str(&format!("/// {article} of [`{operation}`].\npub type {uniform} = {declared};\n"));
        return uniform;
    }
    declared
}

fn structure(model: &Model, reach: &Reach, name: &str, shape: &Value) -> Step<String> {
    let (mut required, mut optional) = (String::new(), String::new());
    let mut taken = BTreeMap::new();
    for (member, reference) in model::members(shape) {
        let field = names::field(member);
        claim(&mut taken, field.clone(), member)
            .map_err(|reason| format!("{} {name}: {reason}", model.id))?;
        let mut declared = type_of(model, target(reference))?;
        if reach::holds_directly(model, target(reference), name) {
            declared = format!("Box<{declared}>");
        }
        // An answer is built step by step, so that there even required members may be left out.
        let must = model::is_required(shape, member) && reach.inputs.contains(name);
        let fields = if must { &mut required } else { &mut optional };
        fields.push_str(&format!("            {field} {}: {declared},\n", text(member)));
    }
    let name = names::type_name(name);
    Ok(match (required.is_empty(), optional.is_empty()) {
        (true, true) => format!("structure! {{ {name} {{}} }}\n\n"),
        (true, false) => {
            format!("structure! {{\n    {name} {{\n        optional {{\n{optional}        }}\n    }}\n}}\n\n")
        }
        (false, _) => format!(
            "structure! {{\n    {name} {{\n        required {{\n{required}        }}\n        optional {{\n{optional}        }}\n    }}\n}}\n\n"
        ),
    })
}

fn enumeration(model: &Model, name: &str, shape: &Value) -> Step<String> {
    let mut taken = BTreeMap::from([("UnknownValue".to_owned(), "any other text".to_owned())]);
    let mut variants = String::new();
    for value in model::enumerated(shape) {
        let mut variant = names::variant(value);
        // Texts may differ in what no name can show: `a.b` and `a-b`.
        while taken.contains_key(&variant) {
            variant.push('_');
        }
        claim(&mut taken, variant.clone(), value)
            .map_err(|reason| format!("{} {name}: {reason}", model.id))?;
        variants.push_str(&format!("        {variant} {},\n", text(value)));
    }
    Ok(format!("enumeration! {{\n    {} {{\n{variants}    }}\n}}\n\n", names::type_name(name)))
}

/// The Rust type of a shape's values.
fn type_of(model: &Model, name: &str) -> Step<String> {
    let shape = model.shape(name);
    Ok(match shape["type"].as_str().unwrap_or_default() {
        "structure" if is_set(shape, "document") => "Value".to_owned(),
        "structure" => names::type_name(name),
        "string" if !model::enumerated(shape).is_empty() => names::type_name(name),
        "string" => "String".to_owned(),
        "list" => format!("Vec<{}>", type_of(model, target(&shape["member"]))?),
        "map" => format!("BTreeMap<String, {}>", type_of(model, target(&shape["value"]))?),
        "integer" => "i32".to_owned(),
        "long" => "i64".to_owned(),
        "float" | "double" => "f64".to_owned(),
        "boolean" => "bool".to_owned(),
        "timestamp" => "Timestamp".to_owned(),
        "blob" => "Blob".to_owned(),
        other => return Err(format!("{} {name}: there is no type for {other:?}", model.id)),
    })
}

fn claim(taken: &mut BTreeMap<String, String>, name: String, by: &str) -> Step {
    match taken.insert(name.clone(), by.to_owned()) {
        None => Ok(()),
        Some(before) => Err(format!("{before} and {by} would both be named {name}")),
    }
}
