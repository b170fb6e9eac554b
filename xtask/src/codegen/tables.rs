//! The constant tables of a service: its operations and its shapes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::HEADING;
use super::constants::{self, option, pattern, text};
use super::model::{self, Model, is_set, target};
use crate::setup::Step;

/// Position of each shape in the table.
type Positions<'model> = BTreeMap<&'model str, usize>;

/// What the tables are written in, each with its path.
const WORDS: &[(&str, &str)] = &[
    ("ErrorTrait {", "crate::model::ErrorTrait"),
    ("Kind::", "crate::model::Kind"),
    ("Location::", "crate::model::Location"),
    ("OperationModel {", "crate::model::OperationModel"),
    ("Protocol::", "crate::model::Protocol"),
    ("Service {", "crate::model::Service"),
    ("Shape]", "crate::model::Shape"),
    ("Structure {", "crate::model::Structure"),
    ("TimestampFormat::", "crate::model::TimestampFormat"),
    ("any())", "crate::table::any"),
    (" list(", "crate::table::list"),
    (" map(", "crate::table::map"),
    (" matching(", "crate::table::matching"),
    ("member(", "crate::table::member"),
    (" shape(", "crate::table::shape"),
    (" text(", "crate::table::text"),
];

/// Source of a service's `tables.rs`.
pub fn tables(model: &Model) -> Step<String> {
    let positions: Positions = model.shapes().iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    let mut source = service(model)?;
    source.push_str("\nstatic OPERATIONS: &[OperationModel] = &[\n");
    for (name, value) in model.operations() {
        source.push_str(&operation(name, value, &positions)?);
    }
    source.push_str("];\n\nstatic SHAPES: &[Shape] = &[\n");
    for (position, (name, shape)) in model.shapes().into_iter().enumerate() {
        let kind = kind(shape, &positions).map_err(|reason| format!("{} {name}: {reason}", model.id))?;
        source.push_str(&format!("    /* {position} */ shape({}, {kind}),\n", text(name)));
    }
    source.push_str("];\n");
    let imports = constants::imports(&source, WORDS);
    Ok(format!(
        "{HEADING}//! The tables of the service `{}`. A shape's id is its position in `SHAPES`.\n\n{imports}\n{source}",
        model.id
    ))
}

fn service(model: &Model) -> Step<String> {
    let protocols = model.protocols().into_iter().map(|protocol| {
        Ok(match (protocol, model.metadata("jsonVersion")) {
            ("json", Some("1.0")) => "Protocol::Json10",
            ("json", _) => "Protocol::Json11",
            ("query", _) => "Protocol::Query",
            ("rest-json", _) => "Protocol::RestJson",
            ("rest-xml", _) => "Protocol::RestXml",
            ("smithy-rpc-v2-cbor", _) => "Protocol::RpcV2Cbor",
            (other, _) => return Err(format!("{}: there is no protocol {other}", model.id)),
        })
    });
    let protocols = protocols.collect::<Step<Vec<_>>>()?.join(", ");
    let of = |name: &str| option(model.metadata(name).map(text));
    let required =
        |name: &str| model.metadata(name).ok_or_else(|| format!("{}: there is no {name}", model.id));
    let signing_name = model.metadata("signingName").map_or_else(|| required("endpointPrefix"), Ok)?;
    Ok(format!(
        "/// The service `{id}`.\n\
         pub static SERVICE: Service = Service {{\n    \
             id: {literal},\n    \
             signing_name: {signing_name},\n    \
             target_prefix: {target_prefix},\n    \
             api_version: {api_version},\n    \
             xml_namespace: {xml_namespace},\n    \
             protocols: &[{protocols}],\n    \
             operations: OPERATIONS,\n    \
             shapes: SHAPES,\n\
         }};\n",
        id = model.id,
        literal = text(&model.id),
        signing_name = text(signing_name),
        target_prefix = of("targetPrefix"),
        api_version = text(required("apiVersion")?),
        xml_namespace = of("xmlNamespace"),
    ))
}

fn operation(name: &str, operation: &Value, positions: &Positions) -> Step<String> {
    let of = |reference: &Value| option(positions.get(target(reference)).map(usize::to_string));
    let http =
        |fact: &str| operation["http"][fact].as_str().ok_or_else(|| format!("{name}: there is no {fact}"));
    let errors = operation["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let errors: Vec<String> =
        errors.iter().filter_map(|error| positions.get(target(error)).map(usize::to_string)).collect();
    Ok(format!(
        "    OperationModel {{ name: {}, method: {}, uri: {}, status: {}, input: {}, output: {}, result_wrapper: {}, errors: &[{}] }},\n",
        text(name),
        text(http("method")?),
        text(http("requestUri")?),
        operation["http"]["responseCode"].as_u64().unwrap_or(200),
        of(&operation["input"]),
        of(&operation["output"]),
        option(operation["output"]["resultWrapper"].as_str().map(text)),
        errors.join(", "),
    ))
}

fn kind(shape: &Value, positions: &Positions) -> Step<String> {
    let place = |reference: &Value| {
        let name = target(reference);
        positions.get(name).copied().ok_or_else(|| format!("there is no shape {name:?}"))
    };
    let lengths = || bounds(shape, |bound| bound.as_u64().map(|bound| bound.to_string()));
    let values = || bounds(shape, |bound| bound.as_f64().map(|bound| format!("{bound:?}")));
    Ok(match shape["type"].as_str().unwrap_or_default() {
        "structure" if is_set(shape, "document") => "Kind::Document".to_owned(),
        "structure" => structure(shape, &place)?,
        "list" => {
            let member = place(&shape["member"])?;
            match (shape["member"]["locationName"].as_str(), is_set(shape, "flattened")) {
                (None, false) => format!("list({member}, {})", lengths()?.pair()),
                (name, flattened) => format!(
                    "Kind::List {{ member: {member}, member_name: {}, flattened: {flattened}, {} }}",
                    text(name.unwrap_or("member")),
                    lengths()?.fields(),
                ),
            }
        }
        "map" => {
            let (key, value) = (place(&shape["key"])?, place(&shape["value"])?);
            let name = |part: &str| shape[part]["locationName"].as_str();
            match (name("key"), name("value"), is_set(shape, "flattened")) {
                (None, None, false) => format!("map({key}, {value}, {})", lengths()?.pair()),
                (key_name, value_name, flattened) => format!(
                    "Kind::Map {{ key: {key}, value: {value}, key_name: {}, value_name: {}, flattened: {flattened}, {} }}",
                    text(key_name.unwrap_or("key")),
                    text(value_name.unwrap_or("value")),
                    lengths()?.fields(),
                ),
            }
        }
        "string" => {
            let (enumerated, expression) = (model::enumerated(shape), shape["pattern"].as_str());
            match (enumerated.is_empty(), expression) {
                (true, None) => format!("text({})", lengths()?.pair()),
                (true, Some(expression)) => {
                    format!("matching({}, {})", lengths()?.pair(), pattern(expression))
                }
                (false, expression) => format!(
                    "Kind::String {{ {}, pattern: {}, values: &[{}] }}",
                    lengths()?.fields(),
                    option(expression.map(pattern)),
                    enumerated.into_iter().map(text).collect::<Vec<_>>().join(", "),
                ),
            }
        }
        "integer" => format!("Kind::Integer {{ {} }}", values()?.fields()),
        "long" => format!("Kind::Long {{ {} }}", values()?.fields()),
        "float" | "double" => format!("Kind::Float {{ {} }}", values()?.fields()),
        "boolean" => "Kind::Boolean".to_owned(),
        "timestamp" => format!("Kind::Timestamp {{ format: {} }}", option(timestamp_format(shape)?)),
        "blob" => format!("Kind::Blob {{ {} }}", lengths()?.fields()),
        other => return Err(format!("there is no kind of shape {other:?}")),
    })
}

/// The least and the greatest of a shape, as source.
struct Bounds {
    min: Option<String>,
    max: Option<String>,
}

impl Bounds {
    fn pair(self) -> String {
        if self.min.is_none() && self.max.is_none() {
            return "any()".to_owned();
        }
        format!("({}, {})", option(self.min), option(self.max))
    }

    fn fields(self) -> String {
        format!("min: {}, max: {}", option(self.min), option(self.max))
    }
}

fn bounds(shape: &Value, literal: impl Fn(&Value) -> Option<String>) -> Step<Bounds> {
    let bound = |name: &str| match &shape[name] {
        Value::Null => Ok(None),
        bound => literal(bound).map(Some).ok_or_else(|| format!("{name} cannot be {bound}")),
    };
    Ok(Bounds { min: bound("min")?, max: bound("max")? })
}

fn structure(shape: &Value, place: &dyn Fn(&Value) -> Step<usize>) -> Step<String> {
    let mut members = Vec::new();
    for (name, value) in model::members(shape) {
        members.push(member(shape, name, value, place(value)?)?);
    }
    let error = (is_set(shape, "exception") || shape["error"].is_object()).then(|| {
        let code = option(shape["error"]["code"].as_str().map(text));
        let status = option(shape["error"]["httpStatusCode"].as_u64().map(|status| status.to_string()));
        format!("ErrorTrait {{ code: {code}, status: {status} }}")
    });
    Ok(format!(
        "Kind::Structure(Structure {{ members: &[{}], payload: {}, event_stream: {}, union: {}, error: {} }})",
        members.join(", "),
        option(shape["payload"].as_str().map(text)),
        is_set(shape, "eventstream"),
        is_set(shape, "union"),
        option(error),
    ))
}

fn member(shape: &Value, name: &str, member: &Value, place: usize) -> Step<String> {
    let mut source = format!("member({}, {place})", text(name));
    if model::is_required(shape, name) {
        source.push_str(".required()");
    }
    let location = match member["location"].as_str() {
        Some("uri") => "Uri",
        Some("header") => "Header",
        Some("headers") => "Headers",
        Some("querystring") => "QueryString",
        Some("statusCode") => "StatusCode",
        Some(other) => return Err(format!("{name}: there is no location {other:?}")),
        None if is_set(member, "xmlAttribute") => "XmlAttribute",
        None if is_set(member, "eventheader") => "EventHeader",
        None if is_set(member, "eventpayload") => "EventPayload",
        None => "Body",
    };
    let wire_name = member["locationName"].as_str();
    if location != "Body" || wire_name.is_some_and(|wire_name| wire_name != name) {
        source.push_str(&format!(".wire(Location::{location}, {})", text(wire_name.unwrap_or(name))));
    }
    if let Some(format) = timestamp_format(member)? {
        source.push_str(&format!(".timestamp({format})"));
    }
    if is_set(member, "streaming") {
        source.push_str(".streaming()");
    }
    if is_set(member, "idempotencyToken") {
        source.push_str(".token()");
    }
    Ok(source)
}

fn timestamp_format(value: &Value) -> Step<Option<String>> {
    let format = match value["timestampFormat"].as_str() {
        None => return Ok(None),
        Some("unixTimestamp") => "TimestampFormat::UnixTimestamp",
        Some("iso8601") => "TimestampFormat::Iso8601",
        Some("rfc822") => "TimestampFormat::Rfc822",
        Some(other) => return Err(format!("there is no timestamp format {other:?}")),
    };
    Ok(Some(format.to_owned()))
}
