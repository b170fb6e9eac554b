//! ListEvents of our own service: the event log, page by page.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ENVELOPED;
use crate::own_service::own_operation;
use crate::{Cx, Registry, Result};

/// Events on a page, unless the caller wants fewer.
const PAGE_EVENTS: usize = 100;

own_operation! {
    /// Answers events after a position, oldest first.
    ListEvents(ListEventsInput) -> ListEventsOutput
}

/// Input of [`ListEvents`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListEventsInput {
    /// Position of the last event that the caller has; 0 for none, and the newest event when it is left out.
    pub after: Option<i64>,
    /// Most events.
    pub max_results: Option<i32>,
}

/// Output of [`ListEvents`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListEventsOutput {
    /// Envelopes.
    pub events: Vec<Value>,
    /// Position of the last of them, to ask on from.
    pub position: i64,
}

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<ListEvents, _, _, _>(list_events);
}

async fn list_events(cx: Cx, input: ListEventsInput) -> Result<ListEventsOutput> {
    let limit = input.max_results.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE_EVENTS);
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let read = cx.state.database.read(move |session| {
        let Some(after) = input.after else { return Ok((Vec::new(), session.last_event()?)) };
        let events = session.events_after(&account, &region, ENVELOPED, after, limit)?;
        Ok((events, after))
    });
    let (events, after) = read.await?;
    let position = events.last().map_or(after, |event| event.sequence);
    Ok(ListEventsOutput { events: events.into_iter().map(|event| event.detail).collect(), position })
}
