//! One invocation: from the route to a worker and back. Nothing here touches a disk or holds a lock while it waits.

mod error;
mod message;
mod target;
mod together;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::batch::BatchRequest;
use crate::capture::Draft;
use crate::connection::{AnswerBody, Chunk, ExchangeError};
use crate::endpoint::EndpointHandle;
use crate::flight::Flight;
use crate::metrics::Counters;
use crate::pool::{Acquire, Grant, Lease};
use crate::settings::DataPlaneSettings;
use crate::shadow::StreamedReflection;
use crate::status::EndpointPhase;
use crate::wanted::Wanted;

pub use error::InvokeError;
use message::model_answer;
pub use message::{InvokeRequest, InvokeResponse, ModelAnswer, SpokenHeaders};
pub(crate) use target::Target;

/// An answer that comes in pieces. It is moved several times on its way: what few of them have is boxed.
#[derive(Debug)]
pub struct InvokeStream {
    /// Everything but the body.
    pub answer: ModelAnswer,
    rest: Rest,
    variant: Target,
    /// The longest piece, and the longest answer that is collected.
    max_bytes: u64,
    started_at: Instant,
    flight: Option<Flight>,
    /// What is captured of it, if it is.
    pub(crate) draft: Option<Box<Draft>>,
    /// What goes to a shadow after its end, if it does.
    pub(crate) reflection: Option<Box<StreamedReflection>>,
}

#[derive(Debug)]
enum Rest {
    /// The model answered in one piece.
    Whole(Bytes),
    Chunked(Lease),
    Nothing,
}

/// Sends a request to a worker and reads the head of the answer. `may_join` says that nobody wants the answer piece by piece, so that a
/// worker may answer others with it.
pub(crate) async fn invoke_stream(
    endpoint: &EndpointHandle,
    settings: &DataPlaneSettings,
    request: &InvokeRequest,
    may_join: bool,
) -> Result<InvokeStream, InvokeError> {
    let body_bytes = request.body.len();
    if body_bytes as u64 > settings.max_request_bytes {
        let limit_bytes = settings.max_request_bytes;
        return Err(InvokeError::TooLarge { what: "request body", bytes: body_bytes as u64, limit_bytes });
    }
    let mut arrival = Arrival::Counted(Instant::now(), None);
    loop {
        let wanted = if may_join { Wanted::whole_of(request) } else { Wanted::of(request) };
        let (grant, variant) = acquire(endpoint, settings, wanted, &mut arrival).await?;
        let mut lease = match grant {
            Grant::Alone(lease) => lease,
            Grant::Joined(seat) => match together::answered(seat, variant, &mut arrival, settings).await {
                Some(answered) => return answered,
                None => continue,
            },
        };
        let required = request.spoken.as_deref().filter(|words| words.is_required);
        if let Some(words) = required
            && !Box::pin(lease.connection().speaks(words.protocol)).await
        {
            lease.give_back();
            return Err(InvokeError::NotSpoken);
        }
        let started_at = Instant::now();
        let limit = variant.variant().model_timeout;
        let keeps_time = lease.connection().keeps_time();
        let max_bytes = variant.max_response_bytes(settings);
        let exchange = lease.connection().invoke(request, max_bytes, limit);
        let exchanged = match keeps_time {
            true => Ok(exchange.await),
            false => tokio::time::timeout(limit, exchange).await,
        };
        let replica = |lease: &mut Lease| lease.connection().link.id.clone();
        let (head, body) = match exchanged {
            Ok(Ok(answered)) => answered,
            // The worker was gone before it had read the request, so another may have it. This ends: each turn uses up
            // a dead connection, and without any the queue's time limit holds.
            Ok(Err(ExchangeError::NotRead)) => continue,
            Ok(Err(ExchangeError::Unreachable(error))) => {
                // Its other places are of no more use either, until it answers again.
                lease.connection().lose();
                tracing::debug!(replica = replica(&mut lease), %error, "a replica cannot be reached");
                continue;
            }
            Ok(Err(ExchangeError::Lost(message))) => {
                return Err(Box::pin(variant.lost_with_why(message, lease)).await);
            }
            Ok(Err(ExchangeError::TooLarge(bytes))) => {
                return Err(variant.too_large(bytes, max_bytes));
            }
            Ok(Err(ExchangeError::Refused(refused))) => {
                let error = variant.refused(refused, replica(&mut lease));
                // The place is as good as before.
                lease.give_back();
                return Err(error);
            }
            Err(_) => return Err(variant.timed_out(replica(&mut lease))),
        };
        let status = head.status;
        let mut answer = model_answer(head, variant.name());
        answer.session_place = variant.session_place(&answer, &mut lease);
        let mut stream = InvokeStream {
            answer,
            rest: Rest::Nothing,
            variant,
            max_bytes,
            started_at,
            flight: arrival.take(),
            draft: None,
            reflection: None,
        };
        let replica = if status >= 400 { replica(&mut lease) } else { String::new() };
        stream.rest = match body {
            AnswerBody::Whole(body) => {
                lease.give_back();
                stream.variant.count_answer(status, started_at, stream.flight.take().as_ref());
                if let Some(tally) = stream.variant.tally().filter(|_| status < 400) {
                    tally.sample(stream.answer.content_type.as_deref(), &body);
                }
                Rest::Whole(body)
            }
            AnswerBody::Chunked => Rest::Chunked(lease),
        };
        if status < 400 {
            return Ok(stream);
        }
        let response = Box::pin(stream.collect()).await?;
        let answer = Box::new(response.answer);
        return Err(InvokeError::ModelError { answer, body: response.body, replica });
    }
}

/// Asks a replica of an endpoint that speaks HTTP for what a path has; `None` when its replicas do not.
pub(crate) async fn get(
    endpoint: &EndpointHandle,
    settings: &DataPlaneSettings,
    path: &'static str,
) -> Result<Option<(u16, Bytes)>, InvokeError> {
    loop {
        let (grant, variant) =
            acquire(endpoint, settings, Wanted::default(), &mut Arrival::Unnoticed).await?;
        let Some(mut lease) = grant.alone() else { continue };
        let Some(replica) = lease.connection().http().cloned() else {
            lease.give_back();
            return Ok(None);
        };
        let asked = tokio::time::timeout(variant.variant().model_timeout, replica.get(path)).await;
        let id = lease.connection().link.id.clone();
        return match asked {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(ExchangeError::Unreachable(_))) => {
                lease.connection().lose();
                continue;
            }
            Ok(Err(error)) => Err(variant.lost(format!("GET {path}: {error:?}"), id)),
            Err(_) => Err(variant.timed_out(id)),
        };
    }
}

/// Whether what asks for a worker is an invocation, which counts once however often it asks.
enum Arrival {
    Unnoticed,
    Counted(Instant, Option<Flight>),
}

impl Arrival {
    fn count(&mut self, counters: &Arc<Counters>) {
        if let Arrival::Counted(arrived_at, flight) = self {
            flight.get_or_insert_with(|| Flight::begin(counters, *arrived_at));
        }
    }

    /// Goes through the gate of a variant that has one, once however often it asks.
    async fn enter(&mut self, target: &Target, body_bytes: u64) -> Result<(), InvokeError> {
        let Some(gate) = &target.variant().gate else { return Ok(()) };
        self.count(&target.variant().counters);
        let Arrival::Counted(_, Some(flight)) = self else { return Ok(()) };
        if body_bytes > gate.max_body_bytes {
            return Err(target.oversize(body_bytes, gate.max_body_bytes));
        }
        if flight.enter(gate).await { Ok(()) } else { Err(target.throttled(gate.limit())) }
    }

    fn take(&mut self) -> Option<Flight> {
        match self {
            Arrival::Unnoticed => None,
            Arrival::Counted(_, flight) => flight.take(),
        }
    }
}

/// Chooses a variant and waits for one of its workers.
async fn acquire(
    endpoint: &EndpointHandle,
    settings: &DataPlaneSettings,
    wanted: Wanted<'_>,
    arrival: &mut Arrival,
) -> Result<(Grant, Target), InvokeError> {
    wait_until_taken_up(endpoint, settings).await;
    loop {
        let variant = choose(endpoint, wanted.name()).map_err(|error| wanted.told(error))?;
        // A question that is no invocation is for whoever is there.
        if matches!(arrival, Arrival::Counted(..)) {
            let checked = variant.variant().targets.check(wanted.model, wanted.container);
            checked.map_err(|problem| InvokeError::WrongTarget { problem })?;
        }
        arrival.enter(&variant, wanted.body_bytes).await?;
        let pool = &variant.variant().pool;
        let acquired = match (wanted.session, wanted.joinable) {
            (Some(place), _) => pool.acquire_at(place),
            (None, None) => pool.acquire_for(wanted.model),
            (None, Some(request)) => pool.acquire_or_join(|| {
                let most_answer_bytes = variant.max_response_bytes(settings);
                BatchRequest::of(request, variant.variant().model_timeout, most_answer_bytes)
            }),
        };
        if !matches!(acquired, Acquire::Draining) {
            arrival.count(&variant.variant().counters);
        }
        match acquired {
            Acquire::Ready(lease) => return Ok((Grant::Alone(lease), variant)),
            line @ (Acquire::Wait(_) | Acquire::Join(_)) => {
                let waiting_since = Instant::now();
                // Whoever sees the last replica go looks for waiting invocations after it; the others ring here.
                let is_asleep = variant.counters().is_asleep();
                if is_asleep {
                    settings.wake_bell.notify_one();
                }
                let gate = variant.variant().gate.as_ref();
                if let Some(gate) = gate {
                    gate.ring();
                }
                let is_held = is_asleep || gate.is_some();
                let limit = if is_held { settings.wake_wait } else { settings.queue_wait };
                let waited = tokio::time::timeout(limit, line.granted()).await;
                Counters::add_time(&variant.counters().queue_microseconds, waiting_since.elapsed());
                return match waited {
                    Ok(Some(grant)) => Ok((grant, variant)),
                    Ok(None) if wanted.session.is_some() => Err(wanted.lost_session()),
                    Ok(None) => Err(variant.dismissed()),
                    Err(_) => Err(variant.overloaded()),
                };
            }
            Acquire::Gone => return Err(wanted.lost_session()),
            Acquire::Full => return Err(variant.queue_full(settings.queue_limit)),
            // The route was replaced between the look at it and now. Draining starts after the new route is in place, so
            // this ends; the yield lets the endpoint's task proceed should it be on this very thread.
            Acquire::Draining => tokio::task::yield_now().await,
        }
    }
}

/// A server that was started again connects to the replicas that it finds; callers need not see that moment.
async fn wait_until_taken_up(endpoint: &EndpointHandle, settings: &DataPlaneSettings) {
    if !endpoint.is_taken_up || endpoint.route.load().is_some() {
        return;
    }
    let mut status = endpoint.status.subscribe();
    let settled = status.wait_for(|status| status.phase != EndpointPhase::Creating);
    let _ = tokio::time::timeout(settings.queue_wait, settled).await;
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
        let chunk = self.read_chunk().await;
        Draft::note(&mut self.draft, &self.answer, chunk.as_ref());
        StreamedReflection::note(&mut self.reflection, &self.answer, chunk.as_ref());
        chunk
    }

    async fn read_chunk(&mut self) -> Option<Result<Bytes, InvokeError>> {
        let mut lease = match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Nothing => return None,
            Rest::Whole(body) => return (!body.is_empty()).then_some(Ok(body)),
            Rest::Chunked(lease) => lease,
        };
        let limit: Duration = self.variant.variant().model_timeout;
        let read = tokio::time::timeout(limit, lease.connection().read_chunk(self.max_bytes)).await;
        let replica = |lease: &mut Lease| lease.connection().link.id.clone();
        match read {
            Ok(Ok(Chunk::Data(data))) => {
                self.rest = Rest::Chunked(lease);
                Some(Ok(data))
            }
            Ok(Ok(Chunk::End)) => {
                lease.give_back();
                self.variant.count_answer(self.answer.status, self.started_at, self.flight.take().as_ref());
                None
            }
            Ok(Ok(Chunk::Failed(message))) => {
                let replica = replica(&mut lease);
                lease.give_back();
                self.variant.count_answer(500, self.started_at, self.flight.take().as_ref());
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
            Ok(Err(ExchangeError::Unreachable(error))) => {
                Some(Err(self.variant.lost(error.to_string(), replica(&mut lease))))
            }
            Ok(Err(ExchangeError::TooLarge(bytes))) => {
                Some(Err(self.variant.too_large(bytes, self.max_bytes)))
            }
            Ok(Err(ExchangeError::Refused(refused))) => {
                let replica = replica(&mut lease);
                Some(Err(self.variant.refused(refused, replica)))
            }
            Err(_) => Some(Err(self.variant.timed_out(replica(&mut lease)))),
        }
    }

    /// The answer, if it came in one piece.
    ///
    /// # Errors
    /// Itself, to be collected.
    pub(crate) fn whole(self) -> Result<InvokeResponse, Self> {
        match self.rest {
            Rest::Whole(body) => Ok(InvokeResponse { answer: self.answer, body }),
            rest => Err(Self { rest, ..self }),
        }
    }

    /// Reads the rest of the body into one piece.
    pub(crate) async fn collect(mut self) -> Result<InvokeResponse, InvokeError> {
        if let Rest::Whole(body) = self.rest {
            return Ok(InvokeResponse { answer: self.answer, body });
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await {
            body.extend_from_slice(&chunk?);
            if body.len() as u64 > self.max_bytes {
                return Err(self.variant.too_large(body.len() as u64, self.max_bytes));
            }
        }
        Ok(InvokeResponse { answer: self.answer, body: body.freeze() })
    }
}
