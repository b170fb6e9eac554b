//! Scheduled actions: at their times they set between how many replicas a target may move.

use api::application_autoscaling::{
    DeleteScheduledAction, DeleteScheduledActionInput, DeleteScheduledActionOutput, DescribeScheduledActions,
    DescribeScheduledActionsInput, DescribeScheduledActionsOutput, PutScheduledAction,
    PutScheduledActionInput, PutScheduledActionOutput, ScheduledAction,
};
use serde_json::{Value, json};
use store::Session;
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};

use super::activities::{self, Told};
use super::targets::{self, TARGET};
use super::{Target, check_namespace, paged};
use crate::scheduler::timers;
use crate::scheduler::timetable::{Bounds, Timetable};
use crate::{Cx, Error, Registry, Result};

/// Kind of the record of a scheduled action.
pub const SCHEDULED_ACTION: &str = "scheduled-action";

/// Most of a target, as in the service.
const MOST_OF_A_TARGET: usize = 200;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<PutScheduledAction, _, _, _>(put_scheduled_action);
    registry.on::<DescribeScheduledActions, _, _, _>(describe_scheduled_actions);
    registry.on::<DeleteScheduledAction, _, _, _>(delete_scheduled_action);
}

fn key(cx: &Cx, target: &Target<'_>, name: &str) -> ResourceKey {
    crate::sagemaker::record_key(cx, SCHEDULED_ACTION, &format!("{}|{name}", target.name()))
}

fn timetable(spec: &Value, made_at: i64) -> Result<Timetable, String> {
    let moment = |name: &str| spec[name].as_f64().map(|seconds| (seconds * 1000.0) as i64);
    let bounds = Bounds {
        zone: spec["Timezone"].as_str().map(str::to_owned),
        start: moment("StartTime"),
        end: moment("EndTime"),
    };
    Timetable::parse(spec["Schedule"].as_str().unwrap_or_default(), &bounds, made_at)
}

/// Checks what the request makes of the action, once its members are laid over those that it had.
fn check(spec: &Value, now_ms: i64) -> Result<Timetable, String> {
    if spec["Schedule"].as_str().is_none() {
        return Err("Schedule is required for a new scheduled action.".into());
    }
    let table = timetable(spec, now_ms).map_err(|why| format!("Schedule: {why}."))?;
    if let (Some(start), Some(end)) = (spec["StartTime"].as_f64(), spec["EndTime"].as_f64())
        && end <= start
    {
        return Err("EndTime must be later than StartTime.".into());
    }
    let action = &spec["ScalableTargetAction"];
    let (min, max) = (action["MinCapacity"].as_i64(), action["MaxCapacity"].as_i64());
    match (min, max) {
        (None, None) => Err("ScalableTargetAction must have MinCapacity, MaxCapacity, or both.".into()),
        (Some(min), Some(max)) if min > max => {
            Err("ScalableTargetAction: MinCapacity cannot be above MaxCapacity.".into())
        }
        _ if min.is_some_and(|min| min < 0) || max.is_some_and(|max| max < 0) => {
            Err("ScalableTargetAction: MinCapacity and MaxCapacity cannot be below 0.".into())
        }
        _ => Ok(table),
    }
}

async fn put_scheduled_action(cx: Cx, input: PutScheduledActionInput) -> Result<PutScheduledActionOutput> {
    check_namespace(&cx.input)?;
    let dimension = input.scalable_dimension.to_string();
    let target = Target { resource_id: &input.resource_id, dimension: &dimension };
    let target_name = target.name();
    let target_key = crate::sagemaker::record_key(&cx, TARGET, &target_name);
    let key = key(&cx, &target, &input.scheduled_action_name);
    let arn = format!(
        "arn:aws:autoscaling:{}:{}:scheduledAction:{}:resource/sagemaker/{}:scheduledActionName/{}",
        cx.caller.region,
        cx.caller.account,
        uuid::Uuid::new_v4(),
        input.resource_id,
        input.scheduled_action_name
    );
    let (given, now_ms) = ((*cx.input).clone(), cx.state.clock.now_ms());
    let stored = cx.state.database.write(move |session| {
        session.resource(&target_key)?;
        let made = |spec: &Value| check(spec, now_ms).map_err(store::Error::Invalid);
        let (table, key) = match session.find_resource(&key)? {
            Some(mut resource) => {
                targets::merge(&mut resource.spec, &given);
                let table = made(&resource.spec)?;
                let changed = session.update_resource(&key, now_ms, |stored| {
                    stored.spec = resource.spec;
                    stored.document = json!({"ScheduledFrom": now_ms});
                    Ok(())
                })?;
                session.append_event(&key, "Stored", &changed.spec, now_ms)?;
                (table, changed.key)
            }
            None => {
                let table = made(&given)?;
                if of_target(session, &key, &target_name)?.len() >= MOST_OF_A_TARGET {
                    return Err(store::Error::Invalid(format!(
                        "A scalable target can have at most {MOST_OF_A_TARGET} scheduled actions; delete some first."
                    )));
                }
                let resource = Resource {
                    key: key.clone(),
                    arn,
                    status: "Stored".into(),
                    spec: given,
                    document: json!({"ScheduledFrom": now_ms}),
                    generation: 1,
                    created_at: now_ms,
                    modified_at: now_ms,
                };
                session.insert_resource(&resource)?;
                session.append_event(&key, "Stored", &resource.spec, now_ms)?;
                (table, key)
            }
        };
        timers::set(session, &key, &table, 0, now_ms).map(drop)
    });
    stored.await.map_err(|error| match error {
        store::Error::Missing { .. } => Error::not_found("scalable target", input.resource_id.as_str()),
        other => other.into(),
    })?;
    cx.state.timers.ring();
    Ok(PutScheduledActionOutput::default())
}

/// The scheduled actions of a target; `like` is a key of its account and region.
fn of_target(session: &Session<'_>, like: &ResourceKey, target: &str) -> store::Result<Vec<Resource>> {
    let query = ListQuery {
        name_prefix: Some(format!("{target}|")),
        sort_by: SortBy::Name,
        limit: usize::MAX,
        ..Default::default()
    };
    Ok(session.list_resources(&like.account, &like.region, SCHEDULED_ACTION, &query)?.resources)
}

/// Deletes the scheduled actions of a target.
///
/// # Errors
/// When the database fails.
pub fn delete_all(session: &Session<'_>, target: &ResourceKey) -> store::Result<()> {
    for action in of_target(session, target, &target.name)? {
        session.delete_resource(&action.key)?;
        session.delete_timer(&action.key)?;
    }
    Ok(())
}

async fn describe_scheduled_actions(
    cx: Cx,
    input: DescribeScheduledActionsInput,
) -> Result<DescribeScheduledActionsOutput> {
    check_namespace(&cx.input)?;
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let query = ListQuery { sort_by: SortBy::Name, limit: usize::MAX, ..Default::default() };
    let page = cx
        .state
        .database
        .read(move |session| session.list_resources(&account, &region, SCHEDULED_ACTION, &query))
        .await?;
    let dimension = input.scalable_dimension.map(|dimension| dimension.to_string());
    let names = input.scheduled_action_names.unwrap_or_default();
    let wanted = |resource: &Resource| {
        let spec = &resource.spec;
        (names.is_empty() || names.iter().any(|name| spec["ScheduledActionName"] == name.as_str()))
            && input.resource_id.as_deref().is_none_or(|id| spec["ResourceId"] == id)
            && dimension.as_deref().is_none_or(|wanted| spec["ScalableDimension"] == wanted)
    };
    let rows: Vec<Resource> = page.resources.into_iter().filter(wanted).collect();
    let (rows, next_token) = paged(rows, input.max_results, input.next_token.as_deref())?;
    let actions = rows.iter().map(described).collect::<Result<Vec<_>>>()?;
    Ok(DescribeScheduledActionsOutput { scheduled_actions: Some(actions), next_token })
}

fn described(resource: &Resource) -> Result<ScheduledAction> {
    let mut shown = resource.spec.clone();
    shown["ScheduledActionARN"] = resource.arn.clone().into();
    shown["CreationTime"] = json!(resource.created_at as f64 / 1000.0);
    serde_json::from_value(shown).map_err(Error::internal)
}

async fn delete_scheduled_action(
    cx: Cx,
    input: DeleteScheduledActionInput,
) -> Result<DeleteScheduledActionOutput> {
    check_namespace(&cx.input)?;
    let dimension = input.scalable_dimension.to_string();
    let target = Target { resource_id: &input.resource_id, dimension: &dimension };
    let key = key(&cx, &target, &input.scheduled_action_name);
    let now_ms = cx.state.clock.now_ms();
    let removed = cx.state.database.write(move |session| {
        session.delete_resource(&key)?;
        session.delete_timer(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    removed.await.map_err(|error| match error {
        store::Error::Missing { .. } => {
            Error::not_found("scheduled action", input.scheduled_action_name.as_str())
        }
        other => other.into(),
    })?;
    Ok(DeleteScheduledActionOutput::default())
}

/// A tick: the bounds of the target, what is said of it, and the next tick, in one transaction. The capacity follows the bounds.
///
/// # Errors
/// When the database fails, or the action is damaged.
pub fn fire(session: &Session<'_>, action: &Resource, tick_at: i64, now_ms: i64) -> store::Result<()> {
    let spec = &action.spec;
    let made_at = action.document["ScheduledFrom"].as_i64().unwrap_or(action.created_at);
    let table = timetable(spec, made_at).map_err(store::Error::Invalid)?;
    let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let (resource_id, dimension) = (text("ResourceId"), text("ScalableDimension"));
    let target = Target { resource_id: &resource_id, dimension: &dimension };
    let key = ResourceKey { kind: TARGET.into(), name: target.name(), ..action.key.clone() };
    let Some(found) = session.find_resource(&key)? else { return session.delete_timer(&action.key) };
    if found.spec["SuspendedState"]["ScheduledScalingSuspended"] != true {
        let bounds = &spec["ScalableTargetAction"];
        let mut wanted = found.spec.clone();
        targets::merge(&mut wanted, bounds);
        let told = Told {
            description: described_bounds(bounds),
            cause: format!("scheduled action name {} was triggered", text("ScheduledActionName")),
            details: None,
        };
        let outcome = match targets::check_range(&wanted) {
            Ok(()) => {
                let spec = wanted;
                session.update_resource(&key, now_ms, |stored| {
                    stored.spec = spec;
                    stored.document[targets::BOUNDS_CHANGED] = true.into();
                    Ok(())
                })?;
                Ok(format!("Successfully {}", told.description.replacen("Setting", "set", 1)))
            }
            Err(error) => Err(format!("The capacity limits cannot be set: {error}")),
        };
        activities::note(session, &key, &target, told, outcome, now_ms)?;
        session.append_event(&key, "Scheduled", bounds, now_ms)?;
    }
    timers::set(session, &action.key, &table, 0, tick_at.max(now_ms)).map(drop)
}

fn described_bounds(bounds: &Value) -> String {
    let of =
        |name: &str, word: &str| bounds[name].as_i64().map(|number| format!("{word} capacity to {number}"));
    let parts: Vec<String> =
        [of("MinCapacity", "min"), of("MaxCapacity", "max")].into_iter().flatten().collect();
    format!("Setting {}", parts.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_checked_whole() {
        let good = json!({"Schedule": "cron(0 9 * * ? *)", "Timezone": "Europe/Berlin", "ScalableTargetAction": {"MinCapacity": 0}});
        let with = |name: &str, value: Value| {
            let mut spec = good.clone();
            spec[name] = value;
            check(&spec, 0).map(|table| table.next_after(0))
        };
        assert_eq!(check(&good, 0).map(|table| table.next_after(0)), Ok(Some(8 * 3_600_000)));
        assert_eq!(with("Schedule", json!("at(1970-01-01T10:00:00)")), Ok(Some(9 * 3_600_000)));
        assert_eq!(with("Schedule", json!("rate(5 minutes)")), Ok(Some(300_000)));
        for (name, value, why) in [
            ("Schedule", Value::Null, "Schedule is required"),
            ("Schedule", json!("noon"), "cron(...)"),
            ("Timezone", json!("Mars"), "time zone"),
            ("ScalableTargetAction", json!({}), "MinCapacity, MaxCapacity"),
            ("ScalableTargetAction", json!({"MinCapacity": 3, "MaxCapacity": 2}), "above"),
            ("ScalableTargetAction", json!({"MaxCapacity": -1}), "below 0"),
        ] {
            assert!(with(name, value).unwrap_err().contains(why), "{why}");
        }
        let bounds = json!({"MinCapacity": 1, "MaxCapacity": 4});
        assert_eq!(described_bounds(&bounds), "Setting min capacity to 1 and max capacity to 4");
    }
}
