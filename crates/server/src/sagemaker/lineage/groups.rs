//! Lineage groups: an account has one, which holds all of its vertices. It is not shared with other accounts, so that it has no policy.

use api::sagemaker::SERVICE;
use serde_json::{Value, json};

use crate::sagemaker::{entities, kinds, records};
use crate::{Cx, Error, Registry, Result};

/// Name of the group that every account has.
pub const DEFAULT_GROUP: &str = "sagemaker-default-lineage-group";

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "DescribeLineageGroup", describe_lineage_group);
    registry.on_value(&SERVICE, "ListLineageGroups", list_lineage_groups);
    registry.on_value(&SERVICE, "GetLineageGroupPolicy", get_lineage_group_policy);
}

/// ARN of the caller's group.
pub(super) fn arn(cx: &Cx) -> String {
    records::arn(cx, kinds::LINEAGE_GROUP, DEFAULT_GROUP)
}

/// When the account was made, milliseconds since 1970: its group is as old.
async fn made_at(cx: &Cx) -> Result<i64> {
    let account = cx.caller.account.clone();
    let made_at = cx.state.database.read(move |session| session.account_created_at(&account)).await?;
    Ok(made_at.unwrap_or_default())
}

async fn shown(cx: &Cx) -> Result<Value> {
    let made_at = records::seconds(made_at(cx).await?);
    Ok(json!({
        "LineageGroupName": DEFAULT_GROUP,
        "LineageGroupArn": arn(cx),
        "DisplayName": DEFAULT_GROUP,
        "CreationTime": made_at,
        "LastModifiedTime": made_at,
    }))
}

fn check_name(cx: &Cx) -> Result<()> {
    let name = entities::required(&cx.input, "LineageGroupName");
    if name == DEFAULT_GROUP || name == arn(cx) {
        Ok(())
    } else {
        Err(Error::not_found(kinds::LINEAGE_GROUP, name))
    }
}

async fn describe_lineage_group(cx: Cx) -> Result<Value> {
    check_name(&cx)?;
    shown(&cx).await
}

async fn list_lineage_groups(cx: Cx) -> Result<Value> {
    if cx.input.get("NextToken").is_some() {
        return Err(Error::Validation("The pagination token NextToken is not valid.".into()));
    }
    let made_at = made_at(&cx).await?;
    let is_after = entities::milliseconds(&cx.input["CreatedAfter"]).is_none_or(|bound| made_at > bound);
    let is_before = entities::milliseconds(&cx.input["CreatedBefore"]).is_none_or(|bound| made_at < bound);
    let groups = if is_after && is_before { vec![shown(&cx).await?] } else { Vec::new() };
    Ok(entities::listed("LineageGroupSummaries", groups, None))
}

async fn get_lineage_group_policy(cx: Cx) -> Result<Value> {
    check_name(&cx)?;
    Ok(json!({"LineageGroupArn": arn(&cx)}))
}
