//! What a model package may say of itself: inference specifications and their artifacts, and where they come from.

use api::sagemaker::CreateTransformJobInput;
use serde_json::{Value, json};

use super::kinds::MODEL;
use super::{fields, models, package_access, records, transform_fields};
use crate::registry::artifacts::{self, Artifact};
use crate::registry::card_content;
use crate::registry::package::{Profile, ProfileStatus};
use crate::registry::validation;
use crate::{Cx, Error, Result};

/// Most additional inference specifications of a package, as in the service.
pub const MOST_ADDITIONAL: usize = 15;

/// What is honoured of an inference specification.
const SPECIFICATION: &[&str] = &[
    "Containers.ContainerHostname",
    "Containers.Image",
    "Containers.ImageDigest",
    "Containers.ModelDataUrl",
    "Containers.ModelDataETag",
    "Containers.ModelDataSource.S3DataSource.S3Uri",
    "Containers.ModelDataSource.S3DataSource.S3DataType",
    "Containers.ModelDataSource.S3DataSource.CompressionType",
    "Containers.ModelDataSource.S3DataSource.ETag",
    "Containers.ModelDataSource.S3DataSource.ModelAccessConfig.AcceptEula",
    "Containers.Environment.**",
    "Containers.ModelInput.DataInputConfig",
    "Containers.Framework",
    "Containers.FrameworkVersion",
    "Containers.NearestModelName",
    "SupportedTransformInstanceTypes",
    "SupportedRealtimeInferenceInstanceTypes",
    "SupportedContentTypes",
    "SupportedResponseMIMETypes",
];

/// Refuses what is set and not in `honoured`, nor part of an inference specification under one of `specifications`.
///
/// # Errors
/// [`Error::NotImplemented`] naming the field.
pub fn check_fields(input: &Value, honoured: &[&str], specifications: &[&str]) -> Result<()> {
    let below = specifications.iter().flat_map(|at| {
        SPECIFICATION.iter().chain(&["Name", "Description"]).map(move |member| format!("{at}.{member}"))
    });
    let below: Vec<String> = below.collect();
    let all: Vec<&str> = honoured.iter().copied().chain(below.iter().map(String::as_str)).collect();
    fields::check(input, &all)
}

/// Rules for the containers of an inference specification that the model of the API cannot say.
///
/// # Errors
/// [`Error::Validation`].
pub fn check_specification(specification: &Value, at: &str) -> Result<()> {
    let none = Vec::new();
    for container in specification["Containers"].as_array().unwrap_or(&none) {
        if container["Image"].is_null() {
            return Err(Error::Validation(format!(
                "{at}.Containers: Image must be given for each container."
            )));
        }
        if !container["ModelDataUrl"].is_null() && !container["ModelDataSource"].is_null() {
            let text = format!("{at}.Containers: ModelDataUrl and ModelDataSource cannot both be given.");
            return Err(Error::Validation(text));
        }
    }
    Ok(())
}

/// Refuses additional specifications that are too many or share a name.
///
/// # Errors
/// [`Error::Validation`].
pub fn check_additional(specifications: &Value) -> Result<()> {
    let none = Vec::new();
    let all = specifications.as_array().unwrap_or(&none);
    if all.len() > MOST_ADDITIONAL {
        let text =
            format!("A model package has at most {MOST_ADDITIONAL} additional inference specifications.");
        return Err(Error::Validation(text));
    }
    for (number, specification) in all.iter().enumerate() {
        check_specification(specification, "AdditionalInferenceSpecifications")?;
        let name = &specification["Name"];
        if all[..number].iter().any(|other| other["Name"] == *name) {
            let text = format!("AdditionalInferenceSpecifications: the name {name} is given twice.");
            return Err(Error::Validation(text));
        }
    }
    Ok(())
}

/// Takes the inference specification over from the model or the package that `SourceUri` names.
///
/// # Errors
/// [`Error::Validation`] when there is one already; [`Error::NotFound`] or [`Error::AccessDenied`] of the source.
pub async fn populate(cx: &Cx, spec: &mut Value) -> Result<()> {
    let Some(source) = spec["SourceUri"].as_str().map(str::to_owned) else { return Ok(()) };
    if !spec["InferenceSpecification"].is_null() {
        let text = "SourceUri and InferenceSpecification cannot both be given in one request.";
        return Err(Error::Validation(text.into()));
    }
    let is_of = |kind: &str| source.starts_with("arn:") && source.contains(&format!(":{kind}/"));
    if is_of("model-package") {
        let package = package_access::package(cx, &source, "sagemaker:DescribeModelPackage").await?;
        if package.key.account != cx.caller.account {
            return Err(Error::field("SourceUri of another account"));
        }
        spec["InferenceSpecification"] = package.spec["InferenceSpecification"].clone();
    } else if is_of("model") {
        let name = source.rsplit('/').next().unwrap_or_default();
        let model = records::find(cx, MODEL, name).await?;
        if model.arn != source.to_lowercase() {
            return Err(Error::not_found(MODEL, source));
        }
        let container = match models::containers(&model.spec).as_slice() {
            [one] if !models::has_many_models(one) => *one,
            _ => return Err(Error::field("SourceUri of a model with many models or several containers")),
        };
        let mut taken = json!({});
        for member in ["Image", "ModelDataUrl", "ModelDataSource", "Environment"] {
            if !container[member].is_null() {
                taken[member] = container[member].clone();
            }
        }
        spec["InferenceSpecification"] = json!({"Containers": [taken]});
    }
    Ok(())
}

/// Checks the model card of a request and lays it over the one that the package has.
///
/// # Errors
/// [`Error::Validation`] for content that is no card, and for a change of content and status at once.
pub fn set_card(spec: &mut Value, input: &Value) -> Result<()> {
    let given = &input["ModelCard"];
    if given.is_null() {
        return Ok(());
    }
    if let Some(content) = given["ModelCardContent"].as_str() {
        card_content::check_package_card(content).map_err(Error::Validation)?;
    }
    let present = spec["ModelCard"].clone();
    // In CreateModelPackage the specification is the request itself.
    let is_change = !present.is_null() && present != *given;
    let is_new = |member: &str| !given[member].is_null() && given[member] != present[member];
    if is_change && is_new("ModelCardContent") && is_new("ModelCardStatus") {
        let text = "ModelCard: ModelCardContent and ModelCardStatus cannot both be updated in one request.";
        return Err(Error::Validation(text.into()));
    }
    if is_change && is_new("ModelCardContent") && present["ModelCardStatus"] == "Archived" {
        return Err(Error::Validation(
            "ModelCard: the card is Archived; its content cannot be changed.".into(),
        ));
    }
    let mut card = if present.is_null() { json!({}) } else { present };
    for member in ["ModelCardContent", "ModelCardStatus"] {
        if !given[member].is_null() {
            card[member] = given[member].clone();
        }
    }
    if card["ModelCardStatus"].is_null() {
        card["ModelCardStatus"] = "Draft".into();
    }
    spec["ModelCard"] = card;
    Ok(())
}

/// The validation profiles of a package, as they are before they run.
///
/// # Errors
/// [`Error::Validation`] for what their transform jobs cannot do, [`Error::NotImplemented`] for a package of several containers.
pub fn profiles(cx: &Cx, spec: &Value) -> Result<Vec<Profile>> {
    let given = spec["ValidationSpecification"]["ValidationProfiles"].as_array();
    if spec["SkipModelValidation"] == "All" {
        return Ok(Vec::new());
    }
    let mut profiles = Vec::new();
    for profile in given.into_iter().flatten() {
        match spec["InferenceSpecification"]["Containers"].as_array().map(Vec::len) {
            Some(1) => {}
            Some(0) | None => {
                let text = "ValidationSpecification.ValidationProfiles need an InferenceSpecification.";
                return Err(Error::Validation(text.into()));
            }
            Some(_) => {
                let field =
                    "ValidationSpecification.ValidationProfiles of a package with more than one container";
                return Err(Error::field(field));
            }
        }
        let request = validation::job_request(&profile["TransformJobDefinition"], "validation");
        let typed: CreateTransformJobInput =
            serde_json::from_value(request.clone()).map_err(Error::internal)?;
        transform_fields::check(&request, &typed, cx.state.capacity.instance_types())?;
        let name = profile["ProfileName"].as_str().unwrap_or_default().to_owned();
        profiles.push(Profile { name, status: ProfileStatus::NotStarted, failure_reason: None });
    }
    Ok(profiles)
}

/// Hashes the artifacts of all inference specifications of a package.
///
/// # Errors
/// As [`artifacts::record`].
pub async fn record_artifacts(cx: &Cx, spec: &mut Value) -> Result<Vec<Artifact>> {
    let mut found = Vec::new();
    if let Some(containers) = spec.pointer_mut("/InferenceSpecification/Containers") {
        found.extend(artifacts::record(&cx.state, &cx.caller.account, containers).await?);
    }
    if let Some(Value::Array(additional)) = spec.get_mut("AdditionalInferenceSpecifications") {
        for specification in additional {
            found.extend(
                artifacts::record(&cx.state, &cx.caller.account, &mut specification["Containers"]).await?,
            );
        }
    }
    Ok(found)
}
