//! Log groups: create, describe, keep for some days, delete.

use api::logs::{
    CreateLogGroup, CreateLogGroupInput, CreateLogGroupOutput, DeleteLogGroup, DeleteLogGroupInput,
    DeleteLogGroupOutput, DeleteRetentionPolicy, DeleteRetentionPolicyInput, DeleteRetentionPolicyOutput,
    DescribeLogGroups, DescribeLogGroupsInput, DescribeLogGroupsOutput, LogGroupClass, PutRetentionPolicy,
    PutRetentionPolicyInput, PutRetentionPolicyOutput,
};
use store::logs::{GroupKey, GroupList, LogGroup};

use super::{
    PAGE_ITEMS, decode_token, encode_token, group_arn, identified_group, named_group, page_limit, refusal,
    refuse_fields, tags,
};
use crate::{Cx, Error, Registry, Result};

/// The one class of groups there is here.
const CLASS: &str = "STANDARD";

/// Days that a group may keep its events, as the service's reference lists them.
const RETENTION_DAYS: &[u32] = &[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateLogGroup, _, _, _>(create_log_group);
    registry.on::<DeleteLogGroup, _, _, _>(delete_log_group);
    registry.on::<DescribeLogGroups, _, _, _>(describe_log_groups);
    registry.on::<PutRetentionPolicy, _, _, _>(put_retention_policy);
    registry.on::<DeleteRetentionPolicy, _, _, _>(delete_retention_policy);
}

async fn create_log_group(cx: Cx, input: CreateLogGroupInput) -> Result<CreateLogGroupOutput> {
    refuse_fields(&[
        ("kmsKeyId", input.kms_key_id.is_some()),
        ("logGroupClass", input.log_group_class.as_ref().is_some_and(|class| !is_standard(class))),
        ("deletionProtectionEnabled", input.deletion_protection_enabled == Some(true)),
    ])?;
    let key = named_group(&cx, input.log_group_name);
    let (arn, tags) = (group_arn(&key), tags::checked(input.tags.unwrap_or_default())?);
    cx.state.logs.create_tagged_group(key, arn, tags).await.map_err(tags::too_many)?;
    Ok(CreateLogGroupOutput::default())
}

async fn delete_log_group(cx: Cx, input: DeleteLogGroupInput) -> Result<DeleteLogGroupOutput> {
    let key = named_group(&cx, input.log_group_name);
    let arn = group_arn(&key);
    cx.state.logs.delete_tagged_group(key, arn).await.map_err(refusal)?;
    Ok(DeleteLogGroupOutput::default())
}

async fn put_retention_policy(cx: Cx, input: PutRetentionPolicyInput) -> Result<PutRetentionPolicyOutput> {
    let given = input.retention_in_days;
    let days = u32::try_from(given).ok().filter(|days| RETENTION_DAYS.contains(days)).ok_or_else(|| {
        let allowed: Vec<String> = RETENTION_DAYS.iter().map(u32::to_string).collect();
        Error::invalid_parameter(format!(
            "1 validation error detected: Value '{given}' at 'retentionInDays' failed to satisfy constraint: Member must \
             satisfy enum value set: [{}]",
            allowed.join(", ")
        ))
    })?;
    let key = named_group(&cx, input.log_group_name);
    cx.state.logs.set_retention(key, Some(days)).await.map_err(refusal)?;
    Ok(PutRetentionPolicyOutput::default())
}

async fn delete_retention_policy(
    cx: Cx,
    input: DeleteRetentionPolicyInput,
) -> Result<DeleteRetentionPolicyOutput> {
    let key = named_group(&cx, input.log_group_name);
    cx.state.logs.set_retention(key, None).await.map_err(refusal)?;
    Ok(DeleteRetentionPolicyOutput::default())
}

async fn describe_log_groups(cx: Cx, input: DescribeLogGroupsInput) -> Result<DescribeLogGroupsOutput> {
    refuse_fields(&[
        ("accountIdentifiers", input.account_identifiers.is_some()),
        ("includeLinkedAccounts", input.include_linked_accounts == Some(true)),
    ])?;
    let filters = [
        input.log_group_name_prefix.is_some(),
        input.log_group_name_pattern.is_some(),
        input.log_group_identifiers.is_some(),
    ];
    if filters.into_iter().filter(|given| *given).count() > 1 {
        return Err(Error::invalid_parameter(
            "Give one of logGroupNamePrefix, logGroupNamePattern and logGroupIdentifiers at most.",
        ));
    }
    if input.log_group_class.as_ref().is_some_and(|class| !is_standard(class)) {
        return Ok(DescribeLogGroupsOutput { log_groups: Some(Vec::new()), next_token: None });
    }
    if let Some(identifiers) = input.log_group_identifiers {
        return identified_groups(&cx, &identifiers).await;
    }
    let limit = page_limit(input.limit, PAGE_ITEMS);
    let list = GroupList {
        prefix: input.log_group_name_prefix,
        name_contains: input.log_group_name_pattern,
        after: input.next_token.as_deref().map(decode_token).transpose()?,
        limit: limit + 1,
    };
    let mut groups =
        cx.state.logs.groups(&cx.caller.account, &cx.caller.region, list).await.map_err(refusal)?;
    let more = groups.len() > limit;
    groups.truncate(limit);
    let next_token = match groups.last() {
        Some(last) if more => Some(encode_token(&last.name)?),
        _ => None,
    };
    let groups = groups.into_iter().map(|group| described(&cx, group)).collect();
    Ok(DescribeLogGroupsOutput { log_groups: Some(groups), next_token })
}

/// The groups with these names or ARNs; what is not there is left out.
async fn identified_groups(cx: &Cx, identifiers: &[String]) -> Result<DescribeLogGroupsOutput> {
    let mut found = Vec::new();
    for identifier in identifiers {
        let GroupKey { account, region, group } = match identified_group(cx, identifier) {
            Ok(key) => key,
            Err(Error::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        // The name itself sorts before all others that start with it.
        let list = GroupList { prefix: Some(group.clone()), limit: 1, ..GroupList::default() };
        let groups = cx.state.logs.groups(&account, &region, list).await.map_err(refusal)?;
        found.extend(groups.into_iter().filter(|one| one.name == group));
    }
    found.sort_by(|left, right| left.name.cmp(&right.name));
    found.dedup_by(|left, right| left.name == right.name);
    let groups = found.into_iter().map(|group| described(cx, group)).collect();
    Ok(DescribeLogGroupsOutput { log_groups: Some(groups), next_token: None })
}

fn described(cx: &Cx, group: LogGroup) -> api::logs::LogGroup {
    let arn = group_arn(&named_group(cx, group.name.clone()));
    api::logs::LogGroup {
        log_group_name: Some(group.name),
        creation_time: Some(group.created_at),
        metric_filter_count: Some(0),
        arn: Some(format!("{arn}:*")),
        log_group_arn: Some(arn),
        stored_bytes: i64::try_from(group.stored_bytes).ok(),
        retention_in_days: group.retention_days.and_then(|days| i32::try_from(days).ok()),
        ..Default::default()
    }
}

fn is_standard(class: &LogGroupClass) -> bool {
    class.to_string() == CLASS
}
