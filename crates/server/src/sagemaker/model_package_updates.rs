//! UpdateModelPackage: approval, and what is said of a package after it was registered.

use api::sagemaker::{UpdateModelPackage, UpdateModelPackageInput, UpdateModelPackageOutput};
use serde_json::{Map, Value, json};
use store::resources::Resource;

use super::model_packages::{APPROVED, PENDING, own_approval};
use super::{model_package_specs as specs, package_access};
use crate::registry::artifacts::Artifact;
use crate::registry::package::{Approval, Author, PackageRecord};
use crate::{Cx, Error, Registry, Result};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<UpdateModelPackage, _, _, _>(update_model_package);
}

const HONOURED: &[&str] = &[
    "ModelPackageArn",
    "ModelApprovalStatus",
    "ModelPackageRegistrationType",
    "ApprovalDescription",
    "CustomerMetadataProperties.**",
    "CustomerMetadataPropertiesToRemove",
    "SourceUri",
    "ModelCard.**",
    "ModelLifeCycle.**",
    "ClientToken",
];

/// Most entries of customer metadata, as in the service.
const MOST_METADATA: usize = 50;

async fn update_model_package(cx: Cx, input: UpdateModelPackageInput) -> Result<UpdateModelPackageOutput> {
    specs::check_fields(
        &cx.input,
        HONOURED,
        &["InferenceSpecification", "AdditionalInferenceSpecificationsToAdd"],
    )?;
    specs::check_specification(&cx.input["InferenceSpecification"], "InferenceSpecification")?;
    specs::check_additional(&cx.input["AdditionalInferenceSpecificationsToAdd"])?;
    let package =
        package_access::package(&cx, &input.model_package_arn, "sagemaker:UpdateModelPackage").await?;
    // What the request adds to the specification, with the hashes of its artifacts.
    let mut added = json!({
        "SourceUri": cx.input["SourceUri"],
        "InferenceSpecification": cx.input["InferenceSpecification"],
        "AdditionalInferenceSpecifications": cx.input["AdditionalInferenceSpecificationsToAdd"],
    });
    specs::populate(&cx, &mut added).await?;
    let artifacts = specs::record_artifacts(&cx, &mut added).await?;
    let update = Update {
        input: cx.input.clone(),
        added,
        artifacts,
        author: Author::of(&cx.caller),
        approver_is_not_author: cx.state.config.registry.approver_is_not_author,
        now_ms: cx.state.clock.now_ms(),
    };
    let (key, now_ms) = (package.key, update.now_ms);
    let changed = cx.state.database.write(move |session| {
        let mut refused = None;
        let present = session.resource(&key)?;
        if PackageRecord::read(&present.document)?.updated_with == update.token() && update.token().is_some()
        {
            return Ok(Ok(present.arn));
        }
        let changed = session.update_resource(&key, now_ms, |package| {
            // The change is made on a copy, so that a refusal leaves the package as it is.
            let mut copy = package.clone();
            match update.apply(&mut copy) {
                Ok(()) => *package = copy,
                Err(error) => refused = Some(error),
            }
            match refused {
                Some(_) => Err(store::Error::Invalid("refused".into())),
                None => Ok(()),
            }
        });
        if let Some(error) = refused {
            return Ok(Err(error));
        }
        let changed = changed?;
        session.append_event(&key, "Updated", &update.input, now_ms)?;
        crate::events::append_state(session, &changed, now_ms)?;
        Ok(Ok(changed.arn))
    });
    let arn = match changed.await {
        Ok(outcome) => outcome?,
        Err(store::Error::Missing { .. }) => {
            return Err(Error::not_found(super::kinds::MODEL_PACKAGE, input.model_package_arn));
        }
        Err(other) => return Err(other.into()),
    };
    Ok(UpdateModelPackageOutput { model_package_arn: Some(arn) })
}

/// A change of a package, ready to be made.
struct Update {
    input: std::sync::Arc<Value>,
    added: Value,
    artifacts: Vec<Artifact>,
    author: Author,
    approver_is_not_author: bool,
    now_ms: i64,
}

impl Update {
    fn token(&self) -> Option<String> {
        self.input["ClientToken"].as_str().map(str::to_owned)
    }

    fn apply(&self, package: &mut Resource) -> Result<()> {
        let mut record = PackageRecord::read(&package.document)?;
        self.register(&mut record)?;
        self.approve(&mut record)?;
        self.specify(&mut package.spec, &record)?;
        set_metadata(&mut package.spec, &self.input)?;
        specs::set_card(&mut package.spec, &self.input)?;
        if !self.input["ModelLifeCycle"].is_null() {
            package.spec["ModelLifeCycle"] = self.input["ModelLifeCycle"].clone();
        }
        for artifact in &self.artifacts {
            record.artifacts.retain(|known| known.uri != artifact.uri);
            record.artifacts.push(artifact.clone());
        }
        record.modified_by = Some(self.author.clone());
        record.updated_with = self.token();
        if let Some(status) = record.approval_status() {
            package.status = status.to_owned();
        }
        package.document = record.to_document();
        Ok(())
    }

    fn register(&self, record: &mut PackageRecord) -> Result<()> {
        match (record.registration.as_str(), self.input["ModelPackageRegistrationType"].as_str()) {
            ("Registered", Some("Logged")) => {
                let text = "ModelPackageRegistrationType: a Registered model package cannot become Logged.";
                Err(Error::Validation(text.into()))
            }
            (_, Some(wanted)) => {
                record.registration = wanted.to_owned();
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }

    fn approve(&self, record: &mut PackageRecord) -> Result<()> {
        let wanted = self.input["ModelApprovalStatus"].as_str();
        let why = self.input["ApprovalDescription"].as_str().map(str::to_owned);
        if wanted.is_none() && why.is_none() {
            return Ok(());
        }
        let Some(status) = record.approval_status().map(str::to_owned) else {
            let text = "ModelApprovalStatus is for versions of a ModelPackageGroup alone; leave it out.";
            return Err(Error::Validation(text.into()));
        };
        let to = wanted.unwrap_or(&status).to_owned();
        if to == APPROVED && record.registration == "Logged" {
            let text = "ModelApprovalStatus: a Logged model package cannot be Approved: register it first.";
            return Err(Error::Validation(text.into()));
        }
        if to == APPROVED
            && status != APPROVED
            && self.approver_is_not_author
            && record.created_by.arn == self.author.arn
        {
            return Err(own_approval());
        }
        let by = self.author.clone();
        record.approvals.push(Approval { at: self.now_ms, by, from: Some(status), to, why });
        Ok(())
    }

    fn specify(&self, spec: &mut Value, record: &PackageRecord) -> Result<()> {
        let added = |name: &str| Some(&self.added[name]).filter(|value| !value.is_null());
        let (inference, additional) =
            (added("InferenceSpecification"), added("AdditionalInferenceSpecifications"));
        let is_approved = record.approval_status() == Some(APPROVED);
        if self.approver_is_not_author && is_approved && (inference.is_some() || additional.is_some()) {
            return Err(Error::Validation(format!(
                "What was approved cannot be changed on this server (registry.approver_is_not_author): set ModelApprovalStatus to \
                 {PENDING} first."
            )));
        }
        if let Some(inference) = inference {
            spec["InferenceSpecification"] = inference.clone();
        }
        if let Some(source) = added("SourceUri") {
            spec["SourceUri"] = source.clone();
        }
        if let Some(Value::Array(additional)) = additional {
            let mut all = spec["AdditionalInferenceSpecifications"].as_array().cloned().unwrap_or_default();
            all.extend(additional.iter().cloned());
            let all = Value::Array(all);
            specs::check_additional(&all)?;
            spec["AdditionalInferenceSpecifications"] = all;
        }
        Ok(())
    }
}

fn set_metadata(spec: &mut Value, input: &Value) -> Result<()> {
    let mut all: Map<String, Value> =
        spec["CustomerMetadataProperties"].as_object().cloned().unwrap_or_default();
    if let Some(set) = input["CustomerMetadataProperties"].as_object() {
        all.extend(set.clone());
    }
    let none = Vec::new();
    for key in input["CustomerMetadataPropertiesToRemove"].as_array().unwrap_or(&none) {
        all.remove(key.as_str().unwrap_or_default());
    }
    if all.len() > MOST_METADATA {
        let text =
            format!("CustomerMetadataProperties: a model package has at most {MOST_METADATA} of them.");
        return Err(Error::Validation(text));
    }
    if let Some(members) = spec.as_object_mut() {
        if all.is_empty() {
            members.remove("CustomerMetadataProperties");
        } else {
            members.insert("CustomerMetadataProperties".into(), all.into());
        }
    }
    Ok(())
}
