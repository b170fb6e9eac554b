//! Resource policies of model package groups.

use api::sagemaker::{
    DeleteModelPackageGroupPolicy, DeleteModelPackageGroupPolicyInput, DeleteModelPackageGroupPolicyOutput,
    GetModelPackageGroupPolicy, GetModelPackageGroupPolicyInput, GetModelPackageGroupPolicyOutput,
    PutModelPackageGroupPolicy, PutModelPackageGroupPolicyInput, PutModelPackageGroupPolicyOutput,
};
use serde_json::Value;
use store::resources::Resource;

use super::package_access;
use crate::registry::package::GroupRecord;
use crate::registry::policy::Policy;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<PutModelPackageGroupPolicy, _, _, _>(put_model_package_group_policy);
    registry.on::<GetModelPackageGroupPolicy, _, _, _>(get_model_package_group_policy);
    registry.on::<DeleteModelPackageGroupPolicy, _, _, _>(delete_model_package_group_policy);
}

async fn put_model_package_group_policy(
    cx: Cx,
    input: PutModelPackageGroupPolicyInput,
) -> Result<PutModelPackageGroupPolicyOutput> {
    let group =
        own_group(&cx, &input.model_package_group_name, "sagemaker:PutModelPackageGroupPolicy").await?;
    Policy::parse(&input.resource_policy, &group.arn)
        .map_err(|problem| Error::Validation(format!("Invalid ResourcePolicy: {problem}")))?;
    let arn = group.arn.clone();
    set(&cx, group, Some(input.resource_policy), "PolicyPut").await?;
    Ok(PutModelPackageGroupPolicyOutput { model_package_group_arn: Some(arn) })
}

async fn get_model_package_group_policy(
    cx: Cx,
    input: GetModelPackageGroupPolicyInput,
) -> Result<GetModelPackageGroupPolicyOutput> {
    let group =
        own_group(&cx, &input.model_package_group_name, "sagemaker:GetModelPackageGroupPolicy").await?;
    match GroupRecord::read(&group.document)?.policy {
        Some(policy) => Ok(GetModelPackageGroupPolicyOutput { resource_policy: Some(policy) }),
        None => Err(no_policy(&group)),
    }
}

async fn delete_model_package_group_policy(
    cx: Cx,
    input: DeleteModelPackageGroupPolicyInput,
) -> Result<DeleteModelPackageGroupPolicyOutput> {
    let action = "sagemaker:DeleteModelPackageGroupPolicy";
    let group = own_group(&cx, &input.model_package_group_name, action).await?;
    if GroupRecord::read(&group.document)?.policy.is_none() {
        return Err(no_policy(&group));
    }
    set(&cx, group, None, "PolicyDeleted").await?;
    Ok(DeleteModelPackageGroupPolicyOutput::default())
}

/// A group of the caller's account. Its policy cannot keep its own account from changing the policy.
async fn own_group(cx: &Cx, name: &str, action: &str) -> Result<Resource> {
    let key = super::records::key(cx, super::kinds::MODEL_PACKAGE_GROUP, name);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    match found {
        Some(group) => Ok(group),
        None => package_access::group(cx, name, action).await,
    }
}

fn no_policy(group: &Resource) -> Error {
    Error::Validation(format!("Cannot find resource policy for: {}", group.arn))
}

async fn set(cx: &Cx, group: Resource, policy: Option<String>, event: &'static str) -> Result<()> {
    let (key, now_ms) = (group.key, cx.state.clock.now_ms());
    let detail = policy.as_ref().map_or(Value::Null, |policy| Value::from(policy.as_str()));
    let written = cx.state.database.write(move |session| {
        session.update_resource(&key, now_ms, |group| {
            let mut record = GroupRecord::read(&group.document)?;
            record.policy = policy;
            group.document = record.to_document();
            Ok(())
        })?;
        session.append_event(&key, event, &detail, now_ms)
    });
    Ok(written.await?)
}
