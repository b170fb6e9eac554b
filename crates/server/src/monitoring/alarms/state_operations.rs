//! SetAlarmState, EnableAlarmActions and DisableAlarmActions.

use api::cloudwatch::{
    DisableAlarmActions, DisableAlarmActionsInput, DisableAlarmActionsOutput, EnableAlarmActions,
    EnableAlarmActionsInput, EnableAlarmActionsOutput, SetAlarmState, SetAlarmStateInput,
    SetAlarmStateOutput,
};
use serde_json::{Value, json};

use super::record::Record;
use super::transition::{self, Change, note};
use super::{CONFIGURED, Refusal, Result, State, key, written};
use crate::{Cx, Error, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<SetAlarmState, _, _, _>(set_alarm_state);
    registry.on::<EnableAlarmActions, _, _, _>(enable_alarm_actions);
    registry.on::<DisableAlarmActions, _, _, _>(disable_alarm_actions);
}

async fn set_alarm_state(cx: Cx, input: SetAlarmStateInput) -> Result<SetAlarmStateOutput> {
    let Some(state) = State::named(input.state_value.as_str()) else {
        return Err(Refusal::value(input.state_value, "StateValue"));
    };
    if let Some(data) = &input.state_reason_data
        && serde_json::from_str::<Value>(data).is_err()
    {
        return Err(Refusal::Named("InvalidFormatFault", "StateReasonData must be JSON.".into()));
    }
    let change = Change { state, reason: input.state_reason, reason_data: input.state_reason_data };
    let (key, now_ms) = (key(&cx, &input.alarm_name), cx.state.clock.now_ms());
    let set = cx.state.database.write(move |session| {
        let alarm = session.resource(&key)?;
        transition::apply(session, alarm, change, now_ms)
    });
    set.await.map_err(|error| match error {
        store::Error::Missing { name, .. } => {
            Refusal::Named("ResourceNotFound", format!("Alarm {name} does not exist."))
        }
        other => other.into(),
    })?;
    written(&cx.state);
    Ok(SetAlarmStateOutput::default())
}

async fn enable_alarm_actions(cx: Cx, input: EnableAlarmActionsInput) -> Result<EnableAlarmActionsOutput> {
    set_enabled(&cx, input.alarm_names, true).await?;
    Ok(EnableAlarmActionsOutput::default())
}

async fn disable_alarm_actions(cx: Cx, input: DisableAlarmActionsInput) -> Result<DisableAlarmActionsOutput> {
    set_enabled(&cx, input.alarm_names, false).await?;
    Ok(DisableAlarmActionsOutput::default())
}

/// Switches the actions of those of the named alarms that exist.
async fn set_enabled(cx: &Cx, names: Vec<String>, enabled: bool) -> Result<(), Error> {
    let keys: Vec<_> = names.iter().map(|name| key(cx, name)).collect();
    let now_ms = cx.state.clock.now_ms();
    let switched = cx.state.database.write(move |session| {
        for key in keys {
            let Some(alarm) = session.find_resource(&key)? else { continue };
            let mut record = Record::read(&alarm)?;
            if record.actions_enabled == enabled {
                continue;
            }
            record.actions_enabled = enabled;
            record.configured_at = now_ms;
            let alarm = session.update_resource(&key, now_ms, |stored| {
                stored.document = record.write();
                Ok(())
            })?;
            let data = json!({
                "version": "1.0", "type": "Update", "originalUpdatedFields": {"actionsEnabled": !enabled},
                "updatedAlarm": super::put::shown(&alarm)?,
            });
            let summary = format!("Alarm \"{}\" updated", alarm.key.name);
            note(session, &alarm, "ConfigurationUpdate", summary, data, now_ms)?;
            session.append_event(&key, CONFIGURED, &Value::Null, now_ms)?;
        }
        Ok(())
    });
    switched.await?;
    written(&cx.state);
    Ok(())
}
