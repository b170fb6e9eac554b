//! The answer of a request that a worker answered together with others.

use tokio::time::Instant;

use super::{Arrival, InvokeError, InvokeStream, Rest, Target, model_answer};
use crate::pool::{Outcome, Seat};
use crate::settings::DataPlaneSettings;

/// Waits for it. `None` says that nothing has been made of the request, and that it is to be sent again.
pub(super) async fn answered(
    seat: Seat,
    variant: Target,
    arrival: &mut Arrival,
    settings: &DataPlaneSettings,
) -> Option<Result<InvokeStream, InvokeError>> {
    let started_at = Instant::now();
    let replica = seat.link.id.clone();
    let (head, body) = match seat.outcome().await {
        Outcome::Answered(head, body) => (head, body),
        Outcome::Again => return None,
        Outcome::Broken(message) => {
            variant.count_answer(500, started_at, arrival.take().as_ref());
            return Some(Err(InvokeError::StreamBroken { message, replica }));
        }
        Outcome::Lost(message, ending) => {
            return Some(Err(variant.lost_together(message, replica, ending).await));
        }
        Outcome::TooLarge(bytes) => {
            return Some(Err(variant.too_large(bytes, variant.max_response_bytes(settings))));
        }
        Outcome::TimedOut => return Some(Err(variant.timed_out(replica))),
    };
    let status = head.status;
    let answer = model_answer(head, variant.name());
    variant.count_answer(status, started_at, arrival.take().as_ref());
    if status >= 400 {
        return Some(Err(InvokeError::ModelError { answer: Box::new(answer), body, replica }));
    }
    if let Some(tally) = variant.tally() {
        tally.sample(answer.content_type.as_deref(), &body);
    }
    Some(Ok(InvokeStream {
        answer,
        rest: Rest::Whole(body),
        max_bytes: variant.max_response_bytes(settings),
        variant,
        started_at,
        flight: None,
        draft: None,
        reflection: None,
    }))
}
