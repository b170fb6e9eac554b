//! From a path to what answers it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde_json::json;
use serving::{SpokenPath, SpokenProtocol};
use store::resources::Resource;
use wire::{Body, Peer};

use super::asked::{Asked, Door};
use super::refusal::{Reason, Refusal};
use super::v2::{self, Wanted};
use super::v2_message::HEADER_LENGTH;
use super::{grpc, openai, pass_through, reply, v1};
use crate::app::App;

/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Id under which these requests are counted.
const COUNTED_AS: &str = "open-protocols";

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Route<'a> {
    /// `/v2`.
    ServerMetadata,
    /// `/v2/health/live` and `/v2/health/ready`.
    Health,
    /// `/v2/models/NAME/…`.
    V2 { model: &'a str, version: Option<&'a str>, wanted: Wanted },
    /// `/v1/models`.
    Models,
    /// `/v1/models/NAME`.
    Model(&'a str),
    /// `/v1/models/NAME:VERB`.
    Verb { model: &'a str, verb: &'a str },
    /// `/v1/chat/completions` and `/v1/completions`, in the form in which they are fixed.
    OpenAi(&'static str),
}

/// A path, and the endpoint that stands before it: `/endpoints/NAME/v2/…`.
fn scoped(path: &str) -> (Option<&str>, &str) {
    let Some((name, _)) = path.strip_prefix("/endpoints/").and_then(|rest| rest.split_once('/')) else {
        return (None, path);
    };
    (Some(name), &path["/endpoints/".len() + name.len()..])
}

impl Route<'_> {
    fn of(path: &str) -> Option<Route<'_>> {
        if let Some(rest) = path.strip_prefix("/v2/models/") {
            let (model, version, wanted) = v2::wanted(rest);
            return Some(Route::V2 { model, version, wanted });
        }
        if let Some(rest) = path.strip_prefix("/v1/models/") {
            return Some(match rest.rsplit_once(':') {
                None => Route::Model(rest),
                Some((model, verb)) => Route::Verb { model, verb },
            });
        }
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        match segments.as_slice() {
            ["v2"] | ["v2", ""] => Some(Route::ServerMetadata),
            ["v2", "health", "live" | "ready"] => Some(Route::Health),
            ["v1", "chat", "completions"] => Some(Route::OpenAi("/v1/chat/completions")),
            ["v1", "completions"] => Some(Route::OpenAi("/v1/completions")),
            ["v1", "models"] => Some(Route::Models),
            _ => None,
        }
    }

    fn method(&self) -> Method {
        match self {
            Route::V2 { wanted, .. } => wanted.method(),
            Route::Verb { .. } | Route::OpenAi(_) => Method::POST,
            _ => Method::GET,
        }
    }

    /// How its requests are counted.
    fn operation(&self) -> &'static str {
        match self {
            Route::ServerMetadata => "V2ServerMetadata",
            Route::Health => "V2Health",
            Route::V2 { wanted: Wanted::Metadata, .. } => "V2ModelMetadata",
            Route::V2 { wanted: Wanted::Ready, .. } => "V2ModelReady",
            Route::V2 { wanted: Wanted::Infer, .. } => "V2ModelInfer",
            Route::Models => "ListModels",
            Route::Model(_) => "DescribeModel",
            Route::Verb { .. } => "V1Predict",
            Route::OpenAi("/v1/completions") => "OpenAiCompletions",
            Route::OpenAi(_) => "OpenAiChatCompletions",
        }
    }
}

/// Answers a request; `path` is its own without what stands before these protocols' paths.
pub async fn answer(app: Arc<App>, request: Request<Body>, path: &str, door: Door) -> Response<Body> {
    let started = Instant::now();
    let request_id = uuid::Uuid::new_v4().to_string();
    let (parts, body) = request.into_parts();
    if grpc::is_call(&parts.headers) {
        let (response, trouble) = grpc::answer(&app, &parts, body, path, door, &request_id).await;
        let status = trouble.map(|reason| reason.status());
        let code = status.as_ref().map_or("OK", http::StatusCode::as_str);
        let operation = grpc::operation(path);
        app.requests.count(wire::Observed {
            service: COUNTED_AS,
            operation,
            code,
            elapsed: started.elapsed(),
        });
        return response;
    }
    let (scope, rest) = scoped(path);
    let route = Route::of(rest);
    let operation = route.as_ref().map_or("", Route::operation);
    let is_open_ai = matches!(route, Some(Route::OpenAi(_)));
    let routed = match route {
        Some(route) => routed(&app, &parts, body, (scope, rest), &route, door, &request_id).await,
        None => Err(Refusal::new(Reason::NotFound, format!("There is nothing at {path}."))),
    };
    let mut response = routed.unwrap_or_else(|refusal| match is_open_ai {
        true => openai::refused(&refusal),
        false => reply::refused(&refusal),
    });
    if let Ok(id) = http::HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    let status = response.status();
    let code = if status.as_u16() < 400 { "OK" } else { status.as_str() };
    app.requests.count(wire::Observed { service: COUNTED_AS, operation, code, elapsed: started.elapsed() });
    response
}

async fn routed(
    app: &Arc<App>,
    parts: &Parts,
    body: Body,
    (scope, path): (Option<&str>, &str),
    route: &Route<'_>,
    door: Door,
    request_id: &str,
) -> Result<Response<Body>, Refusal> {
    let fits =
        parts.method == route.method() || (parts.method == Method::HEAD && route.method() == Method::GET);
    if !fits {
        let text = format!("{} takes {}, not {}.", parts.uri.path(), route.method(), parts.method);
        return Err(Refusal::new(Reason::WrongMethod, text));
    }
    // Probes come without a key, and are told nothing.
    match route {
        Route::ServerMetadata => return Ok(reply::value(&v2::server_metadata())),
        Route::Health => return Ok(reply::empty()),
        _ => {}
    }
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
    let asked = Asked::by(app, &parts.headers, peer, door, request_id).await?;
    match route {
        Route::ServerMetadata | Route::Health => Ok(reply::empty()),
        Route::V2 { model: name, version, wanted } => {
            let name = &*decoded(name);
            let model = asked.model(scope, name).await?;
            if *wanted == Wanted::Ready {
                // Below an endpoint's own address, versions are those of its container, which is not asked for them.
                let is_containers = model.is_scoped && pass_through::may_speak(&asked, &model).await?;
                let is_ready = asked.ready(&model, version.filter(|_| !is_containers)).await?;
                return Ok(v2::readiness(name, is_ready));
            }
            let body = if *wanted == Wanted::Infer {
                read(parts, body, wire::RAW_BODY_LIMIT_BYTES).await?
            } else {
                Bytes::new()
            };
            // Below an endpoint's own address, models and versions are those of its container.
            let after = if *wanted == Wanted::Infer { "/infer" } else { "" };
            let (native_path, target) = match model.is_scoped {
                true => (SpokenPath::Exact(path.to_owned()), None),
                false => (
                    SpokenPath::Model { before: "/v2/models/", name: model.name().to_owned(), after },
                    *version,
                ),
            };
            let words = pass_through::request(
                SpokenProtocol::InferenceV2,
                route.method(),
                native_path,
                &parts.headers,
                body.clone(),
            );
            if let Some(answered) = pass_through::ask(&asked, &model, target, words).await? {
                return Ok(answered);
            }
            model.check_own_name(scope, name)?;
            if *wanted == Wanted::Metadata {
                return Ok(reply::value(&v2::metadata(&asked, &model, *version).await?));
            }
            let request = v2::read(body, parts.headers.get(HEADER_LENGTH)).await?;
            v2::answer(&asked, &model, *version, request).await
        }
        Route::OpenAi(path) => {
            let body = read(parts, body, wire::RAW_BODY_LIMIT_BYTES).await?;
            openai::answer(&asked, scope, path, &parts.headers, body).await
        }
        Route::Models => match scope {
            None => Ok(listed(&asked.models().await?)),
            Some(scope) => models_below(&asked, scope, path, &parts.headers).await,
        },
        Route::Model(name) => {
            let name = &*decoded(name);
            let model = asked.model(scope, name).await?;
            model.check_own_name(scope, name)?;
            let is_ready = asked.ready(&model, None).await?;
            let resource = asked.resource(model.key()).await?;
            let mut described = described(&resource);
            described["name"] = json!(model.called(&resource.key.name));
            // The word is a text in this protocol.
            described["ready"] = json!(if is_ready { "True" } else { "False" });
            Ok(reply::value(&described))
        }
        Route::Verb { model: name, verb: "predict" } => {
            let name = &*decoded(name);
            let model = asked.model(scope, name).await?;
            let body = read(parts, body, wire::RAW_BODY_LIMIT_BYTES).await?;
            let native_path = match model.is_scoped {
                true => SpokenPath::Exact(path.to_owned()),
                false => SpokenPath::Model {
                    before: "/v1/models/",
                    name: model.name().to_owned(),
                    after: ":predict",
                },
            };
            let words = pass_through::request(
                SpokenProtocol::PredictionV1,
                Method::POST,
                native_path,
                &parts.headers,
                body.clone(),
            );
            if let Some(answered) = pass_through::ask(&asked, &model, None, words).await? {
                return Ok(answered);
            }
            model.check_own_name(scope, name)?;
            v1::predict(&asked, &model, &parts.headers, body).await
        }
        Route::Verb { verb: "explain", .. } => {
            Err(Refusal::new(Reason::NotDone, "Explanations are not done yet; use :predict."))
        }
        Route::Verb { verb, .. } => {
            Err(Refusal::new(Reason::NotFound, format!("There is no verb {verb:?}; use :predict.")))
        }
    }
}

/// A name as it was before it became a part of a path.
fn decoded(name: &str) -> Cow<'_, str> {
    percent_decode_str(name).decode_utf8_lossy()
}

/// The models below an endpoint's own address: those that its container names; else its own, or its components.
async fn models_below(
    asked: &Asked,
    scope: &str,
    path: &str,
    headers: &http::HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let components = asked.app.endpoints.components.of(&asked.endpoint(scope));
    if asked.component.is_none() && components.len() > 1 {
        let mut resources = asked.components().await?;
        resources.retain(|resource| components.contains(&resource.key));
        return Ok(listed(&resources));
    }
    let model = asked.model(Some(scope), scope).await?;
    for protocol in [SpokenProtocol::OpenAi, SpokenProtocol::PredictionV1] {
        let native_path = SpokenPath::Exact(path.to_owned());
        let words = pass_through::request(protocol, Method::GET, native_path, headers, Bytes::new());
        if let Some(answered) = pass_through::ask(asked, &model, None, words).await? {
            return Ok(answered);
        }
    }
    Ok(listed(&[asked.resource(model.key()).await?]))
}

/// A list of models, for clients of both protocols that have this path.
fn listed(resources: &[Resource]) -> Response<Body> {
    let names: Vec<&str> = resources.iter().map(|resource| resource.key.name.as_str()).collect();
    let data: Vec<_> = resources.iter().map(described).collect();
    reply::value(&json!({"object": "list", "data": data, "models": names}))
}

fn described(resource: &Resource) -> serde_json::Value {
    json!({
        "id": resource.key.name,
        "object": "model",
        "created": resource.created_at / 1000,
        "owned_by": resource.key.account,
    })
}

/// Reads a body of at most `limit_bytes`, within the time that clients have for it.
///
/// # Errors
/// When it is too large, too slow, or packed.
pub async fn read(parts: &Parts, body: Body, limit_bytes: usize) -> Result<Bytes, Refusal> {
    if let Some(coding) = parts.headers.get(http::header::CONTENT_ENCODING)
        && coding != "identity"
    {
        let text = format!("The content encoding {coding:?} is not taken; send the body as it is.");
        return Err(Refusal::invalid(text));
    }
    let too_large = || {
        Refusal::new(
            Reason::TooLarge,
            format!("The body is larger than {limit_bytes} bytes, which is the limit."),
        )
    };
    let stated = parts.headers.get(http::header::CONTENT_LENGTH);
    let stated = stated.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if stated.is_some_and(|stated| stated > limit_bytes as u64) {
        return Err(too_large());
    }
    let collecting: futures::future::BoxFuture<'static, _> =
        Box::pin(Limited::new(body, limit_bytes).collect());
    match tokio::time::timeout(BODY_TIMEOUT, collecting).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::invalid(format!("The body ended early: {error}."))),
        Err(_) => {
            let text = format!("The body did not arrive within {} seconds.", BODY_TIMEOUT.as_secs());
            Err(Refusal::invalid(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_protocols_say() {
        assert_eq!(Route::of("/v2"), Some(Route::ServerMetadata));
        assert_eq!(Route::of("/v2/health/live"), Some(Route::Health));
        assert_eq!(
            Route::of("/v2/models/m/versions/v/infer"),
            Some(Route::V2 { model: "m", version: Some("v"), wanted: Wanted::Infer })
        );
        assert_eq!(Route::of("/v1/models"), Some(Route::Models));
        assert_eq!(Route::of("/v1/completions"), Some(Route::OpenAi("/v1/completions")));
        assert_eq!(scoped("/endpoints/e/v1/models"), (Some("e"), "/v1/models"));
        assert_eq!(scoped("/endpoints/e"), (None, "/endpoints/e"));
        assert_eq!(scoped("/v2"), (None, "/v2"));
        assert_eq!(Route::of("/v1/models/m"), Some(Route::Model("m")));
        assert_eq!(Route::of("/v1/models/m:predict"), Some(Route::Verb { model: "m", verb: "predict" }));
        assert_eq!(
            Route::of("/v1/models/many/a:1.tar.gz:predict"),
            Some(Route::Verb { model: "many/a:1.tar.gz", verb: "predict" })
        );
        assert_eq!(decoded("many%2Fa%20b"), "many/a b");
        for nowhere in ["", "/", "/v3", "/v2/health", "/v2/models", "/v1/models:predict"] {
            assert_eq!(Route::of(nowhere), None, "{nowhere}");
        }
    }
}
