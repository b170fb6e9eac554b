//! DeleteAlarms.

use std::collections::BTreeSet;

use api::cloudwatch::{DeleteAlarms, DeleteAlarmsInput, DeleteAlarmsOutput};
use serde_json::{Value, json};

use super::composite::composites;
use super::put::{in_own_words, shown};
use super::transition::note;
use super::{DELETED, Refusal, Result, is_composite, key, written};
use crate::{Cx, Registry};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<DeleteAlarms, _, _, _>(delete_alarms);
}

async fn delete_alarms(cx: Cx, input: DeleteAlarmsInput) -> Result<DeleteAlarmsOutput> {
    let names: BTreeSet<String> = input.alarm_names.into_iter().collect();
    let keys: Vec<_> = names.iter().map(|name| key(&cx, name)).collect();
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let now_ms = cx.state.clock.now_ms();
    let deleted = cx.state.database.write(move |session| {
        let mut found = Vec::new();
        for key in &keys {
            found.extend(session.find_resource(key)?);
        }
        if found.iter().filter(|alarm| is_composite(alarm)).count() > 1 {
            return Err(store::Error::Invalid(
                "More than one composite alarm cannot be deleted in one request.".into(),
            ));
        }
        let held: Vec<&str> = {
            let parents = composites(session, &account, &region)?;
            let staying = parents.iter().filter(|(parent, _)| !names.contains(&parent.key.name));
            let needed: BTreeSet<&String> = staying.flat_map(|(_, children)| children).collect();
            found
                .iter()
                .map(|alarm| &alarm.key.name)
                .filter(|name| needed.contains(name))
                .map(String::as_str)
                .collect()
        };
        if !held.is_empty() {
            let them = if held.len() == 1 { "it" } else { "them" };
            return Err(store::Error::Invalid(format!(
                "Cannot delete {} as there are composite alarm(s) depending on {them}.",
                held.join(",")
            )));
        }
        for alarm in &found {
            let data = json!({"version": "1.0", "type": "Delete", "deletedAlarm": shown(alarm)?});
            let summary = format!("Alarm \"{}\" deleted", alarm.key.name);
            note(session, alarm, "ConfigurationUpdate", summary, data, now_ms)?;
            session.delete_resource(&alarm.key)?;
            session.append_event(&alarm.key, DELETED, &Value::Null, now_ms)?;
        }
        Ok((found.len(), names))
    });
    let (count, names) = deleted.await.map_err(in_own_words)?;
    // As in the service, names of no alarm are passed over beside those of alarms.
    if count == 0 && !names.is_empty() {
        let names: Vec<String> = names.into_iter().collect();
        return Err(Refusal::Named(
            "ResourceNotFound",
            format!("Alarm {} does not exist.", names.join(", ")),
        ));
    }
    written(&cx.state);
    Ok(DeleteAlarmsOutput::default())
}
