//! Serverless variants: what their configuration says, what does not go with it, and what it means to the data plane.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use api::sagemaker::DesiredWeightAndCapacity;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serving::OnDemandPlan;

use super::EndpointController;
use super::record::{DeployedVariant, EndpointRecord};
use super::settings::EndpointSettings;
use crate::{Error, Result};

/// The variable of a model's environment that says how long its serverless replicas are kept.
pub const IDLE_VARIABLE: &str = "MODELYARD_SERVERLESS_IDLE_SECONDS";

/// What that may be.
pub const IDLE_SECONDS: RangeInclusive<u64> = 1..=7 * 24 * 3600;

/// The largest body of a request and of an answer, as in the service.
const MOST_BODY_BYTES: u64 = 4 * 1024 * 1024;

/// Memory sizes are multiples of this.
const MEMORY_STEP_MIB: u64 = 1024;

/// `ServerlessConfig` of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serverless {
    /// Memory of each replica.
    pub memory_mib: u32,
    /// Most invocations at once.
    pub max_concurrency: u32,
    /// Invocations at once for which replicas are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned_concurrency: Option<u32>,
}

impl Serverless {
    /// What a variant of a configuration says; `None` when it has instances.
    ///
    /// # Errors
    /// [`Error::Validation`] for numbers that do not go together.
    pub fn of(variant: &Value) -> Result<Option<Serverless>> {
        let config = &variant["ServerlessConfig"];
        if config.is_null() {
            return Ok(None);
        }
        let number = |name: &str| config[name].as_u64();
        let memory = number("MemorySizeInMB").unwrap_or_default();
        if !memory.is_multiple_of(MEMORY_STEP_MIB) || !(1..=6).contains(&(memory / MEMORY_STEP_MIB)) {
            return Err(Error::Validation(format!(
                "ServerlessConfig.MemorySizeInMB {memory} is not supported: use 1024, 2048, 3072, 4096, 5120 or 6144."
            )));
        }
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let serverless = Serverless {
            memory_mib: small(memory),
            max_concurrency: number("MaxConcurrency").map_or(1, small),
            provisioned_concurrency: number("ProvisionedConcurrency").map(small),
        };
        serverless.check().map_err(Error::Validation)?;
        Ok(Some(serverless))
    }

    fn check(&self) -> std::result::Result<(), String> {
        match self.provisioned_concurrency {
            Some(provisioned) if provisioned > self.max_concurrency => Err(format!(
                "ProvisionedConcurrency {provisioned} must be less than or equal to MaxConcurrency {}.",
                self.max_concurrency
            )),
            _ => Ok(()),
        }
    }

    /// Memory of each replica, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        u64::from(self.memory_mib) << 20
    }

    fn shown(&self) -> Value {
        let mut shown = json!({"MemorySizeInMB": self.memory_mib, "MaxConcurrency": self.max_concurrency});
        if let Some(provisioned) = self.provisioned_concurrency {
            shown["ProvisionedConcurrency"] = provisioned.into();
        }
        shown
    }
}

/// Refuses what does not go with a serverless variant: other members of the configuration, or what its model is.
///
/// # Errors
/// [`Error::Validation`] that names it.
pub fn check(config: &Value, variant: &Value, model: &Value) -> Result<()> {
    if Serverless::of(variant)?.is_none() {
        return Ok(());
    }
    let refused = |what: &str| {
        Err(Error::Validation(format!(
            "{what} not supported for serverless endpoints: leave it out, or use instances instead of ServerlessConfig."
        )))
    };
    for member in ["InstanceType", "InitialInstanceCount", "VolumeSizeInGB"] {
        if !variant[member].is_null() {
            return refused(&format!("ProductionVariants.{member} is"));
        }
    }
    if config["ProductionVariants"].as_array().is_some_and(|variants| variants.len() > 1) {
        return refused("Multiple production variants are");
    }
    if config["DataCaptureConfig"]["EnableCapture"] == true {
        return refused("DataCaptureConfig is");
    }
    for member in ["AsyncInferenceConfig", "ShadowProductionVariants", "ExplainerConfig", "VpcConfig"] {
        if !config[member].is_null() {
            return refused(&format!("{member} is"));
        }
    }
    if model["EnableNetworkIsolation"] == true || config["EnableNetworkIsolation"] == true {
        return refused("Network isolation is");
    }
    if !model["VpcConfig"].is_null() {
        return refused("A model with VpcConfig is");
    }
    let containers = model["Containers"].as_array().map_or(0, Vec::len);
    if containers > 1 {
        return refused("A model with more than one container is");
    }
    let is_multi_model = |container: &Value| container["Mode"] == "MultiModel";
    if is_multi_model(&model["PrimaryContainer"]) || is_multi_model(&model["Containers"][0]) {
        return refused("A multi-model container is");
    }
    Ok(())
}

/// Refuses to make an endpoint with instances serverless, as the service does.
///
/// # Errors
/// [`store::Error::Invalid`].
pub fn check_update(before: &EndpointRecord, after: &[DeployedVariant]) -> store::Result<()> {
    let is_serverless = |variants: &[DeployedVariant]| variants.iter().any(|one| one.serverless.is_some());
    if is_serverless(after) && !is_serverless(&before.variants) {
        return Err(store::Error::Invalid(
            "An endpoint with instances cannot be updated to a serverless endpoint: create another endpoint."
                .into(),
        ));
    }
    Ok(())
}

/// Applies `ServerlessUpdateConfig` to a variant, and refuses what does not fit its kind.
///
/// # Errors
/// [`store::Error::Invalid`].
pub fn change(variant: &mut DeployedVariant, wanted: &DesiredWeightAndCapacity) -> store::Result<()> {
    let invalid = |text: String| Err(store::Error::Invalid(text));
    let Some(serverless) = &mut variant.serverless else {
        if wanted.serverless_update_config.is_some() {
            return invalid(format!(
                "ServerlessUpdateConfig: the variant {} has instances; use DesiredInstanceCount.",
                variant.name
            ));
        }
        return Ok(());
    };
    if wanted.desired_instance_count.is_some() {
        return invalid(format!(
            "DesiredInstanceCount: the variant {} is serverless; use ServerlessUpdateConfig.",
            variant.name
        ));
    }
    let Some(update) = &wanted.serverless_update_config else { return Ok(()) };
    let number = |given: Option<i32>| given.and_then(|number| u32::try_from(number).ok());
    if let Some(most) = number(update.max_concurrency) {
        serverless.max_concurrency = most;
    }
    if let Some(provisioned) = number(update.provisioned_concurrency) {
        serverless.provisioned_concurrency = Some(provisioned);
    }
    serverless.check().or_else(invalid)
}

/// A variant as DescribeEndpoint shows it: a serverless one says what it may do, and how many replicas are awake.
pub fn described(mut shown: Value, variant: &DeployedVariant) -> Value {
    if let (Some(serverless), Some(members)) = (&variant.serverless, shown.as_object_mut()) {
        members.shift_remove("DesiredInstanceCount");
        members.insert("CurrentServerlessConfig".into(), serverless.shown());
        members.insert("DesiredServerlessConfig".into(), serverless.shown());
    }
    shown
}

/// Workers of a replica where its model does not say it: one for each CPU, as far as each has a GiB.
pub fn workers(memory_mib: u64, machine_cpus: f64) -> u32 {
    let by_memory = u32::try_from(memory_mib / MEMORY_STEP_MIB).unwrap_or(u32::MAX);
    by_memory.min(machine_cpus as u32).max(1)
}

/// How long a model's environment asks its serverless replicas to be kept; `None` when it says nothing.
///
/// # Errors
/// A sentence for people.
pub fn idle_seconds(environment: &BTreeMap<String, String>) -> std::result::Result<Option<u64>, String> {
    let Some(text) = environment.get(IDLE_VARIABLE).filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse() {
        Ok(seconds) if IDLE_SECONDS.contains(&seconds) => Ok(Some(seconds)),
        _ => Err(format!(
            "{IDLE_VARIABLE}: {text:?} is not a number of seconds from {} to {}.",
            IDLE_SECONDS.start(),
            IDLE_SECONDS.end()
        )),
    }
}

/// What serverless variants may do on this machine.
#[derive(Debug, Clone)]
pub struct Room {
    idle_seconds: u64,
    wait_seconds: f64,
    memory_bytes: u64,
}

impl Room {
    /// By the settings; all replicas of a variant together may have `memory_bytes`.
    pub fn new(settings: &EndpointSettings, memory_bytes: u64) -> Room {
        Room {
            idle_seconds: settings.serverless_idle_seconds,
            wait_seconds: settings.serverless_wait_seconds,
            memory_bytes,
        }
    }

    fn plan(&self, serverless: &Serverless, environment: &BTreeMap<String, String>) -> OnDemandPlan {
        let most = self.memory_bytes / serverless.memory_bytes().max(1);
        // What the environment says was checked when it was deployed.
        let idle = idle_seconds(environment).ok().flatten().unwrap_or(self.idle_seconds);
        OnDemandPlan {
            max_concurrency: serverless.max_concurrency,
            provisioned_concurrency: serverless.provisioned_concurrency.unwrap_or(0),
            max_replicas: u32::try_from(most).unwrap_or(u32::MAX).clamp(1, serverless.max_concurrency.max(1)),
            idle_seconds: idle as f64,
            refusal_wait_seconds: self.wait_seconds,
            max_body_bytes: MOST_BODY_BYTES,
        }
    }
}

impl EndpointController {
    /// What a serverless variant means to the data plane.
    pub(super) fn on_demand(&self, variant: &DeployedVariant, serverless: &Serverless) -> OnDemandPlan {
        self.serverless.plan(serverless, &variant.environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "it is made for the call")]
    fn of(config: Value) -> Result<Option<Serverless>> {
        Serverless::of(&json!({"ServerlessConfig": config}))
    }

    #[test]
    fn a_configuration_is_read_and_shown_as_it_was() {
        let config = json!({"MemorySizeInMB": 3072, "MaxConcurrency": 7, "ProvisionedConcurrency": 7});
        let serverless = of(config.clone()).ok().flatten().unwrap();
        assert_eq!((serverless.shown(), serverless.memory_bytes()), (config, 3 << 30));
        assert_eq!(Serverless::of(&json!({"InitialInstanceCount": 1})).ok().flatten(), None);
        for (wrong, says) in [
            (json!({"MemorySizeInMB": 1500, "MaxConcurrency": 1}), "MemorySizeInMB 1500"),
            (json!({"MemorySizeInMB": 7168, "MaxConcurrency": 1}), "MemorySizeInMB 7168"),
            (
                json!({"MemorySizeInMB": 1024, "MaxConcurrency": 1, "ProvisionedConcurrency": 2}),
                "ProvisionedConcurrency 2",
            ),
        ] {
            let Err(Error::Validation(text)) = of(wrong) else { panic!("it must be refused") };
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn what_does_not_go_with_it_is_named() {
        let variant = json!({"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}});
        let with = |name: &str, value: Value| {
            let mut changed = variant.clone();
            changed[name] = value;
            changed
        };
        let refusal = |config: &Value, variant: &Value, model: &Value| match check(config, variant, model) {
            Err(Error::Validation(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(check(&json!({}), &variant, &json!({})).is_ok());
        for member in ["InstanceType", "InitialInstanceCount", "VolumeSizeInGB"] {
            assert!(refusal(&json!({}), &with(member, json!(1)), &json!({})).contains(member));
        }
        for (config, says) in [
            (json!({"ProductionVariants": [1, 2]}), "Multiple production variants"),
            (json!({"DataCaptureConfig": {"EnableCapture": true}}), "DataCaptureConfig"),
            (json!({"AsyncInferenceConfig": {}}), "AsyncInferenceConfig"),
        ] {
            assert!(refusal(&config, &variant, &json!({})).contains(says));
        }
        for (model, says) in [
            (json!({"EnableNetworkIsolation": true}), "Network isolation"),
            (json!({"Containers": [{}, {}]}), "more than one container"),
            (json!({"PrimaryContainer": {"Mode": "MultiModel"}}), "multi-model"),
        ] {
            assert!(refusal(&json!({}), &variant, &model).contains(says));
        }
        assert!(check(&json!({"AsyncInferenceConfig": {}}), &json!({}), &json!({})).is_ok());
    }

    #[test]
    fn memory_bounds_workers_and_replicas() {
        assert_eq!((workers(1024, 8.0), workers(6144, 2.0), workers(2048, 0.5)), (1, 2, 1));
        let room = Room::new(&EndpointSettings::default(), 5 << 30);
        let serverless = Serverless { memory_mib: 2048, max_concurrency: 20, provisioned_concurrency: None };
        let plan = room.plan(&serverless, &BTreeMap::new());
        assert_eq!((plan.max_replicas, plan.max_concurrency, plan.idle_seconds), (2, 20, 300.0));
        let environment = BTreeMap::from([(IDLE_VARIABLE.to_owned(), "7".to_owned())]);
        let large = Serverless { memory_mib: 6144, ..serverless };
        let plan = room.plan(&large, &environment);
        assert_eq!((plan.max_replicas, plan.idle_seconds), (1, 7.0));
        for wrong in ["0", "x", "-1", "1000000"] {
            let environment = BTreeMap::from([(IDLE_VARIABLE.to_owned(), wrong.to_owned())]);
            assert!(idle_seconds(&environment).unwrap_err().contains(IDLE_VARIABLE), "{wrong}");
        }
    }
}
