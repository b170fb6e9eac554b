//! Which operation a request means: signing name, then target header, form action or path.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::model::{OperationModel, Protocol, Service};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use http::request::Parts;

use crate::services::{Known, Services};
use crate::{Error, form, path_template, sigv4};

static TARGET: HeaderName = HeaderName::from_static("x-amz-target");
static SMITHY_PROTOCOL: HeaderName = HeaderName::from_static("smithy-protocol");

/// Prefix of the paths that are this server's own.
const OWN_PREFIX: &str = "/_modelyard/";

/// Who answers a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The server's own pages.
    Own,
    /// S3, which verifies by itself.
    S3,
    /// An operation of the services, signed for this signing name.
    Signed(String),
    /// An operation of the services without a signature.
    Unsigned,
    /// An unsigned form: an operation when it has an `Action`, else S3.
    UnsignedForm,
}

/// An operation with what its path says.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Service of the operation.
    pub(crate) service: &'static Service,
    /// The operation.
    pub(crate) operation: &'static OperationModel,
    /// Protocol of request and answer.
    pub(crate) protocol: Protocol,
    /// Decoded labels of the path, for REST.
    pub(crate) labels: Arc<BTreeMap<&'static str, String>>,
}

/// An error before the operation is known, with the service when that much is known.
pub(crate) type Lost = (Option<&'static Service>, Error);

/// The protocol that the head of a request speaks. It also decides the form of every error answer.
pub(crate) fn protocol(parts: &Parts) -> Protocol {
    if parts.headers.contains_key(&TARGET) {
        return if content_type(parts).starts_with("application/x-amz-json-1.0") {
            Protocol::Json10
        } else {
            Protocol::Json11
        };
    }
    if parts.headers.get(&SMITHY_PROTOCOL).is_some_and(|value| value == "rpc-v2-cbor") {
        return Protocol::RpcV2Cbor;
    }
    if is_form(parts) || query_has_action(parts) {
        return Protocol::Query;
    }
    Protocol::RestJson
}

fn content_type(parts: &Parts) -> &str {
    parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn is_form(parts: &Parts) -> bool {
    content_type(parts).starts_with("application/x-www-form-urlencoded")
}

fn query_has_action(parts: &Parts) -> bool {
    parts.uri.query().is_some_and(|query| query.split('&').any(|part| part.starts_with("Action=")))
}

/// Who answers, by the head of the request alone.
pub(crate) fn entry(parts: &Parts, protocol: Protocol) -> Entry {
    if parts.uri.path().starts_with(OWN_PREFIX) {
        return Entry::Own;
    }
    let scheme = parts.headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default();
    let has = |name: &str| {
        query.split('&').any(|part| part.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
    };
    let version_two = scheme.starts_with(b"AWS ") || (has("AWSAccessKeyId") && has("Signature"));
    if version_two && !scheme.starts_with(b"AWS4-") {
        return Entry::S3;
    }
    if scheme.starts_with(b"AWS4-") || has("X-Amz-Credential") || has("X-Amz-Signature") {
        return match sigv4::credential_scope_service(parts) {
            Some(service) if service == "s3" => Entry::S3,
            service => Entry::Signed(service.unwrap_or_default()),
        };
    }
    match protocol {
        Protocol::Query if query_has_action(parts) => Entry::Unsigned,
        Protocol::Query => Entry::UnsignedForm,
        Protocol::RestJson | Protocol::RestXml => Entry::S3,
        Protocol::Json10 | Protocol::Json11 | Protocol::RpcV2Cbor => Entry::Unsigned,
    }
}

/// Finds the operation of all protocols but query, which says it in the body.
pub(crate) fn by_head(
    services: &Services,
    signing_name: &str,
    parts: &Parts,
    protocol: Protocol,
) -> Result<Option<Call>, Lost> {
    let candidates = candidates(services, signing_name)?;
    match protocol {
        Protocol::Query => Ok(None),
        Protocol::RpcV2Cbor => by_rpc_path(candidates, parts).map(Some),
        Protocol::Json10 | Protocol::Json11 => by_target(candidates, parts, protocol).map(Some),
        Protocol::RestJson | Protocol::RestXml => by_path(candidates, signing_name, parts).map(Some),
    }
}

fn candidates<'a>(
    services: &'a Services,
    signing_name: &'a str,
) -> Result<impl Iterator<Item = &'a Known> + Clone, Lost> {
    let found = services.signed_as(signing_name);
    match found.clone().next() {
        Some(_) => Ok(found),
        None => Err((None, Error::unknown_service(signing_name))),
    }
}

fn by_target<'a>(
    candidates: impl Iterator<Item = &'a Known>,
    parts: &Parts,
    protocol: Protocol,
) -> Result<Call, Lost> {
    let target = parts.headers.get(&TARGET).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (prefix, name) = target.rsplit_once('.').unwrap_or(("", target));
    let service = with_target_prefix(candidates, prefix);
    let lost = |service, error| Err((service, error));
    let Some(service) = service else {
        return lost(None, Error::unknown_operation(protocol, "This endpoint", &format!("{target:?}")));
    };
    let Some(spoken) =
        service.protocols.iter().find(|spoken| matches!(spoken, Protocol::Json10 | Protocol::Json11))
    else {
        return lost(Some(service), Error::unsupported_protocol("AWS JSON"));
    };
    if parts.method != http::Method::POST {
        let text = format!("{name} must be sent with POST, not {}.", parts.method);
        return lost(Some(service), Error::serialization(text));
    }
    // A client that states a version gets that version back.
    let protocol =
        if content_type(parts).starts_with("application/x-amz-json-1.") { protocol } else { *spoken };
    match service.operation(name) {
        Some(operation) => Ok(Call { service, operation, protocol, labels: Arc::default() }),
        None => lost(Some(service), Error::unknown_operation(protocol, service.id, name)),
    }
}

/// Finds the operation of `/service/SERVICE/operation/OPERATION`, where SERVICE is the target prefix.
fn by_rpc_path<'a>(candidates: impl Iterator<Item = &'a Known>, parts: &Parts) -> Result<Call, Lost> {
    let protocol = Protocol::RpcV2Cbor;
    let path = parts.uri.path();
    let named = path.rsplit_once("/service/").and_then(|(_, rest)| rest.split_once("/operation/"));
    let Some((prefix, name)) = named else {
        return Err((None, Error::unknown_operation(protocol, "This endpoint", &format!("at {path}"))));
    };
    let Some(service) = with_target_prefix(candidates, prefix) else {
        return Err((None, Error::unknown_operation(protocol, "This endpoint", &format!("at {path}"))));
    };
    let lost = |error| Err((Some(service), error));
    if !service.protocols.contains(&protocol) {
        return lost(Error::unsupported_protocol("rpc-v2-cbor"));
    }
    if parts.method != http::Method::POST {
        return lost(Error::serialization(format!("{name} must be sent with POST, not {}.", parts.method)));
    }
    match service.operation(name) {
        Some(operation) => Ok(Call { service, operation, protocol, labels: Arc::default() }),
        None => lost(Error::unknown_operation(protocol, service.id, name)),
    }
}

fn with_target_prefix<'a>(
    candidates: impl Iterator<Item = &'a Known>,
    prefix: &str,
) -> Option<&'static Service> {
    let mut services = candidates.map(|known| known.service);
    services.find(|service| service.target_prefix == Some(prefix))
}

fn by_path<'a>(
    candidates: impl Iterator<Item = &'a Known>,
    signing_name: &str,
    parts: &Parts,
) -> Result<Call, Lost> {
    let unknown = || {
        let operation = format!("at {} {}", parts.method, parts.uri.path());
        (None, Error::unknown_operation(Protocol::RestJson, signing_name, &operation))
    };
    let query = form::pairs(parts.uri.query().unwrap_or_default().as_bytes()).map_err(|problem| {
        (None, Error::serialization(format!("The query string cannot be read: {problem}.")))
    })?;
    let segments = path_template::segments(parts.uri.path()).ok_or_else(unknown)?;
    let (known, routed) = candidates
        .filter_map(|known| Some((known, known.route(parts.method.as_str(), &segments, &query)?)))
        .min_by(|(_, one), (_, other)| one.rank.cmp(other.rank))
        .ok_or_else(unknown)?;
    Ok(Call {
        service: known.service,
        operation: routed.operation,
        protocol: Protocol::RestJson,
        labels: Arc::new(routed.labels),
    })
}

/// The service that answers query requests under a signing name.
pub(crate) fn query_service(services: &Services, signing_name: &str) -> Option<&'static Service> {
    let mut signed = services.signed_as(signing_name).map(|known| known.service);
    signed.find(|service| service.protocols.contains(&Protocol::Query))
}

/// Finds the operation of a query request among its parameters.
pub(crate) fn by_action(
    services: &Services,
    signing_name: &str,
    parameters: &[(String, String)],
) -> Result<Call, Lost> {
    drop(candidates(services, signing_name)?);
    let parameter =
        |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let Some(service) = query_service(services, signing_name) else {
        let text = format!("the query protocol for {signing_name}");
        return Err((None, Error::unsupported_protocol(&text)));
    };
    let Some(action) = parameter("Action") else {
        let text = "The request has no Action parameter; it must name the operation.";
        return Err((Some(service), Error::new("MissingAction", 400, text)));
    };
    let version = parameter("Version").unwrap_or(service.api_version);
    match service.operation(action) {
        Some(operation) if version == service.api_version => {
            Ok(Call { service, operation, protocol: Protocol::Query, labels: Arc::default() })
        }
        Some(_) => {
            let text = format!(
                "Could not find operation {action} for version {version}; send {}.",
                service.api_version
            );
            Err((Some(service), Error::new("InvalidAction", 400, text)))
        }
        None => Err((Some(service), Error::unknown_operation(Protocol::Query, service.id, action))),
    }
}
