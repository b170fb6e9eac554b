//! Models from model packages: the container that a package stands for, once it may be deployed and is what was registered.

use std::sync::Arc;

use serde_json::{Value, json};
use store::resources::Resource;

use super::model_packages::APPROVED;
use super::{models, package_access};
use crate::endpoints::model_data::ModelForm;
use crate::registry::artifacts::{self, Artifact};
use crate::registry::package::PackageRecord;
use crate::{Cx, Error, Result};

/// Puts what a package stands for into a CreateModel request, and answers the document of the model.
///
/// # Errors
/// [`Error::Validation`] for a package that may not be deployed or has changed; as [`package_access::package`].
pub async fn resolve(cx: Cx) -> Result<(Cx, Value)> {
    if models::containers(&cx.input).len() > 1 {
        // None of them may be a package's; `multi_container` says so.
        return Ok((cx, json!({})));
    }
    let container = models::container(&cx.input);
    let specification = container["InferenceSpecificationName"].as_str();
    let Some(name) = container["ModelPackageName"].as_str() else {
        return match specification {
            None => Ok((cx, json!({}))),
            Some(_) => Err(Error::Validation("InferenceSpecificationName needs a ModelPackageName.".into())),
        };
    };
    for member in ["Image", "ModelDataUrl", "ModelDataSource"] {
        if !container[member].is_null() {
            return Err(Error::Validation(format!("{member} and ModelPackageName cannot both be given.")));
        }
    }
    let package = package_access::package(&cx, name, "sagemaker:CreateModel").await?;
    let record = PackageRecord::read(&package.document)?;
    check_deployable(&package, &record)?;
    let registered = registered_container(&package, specification)?;
    let mut used = Vec::new();
    for artifact in &record.artifacts {
        if is_part_of(artifact, registered) {
            let opened = artifacts::open_unchanged(&cx.state, artifact).await;
            opened.map_err(|problem| refusal(&package, &problem))?;
            used.push(artifact);
        }
    }
    let document = json!({"package": package.arn, "artifacts": used});
    let spec = with_container(&cx.input, registered);
    Ok((Cx { input: Arc::new(spec), ..cx }, document))
}

/// Whether a container is made of this object: the object itself, or one below its prefix.
fn is_part_of(artifact: &Artifact, container: &Value) -> bool {
    let is_prefix = models::model_form(container) == ModelForm::Files;
    models::model_data(container)
        .is_some_and(|uri| artifact.uri == uri || (is_prefix && artifact.uri.starts_with(uri)))
}

/// The registered artifacts that a model's data must be, when it was created from a package.
///
/// # Errors
/// When the stored document is damaged.
pub fn expected_artifacts(model: &Resource) -> Result<Vec<Artifact>> {
    match &model.document["artifacts"] {
        Value::Null => Ok(Vec::new()),
        artifacts => serde_json::from_value(artifacts.clone()).map_err(Error::internal),
    }
}

fn refusal(package: &Resource, problem: &str) -> Error {
    Error::Validation(format!("Cannot create a model from ModelPackage {}: {problem}", package.arn))
}

fn check_deployable(package: &Resource, record: &PackageRecord) -> Result<()> {
    if record.registration == "Logged" {
        return Err(refusal(
            package,
            "it is Logged; set its ModelPackageRegistrationType to Registered first.",
        ));
    }
    match record.package_status() {
        "Completed" => {}
        status => {
            let problem = format!("its status is {status}, and only a Completed one can be deployed.");
            return Err(refusal(package, &problem));
        }
    }
    match record.approval_status() {
        None | Some(APPROVED) => Ok(()),
        Some(status) => {
            let problem =
                format!("its approval status is {status}, and only an {APPROVED} one can be deployed.");
            Err(refusal(package, &problem))
        }
    }
}

/// The one container of an inference specification of the package.
fn registered_container<'a>(package: &'a Resource, specification: Option<&str>) -> Result<&'a Value> {
    let specification = match specification {
        None => &package.spec["InferenceSpecification"],
        Some(name) => {
            let none = Vec::new();
            let additional = package.spec["AdditionalInferenceSpecifications"].as_array();
            let found = additional.unwrap_or(&none).iter().position(|one| one["Name"] == name);
            let Some(at) = found else {
                return Err(refusal(
                    package,
                    &format!("it has no additional inference specification {name:?}."),
                ));
            };
            &package.spec["AdditionalInferenceSpecifications"][at]
        }
    };
    match specification["Containers"].as_array().map(Vec::as_slice) {
        Some([one]) => Ok(one),
        Some([_, _, ..]) => Err(Error::field("ModelPackageName of a package with more than one container")),
        _ => Err(refusal(package, "it has no inference specification.")),
    }
}

/// The request with the registered container in it; the environment of the request goes over that of the package.
fn with_container(input: &Value, registered: &Value) -> Value {
    let mut spec = input.clone();
    let at = if spec["PrimaryContainer"].is_null() { "/Containers/0" } else { "/PrimaryContainer" };
    if let Some(container) = spec.pointer_mut(at) {
        for member in ["Image", "ModelDataUrl"] {
            if !registered[member].is_null() {
                container[member] = registered[member].clone();
            }
        }
        let source = &registered["ModelDataSource"]["S3DataSource"];
        if !source.is_null() {
            let mut taken = json!({});
            for member in ["S3Uri", "S3DataType", "CompressionType"] {
                taken[member] = source[member].clone();
            }
            container["ModelDataSource"] = json!({"S3DataSource": taken});
        }
        let mut environment = registered["Environment"].as_object().cloned().unwrap_or_default();
        environment.extend(container["Environment"].as_object().cloned().unwrap_or_default());
        if !environment.is_empty() {
            container["Environment"] = environment.into();
        }
    }
    spec
}
