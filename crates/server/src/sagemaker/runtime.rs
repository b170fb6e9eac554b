//! The runtime: InvokeEndpoint and its streaming form. Bodies pass through untouched.

use api::sagemaker_runtime::{InvokeEndpoint, InvokeEndpointWithResponseStream};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serving::{InvokeError, InvokeRequest, InvokeStream, ModelAnswer, TargetProblem};
use store::resources::ResourceKey;
use wire::{Body, RawRequest, event_stream};

use super::kinds::ENDPOINT;
use crate::endpoints::components::Target;
use crate::{Cx, Error, Registry, Result};

/// How much of a failed model's answer its error carries: far more than anybody reads.
const ORIGINAL_MESSAGE_CHARACTERS: usize = 65_536;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_raw::<InvokeEndpoint, _, _, _>(invoke_endpoint);
    registry.on_raw::<InvokeEndpointWithResponseStream, _, _, _>(invoke_endpoint_with_response_stream);
}

/// Headers of the model that this release does not honour.
const REFUSED_HEADERS: &[(&str, &str)] = &[
    ("x-amzn-sagemaker-enable-explanations", "EnableExplanations"),
    ("x-amzn-sagemaker-prefix-aware-id", "PrefixAwareId"),
];

async fn invoke_endpoint(cx: Cx, request: RawRequest) -> Result<Response<Body>> {
    let (name, target, request) = taken(&cx, request)?;
    let answered = cx.state.endpoints.invoke(&target.key, request).await;
    let mut answered = answered.map_err(|error| refused(&cx, &name, &target, error))?;
    noted(&cx, &target.key, &answered.answer)?;
    target.name_variant(&mut answered.answer);
    let mut response = Response::new(wire::full(answered.body));
    answer_headers(response.headers_mut(), &answered.answer, "content-type")?;
    Ok(response)
}

async fn invoke_endpoint_with_response_stream(cx: Cx, request: RawRequest) -> Result<Response<Body>> {
    let (name, target, request) = taken(&cx, request)?;
    let stream = cx.state.endpoints.invoke_stream(&target.key, request).await;
    let mut stream = stream.map_err(|error| refused(&cx, &name, &target, error))?;
    noted(&cx, &target.key, &stream.answer)?;
    target.name_variant(&mut stream.answer);
    let mut headers = HeaderMap::new();
    answer_headers(&mut headers, &stream.answer, "x-amzn-sagemaker-content-type")?;
    headers.insert("content-type", HeaderValue::from_static("application/vnd.amazon.eventstream"));
    let frames = futures::stream::unfold(Some(stream), next_frame)
        .map(|frame| Ok::<_, wire::BoxError>(Frame::data(frame)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    *response.headers_mut() = headers;
    Ok(response)
}

/// Remembers the sessions that a model has opened and closed.
fn noted(cx: &Cx, key: &ResourceKey, answer: &ModelAnswer) -> Result<()> {
    cx.state.endpoints.note_sessions(key, answer).map_err(|message| Error::Model {
        message,
        original_status: answer.status,
        original_message: String::new(),
    })
}

/// The next event of a streamed answer; an error event is the last one.
async fn next_frame(stream: Option<InvokeStream>) -> Option<(Bytes, Option<InvokeStream>)> {
    let mut stream = stream?;
    match stream.next_chunk().await? {
        Ok(chunk) => Some((event_stream::payload_part(&chunk), Some(stream))),
        Err(error) => {
            Some((event_stream::model_stream_error(stream_error_code(&error), &error.to_string()), None))
        }
    }
}

/// Codes that the service gives in the middle of a stream.
fn stream_error_code(error: &InvokeError) -> &'static str {
    match error {
        InvokeError::Timeout { .. } => "ModelInvocationTimeExceeded",
        _ => "StreamBroken",
    }
}

/// The endpoint's name, what answers for it, and what goes to the model.
fn taken(cx: &Cx, request: RawRequest) -> Result<(String, Target, InvokeRequest)> {
    let name = request.labels.get("EndpointName").cloned().unwrap_or_default();
    let endpoint = super::record_key(cx, ENDPOINT, &name);
    cx.state.endpoints.queues.check_direct(&endpoint)?;
    let mut invocation = InvokeRequest {
        request_id: Some(cx.request_id.clone()),
        body: request.body,
        ..InvokeRequest::default()
    };
    let (mut component, mut streamed_accept) = (None, None);
    // One walk over the headers: looking each up costs more than there are.
    for (header, value) in &request.headers {
        let place = match header.as_str() {
            "content-type" => &mut invocation.content_type,
            "accept" => &mut invocation.accept,
            // The streaming operation has a name of its own for it.
            "x-amzn-sagemaker-accept" => &mut streamed_accept,
            "x-amzn-sagemaker-custom-attributes" => &mut invocation.custom_attributes,
            "x-amzn-sagemaker-inference-component" => &mut component,
            "x-amzn-sagemaker-inference-id" => &mut invocation.inference_id,
            "x-amzn-sagemaker-session-id" => &mut invocation.session_id,
            "x-amzn-sagemaker-target-container-hostname" => &mut invocation.target_container,
            "x-amzn-sagemaker-target-model" => &mut invocation.target_model,
            "x-amzn-sagemaker-target-variant" => &mut invocation.target_variant,
            other => match REFUSED_HEADERS.iter().find(|(refused, _)| *refused == other) {
                Some((_, member)) => return Err(Error::field(member)),
                None => continue,
            },
        };
        // The first one counts.
        if place.is_none() {
            *place = value.to_str().ok().map(str::to_owned);
        }
    }
    invocation.accept = streamed_accept.or(invocation.accept);
    let target = Target::of(&cx.state, endpoint, component.as_deref())?;
    target.admit(&cx.state, &mut invocation)?;
    Ok((name, target, invocation))
}

fn answer_headers(headers: &mut HeaderMap, answer: &ModelAnswer, content_type: &'static str) -> Result<()> {
    for (name, value) in [
        (content_type, answer.content_type.as_ref()),
        ("x-amzn-sagemaker-custom-attributes", answer.custom_attributes.as_ref()),
        ("x-amzn-sagemaker-new-session-id", answer.new_session_id.as_ref()),
        ("x-amzn-sagemaker-closed-session-id", answer.closed_session_id.as_ref()),
        ("x-amzn-invoked-production-variant", Some(&answer.invoked_variant)),
    ] {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value).map_err(|_| Error::Model {
                message: format!("The model answered with a header {name} that HTTP cannot carry."),
                original_status: answer.status,
                original_message: String::new(),
            })?;
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(())
}

/// What is wrong with the model or container that a request names, in the words of the service.
fn wrong_target(name: &str, account: &str, problem: &TargetProblem) -> String {
    match problem {
        TargetProblem::NotManyModels => format!(
            "Endpoint {name} of account {account} is not a multi-model endpoint and does not support target model header."
        ),
        TargetProblem::NoModelNamed => format!(
            "Endpoint {name} of account {account} is a multi-model endpoint and needs a target model header; give TargetModel."
        ),
        TargetProblem::NotDirect => format!(
            "Endpoint {name} of account {account} is not configured for direct invocation and does not support target \
             container hostname header."
        ),
        TargetProblem::NoContainerNamed => format!(
            "Endpoint {name} of account {account} is configured for direct invocation and needs a target container hostname \
             header; give TargetContainerHostname."
        ),
        TargetProblem::NoSuchContainer(container) => format!(
            "Container {container} was not found in endpoint {name} of account {account}; TargetContainerHostname must be \
             the ContainerHostname of one of its containers."
        ),
    }
}

/// What the caller is told when there is no answer.
fn refused(cx: &Cx, name: &str, target: &Target, error: InvokeError) -> Error {
    if let Some(problem) = target.refusal(&cx.state, &error) {
        return problem.into();
    }
    let account = &cx.caller.account;
    let (group, owner) = target.logs();
    let logs = format!(
        "See https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group}/{owner} \
         in account {account}, or run: modelyard logs {owner}",
        region = cx.caller.region
    );
    match error {
        InvokeError::NoSuchEndpoint { .. } => {
            Error::Validation(format!("Endpoint {name} of account {account} not found."))
        }
        InvokeError::WrongTarget { problem } => Error::Validation(wrong_target(name, account, &problem)),
        InvokeError::NoSuchModel { reason } => Error::Validation(reason),
        error @ InvokeError::ModelNotReady => Error::NotReady(error.to_string()),
        InvokeError::NoSuchVariant { variant } => Error::Validation(format!(
            "Variant {variant} was not found in endpoint {name} of account {account}."
        )),
        InvokeError::NotInService { reason } => {
            Error::Validation(format!("Endpoint {name} of account {account} is not in service: {reason}"))
        }
        InvokeError::ModelError { answer, body, .. } => {
            let text = String::from_utf8_lossy(&body);
            let shown: String = text.chars().take(1024).collect();
            Error::Model {
                message: format!(
                    "Received server error ({}) from {} with message \"{shown}\". {logs}",
                    answer.status,
                    answer.container.as_ref().unwrap_or(&answer.invoked_variant)
                ),
                original_status: answer.status,
                original_message: text.chars().take(ORIGINAL_MESSAGE_CHARACTERS).collect(),
            }
        }
        InvokeError::Timeout { limit_seconds, variant, .. } => Error::Model {
            message: format!(
                "Received server error (0) from {variant}: the model did not answer within {limit_seconds} seconds. {logs}"
            ),
            original_status: 0,
            original_message: String::new(),
        },
        error @ (InvokeError::ContainerLost { .. }
        | InvokeError::NotStarted { .. }
        | InvokeError::StreamBroken { .. }) => {
            let message = format!("{error} {logs}");
            Error::Model { message, original_status: 0, original_message: String::new() }
        }
        error @ InvokeError::Overloaded { .. } => Error::Unavailable(error.to_string()),
        error @ (InvokeError::QueueFull { .. } | InvokeError::Throttled { .. }) => {
            Error::Throttled(error.to_string())
        }
        error @ InvokeError::TooLarge { what: "request body", .. } => {
            Error::Validation(format!("Request {} has oversize body: {error}", cx.request_id))
        }
        error @ (InvokeError::TooLarge { .. }
        | InvokeError::NoSuchSession { .. }
        | InvokeError::NotSpoken) => Error::Validation(error.to_string()),
    }
}
