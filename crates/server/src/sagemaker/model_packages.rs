//! Model packages: register, describe, list, delete. Changes are in `model_package_updates`.

use std::collections::BTreeMap;

use api::Operation;
use api::sagemaker::{
    BatchDescribeModelPackage, BatchDescribeModelPackageError, BatchDescribeModelPackageInput,
    BatchDescribeModelPackageOutput, BatchDescribeModelPackageSummary, CreateModelPackage,
    CreateModelPackageInput, CreateModelPackageOutput, DeleteModelPackage, DeleteModelPackageInput,
    DeleteModelPackageOutput, DescribeModelPackage, DescribeModelPackageInput, DescribeModelPackageOutput,
    ListModelPackages, ListModelPackagesInput, ListModelPackagesOutput, ModelPackageSummary,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use store::Session;
use store::resources::{ListQuery, Resource, SortBy};
use wire::IntoError;

use super::kinds::{MODEL, MODEL_PACKAGE};
use super::{model_package_specs as specs, package_access, records};
use crate::registry::card_content;
use crate::registry::package::{self, Approval, Author, GroupRecord, PackageRecord};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateModelPackage, _, _, _>(create_model_package);
    registry.on::<DescribeModelPackage, _, _, _>(describe_model_package);
    registry.on::<BatchDescribeModelPackage, _, _, _>(batch_describe_model_package);
    registry.on::<ListModelPackages, _, _, _>(list_model_packages);
    registry.on::<DeleteModelPackage, _, _, _>(delete_model_package);
}

const HONOURED: &[&str] = &[
    "ModelPackageName",
    "ModelPackageGroupName",
    "ModelPackageDescription",
    "ModelPackageRegistrationType",
    "ValidationSpecification.**",
    "Tags.**",
    "ModelApprovalStatus",
    "MetadataProperties.**",
    "ModelMetrics.**",
    "ClientToken",
    "Domain",
    "Task",
    "SamplePayloadUrl",
    "CustomerMetadataProperties.**",
    "DriftCheckBaselines.**",
    "SkipModelValidation",
    "SourceUri",
    "ModelCard.**",
    "ModelLifeCycle.**",
];

/// Members of the request that are kept in the record, or elsewhere.
const NOT_IN_SPEC: &[&str] =
    &["Tags", "ClientToken", "ModelPackageGroupName", "ModelApprovalStatus", "ModelPackageRegistrationType"];

/// Rows on a page when the caller names no number, as in the service.
const DEFAULT_ROWS: i32 = 10;

/// The status of a version that nobody has decided on.
pub const PENDING: &str = "PendingManualApproval";

/// The status of a version that may be deployed.
pub const APPROVED: &str = "Approved";

async fn create_model_package(cx: Cx, input: CreateModelPackageInput) -> Result<CreateModelPackageOutput> {
    check(&cx.input)?;
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let status = input.model_approval_status.as_ref().map(ToString::to_string);
    let registration = input.model_package_registration_type.as_ref().map(ToString::to_string);
    if status.as_deref() == Some(APPROVED) && cx.state.config.registry.approver_is_not_author {
        return Err(own_approval());
    }
    // Permission before work: hashing reads the whole model.
    let group = match &input.model_package_group_name {
        Some(group) => Some(package_access::group(&cx, group, "sagemaker:CreateModelPackage").await?),
        None => None,
    };
    let mut spec = (*cx.input).clone();
    if let Some(members) = spec.as_object_mut() {
        members.retain(|name, _| !NOT_IN_SPEC.contains(&name.as_str()));
    }
    specs::set_card(&mut spec, &cx.input)?;
    specs::populate(&cx, &mut spec).await?;
    let artifacts = specs::record_artifacts(&cx, &mut spec).await?;
    let profiles = specs::profiles(&cx, &spec)?;
    let is_validated = !profiles.is_empty();
    let now_ms = cx.state.clock.now_ms();
    let author = Author::of(&cx.caller);
    let first = Approval {
        at: now_ms,
        by: author.clone(),
        from: None,
        to: status.unwrap_or_else(|| PENDING.into()),
        why: None,
    };
    let record = PackageRecord {
        group: group.as_ref().map(|group| group.key.name.clone()),
        version: None,
        registration: registration.unwrap_or_else(|| "Registered".into()),
        created_by: author,
        modified_by: None,
        approvals: group.iter().map(|_| first.clone()).collect(),
        artifacts,
        created_with: input.client_token.map(|token| (token, request_hash(&cx.input))),
        updated_with: None,
        profiles,
    };
    let mut resource = records::new_resource(&cx, MODEL_PACKAGE, "", "Completed", Value::Null);
    resource.spec = spec;
    let registered = cx.state.database.write(move |session| match group {
        Some(group) => register_version(session, &group, resource, record),
        None => {
            resource.key.name = input.model_package_name.unwrap_or_default();
            resource.arn = super::kinds::arn(
                &resource.key.region,
                &resource.key.account,
                MODEL_PACKAGE,
                &resource.key.name,
            );
            register_unversioned(session, resource, &record, &tags)
        }
    });
    match registered.await {
        Ok(Some(arn)) => {
            if is_validated {
                cx.state.validations.wake();
            }
            Ok(CreateModelPackageOutput { model_package_arn: Some(arn) })
        }
        Ok(None) => Err(Error::Conflict("ClientToken was used for another request before.".into())),
        Err(store::Error::Exists { .. }) => Err(Error::Conflict("Model Package already exists.".into())),
        Err(store::Error::Missing { name, .. }) => Err(Error::not_found(
            super::kinds::MODEL_PACKAGE_GROUP,
            records::arn(&cx, super::kinds::MODEL_PACKAGE_GROUP, &name),
        )),
        Err(other) => Err(other.into()),
    }
}

/// What an author is told who may not approve.
pub fn own_approval() -> Error {
    Error::AccessDenied(
        "This server wants a model package to be approved by somebody other than its author (registry.approver_is_not_author): \
         register it as PendingManualApproval, and let another user approve it."
            .into(),
    )
}

/// The next version of a group, or the one that the same request got before; `None` when its token stood for another request.
fn register_version(
    session: &Session<'_>,
    group: &Resource,
    mut resource: Resource,
    mut record: PackageRecord,
) -> store::Result<Option<String>> {
    let now_ms = resource.created_at;
    let mut group_record = GroupRecord::read(&session.resource(&group.key)?.document)?;
    if let Some((token, hash)) = &record.created_with {
        let known = group_record.recent.iter().find(|(known, _, _)| known == token);
        if let Some((_, known_hash, version)) = known {
            return Ok((known_hash == hash).then(|| package::version_arn(&group.arn, *version)));
        }
    }
    group_record.last_version += 1;
    let version = group_record.last_version;
    if let Some((token, hash)) = record.created_with.clone() {
        group_record.remember(token, hash, version);
    }
    session.update_resource(&group.key, now_ms, |group| {
        group.document = group_record.to_document();
        Ok(())
    })?;
    record.version = Some(version);
    resource.key = package::version_key(&group.key, version);
    resource.arn = package::version_arn(&group.arn, version);
    resource.status = record.approval_status().unwrap_or(PENDING).to_owned();
    resource.document = record.to_document();
    insert(session, &resource)?;
    Ok(Some(resource.arn))
}

fn register_unversioned(
    session: &Session<'_>,
    mut resource: Resource,
    record: &PackageRecord,
    tags: &[(String, String)],
) -> store::Result<Option<String>> {
    if let Some(present) = session.find_resource(&resource.key)? {
        let made_with = PackageRecord::read(&present.document)?.created_with;
        if made_with.is_some() && made_with == record.created_with {
            return Ok(Some(present.arn));
        }
    }
    resource.document = record.to_document();
    insert(session, &resource)?;
    session.put_tags(&resource.arn, tags)?;
    Ok(Some(resource.arn))
}

fn insert(session: &Session<'_>, resource: &Resource) -> store::Result<()> {
    session.insert_resource(resource)?;
    let record = PackageRecord::read(&resource.document)?;
    super::lineage::created(session, resource, &record.created_by.user_context())?;
    session.append_event(&resource.key, "Created", &resource.spec, resource.created_at)?;
    if !record.profiles.is_empty() {
        session.enqueue_work(&resource.key, resource.created_at)?;
    }
    crate::events::append_state(session, resource, resource.created_at)
}

/// Hash of a request without its token.
fn request_hash(input: &Value) -> String {
    let mut input = input.clone();
    if let Some(members) = input.as_object_mut() {
        members.remove("ClientToken");
    }
    hex::encode(Sha256::digest(input.to_string()))
}

/// Rules that the model of the API cannot say.
fn check(input: &Value) -> Result<()> {
    if let Some(name) = input["SourceAlgorithmSpecification"]["SourceAlgorithms"][0]["AlgorithmName"].as_str()
    {
        // There are no algorithms of users here, so that none can be named.
        return Err(Error::Validation(format!("Algorithm {name} does not exist.")));
    }
    specs::check_fields(input, HONOURED, &["InferenceSpecification", "AdditionalInferenceSpecifications"])?;
    let invalid = |text: &str| Err(Error::Validation(text.into()));
    let is_version = !input["ModelPackageGroupName"].is_null();
    match (is_version, input["ModelPackageName"].is_null()) {
        (true, false) => {
            return invalid("ModelPackageName and ModelPackageGroupName cannot both be given.");
        }
        (false, true) => return invalid("ModelPackageName or ModelPackageGroupName must be given."),
        _ => {}
    }
    if is_version && input["Tags"].as_array().is_some_and(|tags| !tags.is_empty()) {
        return invalid(
            "Tags cannot be given with ModelPackageGroupName: a version has the tags of its group.",
        );
    }
    if !is_version {
        for member in ["ModelApprovalStatus", "ModelPackageRegistrationType", "ModelLifeCycle"] {
            if !input[member].is_null() {
                let text = format!("{member} is for versions of a ModelPackageGroup alone; leave it out.");
                return Err(Error::Validation(text));
            }
        }
        if input["InferenceSpecification"].is_null() && input["SourceUri"].is_null() {
            return invalid("InferenceSpecification or SourceAlgorithmSpecification must be given.");
        }
    }
    if input["ModelPackageRegistrationType"] == "Logged" && input["ModelApprovalStatus"] == APPROVED {
        return invalid("A Logged model package cannot be Approved: register it first.");
    }
    specs::check_specification(&input["InferenceSpecification"], "InferenceSpecification")?;
    specs::check_additional(&input["AdditionalInferenceSpecifications"])
}

async fn describe_model_package(
    cx: Cx,
    input: DescribeModelPackageInput,
) -> Result<DescribeModelPackageOutput> {
    let action = "sagemaker:DescribeModelPackage";
    let package = package_access::package(&cx, &input.model_package_name, action).await?;
    let record = PackageRecord::read(&package.document)?;
    let mut shown = package::described(&package, &record);
    if input.included_data.is_some_and(|data| data.as_str() == "MetadataOnly")
        && let Some(content) = shown["ModelCard"]["ModelCardContent"].as_str()
    {
        shown["ModelCard"]["ModelCardContent"] = card_content::metadata_of(content).into();
    }
    serde_json::from_value(shown).map_err(Error::internal)
}

async fn batch_describe_model_package(
    cx: Cx,
    input: BatchDescribeModelPackageInput,
) -> Result<BatchDescribeModelPackageOutput> {
    let mut summaries: BTreeMap<String, BatchDescribeModelPackageSummary> = BTreeMap::new();
    let mut errors = BTreeMap::new();
    for arn in input.model_package_arn_list {
        match package_access::package(&cx, &arn, "sagemaker:BatchDescribeModelPackage").await {
            Ok(package) => {
                let record = PackageRecord::read(&package.document)?;
                let shown = package::described(&package, &record);
                summaries.insert(arn, serde_json::from_value(shown).map_err(Error::internal)?);
            }
            Err(error) => {
                let error = error.into_error(BatchDescribeModelPackage::SERVICE, &cx.request_id);
                let shown = json!({"ErrorCode": error.code, "ErrorResponse": error.message});
                let shown: BatchDescribeModelPackageError =
                    serde_json::from_value(shown).map_err(Error::internal)?;
                errors.insert(arn, shown);
            }
        }
    }
    Ok(BatchDescribeModelPackageOutput {
        model_package_summaries: Some(summaries),
        batch_describe_model_package_error_map: Some(errors),
    })
}

async fn list_model_packages(cx: Cx, input: ListModelPackagesInput) -> Result<ListModelPackagesOutput> {
    let group = match &input.model_package_group_name {
        Some(group) => Some(package_access::group(&cx, group, "sagemaker:ListModelPackages").await?),
        None => None,
    };
    let kind = input.model_package_type.as_ref().map(ToString::to_string);
    let belongs = match (kind.as_deref(), &group) {
        (Some("Both"), _) => None,
        (Some("Versioned"), _) | (None, Some(_)) => Some(true),
        // What belongs to a group has a version.
        (_, _) => Some(false),
    };
    let query = ListQuery {
        name_contains: input.name_contains,
        status: input.model_approval_status.map(|status| status.to_string()),
        below: group.as_ref().map(|group| group.key.name.clone()),
        belongs,
        created_after: input.creation_time_after.map(|at| at.as_millis()),
        created_before: input.creation_time_before.map(|at| at.as_millis()),
        sort_by: match input.sort_by.map(|column| column.to_string()).as_deref() {
            Some("Name") => SortBy::Name,
            _ => SortBy::CreatedAt,
        },
        descending: input.sort_order.is_some_and(|order| order.as_str() == "Descending"),
        limit: input.max_results.unwrap_or(DEFAULT_ROWS).max(1) as usize,
        next_token: input.next_token,
        ..Default::default()
    };
    let account = group.map_or_else(|| cx.caller.account.clone(), |group| group.key.account);
    let region = cx.caller.region.clone();
    let page = cx
        .state
        .database
        .read(move |session| session.list_resources(&account, &region, MODEL_PACKAGE, &query));
    let page = page.await?;
    let summaries = page.resources.iter().map(summary).collect::<Result<_>>()?;
    Ok(ListModelPackagesOutput { model_package_summary_list: Some(summaries), next_token: page.next_token })
}

fn summary(package: &Resource) -> Result<ModelPackageSummary> {
    let record = PackageRecord::read(&package.document)?;
    let shown = package::described(package, &record);
    serde_json::from_value(shown).map_err(Error::internal)
}

async fn delete_model_package(cx: Cx, input: DeleteModelPackageInput) -> Result<DeleteModelPackageOutput> {
    let action = "sagemaker:DeleteModelPackage";
    let package = package_access::package(&cx, &input.model_package_name, action).await?;
    let status = PackageRecord::read(&package.document)?.package_status();
    if matches!(status, "Pending" | "InProgress") {
        let arn = &package.arn;
        return Err(Error::Conflict(format!(
            "Model Package {arn} cannot be deleted while it is validated: its status is {status}."
        )));
    }
    let (key, arn, now_ms) = (package.key, package.arn, cx.state.clock.now_ms());
    let wanted = arn.clone();
    let deleted = cx.state.database.write(move |session| {
        let models = session.all_resources(MODEL)?;
        if let Some(model) = models.into_iter().find(|model| model.document["package"] == *wanted) {
            return Ok(Some(model.arn));
        }
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)?;
        Ok(None)
    });
    match deleted.await {
        Ok(None) => Ok(DeleteModelPackageOutput::default()),
        Ok(Some(model)) => Err(Error::Conflict(format!(
            "Model Package {arn} cannot be deleted because the model {model} was created from it; delete that first."
        ))),
        Err(store::Error::Missing { .. }) => Err(Error::not_found(MODEL_PACKAGE, arn)),
        Err(other) => Err(other.into()),
    }
}
