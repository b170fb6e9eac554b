//! Calls from inside the process: the layers that a request walks after its signature, without bytes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::model::{Kind, Location, Service, Structure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use serde_json::{Map, Value};

use crate::dispatch::Call;
use crate::finishing::Finishing;
use crate::registry::Handler;
use crate::{Authorize, Body, Caller, Context, Error, RawRequest, Registry, body, front, protocol};

/// Longest answer of a raw operation that is read.
const ANSWER_LIMIT_BYTES: usize = 16 * 1024 * 1024;

/// What calls from inside the process need, as [`crate::Front`] has it for requests.
pub struct Internal<'a, S> {
    /// The process state that handlers get.
    pub state: S,
    /// Which handler does which operation.
    pub registry: &'a Registry<S>,
    /// Decides who may do what.
    pub authorize: &'a dyn Authorize,
    /// The models of all services.
    pub services: &'a [&'static Service],
    /// Values that enumerations accept beyond those of the models.
    pub own_values: &'a BTreeSet<String>,
    /// As in [`Context::effect_id`].
    pub effect_id: Option<String>,
}

impl<S: Clone + Send + Sync + 'static> Internal<'_, S> {
    /// Calls an operation as `caller`. `input` and the answer are keyed by the names of the model: timestamps as seconds since
    /// 1970, blobs as base64, wherever they would travel on the wire.
    ///
    /// # Errors
    /// What a client would get: an unknown or missing operation, an input that breaks its model, a denial, the handler's own.
    pub async fn call(
        &self,
        caller: Caller,
        service: &str,
        operation: &str,
        input: Value,
    ) -> Result<Value, Error> {
        let call = self.find(service, operation)?;
        let Some(handler) = self.registry.find(call.service.id, call.operation.name) else {
            return Err(Error::not_implemented(call.service.id, call.operation.name));
        };
        let input = protocol::named_input(&call, input)?;
        front::check(&call, &input, None, self.own_values)?;
        let action = front::action(&call);
        self.authorize.authorize(&caller, &action, &input).await?;
        let raw = matches!(handler, Handler::Raw(_)).then(|| raw_request(&call, &input)).transpose()?;
        let context = Context {
            state: self.state.clone(),
            caller: Arc::new(caller),
            request_id: uuid::Uuid::new_v4().to_string(),
            operation: call.operation.name,
            effect_id: self.effect_id.clone(),
            input: Arc::new(input),
        };
        match (handler, raw) {
            (Handler::Raw(handler), Some(request)) => answer(&call, handler(context, request).await?).await,
            (Handler::Typed(handler), _) => Finishing::new(call.operation.name, handler(context)).await,
            (Handler::Raw(_), None) => Err(Error::internal()),
        }
    }

    fn find(&self, service: &str, operation: &str) -> Result<Call, Error> {
        let found = self.services.iter().copied().find(|known| known.id == service);
        let service = found.ok_or_else(|| Error::unknown_service(service))?;
        let protocol = service.protocols.first().copied().unwrap_or(api::model::Protocol::Json11);
        let operation = service
            .operation(operation)
            .ok_or_else(|| Error::unknown_operation(protocol, service.id, operation))?;
        Ok(Call { service, operation, protocol, labels: Arc::default() })
    }
}

/// The parts of a request that a raw handler reads.
fn raw_request(call: &Call, input: &Value) -> Result<RawRequest, Error> {
    let structure = protocol::input_structure(call.service, call.operation);
    let mut request = RawRequest {
        labels: Arc::default(),
        query: Vec::new(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let (mut labels, mut in_body) = (BTreeMap::new(), Map::new());
    for member in structure.members {
        let Some(value) = input.get(member.name) else { continue };
        if structure.payload == Some(member.name) {
            request.body = match &call.service.shape(member.shape).kind {
                Kind::Blob { .. } => protocol::blob_bytes(value).unwrap_or_default().into(),
                _ => value.to_string().into(),
            };
            continue;
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match member.location {
            Location::Uri => drop(labels.insert(member.name, text)),
            Location::QueryString => request.query.push((member.wire_name.to_owned(), text)),
            Location::Header => {
                let unfit = |_| Error::serialization(format!("{} cannot be a header.", member.name));
                let value = HeaderValue::from_str(&text).map_err(unfit)?;
                if let Ok(name) = HeaderName::try_from(member.wire_name) {
                    request.headers.insert(name, value);
                }
            }
            _ => drop(in_body.insert(member.wire_name.to_owned(), value.clone())),
        }
    }
    request.labels = Arc::new(labels);
    if !in_body.is_empty() {
        request.body = Value::Object(in_body).to_string().into();
    }
    Ok(request)
}

/// The answer of a raw handler, keyed by the names of the model.
async fn answer(call: &Call, response: Response<Body>) -> Result<Value, Error> {
    let (parts, body) = response.into_parts();
    let read = body::read(body, ANSWER_LIMIT_BYTES).await;
    let bytes = read.map_err(|_| Error::too_large(ANSWER_LIMIT_BYTES))?;
    if parts.status.as_u16() >= 400 {
        let code = parts.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let code = code.unwrap_or("InternalFailure").to_owned();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        return Err(Error::new(code, parts.status.as_u16(), text));
    }
    let structure = protocol::output_structure(call.service, call.operation);
    let mut output = match structure.payload {
        Some(payload) => {
            Map::from_iter([(payload.to_owned(), payload_value(call, structure, payload, &bytes))])
        }
        None => serde_json::from_slice(&bytes).unwrap_or_default(),
    };
    for member in structure.members {
        match member.location {
            Location::Header => {
                let value = parts.headers.get(member.wire_name).and_then(|value| value.to_str().ok());
                output.extend(value.map(|value| (member.name.to_owned(), Value::from(value))));
            }
            Location::StatusCode => {
                output.insert(member.name.to_owned(), parts.status.as_u16().into());
            }
            _ => {}
        }
    }
    Ok(Value::Object(output))
}

fn payload_value(call: &Call, structure: &Structure, payload: &str, bytes: &Bytes) -> Value {
    let member = structure.members.iter().find(|member| member.name == payload);
    match member.map(|member| &call.service.shape(member.shape).kind) {
        Some(Kind::Blob { .. }) => protocol::blob_of(bytes),
        _ => serde_json::from_slice(bytes).unwrap_or_default(),
    }
}
