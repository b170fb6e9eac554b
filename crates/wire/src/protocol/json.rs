//! AWS JSON 1.0 and 1.1, and the JSON bodies of REST services.

use api::model::{Service, Structure};
use serde_json::{Map, Value};

use super::typed::{self, Misfit, Path, Read};

/// Reads a body as the members of a structure.
pub(super) fn input(
    service: &'static Service,
    structure: &'static Structure,
    body: &[u8],
) -> Read<Map<String, Value>> {
    typed::members(service, structure, object(body)?, &mut Path::default())
}

/// A body that must be a JSON object; nothing at all counts as an empty one.
fn object(body: &[u8]) -> Read<Map<String, Value>> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Misfit::Serialization("The request body must be a JSON object.".into())),
        Err(error) => Err(Misfit::Serialization(format!("The request body is not valid JSON: {error}."))),
    }
}
