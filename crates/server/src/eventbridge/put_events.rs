//! PutEvents, and the question whether a pattern would want an event.

use api::events::{
    PutEvents, PutEventsInput, PutEventsOutput, PutEventsRequestEntry, PutEventsResultEntry,
    TestEventPattern, TestEventPatternInput, TestEventPatternOutput,
};
use serde_json::{Value, json};

use super::check_bus;
use super::dispatch::Rules;
use super::pattern::Pattern;
use crate::problem::{Problem, Result};
use crate::{Cx, Error, Registry, events};

/// Longest entries together.
const MOST_BYTES: usize = 1_048_576;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<PutEvents, _, _, _>(put_events);
    registry.on::<TestEventPattern, _, _, _>(test_event_pattern);
}

async fn put_events(cx: Cx, input: PutEventsInput) -> Result<PutEventsOutput> {
    if input.endpoint_id.is_some() {
        return Err(Error::field("EndpointId").into());
    }
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let bytes: usize = input
        .entries
        .iter()
        .map(|entry| length(&entry.detail) + length(&entry.source) + length(&entry.detail_type))
        .sum();
    if bytes > MOST_BYTES {
        return Err(Problem::validation(format!(
            "Total size of the entries in the request is over the limit of {MOST_BYTES} bytes."
        )));
    }
    let now_ms = cx.state.clock.now_ms();
    let read: Vec<std::result::Result<Value, Problem>> =
        input.entries.iter().map(|entry| event(&cx, entry, now_ms)).collect();
    let wanted: Vec<Value> = read.iter().filter_map(|event| event.as_ref().ok().cloned()).collect();
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    if !wanted.is_empty() {
        let put = cx.state.database.write(move |session| {
            let rules = Rules::read(session)?;
            wanted
                .iter()
                .try_for_each(|event| rules.bring(session, (&account, &region), event, now_ms).map(drop))
        });
        put.await?;
        cx.state.deliveries.ring();
    }
    let mut failed = 0;
    let entries = read.into_iter().map(|event| match event {
        Ok(event) => {
            PutEventsResultEntry { event_id: event["id"].as_str().map(str::to_owned), ..Default::default() }
        }
        Err(problem) => {
            failed += 1;
            let (code, text) = match problem {
                Problem::Code(code, text) => (code, text),
                Problem::Other(error) => ("InvalidArgument", error.to_string()),
            };
            PutEventsResultEntry { event_id: None, error_code: Some(code.into()), error_message: Some(text) }
        }
    });
    let entries = entries.collect();
    Ok(PutEventsOutput { failed_entry_count: Some(failed), entries: Some(entries) })
}

fn event(cx: &Cx, entry: &PutEventsRequestEntry, now_ms: i64) -> Result<Value> {
    let needed = |name: &str, value: &Option<String>| {
        value.clone().filter(|value| !value.is_empty()).ok_or_else(|| {
            Problem::Code(
                "InvalidArgument",
                format!("Parameter {name} is not valid. Reason: {name} is a required argument."),
            )
        })
    };
    check_bus(cx, entry.event_bus_name.as_deref())?;
    if entry.trace_header.is_some() {
        return Err(Error::field("TraceHeader").into());
    }
    let (source, kind) = (needed("Source", &entry.source)?, needed("DetailType", &entry.detail_type)?);
    if source.starts_with("aws.") {
        return Err(Problem::Code(
            "NotAuthorizedForSourceException",
            "Not authorized for the source.".into(),
        ));
    }
    let detail = needed("Detail", &entry.detail)?;
    let detail: Value = serde_json::from_str(&detail)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| Problem::Code("MalformedDetail", "Detail is malformed.".into()))?;
    let at = entry.time.map_or(now_ms, api::Timestamp::as_millis);
    Ok(json!({
        "version": "0",
        "id": uuid::Uuid::new_v4().to_string(),
        "detail-type": kind,
        "source": source,
        "account": cx.caller.account,
        "time": events::moment(at),
        "region": cx.caller.region,
        "resources": entry.resources.clone().unwrap_or_default(),
        "detail": detail,
    }))
}

async fn test_event_pattern(_cx: Cx, input: TestEventPatternInput) -> Result<TestEventPatternOutput> {
    let pattern = Pattern::parse(&input.event_pattern).map_err(|why| {
        Problem::Code("InvalidEventPatternException", format!("Event pattern is not valid. Reason: {why}"))
    })?;
    let event: Value = serde_json::from_str(&input.event)
        .map_err(|error| Problem::validation(format!("Parameter Event is not valid: {error}.")))?;
    for name in ["id", "account", "source", "time", "region", "resources", "detail-type"] {
        if event.get(name).is_none() {
            return Err(Problem::validation(format!(
                "Parameter Event is not valid. Reason: {name} is a required argument."
            )));
        }
    }
    Ok(TestEventPatternOutput { result: Some(pattern.matches(&event)) })
}
