//! One invocation: from the route to a worker and back. Nothing here touches a disk or holds a lock while it waits.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::connection::{AnswerBody, Chunk, ExchangeError};
use crate::endpoint::EndpointHandle;
use crate::frame::{self, RequestHeader, ResponseHeader};
use crate::metrics::Counters;
use crate::pool::{Acquire, Lease};
use crate::route::{Route, RouteVariant};
use crate::settings::DataPlaneSettings;

/// What a caller sends to a model. Text fields are passed on as they are.
#[derive(Clone, Debug, Default)]
pub struct InvokeRequest {
    /// The variant that must answer; otherwise one is picked by weight.
    pub target_variant: Option<String>,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// The media types the caller takes.
    pub accept: Option<String>,
    /// Free text for the model.
    pub custom_attributes: Option<String>,
    /// The caller's name for this inference.
    pub inference_id: Option<String>,
    /// The session this request belongs to, or `NEW_SESSION`.
    pub session_id: Option<String>,
    /// Which of several models in the container is meant.
    pub target_model: Option<String>,
    /// The name of this request in logs.
    pub request_id: Option<String>,
    /// The body, passed on untouched.
    pub body: Bytes,
}

/// What a model answers, without the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelAnswer {
    /// The HTTP status the model chose.
    pub status: u16,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// Free text of the model.
    pub custom_attributes: Option<String>,
    /// The session the model opened, with its expiry.
    pub new_session_id: Option<String>,
    /// The session the model closed.
    pub closed_session_id: Option<String>,
    /// The variant that answered.
    pub invoked_variant: String,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct InvokeResponse {
    /// Everything but the body.
    pub answer: ModelAnswer,
    /// The body, as the model gave it.
    pub body: Bytes,
}

/// An answer that comes in pieces.
#[derive(Debug)]
pub struct InvokeStream {
    /// Everything but the body.
    pub answer: ModelAnswer,
    rest: Rest,
    variant: Target,
    max_chunk_bytes: u64,
    started_at: Instant,
}

#[derive(Debug)]
enum Rest {
    /// The model answered in one piece.
    Whole(Bytes),
    Chunked(Lease),
    Nothing,
}

/// Why an invocation has no answer. The texts are meant for callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InvokeError {
    /// The endpoint is not known.
    #[error("Endpoint {endpoint} was not found; create it first.")]
    NoSuchEndpoint {
        /// The key that was asked for.
        endpoint: String,
    },
    /// The target variant is not part of the endpoint.
    #[error(
        "Variant {variant} was not found in the endpoint; leave the target variant out or name an existing one."
    )]
    NoSuchVariant {
        /// The name that was asked for.
        variant: String,
    },
    /// The endpoint has no fleet in service, or every weight is 0.
    #[error("{reason}")]
    NotInService {
        /// What is missing.
        reason: String,
    },
    /// The model answered with an error status.
    #[error("The model answered with status {}.", answer.status)]
    ModelError {
        /// Status, media type and variant.
        answer: ModelAnswer,
        /// The body of the answer.
        body: Bytes,
        /// The replica whose log has more.
        replica: String,
    },
    /// The model failed in the middle of a streamed answer.
    #[error("The model failed while it streamed its answer: {message}")]
    StreamBroken {
        /// The error, with the model's traceback.
        message: String,
        /// The replica whose log has more.
        replica: String,
    },
    /// No worker was free in time.
    #[error("All workers of variant {variant} are busy; try again, or give the endpoint more instances.")]
    Overloaded {
        /// The variant.
        variant: String,
    },
    /// The model took too long; its worker is restarted if it does not come to an end.
    #[error("The model did not answer within {limit_seconds} seconds.")]
    Timeout {
        /// The time limit.
        limit_seconds: f64,
        /// The variant.
        variant: String,
        /// The replica whose log has more.
        replica: String,
    },
    /// The request or the answer is larger than allowed.
    #[error("The {what} of {bytes} bytes is larger than the limit of {limit_bytes} bytes.")]
    TooLarge {
        /// `request body` or `answer`.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The worker died, or broke the protocol, while it had the request.
    #[error("The worker that had the request was lost: {message}")]
    ContainerLost {
        /// What was seen of it.
        message: String,
        /// The variant.
        variant: String,
        /// The replica whose log has more.
        replica: String,
    },
}

/// The parts of a [`RouteVariant`] that are needed after the route may have been replaced.
#[derive(Clone, Debug)]
struct Target {
    route: Arc<Route>,
    position: usize,
}

impl Target {
    fn variant(&self) -> &RouteVariant {
        &self.route.variants[self.position]
    }

    fn counters(&self) -> &Counters {
        &self.variant().counters
    }

    fn name(&self) -> String {
        self.variant().name.to_string()
    }

    fn count_failure(&self, kind: Option<&AtomicU64>) {
        Counters::count(&self.counters().errors_5xx);
        if let Some(kind) = kind {
            Counters::count(kind);
        }
    }

    fn overloaded(&self) -> InvokeError {
        self.count_failure(Some(&self.counters().overloaded));
        InvokeError::Overloaded { variant: self.name() }
    }

    fn timed_out(&self, replica: String) -> InvokeError {
        self.count_failure(Some(&self.counters().timed_out));
        let limit_seconds = self.variant().model_timeout.as_secs_f64();
        InvokeError::Timeout { limit_seconds, variant: self.name(), replica }
    }

    fn lost(&self, message: String, replica: String) -> InvokeError {
        self.count_failure(None);
        InvokeError::ContainerLost { message, variant: self.name(), replica }
    }

    fn too_large(&self, bytes: u64, limit_bytes: u64) -> InvokeError {
        self.count_failure(None);
        InvokeError::TooLarge { what: "answer", bytes, limit_bytes }
    }

    fn count_answer(&self, status: u16, started_at: Instant) {
        let counters = self.counters();
        Counters::add_time(&counters.model_latency_microseconds, started_at.elapsed());
        match status {
            400..=499 => Counters::count(&counters.errors_4xx),
            500.. => Counters::count(&counters.errors_5xx),
            _ => {}
        }
    }
}

/// Sends a request to a worker and reads the head of the answer.
pub(crate) async fn invoke_stream(
    endpoint: &EndpointHandle,
    settings: &DataPlaneSettings,
    request: &InvokeRequest,
) -> Result<InvokeStream, InvokeError> {
    let body_bytes = request.body.len();
    if body_bytes as u64 > settings.max_request_bytes {
        let limit_bytes = settings.max_request_bytes;
        return Err(InvokeError::TooLarge { what: "request body", bytes: body_bytes as u64, limit_bytes });
    }
    let header = frame::encode_request(&request_header(request), body_bytes);
    let mut counted = false;
    loop {
        let target = request.target_variant.as_deref();
        let (mut lease, variant) = acquire(endpoint, settings, target, &mut counted).await?;
        let started_at = Instant::now();
        let connection = lease.connection();
        let exchange = async {
            connection.send(header.clone(), request.body.clone()).await?;
            connection.receive(settings.max_response_bytes).await
        };
        let exchanged = tokio::time::timeout(variant.variant().model_timeout, exchange).await;
        let replica = |lease: &mut Lease| lease.connection().link.id.clone();
        let (head, body) = match exchanged {
            Ok(Ok(answered)) => answered,
            // The worker was gone before it had read the request, so another may have it. This ends: each turn uses up
            // a dead connection, and without any the queue's time limit holds.
            Ok(Err(ExchangeError::NotRead)) => continue,
            Ok(Err(ExchangeError::Lost(message))) => return Err(variant.lost(message, replica(&mut lease))),
            Ok(Err(ExchangeError::TooLarge(bytes))) => {
                return Err(variant.too_large(bytes, settings.max_response_bytes));
            }
            Err(_) => return Err(variant.timed_out(replica(&mut lease))),
        };
        let status = head.status;
        let answer = model_answer(head, variant.name());
        let mut stream = InvokeStream {
            answer,
            rest: Rest::Nothing,
            variant,
            max_chunk_bytes: settings.max_response_bytes,
            started_at,
        };
        let replica = if status >= 400 { replica(&mut lease) } else { String::new() };
        stream.rest = match body {
            AnswerBody::Whole(body) => {
                lease.give_back();
                stream.variant.count_answer(status, started_at);
                Rest::Whole(body)
            }
            AnswerBody::Chunked => Rest::Chunked(lease),
        };
        if status < 400 {
            return Ok(stream);
        }
        let response = stream.collect(settings.max_response_bytes).await?;
        return Err(InvokeError::ModelError { answer: response.answer, body: response.body, replica });
    }
}

fn request_header(request: &InvokeRequest) -> RequestHeader<'_> {
    RequestHeader {
        kind: "invoke",
        content_type: request.content_type.as_deref(),
        accept: request.accept.as_deref(),
        custom_attributes: request.custom_attributes.as_deref(),
        inference_id: request.inference_id.as_deref(),
        session_id: request.session_id.as_deref(),
        target_model: request.target_model.as_deref(),
        request_id: request.request_id.as_deref(),
    }
}

fn model_answer(head: ResponseHeader, invoked_variant: String) -> ModelAnswer {
    ModelAnswer {
        status: head.status,
        content_type: head.content_type,
        custom_attributes: head.custom_attributes,
        new_session_id: head.new_session_id,
        closed_session_id: head.closed_session_id,
        invoked_variant,
    }
}

/// Chooses a variant and waits for one of its workers.
async fn acquire(
    endpoint: &EndpointHandle,
    settings: &DataPlaneSettings,
    target_variant: Option<&str>,
    counted: &mut bool,
) -> Result<(Lease, Target), InvokeError> {
    loop {
        let variant = choose(endpoint, target_variant)?;
        let acquired = variant.variant().pool.acquire();
        if !*counted && !matches!(acquired, Acquire::Draining) {
            Counters::count(&variant.counters().invocations);
            *counted = true;
        }
        match acquired {
            Acquire::Ready(lease) => return Ok((lease, variant)),
            Acquire::Wait(receiver) => {
                let waiting_since = Instant::now();
                let waited = tokio::time::timeout(settings.queue_wait, receiver).await;
                Counters::add_time(&variant.counters().queue_microseconds, waiting_since.elapsed());
                return match waited {
                    Ok(Ok(lease)) => Ok((lease, variant)),
                    Ok(Err(_)) | Err(_) => Err(variant.overloaded()),
                };
            }
            Acquire::Full => return Err(variant.overloaded()),
            // The route was replaced between the look at it and now. Draining starts after the new route is in place, so
            // this ends; the yield lets the endpoint's task proceed should it be on this very thread.
            Acquire::Draining => tokio::task::yield_now().await,
        }
    }
}

fn choose(endpoint: &EndpointHandle, target_variant: Option<&str>) -> Result<Target, InvokeError> {
    let not_in_service = |reason: &str| InvokeError::NotInService { reason: reason.to_owned() };
    let route = endpoint.route.load_full().ok_or_else(|| {
        not_in_service("The endpoint is not in service; wait until its status is InService.")
    })?;
    let chosen = match target_variant {
        Some(name) => {
            route.by_name(name).ok_or_else(|| InvokeError::NoSuchVariant { variant: name.to_owned() })?
        }
        None => {
            let position = if route.variants.len() == 1 { 0.0 } else { rand::random::<f64>() };
            route.by_weight(position).ok_or_else(|| {
                not_in_service("Every variant of the endpoint has weight 0; give one a weight.")
            })?
        }
    };
    let position =
        route.variants.iter().position(|variant| std::ptr::eq(variant, chosen)).unwrap_or_default();
    Ok(Target { route, position })
}

impl InvokeStream {
    /// The next piece of the body, or `None` at its end. A whole answer is one piece.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes, InvokeError>> {
        let mut lease = match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Nothing => return None,
            Rest::Whole(body) => return (!body.is_empty()).then_some(Ok(body)),
            Rest::Chunked(lease) => lease,
        };
        let limit: Duration = self.variant.variant().model_timeout;
        let read = tokio::time::timeout(limit, lease.connection().read_chunk(self.max_chunk_bytes)).await;
        let replica = |lease: &mut Lease| lease.connection().link.id.clone();
        match read {
            Ok(Ok(Chunk::Data(data))) => {
                self.rest = Rest::Chunked(lease);
                Some(Ok(data))
            }
            Ok(Ok(Chunk::End)) => {
                lease.give_back();
                self.variant.count_answer(self.answer.status, self.started_at);
                None
            }
            Ok(Ok(Chunk::Failed(message))) => {
                let replica = replica(&mut lease);
                lease.give_back();
                self.variant.count_answer(500, self.started_at);
                let message = String::from_utf8_lossy(&message).into_owned();
                Some(Err(InvokeError::StreamBroken { message, replica }))
            }
            Ok(Err(ExchangeError::NotRead)) => {
                let message = "The worker ended in the middle of its answer.".to_owned();
                Some(Err(self.variant.lost(message, replica(&mut lease))))
            }
            Ok(Err(ExchangeError::Lost(message))) => {
                Some(Err(self.variant.lost(message, replica(&mut lease))))
            }
            Ok(Err(ExchangeError::TooLarge(bytes))) => {
                Some(Err(self.variant.too_large(bytes, self.max_chunk_bytes)))
            }
            Err(_) => Some(Err(self.variant.timed_out(replica(&mut lease)))),
        }
    }

    /// Reads the rest of the body into one piece of at most that many bytes.
    pub(crate) async fn collect(mut self, max_bytes: u64) -> Result<InvokeResponse, InvokeError> {
        if let Rest::Whole(body) = self.rest {
            return Ok(InvokeResponse { answer: self.answer, body });
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await {
            body.extend_from_slice(&chunk?);
            if body.len() as u64 > max_bytes {
                return Err(self.variant.too_large(body.len() as u64, max_bytes));
            }
        }
        Ok(InvokeResponse { answer: self.answer, body: body.freeze() })
    }
}
