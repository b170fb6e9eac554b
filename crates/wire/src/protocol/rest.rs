//! HTTP bindings: members in path, query string, headers and body.

use api::model::{Kind, Location, Member, Service, ShapeId, Structure, TimestampFormat};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::typed::{self, Misfit, Path, Read};
use super::{json, structure as structure_of};
use crate::dispatch::Call;
use crate::{form, path_template, timestamp};

/// Reads all members of a request.
pub(super) fn input(
    call: &Call,
    structure: &'static Structure,
    parts: &Parts,
    body: &[u8],
) -> Read<Map<String, Value>> {
    let mut read = head(call, structure, parts)?;
    refuse_unknown_query(call, structure, parts)?;
    let mut path = Path::default();
    let Some(payload) =
        structure.payload.and_then(|name| structure.members.iter().find(|member| member.name == name))
    else {
        read.append(&mut json::input(call.service, structure, body)?);
        return Ok(read);
    };
    if body.is_empty() {
        return Ok(read);
    }
    let value = match &call.service.shape(payload.shape).kind {
        Kind::Blob { .. } => typed::blob_of(body),
        Kind::String { .. } => {
            let text = std::str::from_utf8(body).map_err(|_| path.malformed("UTF-8 text"))?;
            Value::String(text.to_owned())
        }
        _ => {
            let value = serde_json::from_slice(body).map_err(|error| {
                Misfit::Serialization(format!("The request body is not valid JSON: {error}."))
            })?;
            path.member(payload.name, |path| typed::from_json(call.service, payload.shape, value, path))?
        }
    };
    read.insert(payload.name.to_owned(), value);
    Ok(read)
}

/// Reads the members outside the body.
pub(super) fn head(call: &Call, structure: &'static Structure, parts: &Parts) -> Read<Map<String, Value>> {
    let query = query(parts)?;
    let mut read = Map::new();
    let mut path = Path::default();
    for member in structure.members {
        // Most headers are not there; a look at all of them takes less than a search for each.
        if member.location == Location::Header && !has_header(&parts.headers, member.wire_name) {
            continue;
        }
        let value = path.member(member.name, |path| match member.location {
            Location::Uri => match call.labels.get(member.wire_name) {
                Some(label) => typed::from_text(call.service, member.shape, label.clone(), path).map(Some),
                None => Ok(None),
            },
            Location::QueryString => from_query(call.service, structure, member, &query, path),
            Location::Header => from_header(call.service, member, &parts.headers, path),
            Location::Headers => from_headers(member.wire_name, &parts.headers, path),
            _ => Ok(None),
        })?;
        if let Some(value) = value {
            read.insert(member.name.to_owned(), value);
        }
    }
    Ok(read)
}

fn has_header(headers: &HeaderMap, name: &str) -> bool {
    headers.keys().any(|given| given.as_str().eq_ignore_ascii_case(name))
}

fn query(parts: &Parts) -> Read<Vec<(String, String)>> {
    form::pairs(parts.uri.query().unwrap_or_default().as_bytes())
        .map_err(|problem| Misfit::Serialization(format!("The query string cannot be read: {problem}.")))
}

fn refuse_unknown_query(call: &Call, structure: &'static Structure, parts: &Parts) -> Read<()> {
    let of_query = |member: &&Member| member.location == Location::QueryString;
    let takes_all = structure
        .members
        .iter()
        .filter(of_query)
        .any(|member| matches!(call.service.shape(member.shape).kind, Kind::Map { .. }));
    if takes_all {
        return Ok(());
    }
    for (name, _) in query(parts)? {
        let known = structure.members.iter().filter(of_query).any(|member| member.wire_name == name)
            || path_template::query_literals(call.operation.uri).any(|literal| literal == name)
            || name.starts_with("X-Amz-");
        if !known {
            return Err(Misfit::unknown(&name));
        }
    }
    Ok(())
}

fn from_query(
    service: &'static Service,
    structure: &'static Structure,
    member: &Member,
    query: &[(String, String)],
    path: &mut Path,
) -> Read<Option<Value>> {
    let mut values =
        query.iter().filter(|(name, _)| name == member.wire_name).map(|(_, value)| value.clone());
    match &service.shape(member.shape).kind {
        Kind::List { member: element, .. } => {
            let elements: Vec<Value> =
                values.map(|value| typed::from_text(service, *element, value, path)).collect::<Read<_>>()?;
            Ok((!elements.is_empty()).then_some(Value::Array(elements)))
        }
        Kind::Map { value: shape, .. } => {
            // A map takes every parameter that no other member names.
            let named = |name: &str| {
                structure
                    .members
                    .iter()
                    .any(|other| other.location == Location::QueryString && other.wire_name == name)
            };
            let mut entries = Map::new();
            for (name, value) in query.iter().filter(|(name, _)| !named(name) && !name.starts_with("X-Amz-"))
            {
                match &service.shape(*shape).kind {
                    Kind::List { member: element, .. } => {
                        let value = typed::from_text(service, *element, value.clone(), path)?;
                        match entries.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new())) {
                            Value::Array(elements) => elements.push(value),
                            _ => return Err(path.malformed("a map of lists")),
                        }
                    }
                    _ => {
                        entries.insert(name.clone(), typed::from_text(service, *shape, value.clone(), path)?);
                    }
                }
            }
            Ok((!entries.is_empty()).then_some(Value::Object(entries)))
        }
        _ => {
            let first = values.next();
            if values.next().is_some() {
                return Err(path.malformed("given once"));
            }
            first.map(|value| typed::from_text(service, member.shape, value, path)).transpose()
        }
    }
}

fn from_header(
    service: &'static Service,
    member: &Member,
    headers: &HeaderMap,
    path: &mut Path,
) -> Read<Option<Value>> {
    let mut values = headers.get_all(member.wire_name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if let Kind::List { member: element, .. } = &service.shape(member.shape).kind {
        let mut elements = Vec::new();
        for value in std::iter::once(first).chain(values) {
            let texts = header_value(value, path)?.split(',').map(str::trim);
            for text in texts.filter(|text| !text.is_empty()) {
                elements.push(typed::from_text(service, *element, text.to_owned(), path)?);
            }
        }
        return Ok(Some(Value::Array(elements)));
    }
    if values.next().is_some() {
        return Err(path.malformed("given once"));
    }
    typed::from_text(service, member.shape, header_value(first, path)?.to_owned(), path).map(Some)
}

fn header_value<'a>(value: &'a HeaderValue, path: &Path) -> Read<&'a str> {
    std::str::from_utf8(value.as_bytes()).map(str::trim).map_err(|_| path.malformed("UTF-8 text"))
}

fn from_headers(prefix: &str, headers: &HeaderMap, path: &Path) -> Read<Option<Value>> {
    let prefix = prefix.to_ascii_lowercase();
    let mut entries = Map::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(&prefix) {
            entries.insert(key.to_owned(), Value::String(header_value(value, path)?.to_owned()));
        }
    }
    Ok((!entries.is_empty()).then_some(Value::Object(entries)))
}

/// What an output or an error is over HTTP.
pub(super) struct Bound {
    /// Status, where a member carries it.
    pub(super) status: Option<u16>,
    /// Headers of the members.
    pub(super) headers: HeaderMap,
    /// Body.
    pub(super) body: Bytes,
    /// Content type of the body, unless a member carries it.
    pub(super) content_type: Option<&'static str>,
}

/// Writes an output. The error names a member whose value no header can carry.
pub(super) fn output(
    service: &'static Service,
    structure: &'static Structure,
    mut value: Map<String, Value>,
) -> Result<Bound, String> {
    let mut bound = Bound { status: None, headers: HeaderMap::new(), body: Bytes::new(), content_type: None };
    for member in structure.members {
        match (member.location, value.get(member.name)) {
            (_, None | Some(Value::Null)) => {}
            (Location::StatusCode, Some(code)) => {
                bound.status = code.as_u64().and_then(|code| u16::try_from(code).ok())
            }
            (Location::Header, Some(value)) => {
                let text = header_text(service, member.shape, value, member.timestamp_format);
                insert(&mut bound.headers, member.wire_name, &text).ok_or_else(|| member.name.to_owned())?;
            }
            (Location::Headers, Some(Value::Object(entries))) => {
                for (key, value) in entries {
                    let name = format!("{}{key}", member.wire_name);
                    let text = value.as_str().unwrap_or_default();
                    insert(&mut bound.headers, &name, text).ok_or_else(|| member.name.to_owned())?;
                }
            }
            _ => {}
        }
    }
    match structure.payload.and_then(|name| structure.members.iter().find(|member| member.name == name)) {
        None => {
            let body = typed::members_to_json(service, structure, value);
            bound.body = Value::Object(body).to_string().into();
            bound.content_type = Some("application/json");
        }
        Some(payload) => {
            let value = value.remove(payload.name).unwrap_or_default();
            (bound.body, bound.content_type) = payload_body(service, payload, value);
        }
    }
    Ok(bound)
}

fn payload_body(service: &'static Service, payload: &Member, value: Value) -> (Bytes, Option<&'static str>) {
    match (&service.shape(payload.shape).kind, value) {
        (Kind::Blob { .. }, value) => {
            (typed::blob_bytes(&value).unwrap_or_default().into(), Some("application/octet-stream"))
        }
        (Kind::String { .. }, Value::String(text)) => (text.into(), Some("text/plain")),
        (Kind::Structure(_), Value::Null) => (Bytes::from_static(b"{}"), Some("application/json")),
        (_, Value::Null) => (Bytes::new(), None),
        (Kind::Structure(_), Value::Object(value)) => {
            let members = typed::members_to_json(service, structure_of(service, payload.shape), value);
            (Value::Object(members).to_string().into(), Some("application/json"))
        }
        (_, value) => {
            let value = typed::to_json(service, payload.shape, value, payload.timestamp_format);
            (value.to_string().into(), Some("application/json"))
        }
    }
}

fn header_text(
    service: &'static Service,
    shape: ShapeId,
    value: &Value,
    format: Option<TimestampFormat>,
) -> String {
    match (&service.shape(shape).kind, value) {
        (Kind::Timestamp { format: own }, Value::Number(seconds)) => {
            let format = format.or(*own).unwrap_or(TimestampFormat::Rfc822);
            timestamp::to_text(seconds.as_f64().unwrap_or_default(), format)
        }
        (Kind::List { member, .. }, Value::Array(elements)) => {
            let texts: Vec<String> =
                elements.iter().map(|element| header_text(service, *member, element, None)).collect();
            texts.join(",")
        }
        (_, Value::String(text)) => text.clone(),
        (_, value) => value.to_string(),
    }
}

fn insert(headers: &mut HeaderMap, name: &str, text: &str) -> Option<()> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    headers.insert(name, HeaderValue::from_str(text).ok()?);
    Some(())
}
