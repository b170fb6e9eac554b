//! Answers in the protocol of their request: outputs and errors.

use api::model::{ErrorTrait, Kind, Protocol, Service, Structure};
use http::header::{CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value};

use super::xml::Xml;
use super::{NOTHING, cbor, output_structure, rest, typed};
use crate::dispatch::{self, Call};
use crate::{Body, Error, full};

static QUERY_MODE: HeaderName = HeaderName::from_static("x-amzn-query-mode");

/// Content type of CBOR bodies.
const CBOR_TYPE: &str = "application/cbor";

/// Stands for the service of an error that came before dispatch.
static NO_SERVICE: Service = Service {
    id: "",
    signing_name: "",
    target_prefix: None,
    api_version: "",
    xml_namespace: None,
    protocols: &[],
    operations: &[],
    shapes: &[],
};

/// How to answer one request.
pub(crate) struct Reply<'a> {
    protocol: Protocol,
    query_mode: bool,
    request_id: &'a str,
    called: Called,
}

/// Whom a request means, as far as is known.
enum Called {
    /// Not known yet.
    Nobody,
    /// The server's own pages.
    Own,
    /// A service and its operation.
    Operation(&'static str, &'static str),
}

impl<'a> Reply<'a> {
    /// Reads the head of a request for the form of its answer.
    pub(crate) fn to(parts: &Parts, request_id: &'a str) -> Reply<'a> {
        let query_mode = parts.headers.get(&QUERY_MODE).is_some_and(|value| value == "true");
        let protocol = dispatch::protocol(parts);
        Reply { protocol, query_mode, request_id, called: Called::Nobody }
    }

    /// Notes that the server's own pages answer.
    pub(crate) fn set_own(&mut self) {
        self.called = Called::Own;
    }

    /// Notes the service and the operation.
    pub(crate) fn set_called(&mut self, service: &'static str, operation: &'static str) {
        self.called = Called::Operation(service, operation);
    }

    /// Service and operation of the request, empty where they are not known; nothing for the server's own pages.
    pub(crate) fn called(&self, service: Option<&'static Service>) -> Option<(&'static str, &'static str)> {
        match self.called {
            Called::Own => None,
            Called::Nobody => Some((service.map_or("", |service| service.id), "")),
            Called::Operation(service, operation) => Some((service, operation)),
        }
    }

    /// The protocol of the answer.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Sets what the dispatch found out.
    pub(crate) fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// An output value as an answer.
    pub(crate) fn output(&self, call: &Call, output: Value) -> Result<Response<Body>, Error> {
        let structure = output_structure(call.service, call.operation);
        let value = match output {
            Value::Object(value) => value,
            // The unit type of operations without an output.
            _ => Map::new(),
        };
        match self.protocol {
            Protocol::Query => {
                let namespace = call.service.xml_namespace;
                let mut xml = Xml::default();
                xml.element(&format!("{}Response", call.operation.name), namespace, |xml| {
                    match call.operation.result_wrapper {
                        Some(wrapper) => {
                            xml.element(wrapper, None, |xml| xml.members(call.service, structure, &value));
                        }
                        None => xml.members(call.service, structure, &value),
                    }
                    xml.element("ResponseMetadata", None, |xml| xml.leaf("RequestId", self.request_id));
                });
                Ok(answer(StatusCode::OK, "text/xml", full(xml.finish())))
            }
            Protocol::RestJson | Protocol::RestXml => {
                let bound = rest::output(call.service, structure, value).map_err(|member| {
                    let request_id = self.request_id;
                    tracing::error!(
                        request_id,
                        operation = call.operation.name,
                        member,
                        "no header can carry this output"
                    );
                    Error::internal()
                })?;
                let status = status(bound.status.unwrap_or(call.operation.status));
                let mut response = Response::new(crate::empty());
                *response.status_mut() = status;
                if status != StatusCode::NO_CONTENT {
                    *response.body_mut() = full(bound.body);
                    let content_type = bound.content_type.map(HeaderValue::from_static);
                    response.headers_mut().extend(content_type.map(|value| (CONTENT_TYPE, value)));
                }
                response.headers_mut().extend(bound.headers);
                Ok(response)
            }
            // Without an output there is no body, and so no type of it.
            Protocol::RpcV2Cbor if call.operation.output.is_none() => {
                Ok(with_cbor_mark(Response::new(crate::empty())))
            }
            Protocol::RpcV2Cbor => {
                let body = cbor::output(call.service, structure, None, &value);
                Ok(with_cbor_mark(answer(StatusCode::OK, CBOR_TYPE, full(body))))
            }
            Protocol::Json10 | Protocol::Json11 => {
                let body = Value::Object(typed::members_to_json(call.service, structure, value)).to_string();
                Ok(answer(StatusCode::OK, self.json_type(), full(body)))
            }
        }
    }

    /// An error as an answer; `service` is known once the request was dispatched.
    pub(crate) fn error(&self, service: Option<&'static Service>, error: &Error) -> Response<Body> {
        let modelled = service.and_then(|service| Some((service, error_shape(service, &error.code)?)));
        let (name, query_code, stated) = match &modelled {
            Some((_, (name, shape, _))) => (*name, shape.code.unwrap_or(name), shape.status),
            None => (&*error.code, &*error.code, None),
        };
        let status = status(stated.unwrap_or(error.status));
        let fault = if status.is_server_error() { "Receiver" } else { "Sender" };
        if self.protocol == Protocol::Query {
            let namespace = service.and_then(|service| service.xml_namespace);
            return answer(
                status,
                "text/xml",
                full(self.error_xml(namespace, query_code, fault, error, modelled)),
            );
        }
        let mut value = error.members.clone();
        let message = modelled.as_ref().and_then(|(_, (_, _, structure))| {
            structure.members.iter().find(|member| member.name.eq_ignore_ascii_case("message"))
        });
        value.insert(
            message.map_or("message", |member| member.name).to_owned(),
            Value::String(error.message.clone()),
        );
        let mut response = match self.protocol {
            Protocol::RpcV2Cbor => {
                let (service, structure) = modelled
                    .map_or((None, &NOTHING), |(service, (_, _, structure))| (Some(service), structure));
                // Without a service there are no shapes to look up, and no members that have one.
                let service = service.unwrap_or(&NO_SERVICE);
                let body = cbor::output(service, structure, Some(name), &value);
                with_cbor_mark(answer(status, CBOR_TYPE, full(body)))
            }
            _ => self.error_json(status, name, modelled, value),
        };
        let mut header = |header: &'static str, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                response.headers_mut().insert(header, value);
            }
        };
        header("x-amzn-errortype", name);
        if self.query_mode {
            header("x-amzn-query-error", &format!("{query_code};{fault}"));
        }
        response
    }

    fn error_json(
        &self,
        status: StatusCode,
        name: &str,
        modelled: Option<(&'static Service, Modelled)>,
        value: Map<String, Value>,
    ) -> Response<Body> {
        let rest = self.protocol == Protocol::RestJson;
        let mut headers = http::HeaderMap::new();
        let mut body = match modelled {
            Some((service, (_, _, structure))) => {
                if let Some(bound) =
                    rest.then(|| rest::output(service, structure, value.clone()).ok()).flatten()
                {
                    headers = bound.headers;
                }
                typed::members_to_json(service, structure, value)
            }
            None => value,
        };
        if !rest {
            body.shift_insert(0, "__type".to_owned(), Value::String(name.to_owned()));
        }
        let mut response = answer(status, self.json_type(), full(Value::Object(body).to_string()));
        response.headers_mut().extend(headers);
        response
    }

    fn error_xml(
        &self,
        namespace: Option<&str>,
        code: &str,
        fault: &str,
        error: &Error,
        modelled: Option<(&'static Service, Modelled)>,
    ) -> String {
        let mut xml = Xml::default();
        xml.element("ErrorResponse", namespace, |xml| {
            xml.element("Error", None, |xml| {
                xml.leaf("Type", fault);
                xml.leaf("Code", code);
                xml.leaf("Message", &error.message);
                if let Some((service, (_, _, structure))) = modelled {
                    xml.members(service, structure, &error.members);
                }
            });
            xml.leaf("RequestId", self.request_id);
        });
        xml.finish()
    }

    fn json_type(&self) -> &'static str {
        match self.protocol {
            Protocol::Json10 => "application/x-amz-json-1.0",
            Protocol::Json11 => "application/x-amz-json-1.1",
            _ => "application/json",
        }
    }
}

/// Name, error trait and structure of an error shape.
type Modelled = (&'static str, ErrorTrait, &'static Structure);

/// The error shape that a code means, by its name or by its code on the wire.
fn error_shape(service: &'static Service, code: &str) -> Option<Modelled> {
    let errors = || {
        service.shapes.iter().filter_map(|shape| match &shape.kind {
            Kind::Structure(structure) => Some((shape.name, structure.error?, structure)),
            _ => None,
        })
    };
    // Several shapes may share a code; a name is of one.
    let by_name = errors().find(|(name, _, _)| *name == code);
    by_name.or_else(|| errors().find(|(_, error, _)| error.code == Some(code)))
}

fn with_cbor_mark(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    response
}

fn answer(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
