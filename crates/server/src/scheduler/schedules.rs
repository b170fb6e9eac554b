//! Schedules: make, change, show, list, delete; and what a tick does.

use api::Timestamp;
use api::scheduler::{
    CreateSchedule, CreateScheduleInput, CreateScheduleOutput, DeleteSchedule, DeleteScheduleInput,
    DeleteScheduleOutput, GetSchedule, GetScheduleInput, GetScheduleOutput, ListSchedules,
    ListSchedulesInput, ListSchedulesOutput, ScheduleState, ScheduleSummary, TargetSummary, UpdateSchedule,
    UpdateScheduleInput, UpdateScheduleOutput,
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::Session;
use store::resources::{Resource, ResourceKey};

use super::target::{ScheduleTarget, tick_id};
use super::timetable::{Bounds, Timetable};
use super::{DEFAULT_GROUP, SCHEDULE, groups, timers};
use crate::problem::{Problem, Result};
use crate::sagemaker::fields;
use crate::{Cx, Error, Registry, deliveries};

/// Members of requests that are honoured.
const HONOURED: &[&str] = &[
    "Name",
    "GroupName",
    "ScheduleExpression",
    "ScheduleExpressionTimezone",
    "StartDate",
    "EndDate",
    "Description",
    "State",
    "ClientToken",
    "ActionAfterCompletion",
    "FlexibleTimeWindow.Mode",
    "FlexibleTimeWindow.MaximumWindowInMinutes",
    "Target.Arn",
    "Target.RoleArn",
    "Target.Input",
    "Target.SqsParameters.MessageGroupId",
    "Target.SageMakerPipelineParameters.**",
    "Target.DeadLetterConfig.Arn",
    "Target.RetryPolicy.MaximumRetryAttempts",
    "Target.RetryPolicy.MaximumEventAgeInSeconds",
];

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateSchedule, _, _, _>(create_schedule);
    registry.on::<UpdateSchedule, _, _, _>(update_schedule);
    registry.on::<GetSchedule, _, _, _>(get_schedule);
    registry.on::<ListSchedules, _, _, _>(list_schedules);
    registry.on::<DeleteSchedule, _, _, _>(delete_schedule);
}

fn key(cx: &Cx, group: Option<&str>, name: &str) -> ResourceKey {
    let name = format!("{}/{name}", group.unwrap_or(DEFAULT_GROUP));
    ResourceKey::new(&*cx.caller.account, &*cx.caller.region, SCHEDULE, name)
}

fn missing(key: &ResourceKey) -> Problem {
    let name = key.name.rsplit('/').next().unwrap_or_default();
    Problem::missing(format!("Schedule {name} does not exist."))
}

fn timetable(schedule: &Resource) -> Result<Timetable, String> {
    let spec = &schedule.spec;
    let moment = |name: &str| spec[name].as_f64().map(|seconds| (seconds * 1000.0) as i64);
    let bounds = Bounds {
        zone: spec["ScheduleExpressionTimezone"].as_str().map(str::to_owned),
        start: moment("StartDate"),
        end: moment("EndDate"),
    };
    let made_at = schedule.document["ScheduledFrom"].as_i64().unwrap_or(schedule.created_at);
    Timetable::parse(spec["ScheduleExpression"].as_str().unwrap_or_default(), &bounds, made_at)
}

fn window_minutes(schedule: &Resource) -> i64 {
    let window = &schedule.spec["FlexibleTimeWindow"];
    if window["Mode"] == "FLEXIBLE" {
        window["MaximumWindowInMinutes"].as_i64().unwrap_or_default()
    } else {
        0
    }
}

/// Makes a schedule of a request and checks what it says.
async fn read(cx: &Cx, group: Option<&str>, name: &str) -> Result<Resource> {
    fields::check(&cx.input, HONOURED).map_err(|error| Problem::validation(error.to_string()))?;
    groups::find(cx, group.unwrap_or(DEFAULT_GROUP)).await?;
    let key = key(cx, group, name);
    let mut spec = (*cx.input).clone();
    let token = spec.as_object_mut().and_then(|members| {
        members.shift_remove("Name");
        members.shift_remove("GroupName");
        members.shift_remove("ClientToken")
    });
    let window = &spec["FlexibleTimeWindow"];
    match (window["Mode"].as_str(), window["MaximumWindowInMinutes"].as_i64()) {
        (Some("FLEXIBLE"), None) => {
            return Err(Problem::validation(
                "MaximumWindowInMinutes must be provided when FlexibleTimeWindow is FLEXIBLE.",
            ));
        }
        (Some("OFF"), Some(_)) => {
            return Err(Problem::validation(
                "MaximumWindowInMinutes must be null when FlexibleTimeWindow is OFF.",
            ));
        }
        _ => {}
    }
    ScheduleTarget::read(&spec["Target"], &key.account)
        .map_err(|why| Problem::validation(format!("Provided Target is not valid: {why}.")))?;
    let role = spec["Target"]["RoleArn"].as_str().unwrap_or_default();
    if !crate::iam::is_assumable(cx, role)? {
        return Err(Problem::validation(format!(
            "The execution role you provide must allow AWS EventBridge Scheduler to assume the role. There is no role {role}."
        )));
    }
    let now_ms = cx.state.clock.now_ms();
    let status = spec["State"].as_str().unwrap_or("ENABLED").to_owned();
    let schedule = Resource {
        arn: format!("arn:aws:scheduler:{}:{}:schedule/{}", key.region, key.account, key.name),
        key,
        status,
        spec,
        document: json!({"ScheduledFrom": now_ms, "ClientToken": token}),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    timetable(&schedule).map_err(|why| {
        Problem::validation(format!(
            "Invalid Schedule Expression {}: {why}.",
            schedule.spec["ScheduleExpression"]
        ))
    })?;
    if let (Some(start), Some(end)) = (schedule.spec["StartDate"].as_f64(), schedule.spec["EndDate"].as_f64())
        && end < start
    {
        return Err(Problem::validation("The StartDate you specify must be earlier than the EndDate."));
    }
    Ok(schedule)
}

fn set_timer(session: &Session<'_>, schedule: &Resource, now_ms: i64) -> store::Result<()> {
    if schedule.status != "ENABLED" {
        return session.delete_timer(&schedule.key);
    }
    let table = timetable(schedule).map_err(store::Error::Invalid)?;
    timers::set(session, &schedule.key, &table, window_minutes(schedule), now_ms).map(drop)
}

async fn create_schedule(cx: Cx, input: CreateScheduleInput) -> Result<CreateScheduleOutput> {
    let schedule = read(&cx, input.group_name.as_deref(), &input.name).await?;
    let (arn, now_ms) = (schedule.arn.clone(), schedule.created_at);
    let made = cx.state.database.write(move |session| {
        let token = &schedule.document["ClientToken"];
        // The same request again is the same schedule.
        if let Some(there) = session.find_resource(&schedule.key)?
            && !token.is_null()
            && there.document["ClientToken"] == *token
        {
            return Ok(());
        }
        session.insert_resource(&schedule)?;
        set_timer(session, &schedule, now_ms)
    });
    made.await.map_err(|error| match error {
        store::Error::Exists { .. } => {
            Problem::Code("ConflictException", format!("Schedule {} already exists.", input.name))
        }
        other => other.into(),
    })?;
    cx.state.timers.ring();
    Ok(CreateScheduleOutput { schedule_arn: Some(arn) })
}

async fn update_schedule(cx: Cx, input: UpdateScheduleInput) -> Result<UpdateScheduleOutput> {
    let schedule = read(&cx, input.group_name.as_deref(), &input.name).await?;
    let (arn, key, now_ms) = (schedule.arn.clone(), schedule.key.clone(), schedule.created_at);
    let changed = cx.state.database.write(move |session| {
        let stored = session.update_resource(&schedule.key, now_ms, |stored| {
            // What the request leaves out goes back to its default, as in the service.
            stored.spec = schedule.spec.clone();
            stored.status = schedule.status.clone();
            stored.document = schedule.document.clone();
            Ok(())
        })?;
        set_timer(session, &stored, now_ms)
    });
    changed.await.map_err(|error| match error {
        store::Error::Missing { .. } => missing(&key),
        other => other.into(),
    })?;
    cx.state.timers.ring();
    Ok(UpdateScheduleOutput { schedule_arn: Some(arn) })
}

fn state(schedule: &Resource) -> ScheduleState {
    if schedule.status == "ENABLED" { ScheduleState::ENABLED } else { ScheduleState::DISABLED }
}

fn names(key: &ResourceKey) -> (String, String) {
    let (group, name) = key.name.split_once('/').unwrap_or((DEFAULT_GROUP, &key.name));
    (group.to_owned(), name.to_owned())
}

async fn get_schedule(cx: Cx, input: GetScheduleInput) -> Result<GetScheduleOutput> {
    let key = key(&cx, input.group_name.as_deref(), &input.name);
    let wanted = key.clone();
    let found = cx.state.database.read(move |session| session.find_resource(&wanted)).await?;
    let schedule = found.ok_or_else(|| missing(&key))?;
    let (group, name) = names(&key);
    let mut shown = schedule.spec.clone();
    let more = json!({
        "Arn": schedule.arn,
        "GroupName": group,
        "Name": name,
        "State": schedule.status,
        "CreationDate": schedule.created_at as f64 / 1000.0,
        "LastModificationDate": schedule.modified_at as f64 / 1000.0,
        "ScheduleExpressionTimezone": shown["ScheduleExpressionTimezone"].as_str().unwrap_or("UTC"),
        "ActionAfterCompletion": shown["ActionAfterCompletion"].as_str().unwrap_or("NONE"),
    });
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.extend(more);
    }
    GetScheduleOutput::deserialize(shown).map_err(|error| Error::internal(error).into())
}

async fn list_schedules(cx: Cx, input: ListSchedulesInput) -> Result<ListSchedulesOutput> {
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let after = input.next_token.unwrap_or_default();
    let limit = input.max_results.unwrap_or(100).unsigned_abs() as usize;
    let prefix = input.name_prefix.unwrap_or_default();
    let wanted_state = input.state;
    let all = cx.state.database.read(|session| session.all_resources(SCHEDULE)).await?;
    let mut schedules: Vec<Resource> = all
        .into_iter()
        .filter(|schedule| schedule.key.account == account && schedule.key.region == region)
        .filter(|schedule| {
            let (group, name) = names(&schedule.key);
            input.group_name.as_ref().is_none_or(|wanted| *wanted == group)
                && name.starts_with(&prefix)
                && wanted_state.as_ref().is_none_or(|wanted| wanted.as_str() == schedule.status)
                && schedule.key.name > after
        })
        .collect();
    let more = schedules.len() > limit;
    schedules.truncate(limit);
    let next_token = schedules.last().map(|schedule| schedule.key.name.clone()).filter(|_| more);
    let schedules = schedules.into_iter().map(|schedule| {
        let (group, name) = names(&schedule.key);
        ScheduleSummary {
            name: Some(name),
            group_name: Some(group),
            state: Some(state(&schedule)),
            creation_date: Some(Timestamp::from_millis(schedule.created_at)),
            last_modification_date: Some(Timestamp::from_millis(schedule.modified_at)),
            target: Some(TargetSummary { arn: schedule.spec["Target"]["Arn"].as_str().map(str::to_owned) }),
            arn: Some(schedule.arn),
        }
    });
    Ok(ListSchedulesOutput { schedules: Some(schedules.collect()), next_token })
}

async fn delete_schedule(cx: Cx, input: DeleteScheduleInput) -> Result<DeleteScheduleOutput> {
    let key = key(&cx, input.group_name.as_deref(), &input.name);
    let wanted = key.clone();
    let deleted = cx.state.database.write(move |session| {
        session.delete_resource(&wanted)?;
        session.delete_timer(&wanted)
    });
    deleted.await.map_err(|error| match error {
        store::Error::Missing { .. } => missing(&key),
        other => other.into(),
    })?;
    Ok(DeleteScheduleOutput::default())
}

/// A tick: the delivery, the next tick or the end of the schedule.
///
/// # Errors
/// When the database fails, or the schedule is damaged.
pub fn fire(session: &Session<'_>, schedule: &Resource, tick_at: i64, now_ms: i64) -> store::Result<()> {
    let table = timetable(schedule).map_err(store::Error::Invalid)?;
    let (account, region) = (schedule.key.account.as_str(), schedule.key.region.as_str());
    let target = ScheduleTarget::read(&schedule.spec["Target"], account).map_err(store::Error::Invalid)?;
    let id = tick_id(&schedule.arn, schedule.generation, tick_at);
    let payload = target.payload(&schedule.arn, account, region, tick_at, &id);
    let delivery = deliveries::new(id, account, region, &schedule.arn, &target.target, payload, now_ms);
    let policy =
        Some(target.policy).filter(|_| !matches!(target.target, deliveries::Target::Function { .. }));
    session.insert_delivery(&deliveries::with_policy(delivery, policy, target.dead_letter))?;
    let window = window_minutes(schedule);
    let goes_on = timers::set(session, &schedule.key, &table, window, tick_at.max(now_ms))?;
    if !goes_on && schedule.spec["ActionAfterCompletion"] == "DELETE" {
        session.delete_resource(&schedule.key)?;
    }
    Ok(())
}
