//! Groups of schedules.

use api::Timestamp;
use api::scheduler::{
    CreateScheduleGroup, CreateScheduleGroupInput, CreateScheduleGroupOutput, DeleteScheduleGroup,
    DeleteScheduleGroupInput, DeleteScheduleGroupOutput, GetScheduleGroup, GetScheduleGroupInput,
    GetScheduleGroupOutput, ListScheduleGroups, ListScheduleGroupsInput, ListScheduleGroupsOutput,
    ScheduleGroupState, ScheduleGroupSummary,
};
use serde_json::json;
use store::resources::{Resource, ResourceKey};

use super::{DEFAULT_GROUP, GROUP, SCHEDULE};
use crate::problem::{Problem, Result};
use crate::{Cx, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateScheduleGroup, _, _, _>(create_schedule_group);
    registry.on::<GetScheduleGroup, _, _, _>(get_schedule_group);
    registry.on::<ListScheduleGroups, _, _, _>(list_schedule_groups);
    registry.on::<DeleteScheduleGroup, _, _, _>(delete_schedule_group);
}

fn key(cx: &Cx, name: &str) -> ResourceKey {
    ResourceKey::new(&*cx.caller.account, &*cx.caller.region, GROUP, name)
}

fn arn(key: &ResourceKey) -> String {
    format!("arn:aws:scheduler:{}:{}:schedule-group/{}", key.region, key.account, key.name)
}

fn missing(name: &str) -> Problem {
    Problem::missing(format!("Schedule group {name} does not exist."))
}

/// A group of the caller's account; the default one is there without having been made.
pub async fn find(cx: &Cx, name: &str) -> Result<Resource> {
    let key = key(cx, name);
    let wanted = key.clone();
    match cx.state.database.read(move |session| session.find_resource(&wanted)).await? {
        Some(group) => Ok(group),
        None if name == DEFAULT_GROUP => Ok(group(key, 0)),
        None => Err(missing(name)),
    }
}

fn group(key: ResourceKey, now_ms: i64) -> Resource {
    Resource {
        arn: arn(&key),
        key,
        status: "ACTIVE".into(),
        spec: json!({}),
        document: json!({}),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    }
}

async fn create_schedule_group(cx: Cx, input: CreateScheduleGroupInput) -> Result<CreateScheduleGroupOutput> {
    let made = group(key(&cx, &input.name), cx.state.clock.now_ms());
    let tags: Vec<_> = input.tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)).collect();
    crate::tags::check(&tags)?;
    let (arn, token) = (made.arn.clone(), input.client_token);
    let taken =
        || Problem::Code("ConflictException", format!("Schedule group {} already exists.", input.name));
    if input.name == DEFAULT_GROUP {
        return Err(taken());
    }
    let stored = cx.state.database.write(move |session| {
        // The same request again is the same group.
        if let Some(there) = session.find_resource(&made.key)?
            && token.as_deref().is_some_and(|token| there.document["ClientToken"] == token)
        {
            return Ok(());
        }
        let mut made = made;
        made.document["ClientToken"] = token.into();
        session.insert_resource(&made)?;
        session.put_tags(&made.arn, &tags)
    });
    stored.await.map_err(|error| match error {
        store::Error::Exists { .. } => taken(),
        other => other.into(),
    })?;
    Ok(CreateScheduleGroupOutput { schedule_group_arn: Some(arn) })
}

async fn get_schedule_group(cx: Cx, input: GetScheduleGroupInput) -> Result<GetScheduleGroupOutput> {
    let group = find(&cx, &input.name).await?;
    Ok(GetScheduleGroupOutput {
        creation_date: Some(Timestamp::from_millis(group.created_at)),
        last_modification_date: Some(Timestamp::from_millis(group.modified_at)),
        state: Some(ScheduleGroupState::ACTIVE),
        arn: Some(group.arn),
        name: Some(group.key.name),
    })
}

async fn list_schedule_groups(cx: Cx, input: ListScheduleGroupsInput) -> Result<ListScheduleGroupsOutput> {
    let default = find(&cx, DEFAULT_GROUP).await?;
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let prefix = input.name_prefix.unwrap_or_default();
    let after = input.next_token.unwrap_or_default();
    let limit = input.max_results.unwrap_or(100).unsigned_abs() as usize;
    let mut groups = cx.state.database.read(|session| session.all_resources(GROUP)).await?;
    groups.retain(|group| group.key.account == account && group.key.region == region);
    groups.push(default);
    groups.retain(|group| group.key.name.starts_with(&prefix) && group.key.name > after);
    groups.sort_by(|one, other| one.key.name.cmp(&other.key.name));
    let more = groups.len() > limit;
    groups.truncate(limit);
    let next_token = groups.last().map(|group| group.key.name.clone()).filter(|_| more);
    let groups = groups.into_iter().map(|group| ScheduleGroupSummary {
        creation_date: Some(Timestamp::from_millis(group.created_at)),
        last_modification_date: Some(Timestamp::from_millis(group.modified_at)),
        state: Some(ScheduleGroupState::ACTIVE),
        arn: Some(group.arn),
        name: Some(group.key.name),
    });
    Ok(ListScheduleGroupsOutput { schedule_groups: Some(groups.collect()), next_token })
}

async fn delete_schedule_group(cx: Cx, input: DeleteScheduleGroupInput) -> Result<DeleteScheduleGroupOutput> {
    if input.name == DEFAULT_GROUP {
        return Err(Problem::validation("The default schedule group cannot be deleted."));
    }
    let key = key(&cx, &input.name);
    let deleted = cx.state.database.write(move |session| {
        session.delete_resource(&key)?;
        let inside = format!("{}/", key.name);
        for schedule in session.all_resources(SCHEDULE)? {
            let same_place = schedule.key.account == key.account && schedule.key.region == key.region;
            if same_place && schedule.key.name.starts_with(&inside) {
                session.delete_timer(&schedule.key)?;
                session.delete_resource(&schedule.key)?;
            }
        }
        Ok(())
    });
    deleted.await.map_err(|error| match error {
        store::Error::Missing { .. } => missing(&input.name),
        other => other.into(),
    })?;
    Ok(DeleteScheduleGroupOutput::default())
}
