//! Model package groups: the versions of one model.

use api::sagemaker::{
    CreateModelPackageGroup, CreateModelPackageGroupInput, CreateModelPackageGroupOutput,
    CrossAccountFilterOption, DeleteModelPackageGroup, DeleteModelPackageGroupInput,
    DeleteModelPackageGroupOutput, DescribeModelPackageGroup, DescribeModelPackageGroupInput,
    DescribeModelPackageGroupOutput, ListModelPackageGroups, ListModelPackageGroupsInput,
    ListModelPackageGroupsOutput, ModelPackageGroupSummary,
};
use serde_json::{Value, json};
use store::resources::{ListQuery, Resource};

use super::kinds::{MODEL_PACKAGE, MODEL_PACKAGE_GROUP};
use super::{fields, listing, package_access, records};
use crate::registry::package::{Author, GroupRecord};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateModelPackageGroup, _, _, _>(create_model_package_group);
    registry.on::<DescribeModelPackageGroup, _, _, _>(describe_model_package_group);
    registry.on::<ListModelPackageGroups, _, _, _>(list_model_package_groups);
    registry.on::<DeleteModelPackageGroup, _, _, _>(delete_model_package_group);
}

async fn create_model_package_group(
    cx: Cx,
    input: CreateModelPackageGroupInput,
) -> Result<CreateModelPackageGroupOutput> {
    fields::check(&cx.input, &["ModelPackageGroupName", "ModelPackageGroupDescription", "Tags.**"])?;
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let record =
        GroupRecord { last_version: 0, created_by: Author::of(&cx.caller), policy: None, recent: Vec::new() };
    let name = &input.model_package_group_name;
    let resource = records::new_resource(&cx, MODEL_PACKAGE_GROUP, name, "Completed", record.to_document());
    let arn = resource.arn.clone();
    records::insert(&cx, resource, tags, "Model Package Group already exists", false).await.map_err(
        |error| match error {
            // The service says ValidationException here, and clients look for these words.
            Error::Exists { .. } => Error::Validation(format!("Model Package Group already exists: {arn}")),
            other => other,
        },
    )?;
    Ok(CreateModelPackageGroupOutput { model_package_group_arn: Some(arn) })
}

async fn describe_model_package_group(
    cx: Cx,
    input: DescribeModelPackageGroupInput,
) -> Result<DescribeModelPackageGroupOutput> {
    let action = "sagemaker:DescribeModelPackageGroup";
    let group = package_access::group(&cx, &input.model_package_group_name, action).await?;
    let record = GroupRecord::read(&group.document)?;
    records::described(
        &group,
        json!({
            "ModelPackageGroupArn": group.arn,
            "ModelPackageGroupStatus": group.status,
            "CreationTime": records::seconds(group.created_at),
            "CreatedBy": record.created_by.user_context(),
        }),
    )
}

async fn list_model_package_groups(
    cx: Cx,
    input: ListModelPackageGroupsInput,
) -> Result<ListModelPackageGroupsOutput> {
    if input.cross_account_filter_option == Some(CrossAccountFilterOption::CrossAccount) {
        // Discovery of other accounts' groups goes through a service of its own there; ARNs work without it.
        return Err(Error::field("CrossAccountFilterOption CrossAccount"));
    }
    let filters = listing::Filters {
        name_contains: input.name_contains,
        created_after: input.creation_time_after,
        created_before: input.creation_time_before,
        sort_by: input.sort_by.map(|column| column.to_string()),
        sort_order: input.sort_order.map(|order| order.to_string()),
        max_results: input.max_results,
        next_token: input.next_token,
        ..Default::default()
    };
    let page = listing::page(&cx, MODEL_PACKAGE_GROUP, filters, "Ascending").await?;
    let groups = page.resources.iter().map(summary).collect::<Result<_>>()?;
    Ok(ListModelPackageGroupsOutput {
        model_package_group_summary_list: Some(groups),
        next_token: page.next_token,
    })
}

fn summary(group: &Resource) -> Result<ModelPackageGroupSummary> {
    let shown = json!({
        "ModelPackageGroupName": group.key.name,
        "ModelPackageGroupArn": group.arn,
        "ModelPackageGroupDescription": group.spec["ModelPackageGroupDescription"],
        "CreationTime": records::seconds(group.created_at),
        "ModelPackageGroupStatus": group.status,
    });
    serde_json::from_value(shown).map_err(Error::internal)
}

async fn delete_model_package_group(
    cx: Cx,
    input: DeleteModelPackageGroupInput,
) -> Result<DeleteModelPackageGroupOutput> {
    let action = "sagemaker:DeleteModelPackageGroup";
    let group = package_access::group(&cx, &input.model_package_group_name, action).await?;
    let (key, arn, now_ms) = (group.key, group.arn, cx.state.clock.now_ms());
    let deleted = cx.state.database.write(move |session| {
        let query = ListQuery { below: Some(key.name.clone()), limit: 1, ..Default::default() };
        let versions = session.list_resources(&key.account, &key.region, MODEL_PACKAGE, &query)?;
        if let Some(version) = versions.resources.first() {
            return Ok(Some(version.arn.clone()));
        }
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)?;
        Ok(None)
    });
    match deleted.await {
        Ok(None) => Ok(DeleteModelPackageGroupOutput::default()),
        Ok(Some(version)) => Err(Error::Conflict(format!(
            "Model Package Group {arn} cannot be deleted because it still has Model Packages, among them {version}."
        ))),
        Err(store::Error::Missing { .. }) => Err(Error::not_found(MODEL_PACKAGE_GROUP, arn)),
        Err(other) => Err(other.into()),
    }
}
