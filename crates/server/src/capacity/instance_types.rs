//! What an instance type means in CPUs, memory and GPUs: a built-in table, and the types that users add.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Facts of the vendor's public tables.
const TABLE: &str = include_str!("instance-types.toml");

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// The resources behind an instance type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Virtual CPUs.
    pub vcpus: f64,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// Number of accelerators.
    #[serde(default)]
    pub gpus: u32,
    /// Kind of accelerator, for people.
    #[serde(default)]
    pub gpu: Option<String>,
}

impl Profile {
    /// Memory in bytes.
    pub fn memory_bytes(&self) -> u64 {
        (self.memory_gib * GIB) as u64
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} vCPUs, {} GiB", self.vcpus, self.memory_gib)?;
        match (self.gpus, &self.gpu) {
            (0, _) => Ok(()),
            (count, Some(kind)) => write!(formatter, ", {count} x {kind}"),
            (count, None) => write!(formatter, ", {count} GPUs"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    memory_gib_per_vcpu: BTreeMap<String, f64>,
    types: BTreeMap<String, Profile>,
}

/// The built-in types and the user's own; a user's type hides a built-in one of the same name.
#[derive(Debug, Clone)]
pub struct InstanceTypes {
    memory_gib_per_vcpu: BTreeMap<String, f64>,
    types: BTreeMap<String, Profile>,
    own: BTreeMap<String, Profile>,
}

impl InstanceTypes {
    /// The built-in table with the user's types laid over it.
    pub fn with(own: BTreeMap<String, Profile>) -> InstanceTypes {
        let table: Table = toml::from_str(TABLE).expect("a test reads the built-in table");
        InstanceTypes { memory_gib_per_vcpu: table.memory_gib_per_vcpu, types: table.types, own }
    }

    /// What `name` means; `None` when nobody has said.
    pub fn find(&self, name: &str) -> Option<Profile> {
        if let Some(listed) = self.own.get(name).or_else(|| self.types.get(name)) {
            return Some(listed.clone());
        }
        let (family, size) = name.strip_prefix("ml.")?.split_once('.')?;
        let memory_gib_per_vcpu = self.memory_gib_per_vcpu.get(family)?;
        let vcpus = match size {
            "medium" => 1.0,
            "large" => 2.0,
            "xlarge" => 4.0,
            _ => 4.0 * f64::from(size.strip_suffix("xlarge")?.parse::<u16>().ok()?),
        };
        Some(Profile { vcpus, memory_gib: vcpus * memory_gib_per_vcpu, gpus: 0, gpu: None })
    }

    /// Whether the user's settings define the type.
    pub fn is_own(&self, name: &str) -> bool {
        self.own.contains_key(name)
    }

    /// Names that would fit: the user's own that `fits` accepts, then the largest of the general-purpose family.
    pub fn suggest(&self, fits: impl Fn(&Profile) -> bool) -> Vec<String> {
        let mut names: Vec<String> =
            self.own.iter().filter(|(_, profile)| fits(profile)).map(|(name, _)| name.clone()).collect();
        let general =
            ["24xlarge", "16xlarge", "12xlarge", "8xlarge", "4xlarge", "2xlarge", "xlarge", "large"];
        let general = general.iter().map(|size| format!("ml.m5.{size}"));
        names.extend(general.filter(|name| self.find(name).is_some_and(|profile| fits(&profile))).take(2));
        if names.is_empty() {
            let smallest = ["ml.c5.large", "ml.t3.medium", "ml.t3.small", "ml.t3.micro"];
            let smallest = smallest.into_iter().map(String::from);
            names.extend(smallest.filter(|name| self.find(name).is_some_and(|profile| fits(&profile))));
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> InstanceTypes {
        InstanceTypes::with(BTreeMap::from([(
            "ml.team.big".to_owned(),
            Profile { vcpus: 12.0, memory_gib: 100.0, gpus: 2, gpu: None },
        )]))
    }

    #[test]
    fn every_type_of_the_service_model_is_known() {
        let model: serde_json::Value =
            serde_json::from_str(include_str!("../../../../models/sagemaker.json")).unwrap();
        let types = types();
        let mut seen = 0;
        for shape in [
            "TrainingInstanceType",
            "ProcessingInstanceType",
            "TransformInstanceType",
            "ProductionVariantInstanceType",
            "AppInstanceType",
        ] {
            for name in model["shapes"][shape]["enum"].as_array().unwrap() {
                let name = name.as_str().unwrap();
                if name == "system" {
                    continue;
                }
                assert!(types.find(name).is_some(), "{name}");
                seen += 1;
            }
        }
        assert!(seen > 500, "{seen}");
    }

    #[test]
    fn sizes_follow_from_names_and_exceptions_win() {
        let types = types();
        let told = |name: &str| types.find(name).map(|profile| profile.to_string());
        assert_eq!(told("ml.m5.xlarge").as_deref(), Some("4 vCPUs, 16 GiB"));
        assert_eq!(told("ml.c5.18xlarge").as_deref(), Some("72 vCPUs, 144 GiB"));
        assert_eq!(told("ml.c4.8xlarge").as_deref(), Some("36 vCPUs, 60 GiB"));
        assert_eq!(told("ml.p3.2xlarge").as_deref(), Some("8 vCPUs, 61 GiB, 1 x NVIDIA V100"));
        assert_eq!(told("ml.team.big").as_deref(), Some("12 vCPUs, 100 GiB, 2 GPUs"));
        for unknown in ["ml.m5.huge", "ml.zz.large", "m5.large", ""] {
            assert_eq!(told(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn suggestions_fit() {
        let fits =
            |profile: &Profile| profile.vcpus <= 16.0 && profile.memory_gib <= 64.0 && profile.gpus == 0;
        assert_eq!(types().suggest(fits), ["ml.m5.4xlarge", "ml.m5.2xlarge"]);
        assert_eq!(types().suggest(|profile| profile.memory_gib <= 2.0), ["ml.t3.small", "ml.t3.micro"]);
    }
}
