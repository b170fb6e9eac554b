//! The front door: every request walks down the layers in [`Front::operation`], and every answer carries its request id.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::model::Protocol;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use serde_json::Value;

use crate::body::{self, ReadProblem};
use crate::dispatch::{self, Call, Entry, Lost};
use crate::finishing::Finishing;
use crate::protocol::{self, Reply};
use crate::registry::Handler;
use crate::sigv4::{self, Claim};
use crate::{
    Authorize, Body, Caller, Context, Credential, CredentialProblem, Credentials, Error, Peer, RawRequest,
};
use crate::{Registry, Services, Understood, encoding, form, validation};

/// A part of the server that answers requests by itself.
pub type Responder = Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// Longest body of a raw operation, such as InvokeEndpoint.
pub const RAW_BODY_LIMIT_BYTES: usize = 25 * 1024 * 1024;

/// What became of a request, for whoever counts them.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// Id of the service; empty where the request named none.
    pub service: &'static str,
    /// The operation, or the method of an S3 request; empty where the request named none.
    pub operation: &'static str,
    /// `OK`, the code of the error, or the status of an answer that a handler wrote by itself.
    pub code: &'a str,
    /// From the head of the request to the head of the answer.
    pub elapsed: Duration,
}

/// Is told of every request but those to the server's own pages.
pub type Observer = Arc<dyn Fn(Observed<'_>) + Send + Sync>;

/// Turns any request into an answer.
pub struct Front<S> {
    /// The process state that handlers get.
    pub state: S,
    /// Which handler does which operation.
    pub registry: Registry<S>,
    /// Looks keys up.
    pub credentials: Arc<dyn Credentials>,
    /// Decides who may do what.
    pub authorize: Arc<dyn Authorize>,
    /// Milliseconds since 1970.
    pub now_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// The services that it answers for.
    pub services: Services,
    /// Answers S3 requests, and all that is neither signed nor an operation; it verifies signatures by itself.
    pub s3: Responder,
    /// Answers paths under `/_modelyard/`.
    pub own: Responder,
    /// Is told of every request.
    pub observe: Observer,
    /// What it understood lately.
    pub understood: Understood,
    /// Longest body of an operation, also after decompression. Raw operations have [`RAW_BODY_LIMIT_BYTES`].
    pub body_limit_bytes: usize,
    /// Values that enumerations accept beyond those of the models, such as instance types of the user's own.
    pub own_values: std::collections::BTreeSet<String>,
}

impl<S: Clone + Send + Sync + 'static> Front<S> {
    /// Answers a request. Never fails: an error is an answer, and a panic of a handler is an internal error.
    /// `peer` is who sent it, for the server's own pages.
    pub async fn handle(&self, request: Request<Body>, peer: Option<Peer>) -> Response<Body> {
        let request_id = uuid::Uuid::new_v4().to_string();
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let mut reply = Reply::to(&parts, &request_id);
        // The layers may refuse a request before its body is read.
        let mut body = Some(body);
        let expects = parts.headers.contains_key(http::header::EXPECT);
        let shown = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| format!("{} {}", parts.method, parts.uri.path()));
        let answering =
            AssertUnwindSafe(self.answer(parts, peer, &mut body, &mut reply, &request_id)).catch_unwind();
        let answered = answering.await.unwrap_or_else(|panic| {
            tracing::error!(request_id, panic = panic_text(panic.as_ref()), "a request ended in a panic");
            Err((None, Error::internal()))
        });
        let mut failed = None;
        let mut response = answered.unwrap_or_else(|(service, error)| {
            let response = reply.error(service, &error);
            failed = Some((service, error.code));
            response
        });
        if let Some(body) = body.filter(|_| !expects) {
            // A client that still sends its body would see a broken connection in place of the answer.
            let _ = body::read(body, self.body_limit_bytes).await;
        }
        let called = reply.called(failed.as_ref().and_then(|(service, _)| *service));
        stamp(&mut response, &request_id, called.is_some_and(|(service, _)| service == "s3"));
        let elapsed = started.elapsed();
        let milliseconds = elapsed.as_millis() as u64;
        let status = response.status();
        if let Some((service, operation)) = called {
            let code = match &failed {
                Some((_, code)) => code,
                None if status.as_u16() < 400 => "OK",
                None => status.as_str(),
            };
            (self.observe)(Observed { service, operation, code, elapsed });
        }
        tracing::debug!(request_id, request = shown, status = status.as_u16(), milliseconds, "answered");
        response
    }

    async fn answer(
        &self,
        mut parts: Parts,
        peer: Option<Peer>,
        body: &mut Option<Body>,
        reply: &mut Reply<'_>,
        request_id: &str,
    ) -> Result<Response<Body>, Lost> {
        let whole = |parts: Parts, body: &mut Option<Body>| {
            Request::from_parts(parts, body.take().unwrap_or_else(body::empty))
        };
        match dispatch::entry(&parts, reply.protocol()) {
            Entry::Own => {
                reply.set_own();
                if let Some(peer) = peer {
                    parts.extensions.insert(peer);
                }
                Ok((self.own)(whole(parts, body)).await)
            }
            Entry::S3 => {
                reply.set_called("s3", method(&parts.method));
                Ok((self.s3)(whole(parts, body)).await)
            }
            Entry::Unsigned => Err((None, Error::missing_authentication_token(reply.protocol()))),
            Entry::UnsignedForm => {
                let bytes =
                    self.read_body(body, self.body_limit_bytes).await.map_err(|error| (None, error))?;
                let pairs = form::pairs(&bytes).unwrap_or_default();
                if pairs.iter().any(|(name, _)| name == "Action") {
                    return Err((None, Error::missing_authentication_token(reply.protocol())));
                }
                reply.set_called("s3", method(&parts.method));
                Ok((self.s3)(Request::from_parts(parts, body::full(bytes))).await)
            }
            Entry::Signed(signing_name) => {
                self.operation(&signing_name, parts, body, reply, request_id).await
            }
        }
    }

    /// The layers, from the outside in.
    async fn operation(
        &self,
        signing_name: &str,
        parts: Parts,
        body: &mut Option<Body>,
        reply: &mut Reply<'_>,
        request_id: &str,
    ) -> Result<Response<Body>, Lost> {
        // What the signature claims, and dispatch, except for query, which names its operation in the body.
        let service = dispatch::query_service(&self.services, signing_name)
            .filter(|_| reply.protocol() == Protocol::Query);
        let claim = self.claim(&parts, reply.protocol()).map_err(|error| (service, error))?;
        // Where all was understood before, only the signature is new.
        let understood = match reply.protocol() {
            Protocol::RestJson => self.understood.find(signing_name, &parts),
            _ => None,
        };
        let call = match &understood {
            Some((call, _)) => Some(call.clone()),
            None => dispatch::by_head(&self.services, signing_name, &parts, reply.protocol())?,
        };
        let service = call.as_ref().map(|call| call.service).or(service);
        if let Some(call) = &call {
            reply.set_called(call.service.id, call.operation.name);
        }
        let within = |error| (service, error);
        // Credential, before any byte of the body is read.
        let credential = self.credential(&claim, reply.protocol()).await.map_err(within)?;
        // Body limit.
        let raw = call.as_ref().is_some_and(|call| self.is_raw(call));
        let limit_bytes = if raw { RAW_BODY_LIMIT_BYTES } else { self.body_limit_bytes };
        self.check_stated_length(&parts, limit_bytes).map_err(within)?;
        let mut bytes = self.read_body(body, limit_bytes).await.map_err(within)?;
        // Signature.
        claim
            .verify(&parts, &credential.secret_access_key, &sigv4::sha256_hex(&bytes))
            .map_err(|problem| within(Error::signature(reply.protocol(), problem)))?;
        let caller = Caller::signed(&claim.terms, &credential);
        // Decoding; raw bodies stay as they are.
        if !raw {
            bytes = encoding::decoded(&parts.headers, bytes, limit_bytes).map_err(within)?;
        }
        let (call, parameters) = match call {
            Some(call) => (call, Vec::new()),
            None => self.query_call(signing_name, &parts, &bytes)?,
        };
        reply.set_protocol(call.protocol);
        reply.set_called(call.service.id, call.operation.name);
        let service = call.service;
        let within = |error| (Some(service), error);
        let Some(handler) = self.registry.find(service.id, call.operation.name) else {
            return Err(within(Error::not_implemented(service.id, call.operation.name)));
        };
        // Input, its constraints, authorization.
        let structure = protocol::input_structure(call.service, call.operation);
        let fits = |_: &_| validation::fits_raw_body(call.service, structure, bytes.len());
        let input = match understood.filter(fits) {
            Some((_, input)) => input,
            None => {
                let input = protocol::input(&call, &parts, &parameters, &bytes, raw).map_err(within)?;
                check(&call, &input, raw.then_some(&bytes), &self.own_values).map_err(within)?;
                let input = Arc::new(input);
                if raw && call.protocol == Protocol::RestJson {
                    self.understood.keep(signing_name, &parts, &call, &input);
                }
                input
            }
        };
        let action = action(&call);
        self.authorize.authorize(&caller, &action, &input).await.map_err(within)?;
        // The handler, and its output on the wire.
        let context = Context {
            state: self.state.clone(),
            caller,
            request_id: request_id.to_owned(),
            operation: call.operation.name,
            effect_id: None,
            input,
        };
        match handler {
            Handler::Typed(handler) => {
                let handling = Finishing::new(call.operation.name, handler(context));
                let output = handling.await.map_err(within)?;
                reply.output(&call, output).map_err(within)
            }
            Handler::Raw(handler) => {
                let query = form::pairs(parts.uri.query().unwrap_or_default().as_bytes()).unwrap_or_default();
                let request = RawRequest { labels: call.labels, query, headers: parts.headers, body: bytes };
                handler(context, request).await.map_err(within)
            }
        }
    }

    fn claim(&self, parts: &Parts, protocol: Protocol) -> Result<Claim, Error> {
        let signature = |problem| Error::signature(protocol, problem);
        let claim = Claim::of(parts)
            .map_err(signature)?
            .ok_or_else(|| Error::missing_authentication_token(protocol))?;
        claim.check_time((self.now_ms)()).map_err(signature)?;
        Ok(claim)
    }

    async fn credential(&self, claim: &Claim, protocol: Protocol) -> Result<Arc<Credential>, Error> {
        let found = self.credentials.find(&claim.terms.access_key_id, claim.session_token.as_deref()).await;
        let credential = found.map_err(|problem| Error::credential(protocol, problem))?;
        match credential.expires_at_ms {
            Some(end_ms) if end_ms <= (self.now_ms)() => {
                Err(Error::credential(protocol, CredentialProblem::Expired))
            }
            _ => Ok(credential),
        }
    }

    fn is_raw(&self, call: &Call) -> bool {
        matches!(self.registry.find(call.service.id, call.operation.name), Some(Handler::Raw(_)))
    }

    fn check_stated_length(&self, parts: &Parts, limit_bytes: usize) -> Result<(), Error> {
        let stated = parts
            .headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if stated.is_some_and(|stated| stated > limit_bytes as u64) {
            Err(Error::too_large(limit_bytes))
        } else {
            Ok(())
        }
    }

    async fn read_body(&self, body: &mut Option<Body>, limit_bytes: usize) -> Result<Bytes, Error> {
        let Some(body) = body.take() else { return Ok(Bytes::new()) };
        body::read(body, limit_bytes).await.map_err(|problem| match problem {
            ReadProblem::TooLarge => Error::too_large(limit_bytes),
            ReadProblem::TooSlow => Error::too_slow(),
            ReadProblem::Broken(error) => {
                Error::serialization(format!("The request body ended early: {error}."))
            }
        })
    }

    /// The operation and the parameters of a query request, which may stand in the URL and in the body.
    fn query_call(
        &self,
        signing_name: &str,
        parts: &Parts,
        body: &[u8],
    ) -> Result<(Call, Vec<(String, String)>), Lost> {
        let unreadable =
            |problem| (None, Error::serialization(format!("The parameters cannot be read: {problem}.")));
        let mut parameters =
            form::pairs(parts.uri.query().unwrap_or_default().as_bytes()).map_err(unreadable)?;
        parameters
            .retain(|(name, _)| !name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("x-amz-")));
        parameters.append(&mut form::pairs(body).map_err(unreadable)?);
        let call = dispatch::by_action(&self.services, signing_name, &parameters)?;
        Ok((call, parameters))
    }
}

/// Checks an input against its model. A raw body is no part of the input; its length is checked beside it.
pub(crate) fn check(
    call: &Call,
    input: &Value,
    raw_body: Option<&Bytes>,
    own_values: &std::collections::BTreeSet<String>,
) -> Result<(), Error> {
    let Some(shape) = call.operation.input else { return Ok(()) };
    let mut violations = match raw_body {
        None => validation::validate(call.service, shape, input),
        Some(body) => validation::validate_raw(call.service, shape, input, body.len()),
    };
    violations.retain(|violation| !violation.is_enumeration_without(own_values));
    if violations.is_empty() {
        return Ok(());
    }
    Err(Error::validation(call.service, validation::message(&violations)))
}

/// The name of a method, for counting: any other word is one.
fn method(method: &Method) -> &'static str {
    let known = [Method::GET, Method::PUT, Method::HEAD, Method::POST, Method::DELETE];
    let names = ["GET", "PUT", "HEAD", "POST", "DELETE"];
    known.iter().position(|one| one == method).map_or("other", |at| names[at])
}

/// The request id as clients look for it. S3 has a name of its own for it, beside which the usual one does no harm.
fn stamp(response: &mut Response<Body>, request_id: &str, is_s3: bool) {
    let id = HeaderValue::from_str(request_id).expect("a UUID is a header value");
    if is_s3 {
        let name = HeaderName::from_static("x-amz-request-id");
        response.headers_mut().entry(name).or_insert_with(|| id.clone());
    }
    response.headers_mut().entry(HeaderName::from_static("x-amzn-requestid")).or_insert(id);
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text")
}

/// The action of a call, as policies name it.
pub(crate) fn action(call: &Call) -> String {
    // One allocation: each request has an action.
    [action_prefix(call.service.signing_name), call.operation.name].join(":")
}

/// Prefix of a service's actions in policies; CloudWatch is the one service that signs under another name.
fn action_prefix(signing_name: &str) -> &str {
    if signing_name == "monitoring" { "cloudwatch" } else { signing_name }
}
