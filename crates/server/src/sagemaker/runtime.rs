//! The runtime: InvokeEndpoint and its streaming form. Bodies pass through untouched.

use api::sagemaker_runtime::{InvokeEndpoint, InvokeEndpointWithResponseStream};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serving::{InvokeError, InvokeRequest, InvokeStream, ModelAnswer};
use wire::{Body, RawRequest, event_stream};

use super::kinds::ENDPOINT;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_raw::<InvokeEndpoint, _, _, _>(invoke_endpoint);
    registry.on_raw::<InvokeEndpointWithResponseStream, _, _, _>(invoke_endpoint_with_response_stream);
}

/// Headers of the model that this release does not honour.
const REFUSED_HEADERS: &[(&str, &str)] = &[
    ("x-amzn-sagemaker-target-model", "TargetModel"),
    ("x-amzn-sagemaker-target-container-hostname", "TargetContainerHostname"),
    ("x-amzn-sagemaker-enable-explanations", "EnableExplanations"),
    ("x-amzn-sagemaker-inference-component", "InferenceComponentName"),
    ("x-amzn-sagemaker-prefix-aware-id", "PrefixAwareId"),
];

async fn invoke_endpoint(cx: Cx, request: RawRequest) -> Result<Response<Body>> {
    let (name, request) = taken(&cx, request)?;
    let key = super::record_key(&cx, ENDPOINT, &name);
    let answered =
        cx.state.endpoints.invoke(&key, request).await.map_err(|error| refused(&cx, &name, error))?;
    let mut response = Response::new(wire::full(answered.body));
    answer_headers(response.headers_mut(), &answered.answer, "content-type")?;
    Ok(response)
}

async fn invoke_endpoint_with_response_stream(cx: Cx, request: RawRequest) -> Result<Response<Body>> {
    let (name, request) = taken(&cx, request)?;
    let key = super::record_key(&cx, ENDPOINT, &name);
    let stream =
        cx.state.endpoints.invoke_stream(&key, request).await.map_err(|error| refused(&cx, &name, error))?;
    let mut headers = HeaderMap::new();
    answer_headers(&mut headers, &stream.answer, "x-amzn-sagemaker-content-type")?;
    headers.insert("content-type", HeaderValue::from_static("application/vnd.amazon.eventstream"));
    let frames = futures::stream::unfold(Some(stream), next_frame)
        .map(|frame| Ok::<_, wire::BoxError>(Frame::data(frame)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    *response.headers_mut() = headers;
    Ok(response)
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

/// The endpoint's name and what goes to the model.
fn taken(cx: &Cx, request: RawRequest) -> Result<(String, InvokeRequest)> {
    for (header, member) in REFUSED_HEADERS {
        if request.headers.contains_key(*header) {
            return Err(Error::field(member));
        }
    }
    let name = request.labels.get("EndpointName").cloned().unwrap_or_default();
    let header =
        |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let invocation = InvokeRequest {
        target_variant: header("x-amzn-sagemaker-target-variant"),
        content_type: header("content-type"),
        accept: header("accept"),
        custom_attributes: header("x-amzn-sagemaker-custom-attributes"),
        inference_id: header("x-amzn-sagemaker-inference-id"),
        session_id: header("x-amzn-sagemaker-session-id"),
        target_model: None,
        request_id: Some(cx.request_id.clone()),
        body: request.body,
    };
    Ok((name, invocation))
}

fn answer_headers(headers: &mut HeaderMap, answer: &ModelAnswer, content_type: &'static str) -> Result<()> {
    for (name, value) in [
        (content_type, &answer.content_type),
        ("x-amzn-sagemaker-custom-attributes", &answer.custom_attributes),
        ("x-amzn-sagemaker-new-session-id", &answer.new_session_id),
        ("x-amzn-sagemaker-closed-session-id", &answer.closed_session_id),
        ("x-amzn-invoked-production-variant", &Some(answer.invoked_variant.clone())),
    ] {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value).map_err(|_| Error::Model {
                message: format!("The model answered with a header {name} that HTTP cannot carry."),
                original_status: answer.status,
            })?;
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(())
}

/// What the caller is told when there is no answer.
fn refused(cx: &Cx, name: &str, error: InvokeError) -> Error {
    let account = &cx.caller.account;
    let logs = format!(
        "See https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group=/aws/sagemaker/Endpoints/{name} \
         in account {account}, or run: modelyard logs {name}",
        region = cx.caller.region
    );
    match error {
        InvokeError::NoSuchEndpoint { .. } => {
            Error::Validation(format!("Endpoint {name} of account {account} not found."))
        }
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
                    answer.status, answer.invoked_variant
                ),
                original_status: answer.status,
            }
        }
        InvokeError::Timeout { limit_seconds, variant, .. } => Error::Model {
            message: format!(
                "Received server error (0) from {variant}: the model did not answer within {limit_seconds} seconds. {logs}"
            ),
            original_status: 0,
        },
        error @ (InvokeError::ContainerLost { .. } | InvokeError::StreamBroken { .. }) => {
            Error::Model { message: format!("{error} {logs}"), original_status: 0 }
        }
        error @ InvokeError::Overloaded { .. } => Error::Unavailable(error.to_string()),
        error @ InvokeError::TooLarge { .. } => Error::Validation(error.to_string()),
    }
}
