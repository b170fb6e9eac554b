//! PutMetricAlarm, and what both sorts of alarms have in common when they are put.

use api::cloudwatch::{PutMetricAlarm, PutMetricAlarmInput, PutMetricAlarmOutput};
use serde_json::{Map, Value, json};
use store::Session;
use store::resources::{Resource, ResourceKey};

use super::plan::{self, Plan};
use super::record::{self, Record};
use super::transition::note;
use super::{CONFIGURED, State, actions, arn, is_composite, key, tags, type_of};
use super::{Refusal, Result, written};
use crate::{Cx, Registry, autoscaling};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<PutMetricAlarm, _, _, _>(put_metric_alarm);
}

async fn put_metric_alarm(cx: Cx, input: PutMetricAlarmInput) -> Result<PutMetricAlarmOutput> {
    plan::check_members(&cx.input)?;
    let tags = tags::checked(input.tags.clone())?;
    let name = input.alarm_name.clone();
    let actions_enabled = input.actions_enabled.unwrap_or(true);
    Plan::of(input, &cx.caller.account)?;
    let put = Put { name, actions_enabled, tags };
    store(&cx, put, |_, _| Ok(())).await?;
    Ok(PutMetricAlarmOutput::default())
}

/// What a request says of an alarm beside its settings.
pub(super) struct Put {
    pub(super) name: String,
    pub(super) actions_enabled: bool,
    pub(super) tags: Vec<(String, String)>,
}

/// Makes an alarm, or gives one other settings, when `check` finds nothing against it.
pub(super) async fn store(
    cx: &Cx,
    put: Put,
    check: impl FnOnce(&Session<'_>, &ResourceKey) -> store::Result<()> + Send + 'static,
) -> Result<()> {
    check_name(&put.name)?;
    let policies = actions::check(&cx.input, (&cx.caller.account, &cx.caller.region))?;
    let key = key(cx, &put.name);
    let spec = record::settings(&cx.input);
    let now_ms = cx.state.clock.now_ms();
    let stored = cx.state.database.write(move |session| {
        let place = (&*key.account, &*key.region);
        if let Some(missing) = autoscaling::missing_policy(session, place, &policies)? {
            return Err(store::Error::Invalid(format!("The scaling policy {missing} does not exist.")));
        }
        check(session, &key)?;
        match session.find_resource(&key)? {
            Some(found) => replace(session, &found, spec, put.actions_enabled, now_ms),
            None => insert(session, key, spec, &put, now_ms),
        }
    });
    stored.await.map_err(in_own_words)?;
    written(&cx.state);
    Ok(())
}

/// A refusal that was found in the transaction.
pub(super) fn in_own_words(error: store::Error) -> Refusal {
    match error {
        store::Error::Invalid(text) => Refusal::Validation(text),
        other => other.into(),
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.chars().any(char::is_control) || name.starts_with(':') {
        return Err(Refusal::Validation(format!("The value {name:?} for parameter AlarmName is invalid.")));
    }
    Ok(())
}

fn insert(session: &Session<'_>, key: ResourceKey, spec: Value, put: &Put, now_ms: i64) -> store::Result<()> {
    let alarm = Resource {
        arn: arn(&key),
        key,
        status: State::InsufficientData.as_str().into(),
        spec,
        document: Record::new(put.actions_enabled, now_ms).write(),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    session.insert_resource(&alarm)?;
    session.put_tags(&alarm.arn, &put.tags)?;
    let data = json!({"version": "1.0", "type": "Create", "createdAlarm": shown(&alarm)?});
    let summary = format!("Alarm \"{}\" created", alarm.key.name);
    note(session, &alarm, "ConfigurationUpdate", summary, data, now_ms)?;
    session.append_event(&alarm.key, CONFIGURED, &Value::Null, now_ms)
}

/// The state stays, and so do the tags, as in the service.
fn replace(
    session: &Session<'_>,
    before: &Resource,
    spec: Value,
    actions_enabled: bool,
    now_ms: i64,
) -> store::Result<()> {
    if is_composite(before) != spec["AlarmRule"].is_string() {
        return Err(store::Error::Invalid(format!(
            "The alarm {} exists and is a {}; an alarm of another type needs another name.",
            before.key.name,
            type_of(before)
        )));
    }
    let mut record = Record::read(before)?;
    record.configured_at = now_ms;
    record.configurations += 1;
    record.actions_enabled = actions_enabled;
    let changed = changed_members(&before.spec, &spec);
    let alarm = session.update_resource(&before.key, now_ms, |stored| {
        stored.spec = spec;
        stored.document = record.write();
        Ok(())
    })?;
    let data = json!({
        "version": "1.0", "type": "Update", "updatedAlarm": shown(&alarm)?, "originalUpdatedFields": changed,
    });
    let summary = format!("Alarm \"{}\" updated", alarm.key.name);
    note(session, &alarm, "ConfigurationUpdate", summary, data, now_ms)?;
    session.append_event(&alarm.key, CONFIGURED, &Value::Null, now_ms)
}

/// What members were before that are something else now.
fn changed_members(before: &Value, now: &Value) -> Value {
    let none = Map::new();
    let members = before.as_object().unwrap_or(&none);
    let added = now.as_object().unwrap_or(&none).keys().filter(|name| !members.contains_key(*name));
    let mut changed: Map<String, Value> = added.map(|name| (lowered(name), Value::Null)).collect();
    let other = members.iter().filter(|(name, value)| now[&***name] != **value);
    changed.extend(other.map(|(name, value)| (lowered(name), value.clone())));
    Value::Object(changed)
}

/// An alarm as the history shows it: names of members begin with a small letter.
pub(super) fn shown(alarm: &Resource) -> store::Result<Value> {
    let described = record::described(alarm)?;
    let members = described.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(members.into_iter().map(|(name, value)| (lowered(&name), value)).collect()))
}

fn lowered(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}
