//! An alarm comes into a state: its record, its history, its event and what its actions bring are one transaction.

use serde_json::{Value, json};
use store::Session;
use store::alarms::HistoryItem;
use store::resources::{Resource, ResourceKey};

use super::record::{Past, Record};
use super::suppression::{self, Situation, Suppressor};
use super::{ALARM, ALARM_STATE, CONFIGURED, State, actions, is_composite, reason, state_of, type_of};
use crate::{deliveries, events};

/// Longest document of a history item, in bytes.
const MOST_HISTORY_BYTES: usize = 4_095;

/// A state, and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    pub(super) state: State,
    pub(super) reason: String,
    pub(super) reason_data: Option<String>,
}

/// Brings an alarm into a state. One that is in it already keeps its times and runs no actions.
pub(super) fn apply(
    session: &Session<'_>,
    mut alarm: Resource,
    change: Change,
    now_ms: i64,
) -> store::Result<()> {
    let mut record = Record::read(&alarm)?;
    let from = state_of(&alarm);
    let has_moved = from != change.state;
    if has_moved {
        record.previous = Some(Past {
            state: from.as_str().to_owned(),
            reason: record.reason,
            reason_data: record.reason_data,
            at: record.transitioned_at,
        });
        record.transitioned_at = now_ms;
        if from == State::Alarm {
            record.left_alarm_at = Some(now_ms);
        }
    }
    record.reason = change.reason;
    record.reason_data = change.reason_data;
    record.updated_at = now_ms;
    alarm.status = change.state.as_str().to_owned();
    settle(session, &alarm, record, has_moved, now_ms)
}

/// Looks again at what keeps the actions of a composite alarm from running.
pub(super) fn resettle(session: &Session<'_>, alarm: &Resource, now_ms: i64) -> store::Result<()> {
    settle(session, alarm, Record::read(alarm)?, false, now_ms)
}

/// Writes the alarm, and runs its actions when it is in another state than they were last run for and nothing keeps them.
fn settle(
    session: &Session<'_>,
    alarm: &Resource,
    mut record: Record,
    has_moved: bool,
    now_ms: i64,
) -> store::Result<()> {
    let is_owed = record.told != alarm.status;
    let held = if is_owed { held_by(session, alarm, &record, now_ms)? } else { None };
    record.suppressed = held.clone();
    let runs = is_owed && held.is_none();
    if runs {
        record.told.clone_from(&alarm.status);
    }
    let document = record.write();
    let stored = session.update_resource(&alarm.key, now_ms, |stored| {
        stored.status.clone_from(&alarm.status);
        stored.document = document;
        Ok(())
    })?;
    if has_moved {
        note(
            session,
            &stored,
            "StateUpdate",
            moved_summary(&stored, &record),
            moved_data(&stored, &record),
            now_ms,
        )?;
        let detail = actions::event_detail(&stored, &record);
        let event =
            events::envelope(ALARM_STATE, "aws.cloudwatch", &stored.key, &stored.arn, &detail, now_ms);
        session.append_event(&stored.key, ALARM_STATE, &event, now_ms)?;
    } else {
        session.append_event(&stored.key, CONFIGURED, &Value::Null, now_ms)?;
    }
    if let Some((by, why)) = held.filter(|_| has_moved) {
        let data = json!({"version": "1.0", "actionsSuppressedBy": by, "actionsSuppressedReason": why});
        note(session, &stored, "Action", format!("Actions are suppressed by {by}"), data, now_ms)?;
    }
    if runs && record.actions_enabled {
        actions::run(session, &stored, &record, now_ms)?;
    }
    Ok(())
}

/// What keeps the actions from running: its name and a sentence.
fn held_by(
    session: &Session<'_>,
    alarm: &Resource,
    record: &Record,
    now_ms: i64,
) -> store::Result<Option<(String, String)>> {
    let Some(name) = alarm.spec["ActionsSuppressor"].as_str().filter(|_| is_composite(alarm)) else {
        return Ok(None);
    };
    let name = name.rsplit_once(":alarm:").map_or(name, |(_, name)| name);
    let key = ResourceKey::new(&*alarm.key.account, &*alarm.key.region, ALARM, name);
    let Some(suppressor) = session.find_resource(&key)? else { return Ok(None) };
    let situation = Situation {
        state: state_of(alarm),
        since_ms: record.transitioned_at,
        suppressor: state_of(&suppressor),
        left_alarm_at: Record::read(&suppressor)?.left_alarm_at,
        wait_seconds: alarm.spec["ActionsSuppressorWaitPeriod"].as_i64().unwrap_or_default(),
        extension_seconds: alarm.spec["ActionsSuppressorExtensionPeriod"].as_i64().unwrap_or_default(),
    };
    Ok(suppression::suppressor(&situation, now_ms).map(|by| {
        let why = match by {
            Suppressor::Alarm => format!("{} is in ALARM", suppressor.arn),
            Suppressor::WaitPeriod(until) => {
                format!(
                    "Actions wait until {} for {} to go into ALARM",
                    reason::moment(until),
                    suppressor.arn
                )
            }
            Suppressor::ExtensionPeriod(until) => {
                format!("{} was in ALARM; actions wait until {}", suppressor.arn, reason::moment(until))
            }
        };
        (by.as_str().to_owned(), why)
    }))
}

fn moved_summary(alarm: &Resource, record: &Record) -> String {
    let from = record.previous.as_ref().map_or("", |past| &*past.state);
    format!("Alarm updated from {from} to {}", alarm.status)
}

fn moved_data(alarm: &Resource, record: &Record) -> Value {
    let shown = |state: &str, reason: &str, data: Option<&String>| {
        let mut shown = json!({"stateValue": state, "stateReason": reason});
        if let Some(data) = data {
            shown["stateReasonData"] = deliveries::json_of(data);
        }
        shown
    };
    let mut data = json!({"version": "1.0"});
    if let Some(past) = &record.previous {
        data["oldState"] = shown(&past.state, &past.reason, past.reason_data.as_ref());
    }
    data["newState"] = shown(&alarm.status, &record.reason, record.reason_data.as_ref());
    data
}

/// Notes something in the history of an alarm.
pub(super) fn note(
    session: &Session<'_>,
    alarm: &Resource,
    kind: &str,
    summary: String,
    mut data: Value,
    now_ms: i64,
) -> store::Result<()> {
    // What is longest goes first, so that the rest is a whole document.
    while data.to_string().len() > MOST_HISTORY_BYTES {
        let Some(members) = data.as_object_mut() else { break };
        let longest = members.iter().max_by_key(|(_, value)| value.to_string().len());
        let Some(longest) = longest.map(|(name, _)| name.clone()) else { break };
        members.remove(&longest);
    }
    let item = HistoryItem {
        alarm: alarm.key.name.clone(),
        alarm_type: type_of(alarm).to_owned(),
        kind: kind.to_owned(),
        summary,
        data: data.to_string(),
        at: now_ms,
    };
    session.append_alarm_history(&alarm.key.account, &alarm.key.region, &item)
}
