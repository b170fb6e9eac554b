//! What an inference component serves, from its specification.

use serde_json::{Value, json};
use store::resources::Resource;

use super::kinds::MODEL;
use super::{endpoints, records, shadow_variants};
use crate::endpoints::DeployedVariant;
use crate::endpoints::components::{ComponentSide, Instances, Share};
use crate::endpoints::workers::usual_workers;
use crate::{Cx, Error, Result};

/// The members of a specification that are honoured, with what stands before them.
pub const HONOURED: &[&str] = &[
    "Specification.ModelName",
    "Specification.Container.Image",
    "Specification.Container.ArtifactUrl",
    "Specification.Container.Environment.**",
    "Specification.StartupParameters.ModelDataDownloadTimeoutInSeconds",
    "Specification.StartupParameters.ContainerStartupHealthCheckTimeoutInSeconds",
    "Specification.ComputeResourceRequirements.NumberOfCpuCoresRequired",
    "Specification.ComputeResourceRequirements.NumberOfAcceleratorDevicesRequired",
    "Specification.ComputeResourceRequirements.MinMemoryRequiredInMb",
    "Specification.ComputeResourceRequirements.MaxMemoryRequiredInMb",
    "Specification.DataCacheConfig.EnableCaching",
    "Specification.SchedulingConfig.PlacementStrategy",
];

/// The specification that an update makes of the one before: what it leaves out stays; a model replaces a container, and an image a model.
pub fn updated(before: &Value, given: &Value) -> Value {
    let mut updated = before.clone();
    let (Some(members), Some(given)) = (updated.as_object_mut(), given.as_object()) else { return updated };
    for (name, value) in given.iter().filter(|(_, value)| !is_empty(value)) {
        match name.as_str() {
            "ModelName" => drop(members.shift_remove("Container")),
            "Container" if !value["Image"].is_null() => drop(members.shift_remove("ModelName")),
            _ => {}
        }
        match (name.as_str(), members.get_mut(name)) {
            ("Container" | "StartupParameters", Some(Value::Object(kept))) => {
                kept.extend(value.as_object().cloned().unwrap_or_default());
            }
            _ => drop(members.insert(name.clone(), value.clone())),
        }
    }
    updated
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// What the copies of a component of this name are on a variant; their generation and number are set by whoever gives them room.
///
/// # Errors
/// [`Error::Validation`] that names the field; [`Error::NotFound`] for a model that is not there.
pub async fn side(
    cx: &Cx,
    name: &str,
    specification: &Value,
    host: &DeployedVariant,
) -> Result<ComponentSide> {
    let share = Share::of(specification).map_err(Error::Validation)?;
    let container = Some(&specification["Container"]).filter(|container| !is_empty(container));
    let made = match (specification["ModelName"].as_str(), container) {
        (Some(model), None) => of_model(cx, model).await?,
        (None, Some(container)) => of_container(cx, name, container)?,
        _ => {
            return Err(Error::Validation(
                "Specification: give either ModelName, or Container with its Image.".into(),
            ));
        }
    };
    let startup = &specification["StartupParameters"];
    let capacity = &cx.state.capacity;
    let profile = host.host.as_ref().map(|host| Instances::of(capacity).profile(&host.instance_type));
    let usual = usual_workers(profile.as_ref(), capacity.machine_cpus());
    let deployed = DeployedVariant {
        name: name.to_owned(),
        replicas: 0,
        startup_timeout_seconds: startup["ContainerStartupHealthCheckTimeoutInSeconds"]
            .as_u64()
            .unwrap_or(host.startup_timeout_seconds),
        download_timeout_seconds: startup["ModelDataDownloadTimeoutInSeconds"]
            .as_u64()
            .or(host.download_timeout_seconds),
        routing: host.routing,
        usual_workers: Some(share.workers(usual, capacity.machine_cpus())),
        role_arn: made.role_arn.clone().or_else(|| host.role_arn.clone()),
        network_isolation: made.network_isolation || host.network_isolation,
        share: Some(share),
        ..made
    };
    Ok(ComponentSide { generation: 0, specification: specification.clone(), deployed })
}

async fn of_model(cx: &Cx, name: &str) -> Result<DeployedVariant> {
    let model = records::find(cx, MODEL, name).await?;
    if shadow_variants::has_several_models(&model.spec) {
        return Err(Error::Validation(format!(
            "Specification: model {name} has several containers or is a multi-model one, which inference components do not support."
        )));
    }
    endpoints::deployed(&model)
}

/// A container that no model describes.
fn of_container(cx: &Cx, name: &str, container: &Value) -> Result<DeployedVariant> {
    if container["Image"].is_null() {
        return Err(Error::Validation("Specification.Container: Image must be given.".into()));
    }
    let artifact = &container["ArtifactUrl"];
    if let Some(uri) = artifact.as_str()
        && crate::training::bucket_and_key(uri).is_none_or(|(_, key)| key.is_empty() || key.ends_with('/'))
    {
        return Err(Error::Validation(format!(
            "Specification.Container.ArtifactUrl: {uri:?} is not the S3 URI of an object."
        )));
    }
    let model = Resource {
        key: records::key(cx, MODEL, name),
        arn: String::new(),
        status: String::new(),
        spec: json!({"PrimaryContainer": {
            "Image": container["Image"], "ModelDataUrl": artifact, "Environment": container["Environment"],
        }}),
        document: json!({}),
        generation: 1,
        created_at: 0,
        modified_at: 0,
    };
    endpoints::deployed(&model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_keeps_what_it_leaves_out() {
        let needs = json!({"MinMemoryRequiredInMb": 128});
        let more = json!({"MinMemoryRequiredInMb": 256});
        let model = json!({"ModelName": "m", "ComputeResourceRequirements": needs});
        let startup = json!({"StartupParameters": {"ModelDataDownloadTimeoutInSeconds": 60}});
        let container = json!({"Container": {"Image": "i", "Environment": {"A": "b"}}});
        for (before, given, expected) in [
            (
                &model,
                json!({"Container": {}, "StartupParameters": {}, "ComputeResourceRequirements": more}),
                json!({"ModelName": "m", "ComputeResourceRequirements": more}),
            ),
            (
                &model,
                container.clone(),
                json!({"ComputeResourceRequirements": needs, "Container": container["Container"]}),
            ),
            (&container, json!({"ModelName": "n"}), json!({"ModelName": "n"})),
            (
                &container,
                json!({"Container": {"Environment": {"C": "d"}}}),
                json!({"Container": {"Image": "i", "Environment": {"C": "d"}}}),
            ),
            (
                &startup,
                json!({"StartupParameters": {"ContainerStartupHealthCheckTimeoutInSeconds": 90}}),
                json!({"StartupParameters": {
                    "ModelDataDownloadTimeoutInSeconds": 60, "ContainerStartupHealthCheckTimeoutInSeconds": 90,
                }}),
            ),
        ] {
            assert_eq!(updated(before, &given), expected, "{given}");
        }
    }
}
