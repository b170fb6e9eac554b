//! The protocols: request bytes to input values, output values and errors to answers.

mod cbor;
mod json;
mod query;
mod reply;
mod rest;
mod typed;
mod xml;

use api::model::{Kind, OperationModel, Protocol, Service, ShapeId, Structure};
use http::request::Parts;
use serde_json::Value;

use crate::Error;
use crate::dispatch::Call;

pub(crate) use reply::Reply;
pub(crate) use typed::{blob_bytes, blob_of};

/// Stands for the input or output that an operation does not have.
static NOTHING: Structure =
    Structure { members: &[], payload: None, event_stream: false, union: false, error: None };

/// The input of a call keyed by model member names, whatever the protocol. Unset members are not there.
///
/// Of a raw call the body is left out.
pub(crate) fn input(
    call: &Call,
    parts: &Parts,
    parameters: &[(String, String)],
    body: &[u8],
    raw: bool,
) -> Result<Value, Error> {
    let structure = input_structure(call.service, call.operation);
    let read = match call.protocol {
        Protocol::Json10 | Protocol::Json11 => json::input(call.service, structure, body),
        Protocol::Query => query::input(call.service, structure, parameters),
        Protocol::RestJson if raw => rest::head(call, structure, parts),
        Protocol::RestJson => rest::input(call, structure, parts, body),
        Protocol::RpcV2Cbor => cbor::input(call.service, structure, body),
        Protocol::RestXml => return Err(Error::unsupported_protocol("of this request")),
    };
    read.map(Value::Object).map_err(|misfit| misfit.into_error(call.service))
}

/// An input that is keyed by model member names already, wherever its members would travel; its types are checked.
pub(crate) fn named_input(call: &Call, input: Value) -> Result<Value, Error> {
    let structure = input_structure(call.service, call.operation);
    let Value::Object(given) = input else {
        return Err(Error::serialization("The input must be a JSON object."));
    };
    let read = given.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| {
        let path = &mut typed::Path::default();
        let known = structure.members.iter().find(|member| member.name == name);
        let member = known.ok_or_else(|| typed::Misfit::unknown(&name))?;
        let value = path.member(&name, |path| typed::from_json(call.service, member.shape, value, path))?;
        Ok((name, value))
    });
    let read: Result<serde_json::Map<String, Value>, typed::Misfit> = read.collect();
    read.map(Value::Object).map_err(|misfit| misfit.into_error(call.service))
}

/// The structure of an operation's input.
pub(crate) fn input_structure(service: &'static Service, operation: &OperationModel) -> &'static Structure {
    operation.input.map_or(&NOTHING, |shape| structure(service, shape))
}

/// The structure of an operation's output.
pub(crate) fn output_structure(service: &'static Service, operation: &OperationModel) -> &'static Structure {
    operation.output.map_or(&NOTHING, |shape| structure(service, shape))
}

/// The structure with this id; inputs and outputs are always structures.
fn structure(service: &'static Service, shape: ShapeId) -> &'static Structure {
    match &service.shape(shape).kind {
        Kind::Structure(structure) => structure,
        _ => &NOTHING,
    }
}
