//! Between JSON as clients send it and JSON keyed by model member names, with every type checked on the way in.

use api::model::{Kind, Location, Member, Service, ShapeId, Structure, TimestampFormat};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Number, Value};

use crate::{Error, timestamp};

/// Clients differ in padding; what is stored is always padded.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why an input does not fit its model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It cannot be read, or has the wrong type somewhere.
    Serialization(String),
    /// It has a member that the model does not.
    Unknown(String),
    /// It has NaN or an infinity where a number must be.
    NotFinite(String),
}

impl Misfit {
    /// The error that the client gets.
    pub(super) fn into_error(self, service: &Service) -> Error {
        match self {
            Misfit::Serialization(text) => Error::serialization(text),
            Misfit::Unknown(text) => Error::validation(service, text),
            Misfit::NotFinite(text) if service.id == "cloudwatch" => {
                Error::new("InvalidParameterValue", 400, text)
            }
            Misfit::NotFinite(text) => Error::serialization(text),
        }
    }

    /// A member that is not in the model.
    pub(super) fn unknown(path: &str) -> Misfit {
        Misfit::Unknown(format!(
            "The request has a member {path:?} that this operation does not know; leave it out."
        ))
    }
}

/// Result of reading an input.
pub(super) type Read<T> = Result<T, Misfit>;

/// Where in the input we are, as the client wrote it: `ResourceConfig.InstanceGroups[2].InstanceType`.
#[derive(Default)]
pub(super) struct Path(String);

impl Path {
    /// Runs `step` one member deeper.
    pub(super) fn member<T>(&mut self, name: &str, step: impl FnOnce(&mut Path) -> T) -> T {
        let before = self.0.len();
        if before > 0 {
            self.0.push('.');
        }
        self.0.push_str(name);
        let result = step(self);
        self.0.truncate(before);
        result
    }

    /// Runs `step` on an element of a list.
    pub(super) fn element<T>(&mut self, index: usize, step: impl FnOnce(&mut Path) -> T) -> T {
        let before = self.0.len();
        self.0.push_str(&format!("[{index}]"));
        let result = step(self);
        self.0.truncate(before);
        result
    }

    /// The path as text.
    pub(super) fn text(&self) -> &str {
        if self.0.is_empty() { "the request body" } else { &self.0 }
    }

    fn wrong(&self, value: &Value, wanted: &str) -> Misfit {
        let given = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "a structure",
        };
        Misfit::Serialization(format!("{} must be {wanted}, not {given}.", self.text()))
    }

    fn not_finite(&self, given: &str) -> Misfit {
        Misfit::NotFinite(format!(
            "The value {given} for parameter {} is invalid; send a finite number.",
            self.text()
        ))
    }

    /// A value of the right JSON type that is no value of the shape.
    pub(super) fn malformed(&self, wanted: &str) -> Misfit {
        Misfit::Serialization(format!("{} must be {wanted}.", self.text()))
    }
}

/// Reads the members of a structure that travel in the body.
pub(super) fn members(
    service: &'static Service,
    structure: &'static Structure,
    value: Map<String, Value>,
    path: &mut Path,
) -> Read<Map<String, Value>> {
    let mut read = Map::with_capacity(value.len());
    for (name, value) in value {
        let known = structure.members.iter().find(|member| member.wire_name == name && in_body(member));
        let Some(member) = known else {
            // Type hints that some clients add to structures.
            if name == "__type" {
                continue;
            }
            return Err(path.member(&name, |path| Misfit::unknown(path.text())));
        };
        if value.is_null() {
            continue;
        }
        let value = path.member(&name, |path| from_json(service, member.shape, value, path))?;
        read.insert(member.name.to_owned(), value);
    }
    Ok(read)
}

/// Whether a member is a key of a JSON body. Services that bind nothing have all members there.
pub(super) fn in_body(member: &Member) -> bool {
    matches!(
        member.location,
        Location::Body | Location::XmlAttribute | Location::EventHeader | Location::EventPayload
    )
}

/// Reads a value of a shape. `null` elements of collections stay: the constraint checks name them.
pub(super) fn from_json(
    service: &'static Service,
    shape: ShapeId,
    value: Value,
    path: &mut Path,
) -> Read<Value> {
    match (&service.shape(shape).kind, value) {
        (Kind::Document, value) => Ok(value),
        (Kind::Structure(structure), Value::Object(value)) => {
            members(service, structure, value, path).map(Value::Object)
        }
        (Kind::Structure(_), value) => Err(path.wrong(&value, "a structure")),
        (Kind::List { member, .. }, Value::Array(elements)) => {
            let elements = elements.into_iter().enumerate().map(|(index, element)| {
                if element.is_null() {
                    return Ok(element);
                }
                path.element(index, |path| from_json(service, *member, element, path))
            });
            elements.collect::<Read<Vec<_>>>().map(Value::Array)
        }
        (Kind::List { .. }, value) => Err(path.wrong(&value, "a list")),
        (Kind::Map { value: shape, .. }, Value::Object(entries)) => {
            let entries = entries.into_iter().map(|(key, value)| {
                if value.is_null() {
                    return Ok((key, value));
                }
                let value = path.member(&key, |path| from_json(service, *shape, value, path))?;
                Ok((key, value))
            });
            entries.collect::<Read<Map<_, _>>>().map(Value::Object)
        }
        (Kind::Map { .. }, value) => Err(path.wrong(&value, "a map")),
        (Kind::String { .. }, value @ Value::String(_)) => Ok(value),
        (Kind::String { .. }, value) => Err(path.wrong(&value, "a string")),
        (Kind::Integer { .. }, Value::Number(number)) => {
            integer(&number, i32::MIN.into(), i32::MAX.into(), path)
        }
        (Kind::Long { .. }, Value::Number(number)) => integer(&number, i64::MIN, i64::MAX, path),
        (Kind::Float { .. }, Value::Number(number)) => Ok(Value::Number(number)),
        // What JSON has no numbers for, clients write as text.
        (Kind::Float { .. }, Value::String(text)) if matches!(&*text, "NaN" | "Infinity" | "-Infinity") => {
            Err(path.not_finite(&text))
        }
        (Kind::Integer { .. } | Kind::Long { .. } | Kind::Float { .. }, value) => {
            Err(path.wrong(&value, "a number"))
        }
        (Kind::Boolean, value @ Value::Bool(_)) => Ok(value),
        (Kind::Boolean, value) => Err(path.wrong(&value, "true or false")),
        (Kind::Timestamp { .. }, Value::Number(number)) => {
            timestamp::from_number(number).ok_or_else(|| path.malformed("a timestamp of the years 1 to 9999"))
        }
        (Kind::Timestamp { .. }, Value::String(text)) => moment(&text, path),
        (Kind::Timestamp { .. }, value) => Err(path.wrong(&value, "a timestamp")),
        (Kind::Blob { .. }, Value::String(text)) => blob(&text, path),
        (Kind::Blob { .. }, value) => Err(path.wrong(&value, "base64 text")),
    }
}

fn integer(number: &Number, least: i64, greatest: i64, path: &Path) -> Read<Value> {
    // Some JSON writers show whole numbers with a fraction; 2^53 bounds what such a number can mean exactly.
    let whole = number.as_i64().or_else(|| {
        let float =
            number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0)?;
        Some(float as i64)
    });
    match whole.filter(|whole| (least..=greatest).contains(whole)) {
        Some(whole) => Ok(Value::from(whole)),
        None => Err(path.malformed(&format!("a whole number from {least} to {greatest}"))),
    }
}

/// Reads a timestamp that came as text.
pub(super) fn moment(text: &str, path: &Path) -> Read<Value> {
    timestamp::from_text(text).ok_or_else(|| path.malformed("a timestamp such as 2026-01-31T12:00:00Z"))
}

/// Checks base64 text and writes it in its one standard form.
pub(super) fn blob(text: &str, path: &Path) -> Read<Value> {
    let bytes = BASE64.decode(text).map_err(|_| path.malformed("base64 text"))?;
    Ok(Value::String(BASE64.encode(bytes)))
}

/// Base64 of bytes that came as they are.
pub(crate) fn blob_of(bytes: &[u8]) -> Value {
    Value::String(BASE64.encode(bytes))
}

/// The bytes of a blob of the typed form.
pub(crate) fn blob_bytes(value: &Value) -> Option<Vec<u8>> {
    BASE64.decode(value.as_str()?).ok()
}

/// Reads a scalar that came as text in a form, a header, a path or a query string.
pub(super) fn from_text(service: &'static Service, shape: ShapeId, text: String, path: &Path) -> Read<Value> {
    let number = |wanted: &str| path.malformed(wanted);
    match &service.shape(shape).kind {
        Kind::String { .. } => Ok(Value::String(text)),
        Kind::Integer { .. } => {
            text.trim().parse::<i32>().map(Value::from).map_err(|_| number("a whole number of 32 bits"))
        }
        Kind::Long { .. } => {
            text.trim().parse::<i64>().map(Value::from).map_err(|_| number("a whole number of 64 bits"))
        }
        Kind::Float { .. } => {
            let given = text.trim().parse::<f64>().map_err(|_| number("a number"))?;
            Number::from_f64(given).map(Value::Number).ok_or_else(|| path.not_finite(text.trim()))
        }
        Kind::Boolean => match text.trim() {
            "true" | "True" => Ok(Value::Bool(true)),
            "false" | "False" => Ok(Value::Bool(false)),
            _ => Err(path.malformed("true or false")),
        },
        Kind::Timestamp { .. } => moment(&text, path),
        Kind::Blob { .. } => blob(&text, path),
        Kind::Document => serde_json::from_str(&text).map_err(|_| path.malformed("JSON text")),
        Kind::Structure(_) | Kind::List { .. } | Kind::Map { .. } => {
            Err(path.malformed("a structure, list or map"))
        }
    }
}

/// Writes the members of a structure that travel in the body, under their wire names. Unset members are left out.
pub(super) fn members_to_json(
    service: &'static Service,
    structure: &'static Structure,
    value: Map<String, Value>,
) -> Map<String, Value> {
    let mut written = Map::with_capacity(value.len());
    for (name, value) in value {
        if value.is_null() {
            continue;
        }
        match structure.members.iter().find(|member| member.name == name) {
            Some(member) if in_body(member) => {
                let value = to_json(service, member.shape, value, member.timestamp_format);
                written.insert(member.wire_name.to_owned(), value);
            }
            Some(_) => {}
            None => {
                written.insert(name, value);
            }
        }
    }
    written
}

/// Writes a value of a shape as JSON services do.
pub(super) fn to_json(
    service: &'static Service,
    shape: ShapeId,
    value: Value,
    format: Option<TimestampFormat>,
) -> Value {
    match (&service.shape(shape).kind, value) {
        (Kind::Structure(structure), Value::Object(value)) => {
            Value::Object(members_to_json(service, structure, value))
        }
        (Kind::List { member, .. }, Value::Array(elements)) => Value::Array(
            elements.into_iter().map(|element| to_json(service, *member, element, None)).collect(),
        ),
        (Kind::Map { value: shape, .. }, Value::Object(entries)) => {
            let entries = entries.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(entries.map(|(key, value)| (key, to_json(service, *shape, value, None))).collect())
        }
        (Kind::Timestamp { format: own }, value) => {
            timestamp::to_wire(value, format.or(*own).unwrap_or(TimestampFormat::UnixTimestamp))
        }
        (_, value) => value,
    }
}
