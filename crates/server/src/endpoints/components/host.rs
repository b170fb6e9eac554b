//! A variant that has instances and no model of its own: inference components are put on it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::endpoints::record::{DeployedVariant, EndpointRecord};

/// What a variant for inference components is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentHost {
    /// Type of its instances.
    pub instance_type: String,
    /// Between how many instances it moves by itself, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedInstances>,
}

/// `ManagedInstanceScaling` that is enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedInstances {
    /// Least instances.
    pub least: u32,
    /// Most instances.
    pub most: u32,
}

impl ManagedInstances {
    /// Reads `ManagedInstanceScaling` of a variant that begins with `initial` instances; `None` where it is not enabled.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn of(variant: &Value, initial: u32) -> Result<Option<ManagedInstances>, String> {
        let given = &variant["ManagedInstanceScaling"];
        // Whoever names bounds and no status wants them kept.
        if given.is_null() || given["Status"] == "DISABLED" {
            return Ok(None);
        }
        let number = |name: &str| given[name].as_u64().and_then(|number| u32::try_from(number).ok());
        let least = number("MinInstanceCount").unwrap_or(initial);
        let most = number("MaxInstanceCount").unwrap_or(least.max(initial));
        if least > most {
            return Err(format!(
                "ManagedInstanceScaling: MinInstanceCount {least} must not be above MaxInstanceCount {most}."
            ));
        }
        if !(least..=most).contains(&initial) {
            return Err(format!(
                "ManagedInstanceScaling: InitialInstanceCount {initial} must be from MinInstanceCount {least} to MaxInstanceCount {most}."
            ));
        }
        Ok(Some(ManagedInstances { least, most }))
    }
}

impl EndpointRecord {
    /// Whether inference components are put on it.
    pub fn hosts_components(&self) -> bool {
        self.variants.iter().any(|variant| variant.host.is_some())
    }
}

/// A variant as DescribeEndpoint shows it: one for components has instances, and neither weight nor image.
pub fn described(mut shown: Value, variant: &DeployedVariant) -> Value {
    if let (Some(host), Some(members)) = (&variant.host, shown.as_object_mut()) {
        for member in ["DeployedImages", "CurrentWeight", "DesiredWeight"] {
            members.shift_remove(member);
        }
        members.insert("CurrentInstanceCount".into(), variant.replicas.into());
        if let Some(managed) = host.managed {
            let bounds = json!({
                "Status": "ENABLED", "MinInstanceCount": managed.least, "MaxInstanceCount": managed.most,
            });
            members.insert("ManagedInstanceScaling".into(), bounds);
        }
    }
    shown
}

/// Refuses to make an endpoint for models one for components, or the other way round, and to take variants away that components are on.
///
/// # Errors
/// [`store::Error::Invalid`].
pub fn check_update(
    before: &EndpointRecord,
    after: &[DeployedVariant],
    in_use: &[String],
) -> store::Result<()> {
    let hosts = |variants: &[DeployedVariant]| variants.iter().any(|variant| variant.host.is_some());
    if hosts(&before.variants) != hosts(after) {
        return Err(store::Error::Invalid(
            "An endpoint for inference components cannot be updated to a configuration with models, nor the other way round: \
             create another endpoint."
                .into(),
        ));
    }
    match in_use.iter().find(|name| after.iter().all(|variant| variant.name != **name)) {
        Some(name) => Err(store::Error::Invalid(format!(
            "The variant {name} has inference components: delete them, or keep the variant in the new configuration."
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_instances_have_sound_bounds() {
        let of = |managed: Value, initial| {
            ManagedInstances::of(&json!({"ManagedInstanceScaling": managed}), initial)
        };
        assert_eq!(of(Value::Null, 1), Ok(None));
        assert_eq!(of(json!({"Status": "DISABLED", "MinInstanceCount": 3}), 1), Ok(None));
        let both = json!({"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 3});
        assert_eq!(of(both.clone(), 1), Ok(Some(ManagedInstances { least: 0, most: 3 })));
        assert_eq!(of(json!({"Status": "ENABLED"}), 2), Ok(Some(ManagedInstances { least: 2, most: 2 })));
        assert!(of(both, 4).unwrap_err().contains("InitialInstanceCount 4"));
        let wrong = json!({"Status": "ENABLED", "MinInstanceCount": 3, "MaxInstanceCount": 2});
        assert!(of(wrong, 2).unwrap_err().contains("MinInstanceCount 3"));
    }
}
