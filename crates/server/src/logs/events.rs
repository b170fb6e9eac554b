//! Log events: put, get, filter.

use std::sync::Arc;

use api::logs::{
    FilterLogEvents, FilterLogEventsInput, FilterLogEventsOutput, FilteredLogEvent, GetLogEvents,
    GetLogEventsInput, GetLogEventsOutput, InputLogEvent, OutputLogEvent, PutLogEvents, PutLogEventsInput,
    PutLogEventsOutput, RejectedLogEventsInfo,
};
use store::logs::{
    EVENT_OVERHEAD_BYTES, FilterQuery, FilterToken, From, LogEvent, NewEvent, ReadQuery, Streams,
};

use super::filter_pattern::FilterPattern;
use super::{group_key, named_group, page_limit, refusal, refuse_fields};
use crate::{Cx, Error, Registry, Result};

/// Most bytes of a batch or a page: texts, and 26 for each event.
const MOST_BYTES: usize = 1_048_576;

/// Most events of a page.
const MOST_EVENTS: usize = 10_000;

const HOUR_MS: i64 = 3_600_000;

/// Events older than this are rejected.
const OLDEST_MS: i64 = 14 * 24 * HOUR_MS;

/// Events further in the future than this are rejected.
const NEWEST_MS: i64 = 2 * HOUR_MS;

/// Longest time between the first and the last event of a batch.
const LONGEST_SPAN_MS: i64 = 24 * HOUR_MS;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<PutLogEvents, _, _, _>(put_log_events);
    registry.on::<GetLogEvents, _, _, _>(get_log_events);
    registry.on::<FilterLogEvents, _, _, _>(filter_log_events);
}

async fn put_log_events(cx: Cx, input: PutLogEventsInput) -> Result<PutLogEventsOutput> {
    // A sequence token is taken and not looked at, as the service has it since 2023.
    refuse_fields(&[("entity", input.entity.is_some())])?;
    let key = named_group(&cx, input.log_group_name).stream(input.log_stream_name);
    let batch = Batch::check(input.log_events, cx.state.clock.now_ms())?;
    let size_bytes = cx.state.logs.append_durably(key, batch.accepted).await.map_err(refusal)?;
    Ok(PutLogEventsOutput {
        next_sequence_token: Some(format!("{size_bytes:056}")),
        rejected_log_events_info: batch.rejected,
        ..Default::default()
    })
}

/// A batch of events, without those that are too old or too new.
#[derive(Debug)]
struct Batch {
    accepted: Vec<NewEvent>,
    rejected: Option<RejectedLogEventsInfo>,
}

impl Batch {
    fn check(events: Vec<InputLogEvent>, now_ms: i64) -> Result<Batch> {
        if !events.is_sorted_by_key(|event| event.timestamp) {
            return Err(Error::invalid_parameter(
                "Log events in a single PutLogEvents request must be in chronological order.",
            ));
        }
        let bytes: usize = events.iter().map(|event| event.message.len() + EVENT_OVERHEAD_BYTES).sum();
        if bytes > MOST_BYTES {
            return Err(Error::invalid_parameter(format!(
                "Upload too large: {bytes} bytes exceeds limit of {MOST_BYTES}"
            )));
        }
        let too_old_end = events.partition_point(|event| event.timestamp < now_ms - OLDEST_MS);
        let too_new_start = events.partition_point(|event| event.timestamp <= now_ms + NEWEST_MS);
        let count = events.len();
        let accepted: Vec<NewEvent> = events
            .into_iter()
            .take(too_new_start)
            .skip(too_old_end)
            .map(|event| NewEvent { timestamp_ms: event.timestamp, text: event.message })
            .collect();
        if let (Some(first), Some(last)) = (accepted.first(), accepted.last())
            && last.timestamp_ms - first.timestamp_ms > LONGEST_SPAN_MS
        {
            return Err(Error::invalid_parameter(
                "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
            ));
        }
        let index = |at: usize| i32::try_from(at).ok();
        let rejected = (accepted.len() < count).then(|| RejectedLogEventsInfo {
            too_old_log_event_end_index: if too_old_end > 0 { index(too_old_end) } else { None },
            too_new_log_event_start_index: if too_new_start < count { index(too_new_start) } else { None },
            ..Default::default()
        });
        Ok(Batch { accepted, rejected })
    }
}

async fn get_log_events(cx: Cx, input: GetLogEventsInput) -> Result<GetLogEventsOutput> {
    refuse_fields(&[("unmask", input.unmask == Some(true))])?;
    let key = group_key(&cx, input.log_group_name, input.log_group_identifier)?.stream(input.log_stream_name);
    let from = match (input.next_token, input.start_from_head) {
        // A token knows its direction, whatever startFromHead says.
        (Some(token), _) => From::Cursor(token.parse().map_err(refusal)?),
        (None, Some(true)) => From::Head,
        (None, _) => From::Tail,
    };
    let query = ReadQuery {
        start_ms: input.start_time,
        end_ms: input.end_time,
        from,
        limit: page_limit(input.limit, MOST_EVENTS),
        most_bytes: MOST_BYTES,
    };
    let page = cx.state.logs.read(&key, query).await.map_err(refusal)?;
    let output = |event: LogEvent| OutputLogEvent {
        timestamp: Some(event.timestamp_ms),
        message: Some(event.text),
        ingestion_time: Some(event.ingested_ms),
    };
    Ok(GetLogEventsOutput {
        events: Some(page.events.into_iter().map(output).collect()),
        next_forward_token: Some(page.forward.to_string()),
        next_backward_token: Some(page.backward.to_string()),
    })
}

async fn filter_log_events(cx: Cx, input: FilterLogEventsInput) -> Result<FilterLogEventsOutput> {
    // The answer is always interleaved, as the service has it since 2019.
    refuse_fields(&[
        ("unmask", input.unmask == Some(true)),
        ("startFromHead=false", input.start_from_head == Some(false)),
    ])?;
    let group = group_key(&cx, input.log_group_name, input.log_group_identifier)?;
    let streams = match (input.log_stream_names, input.log_stream_name_prefix) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid_parameter(
                "Give logStreamNames or logStreamNamePrefix, but not both.",
            ));
        }
        (Some(names), None) => Streams::Names(names),
        (None, Some(prefix)) => Streams::Prefix(prefix),
        (None, None) => Streams::All,
    };
    let pattern = FilterPattern::parse(input.filter_pattern.as_deref().unwrap_or_default())
        .map_err(|problem| Error::invalid_parameter(format!("Invalid filter pattern: {problem}")))?;
    let query = FilterQuery {
        streams,
        start_ms: input.start_time,
        // Other than in GetLogEvents, an event at the end time belongs to the answer.
        end_ms: input.end_time.map(|end_ms| end_ms.saturating_add(1)),
        matches: Arc::new(move |text| pattern.matches(text)),
        after: input.next_token.as_deref().map(FilterToken::decode).transpose().map_err(refusal)?,
        limit: page_limit(input.limit, MOST_EVENTS),
        most_bytes: MOST_BYTES,
    };
    let page = cx.state.logs.filter(group, query).await.map_err(refusal)?;
    let output = |(stream, event): (String, LogEvent)| FilteredLogEvent {
        event_id: Some(event_id(&stream, &event)),
        log_stream_name: Some(stream),
        timestamp: Some(event.timestamp_ms),
        message: Some(event.text),
        ingestion_time: Some(event.ingested_ms),
    };
    Ok(FilterLogEventsOutput {
        events: Some(page.events.into_iter().map(output).collect()),
        searched_log_streams: Some(Vec::new()),
        next_token: page.next.map(|token| token.encode()),
    })
}

/// Digits that name an event within its group for ever: its time, its stream (FNV-1a, 64 bits) and its place there.
fn event_id(stream: &str, event: &LogEvent) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in stream.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{:015}{hash:020}{:020}", event.timestamp_ms, event.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn check(timestamps: &[i64]) -> Result<Batch> {
        let event = |timestamp: &i64| InputLogEvent { timestamp: *timestamp, message: "x".into() };
        Batch::check(timestamps.iter().map(event).collect(), NOW_MS)
    }

    #[test]
    fn events_that_are_too_old_or_too_new_are_left_out_and_reported() {
        let batch =
            check(&[NOW_MS - OLDEST_MS - 1, NOW_MS, NOW_MS + NEWEST_MS, NOW_MS + NEWEST_MS + 1]).unwrap();
        let accepted: Vec<i64> = batch.accepted.iter().map(|event| event.timestamp_ms).collect();
        assert_eq!(accepted, [NOW_MS, NOW_MS + NEWEST_MS]);
        let rejected = batch.rejected.unwrap();
        assert_eq!(rejected.too_old_log_event_end_index, Some(1));
        assert_eq!(rejected.too_new_log_event_start_index, Some(3));
        assert!(check(&[NOW_MS - OLDEST_MS]).unwrap().rejected.is_none());
    }

    #[test]
    fn batches_that_the_service_refuses_are_refused() {
        assert!(check(&[NOW_MS, NOW_MS - 1]).is_err());
        assert!(check(&[NOW_MS - LONGEST_SPAN_MS, NOW_MS]).is_ok());
        assert!(check(&[NOW_MS - LONGEST_SPAN_MS - 1, NOW_MS]).is_err());
        let event = |length| vec![InputLogEvent { timestamp: NOW_MS, message: "x".repeat(length) }];
        assert!(Batch::check(event(MOST_BYTES - EVENT_OVERHEAD_BYTES), NOW_MS).is_ok());
        assert!(Batch::check(event(MOST_BYTES - EVENT_OVERHEAD_BYTES + 1), NOW_MS).is_err());
    }

    #[test]
    fn event_ids_tell_streams_and_places_apart() {
        let event = |offset| LogEvent { timestamp_ms: 5, ingested_ms: 5, text: String::new(), offset };
        let ids = [event_id("a", &event(0)), event_id("a", &event(9)), event_id("b", &event(0))];
        assert!(ids.iter().all(|id| id.len() == 55 && id.bytes().all(|byte| byte.is_ascii_digit())));
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
    }
}
