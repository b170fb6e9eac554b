//! What is kept of a model package beside its request: where it stands, who approved it and why, what it is made of.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::resources::{Resource, ResourceKey};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use wire::Caller;

use super::artifacts::Artifact;
use crate::sagemaker::kinds::MODEL_PACKAGE;

/// Digits of a version in a stored name, so that names sort as versions do.
const VERSION_DIGITS: usize = 9;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// ARN of the principal.
    pub arn: String,
    /// Its unique id.
    pub principal_id: String,
}

impl Author {
    /// The caller of a request.
    pub fn of(caller: &Caller) -> Author {
        Author { arn: caller.principal_arn.clone(), principal_id: caller.principal_id.clone() }
    }

    /// As the API shows who did something.
    pub fn user_context(&self) -> Value {
        json!({"IamIdentity": {"Arn": self.arn, "PrincipalId": self.principal_id}})
    }
}

/// One step in the approval of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Who.
    pub by: Author,
    /// The status before; none at registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The status since.
    pub to: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How far the validation of a profile is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProfileStatus {
    /// It waits.
    NotStarted,
    /// Its transform job runs.
    InProgress,
    /// Its transform job has completed.
    Completed,
    /// Its transform job has failed, or could not be made.
    Failed,
}

/// What became of a validation profile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub status: ProfileStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
}

/// The document of a model package.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PackageRecord {
    /// Group, for a version of one.
    pub group: Option<String>,
    /// Version, for a version of a group.
    pub version: Option<u32>,
    /// `Registered` or `Logged`.
    pub registration: String,
    /// Who registered it.
    pub created_by: Author,
    /// Who changed it last.
    pub modified_by: Option<Author>,
    /// How it came to its approval status, oldest first.
    pub approvals: Vec<Approval>,
    /// What it is made of.
    pub artifacts: Vec<Artifact>,
    /// Token of the request that made it, with the hash of that request.
    pub created_with: Option<(String, String)>,
    /// Token of the request that changed it last.
    pub updated_with: Option<String>,
    /// Profiles of its validation, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
}

impl PackageRecord {
    /// Reads a stored document.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(document: &Value) -> store::Result<PackageRecord> {
        Ok(PackageRecord::deserialize(document)?)
    }

    /// The document to store.
    pub fn to_document(&self) -> Value {
        serde_json::to_value(self).expect("strings, numbers and lists always serialize")
    }

    /// `ModelPackageStatus`: that of its validation; a package without one is completed as it is registered.
    pub fn package_status(&self) -> &'static str {
        let any = |status: ProfileStatus| self.profiles.iter().any(|profile| profile.status == status);
        let all = |status: ProfileStatus| self.profiles.iter().all(|profile| profile.status == status);
        if all(ProfileStatus::Completed) {
            "Completed"
        } else if any(ProfileStatus::InProgress) {
            "InProgress"
        } else if any(ProfileStatus::NotStarted) {
            if all(ProfileStatus::NotStarted) { "Pending" } else { "InProgress" }
        } else {
            "Failed"
        }
    }

    fn validation_statuses(&self) -> Value {
        let statuses = self.profiles.iter().map(|profile| {
            let mut status = json!({"Name": profile.name, "Status": profile.status});
            if let Some(reason) = &profile.failure_reason {
                status["FailureReason"] = reason.clone().into();
            }
            status
        });
        statuses.collect()
    }

    /// The approval status; versions of groups have one.
    pub fn approval_status(&self) -> Option<&str> {
        self.approvals.last().map(|approval| approval.to.as_str())
    }
}

/// The document of a model package group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The greatest version that was ever given out.
    pub last_version: u32,
    /// Who made it.
    pub created_by: Author,
    /// Its resource policy, as it was given.
    pub policy: Option<String>,
    /// Tokens of the last registrations, each with the hash of its request and its version.
    pub recent: Vec<(String, String, u32)>,
}

/// Tokens that a group remembers: a client that tries again does so within seconds.
const MOST_TOKENS: usize = 32;

impl GroupRecord {
    /// Reads a stored document.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(document: &Value) -> store::Result<GroupRecord> {
        Ok(GroupRecord::deserialize(document)?)
    }

    /// The document to store.
    pub fn to_document(&self) -> Value {
        serde_json::to_value(self).expect("strings, numbers and lists always serialize")
    }

    /// Takes down that a token has led to a version.
    pub fn remember(&mut self, token: String, request_hash: String, version: u32) {
        if self.recent.len() >= MOST_TOKENS {
            self.recent.remove(0);
        }
        self.recent.push((token, request_hash, version));
    }
}

/// Key of a version of a group.
pub fn version_key(group: &ResourceKey, version: u32) -> ResourceKey {
    let name = format!("{}/{version:0VERSION_DIGITS$}", group.name);
    ResourceKey::new(&*group.account, &*group.region, MODEL_PACKAGE, name)
}

/// ARN of a version of a group.
pub fn version_arn(group_arn: &str, version: u32) -> String {
    format!("{}/{version}", super::policy::package_prefix(group_arn))
}

/// What DescribeModelPackage answers, beside the request.
pub fn description(resource: &Resource, record: &PackageRecord) -> Value {
    let seconds = |at_ms: i64| at_ms as f64 / 1000.0;
    let why = record.approvals.last().and_then(|approval| approval.why.clone());
    json!({
        "ModelPackageGroupName": record.group,
        "ModelPackageVersion": record.version,
        "ModelPackageRegistrationType": record.registration,
        "ModelPackageArn": resource.arn,
        "CreationTime": seconds(resource.created_at),
        "ModelPackageStatus": record.package_status(),
        "ModelPackageStatusDetails": {
            "ValidationStatuses": record.validation_statuses(),
            "ImageScanStatuses": [],
        },
        "CertifyForMarketplace": false,
        "ModelApprovalStatus": record.approval_status(),
        "ApprovalDescription": why,
        "CreatedBy": record.created_by.user_context(),
        "LastModifiedTime": seconds(resource.modified_at),
        "LastModifiedBy": record.modified_by.as_ref().map(Author::user_context),
    })
}

/// The whole description, the request with what is known beside it.
pub fn described(resource: &Resource, record: &PackageRecord) -> Value {
    let mut shown = resource.spec.clone();
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, description(resource, record)) {
        shown.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
    }
    shown
}

/// Detail of the event that tells a package's new state.
///
/// # Errors
/// When the stored document is damaged.
pub fn state_detail(resource: &Resource) -> store::Result<Value> {
    let record = PackageRecord::read(&resource.document)?;
    let mut detail = described(resource, &record);
    for (name, at_ms) in [("CreationTime", resource.created_at), ("LastModifiedTime", resource.modified_at)] {
        let moment = OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1000)).ok();
        let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
        detail[name] = text.map_or(Value::Null, Value::from);
    }
    Ok(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_versions_sort_as_versions_do() {
        let group = ResourceKey::new("1", "r", "model-package-group", "G");
        let names: Vec<String> = [2, 10, 1].map(|version| version_key(&group, version).name).into();
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(sorted, [&*names[2], &*names[0], &*names[1]]);
        let arn = version_arn("arn:aws:sagemaker:r:1:model-package-group/g", 10);
        assert_eq!(arn, "arn:aws:sagemaker:r:1:model-package/g/10");
    }

    #[test]
    fn a_group_forgets_the_oldest_token() {
        let author = Author { arn: "a".into(), principal_id: "p".into() };
        let mut group = GroupRecord { last_version: 0, created_by: author, policy: None, recent: Vec::new() };
        for version in 0..40 {
            group.remember(version.to_string(), String::new(), version);
        }
        assert_eq!(group.recent.len(), MOST_TOKENS);
        assert_eq!(group.recent.first().unwrap().2, 40 - MOST_TOKENS as u32);
    }
}
