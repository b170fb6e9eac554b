//! What can be searched of the model registry.

use serde_json::{Map, Value, json};
use store::Session;
use store::resources::{Resource, ResourceKey};

use super::laid_over;
use crate::registry::card::CardRecord;
use crate::registry::package::{self, GroupRecord, PackageRecord};
use crate::sagemaker::{kinds, records};

/// A group of packages.
pub(super) fn group(resource: &Resource) -> store::Result<Map<String, Value>> {
    let record = GroupRecord::read(&resource.document)?;
    let more = json!({
        "ModelPackageGroupArn": resource.arn,
        "ModelPackageGroupStatus": resource.status,
        "CreationTime": records::seconds(resource.created_at),
        "CreatedBy": record.created_by.user_context(),
    });
    Ok(laid_over(resource, more))
}

/// A package, whether it is a version of a group or stands for itself.
pub(super) fn package(resource: &Resource) -> store::Result<Map<String, Value>> {
    let record = PackageRecord::read(&resource.document)?;
    Ok(laid_over(resource, package::description(resource, &record)))
}

/// The tags of a package; a version has those of its group.
pub(super) fn package_tags(session: &Session<'_>, resource: &Resource, now_ms: i64) -> store::Result<Value> {
    let Some(group) = PackageRecord::read(&resource.document)?.group else {
        return super::tags(session, resource, now_ms);
    };
    let key = ResourceKey { kind: kinds::MODEL_PACKAGE_GROUP.into(), name: group, ..resource.key.clone() };
    match session.find_resource(&key)? {
        Some(group) => super::tags(session, &group, now_ms),
        None => Ok(Value::Null),
    }
}

/// A model card as it is now.
pub(super) fn card(resource: &Resource) -> store::Result<Map<String, Value>> {
    let record = CardRecord::read(&resource.document)?;
    let modified_by = record.modified_by.as_ref().unwrap_or(&record.created_by);
    let content: Value = resource.spec["Content"]
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let more = json!({
        "ModelCardArn": resource.arn,
        "ModelCardVersion": record.version,
        "ModelCardStatus": resource.status,
        "CreationTime": records::seconds(resource.created_at),
        "CreatedBy": record.created_by.user_context(),
        "LastModifiedTime": records::seconds(resource.modified_at),
        "LastModifiedBy": modified_by.user_context(),
        "ModelId": content["model_overview"]["model_id"],
        "RiskRating": content["intended_uses"]["risk_rating"],
        "ModelPackageGroupName": content["model_package_details"]["model_package_group_name"],
    });
    Ok(laid_over(resource, more))
}
