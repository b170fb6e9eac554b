//! What is kept of an alarm beside its settings, and how it is described.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use store::resources::Resource;

use super::State;

/// Members of a request that are no settings.
const NO_SETTINGS: &[&str] = &["Tags", "AlarmName", "EvaluationWindow"];

/// The document of an alarm. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Why it is in its state.
    pub(super) reason: String,
    /// The same for programs.
    pub(super) reason_data: Option<String>,
    /// When state or reason were last set.
    pub(super) updated_at: i64,
    /// When it came into its state.
    pub(super) transitioned_at: i64,
    /// When its settings changed.
    pub(super) configured_at: i64,
    /// Counts the changes of its settings.
    pub(super) configurations: u64,
    pub(super) actions_enabled: bool,
    /// When it was last in ALARM and went elsewhere.
    pub(super) left_alarm_at: Option<i64>,
    /// The state that its actions were last run for.
    pub(super) told: String,
    /// What keeps its actions from running, and a sentence about it.
    pub(super) suppressed: Option<(String, String)>,
    /// The state before this one.
    pub(super) previous: Option<Past>,
}

/// A state that an alarm was in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Past {
    pub(super) state: String,
    pub(super) reason: String,
    pub(super) reason_data: Option<String>,
    pub(super) at: i64,
}

impl Record {
    /// The record of an alarm that is made now.
    pub(super) fn new(actions_enabled: bool, now_ms: i64) -> Record {
        Record {
            reason: "Unchecked: Initial alarm creation".into(),
            reason_data: None,
            updated_at: now_ms,
            transitioned_at: now_ms,
            configured_at: now_ms,
            configurations: 1,
            actions_enabled,
            left_alarm_at: None,
            told: State::InsufficientData.as_str().into(),
            suppressed: None,
            previous: None,
        }
    }

    /// Reads the document of an alarm.
    ///
    /// # Errors
    /// When it is damaged.
    pub(super) fn read(alarm: &Resource) -> store::Result<Record> {
        Ok(Record::deserialize(&alarm.document)?)
    }

    /// The document.
    pub(super) fn write(&self) -> Value {
        serde_json::to_value(self).expect("texts and numbers always serialize")
    }
}

/// The settings of an alarm: what the request says, without what is kept elsewhere.
pub(super) fn settings(input: &Value) -> Value {
    let mut settings = input.as_object().cloned().unwrap_or_default();
    settings.retain(|name, value| !NO_SETTINGS.contains(&&**name) && !value.is_null());
    Value::Object(settings)
}

/// An alarm as descriptions and the history show it: members by their names in the model.
pub(super) fn described(alarm: &Resource) -> store::Result<Value> {
    let record = Record::read(alarm)?;
    let mut shown: Map<String, Value> = alarm.spec.as_object().cloned().unwrap_or_default();
    for list in ["OKActions", "AlarmActions", "InsufficientDataActions"] {
        shown.entry(list).or_insert_with(|| json!([]));
    }
    if shown.contains_key("MetricName") {
        shown.entry("Dimensions").or_insert_with(|| json!([]));
    }
    let seconds = |ms: i64| json!(ms as f64 / 1000.0);
    shown.extend([
        ("AlarmName".to_owned(), json!(alarm.key.name)),
        ("AlarmArn".to_owned(), json!(alarm.arn)),
        ("AlarmConfigurationUpdatedTimestamp".to_owned(), seconds(record.configured_at)),
        ("ActionsEnabled".to_owned(), json!(record.actions_enabled)),
        ("StateValue".to_owned(), json!(alarm.status)),
        ("StateReason".to_owned(), json!(record.reason)),
        ("StateUpdatedTimestamp".to_owned(), seconds(record.updated_at)),
        ("StateTransitionedTimestamp".to_owned(), seconds(record.transitioned_at)),
    ]);
    if let Some(data) = record.reason_data {
        shown.insert("StateReasonData".to_owned(), json!(data));
    }
    if let Some((by, reason)) = record.suppressed {
        shown.insert("ActionsSuppressedBy".to_owned(), json!(by));
        shown.insert("ActionsSuppressedReason".to_owned(), json!(reason));
    }
    Ok(Value::Object(shown))
}
