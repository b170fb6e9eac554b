//! Shadow variants: once production has answered, a copy of the request goes to a variant that nobody waits for, and an observer sees
//! both answers. What the shadow cannot take in time is dropped and counted; production never waits for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::capture::{Draft, kept};
use crate::endpoint::EndpointHandle;
use crate::invocation::{self, InvokeError, InvokeRequest, InvokeResponse, ModelAnswer};
use crate::launcher::BoxFuture;
use crate::settings::DataPlaneSettings;

/// Copies that wait for the shadow or are with it, unless a plan says otherwise.
const USUAL_COPIES: usize = 256;
/// Memory of requests and answers of those copies.
const USUAL_MEMORY_BYTES: usize = 64 << 20;
/// The memory is counted in pieces of this size.
const PIECE_BYTES: usize = 1024;
/// What a shadow may answer at least, however short production's answer is.
const LEAST_ANSWER_BYTES: u64 = 1 << 20;
/// How many times as long as production's answer the shadow's may be.
const ANSWER_FACTOR: u64 = 4;
/// A streamed answer is kept for the comparison up to this length.
const STREAMED_BYTES: usize = 1 << 20;

/// Which requests of an endpoint are copied, to whom, and who looks at the answers.
#[derive(Clone)]
pub struct ShadowPlan {
    /// The variant that gets the copies. In the endpoint's plan its weight is 0; callers cannot name it.
    pub variant: String,
    /// Share of the requests that are copied, from 0 to 1.
    pub share: f64,
    /// Most copies that wait for the shadow or are with it.
    pub copies: usize,
    /// Most memory that requests and answers of those copies take.
    pub memory_bytes: usize,
    /// Who looks at the answers.
    pub observer: Arc<dyn ShadowObserver>,
}

impl ShadowPlan {
    /// A plan with the usual bounds.
    pub fn new(variant: String, share: f64, observer: Arc<dyn ShadowObserver>) -> ShadowPlan {
        ShadowPlan { variant, share, copies: USUAL_COPIES, memory_bytes: USUAL_MEMORY_BYTES, observer }
    }
}

/// Sees what production and shadow answered. Called on the tasks of the runtime, never by one that a caller waits for.
pub trait ShadowObserver: Send + Sync {
    /// Both have come to their end. The copy keeps its room until this is done.
    fn answered(&self, pair: ShadowPair) -> BoxFuture<'_, ()>;
    /// A request was to be copied, and the shadow is too slow for it.
    fn dropped(&self);
}

/// A request with the answers of production and shadow.
#[derive(Clone, Debug)]
pub struct ShadowPair {
    /// The request.
    pub request: InvokeRequest,
    /// What the caller got.
    pub production: ShadowAnswer,
    /// What the caller would have got.
    pub shadow: ShadowAnswer,
}

/// What became of a request, and when.
#[derive(Clone, Debug)]
pub struct ShadowAnswer {
    /// From the arrival of the request, or its copy, to the end of the answer.
    pub latency: Duration,
    /// The answer.
    pub outcome: Result<InvokeResponse, InvokeError>,
}

/// The shadow of an endpoint, as invocations see it.
pub(crate) struct Shadow {
    plan: ShadowPlan,
    room: Arc<Room>,
}

/// What copies take, shared by all shadows that an endpoint has in its time.
struct Room {
    copies: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
    /// Whether nobody wants to know any more what becomes of them.
    has_ended: watch::Sender<bool>,
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plan = &self.plan;
        formatter
            .debug_struct("Shadow")
            .field("variant", &plan.variant)
            .field("share", &plan.share)
            .finish_non_exhaustive()
    }
}

impl Shadow {
    /// The shadow of a plan; copies of the one before still take their room.
    pub(crate) fn following(plan: ShadowPlan, before: Option<&Shadow>) -> Shadow {
        let same = |before: &&Shadow| {
            let of = |plan: &ShadowPlan| (plan.variant.clone(), plan.copies, plan.memory_bytes);
            of(&before.plan) == of(&plan)
        };
        let room = match before.filter(same) {
            Some(before) => Arc::clone(&before.room),
            None => {
                before.inspect(|before| before.end());
                Arc::new(Room::new(&plan))
            }
        };
        Shadow { plan, room }
    }

    /// Gives up the copies that are under way, so that a shadow that hangs does not keep a fleet from going.
    pub(crate) fn end(&self) {
        self.room.has_ended.send_replace(true);
    }
}

impl Room {
    fn new(plan: &ShadowPlan) -> Room {
        let pieces = (plan.memory_bytes / PIECE_BYTES).min(Semaphore::MAX_PERMITS);
        Room {
            copies: Arc::new(Semaphore::new(plan.copies.min(Semaphore::MAX_PERMITS))),
            pieces: Arc::new(Semaphore::new(pieces)),
            has_ended: watch::Sender::new(false),
        }
    }

    fn take(&self, bytes: usize) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).ok()?;
        let copy = Arc::clone(&self.copies).try_acquire_owned().ok()?;
        Some((copy, Arc::clone(&self.pieces).try_acquire_many_owned(pieces).ok()?))
    }
}

/// A request that is copied once production has answered.
#[derive(Debug)]
pub(crate) struct Reflection {
    shadow: Arc<Shadow>,
    arrived_at: Instant,
}

impl Reflection {
    /// Whether this request is one of those that are copied. One of a session is not: it is meant for one replica that knows it.
    ///
    /// # Errors
    /// When the request asks for the shadow by its name: to callers there is no such variant.
    pub(crate) fn begin(
        endpoint: &EndpointHandle,
        request: &InvokeRequest,
    ) -> Result<Option<Reflection>, InvokeError> {
        let shadow = endpoint.shadow.load();
        let Some(shadow) = shadow.as_ref() else { return Ok(None) };
        let plan = &shadow.plan;
        if request.target_variant.as_ref() == Some(&plan.variant) {
            return Err(InvokeError::NoSuchVariant { variant: plan.variant.clone() });
        }
        let is_copied = request.session_id.is_none()
            && plan.share > 0.0
            && (plan.share >= 1.0 || rand::random::<f64>() < plan.share);
        Ok(is_copied.then(|| Reflection { shadow: Arc::clone(shadow), arrived_at: Instant::now() }))
    }

    /// Sends the copy on its way, after production's end. `is_captured` is whether production's answer was.
    pub(crate) fn send(
        self,
        endpoint: &Arc<EndpointHandle>,
        settings: &DataPlaneSettings,
        request: InvokeRequest,
        answered: &Result<InvokeResponse, InvokeError>,
        is_captured: bool,
    ) {
        let latency = self.arrived_at.elapsed();
        if !has_met_the_model(answered) {
            return;
        }
        let route = endpoint.route.load();
        // The fleet in service may still be one without the shadow.
        if route.as_ref().is_none_or(|route| route.by_name(&self.shadow.plan.variant).is_none()) {
            return;
        }
        let answer_bytes = match answered {
            Ok(response) => response.body.len(),
            Err(InvokeError::ModelError { body, .. }) => body.len(),
            Err(_) => 0,
        };
        let bytes = request.body.len().saturating_add(answer_bytes.saturating_mul(2));
        let Some(permits) = self.shadow.room.take(bytes) else {
            return self.shadow.plan.observer.dropped();
        };
        let copy = Copy {
            shadow: self.shadow,
            endpoint: Arc::clone(endpoint),
            settings: DataPlaneSettings {
                max_response_bytes: settings
                    .max_response_bytes
                    .min(LEAST_ANSWER_BYTES.max(ANSWER_FACTOR * answer_bytes as u64)),
                ..settings.clone()
            },
            request: InvokeRequest { body: kept(&request.body), ..request },
            production: ShadowAnswer { latency, outcome: answered.clone() },
            is_captured,
        };
        tokio::spawn(async move {
            copy.run().await;
            drop(permits);
        });
    }
}

/// Whether it says anything about the models: what was refused before is refused for the shadow, too.
fn has_met_the_model(answered: &Result<InvokeResponse, InvokeError>) -> bool {
    match answered {
        Ok(_)
        | Err(
            InvokeError::ModelError { .. }
            | InvokeError::StreamBroken { .. }
            | InvokeError::Timeout { .. }
            | InvokeError::ContainerLost { .. },
        ) => true,
        Err(_) => false,
    }
}

/// A copy on its way.
struct Copy {
    shadow: Arc<Shadow>,
    endpoint: Arc<EndpointHandle>,
    settings: DataPlaneSettings,
    request: InvokeRequest,
    production: ShadowAnswer,
    is_captured: bool,
}

impl Copy {
    async fn run(self) {
        let mut has_ended = self.shadow.room.has_ended.subscribe();
        tokio::select! {
            _ = has_ended.wait_for(|has_ended| *has_ended) => {}
            () = self.ask() => {}
        }
    }

    async fn ask(mut self) {
        let began_at = Instant::now();
        let target = self.request.target_variant.replace(self.shadow.plan.variant.clone());
        let capture = self.endpoint.capture.load_full().filter(|_| self.is_captured);
        let draft = capture.and_then(|capture| Draft::begin_beside(&capture, &self.request));
        let outcome =
            match invocation::invoke_stream(&self.endpoint, &self.settings, &self.request, true).await {
                Ok(stream) => stream.collect().await,
                Err(error) => Err(error),
            };
        let latency = began_at.elapsed();
        if let (Some(draft), Ok(response)) = (draft, &outcome) {
            draft.whole(response);
        }
        // The endpoint was changed or removed meanwhile; that says nothing about the shadow.
        if matches!(
            outcome,
            Err(InvokeError::NoSuchVariant { .. }
                | InvokeError::NotInService { .. }
                | InvokeError::NoSuchEndpoint { .. })
        ) {
            return;
        }
        self.request.target_variant = target;
        let pair = ShadowPair {
            request: self.request,
            production: self.production,
            shadow: ShadowAnswer { latency, outcome },
        };
        self.shadow.plan.observer.answered(pair).await;
    }
}

/// A copied request whose answer is streamed: what the caller got is kept for the comparison.
#[derive(Debug)]
pub(crate) struct StreamedReflection {
    reflection: Reflection,
    endpoint: Arc<EndpointHandle>,
    settings: Arc<DataPlaneSettings>,
    request: InvokeRequest,
    is_captured: bool,
    pieces: BytesMut,
}

impl StreamedReflection {
    pub(crate) fn new(
        reflection: Reflection,
        endpoint: &Arc<EndpointHandle>,
        settings: &Arc<DataPlaneSettings>,
        request: InvokeRequest,
        is_captured: bool,
    ) -> StreamedReflection {
        StreamedReflection {
            reflection,
            endpoint: Arc::clone(endpoint),
            settings: Arc::clone(settings),
            request,
            is_captured,
            pieces: BytesMut::new(),
        }
    }

    /// Takes note of what comes next in the answer; after its end the copy goes on its way. An answer that is too long for a comparison
    /// is not copied, and counts as dropped.
    pub(crate) fn note(
        streamed: &mut Option<Box<StreamedReflection>>,
        answer: &ModelAnswer,
        piece: Option<&Result<Bytes, InvokeError>>,
    ) {
        let Some(mut noting) = streamed.take() else { return };
        let answered = match piece {
            Some(Ok(piece)) if noting.pieces.len() + piece.len() > STREAMED_BYTES => {
                return noting.reflection.shadow.plan.observer.dropped();
            }
            Some(Ok(piece)) => {
                noting.pieces.extend_from_slice(piece);
                *streamed = Some(noting);
                return;
            }
            Some(Err(error)) => Err(error.clone()),
            None => {
                let body = std::mem::take(&mut noting.pieces).freeze();
                Ok(InvokeResponse { answer: answer.clone(), body })
            }
        };
        let StreamedReflection { reflection, endpoint, settings, request, is_captured, .. } = *noting;
        reflection.send(&endpoint, &settings, request, &answered, is_captured);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl ShadowObserver for Nobody {
        fn answered(&self, _: ShadowPair) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }
        fn dropped(&self) {}
    }

    #[test]
    fn the_room_is_bounded_and_outlives_a_change_of_the_plan() {
        let plan = ShadowPlan { copies: 2, memory_bytes: 4 * PIECE_BYTES, ..plan() };
        let shadow = Shadow::following(plan.clone(), None);
        let small = shadow.room.take(1).unwrap();
        assert!(shadow.room.take(4 * PIECE_BYTES).is_none(), "three pieces are left");
        let large = shadow.room.take(3 * PIECE_BYTES).unwrap();
        assert!(shadow.room.take(0).is_none(), "two copies are under way");
        let next = Shadow::following(ShadowPlan { share: 0.5, ..plan }, Some(&shadow));
        assert!(next.room.take(0).is_none());
        drop((small, large));
        assert!(next.room.take(4 * PIECE_BYTES).is_some());
    }

    #[test]
    fn only_what_a_model_has_seen_is_copied() {
        assert!(has_met_the_model(&Err(InvokeError::ContainerLost {
            message: String::new(),
            variant: String::new(),
            replica: String::new(),
        })));
        assert!(!has_met_the_model(&Err(InvokeError::Overloaded { variant: String::new() })));
        assert!(!has_met_the_model(&Err(InvokeError::NotSpoken)));
    }

    fn plan() -> ShadowPlan {
        ShadowPlan::new("shadow".into(), 1.0, Arc::new(Nobody))
    }
}
