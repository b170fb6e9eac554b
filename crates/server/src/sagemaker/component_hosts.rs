//! Variants without a model, for inference components: what a configuration says of them, and what does not go with them.

use api::sagemaker::DesiredWeightAndCapacity;
use serde_json::Value;
use store::resources::ResourceKey;

use super::endpoint_configs;
use super::endpoints::DEFAULT_STARTUP_SECONDS;
use crate::endpoints::DeployedVariant;
use crate::endpoints::components::{ComponentHost, MOST_INSTANCES, ManagedInstances, components_of};
use crate::endpoints::model_data::ModelForm;
use crate::{Cx, Error, Result};

/// Whether a variant is for inference components.
pub fn is_host(variant: &Value) -> bool {
    variant["ModelName"].is_null()
}

/// Refuses what does not go with a variant for components, or goes with nothing else.
///
/// # Errors
/// [`Error::Validation`] that names it.
pub async fn check(cx: &Cx, config: &Value, variant: &Value) -> Result<()> {
    let none = Vec::new();
    let variants = config["ProductionVariants"].as_array().unwrap_or(&none);
    if !is_host(variant) {
        if variants.iter().any(is_host) {
            return Err(Error::Validation(
                "ProductionVariants: either all variants have a ModelName, or none has one, for inference components.".into(),
            ));
        }
        // These are for variants without a model.
        let managed = &variant["ManagedInstanceScaling"];
        return match (&config["ExecutionRoleArn"], &config["EnableNetworkIsolation"]) {
            (Value::String(_), _) => Err(Error::field("ExecutionRoleArn with ModelName")),
            (_, Value::Bool(true)) => Err(Error::field("EnableNetworkIsolation with ModelName")),
            _ if !managed.is_null() && managed["Status"] != "DISABLED" => {
                Err(Error::field("ProductionVariants.ManagedInstanceScaling with ModelName"))
            }
            _ => Ok(()),
        };
    }
    let refused = |what: &str| {
        Err(Error::Validation(format!(
            "{what} not supported for variants without a ModelName, which are for inference components."
        )))
    };
    for member in ["ServerlessConfig", "InitialVariantWeight"] {
        if !variant[member].is_null() {
            return refused(&format!("ProductionVariants.{member} is"));
        }
    }
    for member in ["AsyncInferenceConfig", "ShadowProductionVariants"] {
        if config[member].as_array().map_or(!config[member].is_null(), |given| !given.is_empty()) {
            return refused(&format!("{member} is"));
        }
    }
    if config["DataCaptureConfig"]["EnableCapture"] == true {
        return refused("DataCaptureConfig is");
    }
    deployed(config, variant)?;
    let Some(role) = config["ExecutionRoleArn"].as_str() else {
        return Err(Error::Validation(
            "ExecutionRoleArn must be given when a variant has no ModelName: inference components act as that role.".into(),
        ));
    };
    crate::iam::check_assumable(cx, role).await
}

/// A variant for components, as it is kept with its endpoint. What it says of start-up holds for components that do not say it.
///
/// # Errors
/// [`Error::Validation`] for what is missing, and for bounds that make no sense.
pub fn deployed(config: &Value, variant: &Value) -> Result<DeployedVariant> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let Some(instance_type) = text(&variant["InstanceType"]) else {
        return Err(Error::Validation(
            "ProductionVariants: InstanceType must be given for a variant without a ModelName.".into(),
        ));
    };
    let initial = variant["InitialInstanceCount"].as_u64().and_then(|count| u32::try_from(count).ok());
    let initial = initial.unwrap_or(1);
    let managed = ManagedInstances::of(variant, initial).map_err(Error::Validation)?;
    let most = managed.map_or(initial, |managed| managed.most);
    if most > MOST_INSTANCES {
        return Err(Error::Validation(format!(
            "ProductionVariants: a variant without a ModelName has at most {MOST_INSTANCES} instances, not {most}."
        )));
    }
    Ok(DeployedVariant {
        name: text(&variant["VariantName"]).unwrap_or_default(),
        weight: 1.0,
        replicas: initial,
        startup_timeout_seconds: variant["ContainerStartupHealthCheckTimeoutInSeconds"]
            .as_u64()
            .unwrap_or(DEFAULT_STARTUP_SECONDS),
        download_timeout_seconds: variant["ModelDataDownloadTimeoutInSeconds"].as_u64(),
        routing: endpoint_configs::routing(variant)?,
        usual_workers: None,
        image: String::new(),
        model_data: None,
        model_form: ModelForm::default(),
        registered_artifacts: Vec::new(),
        environment: std::collections::BTreeMap::new(),
        models: None,
        containers: Vec::new(),
        is_direct: false,
        role_arn: text(&config["ExecutionRoleArn"]),
        network_isolation: config["EnableNetworkIsolation"] == true,
        serverless: None,
        host: Some(ComponentHost { instance_type, managed }),
        share: None,
    })
}

/// Names of the variants of an endpoint that components are on.
///
/// # Errors
/// When the database fails.
pub async fn variants_in_use(cx: &Cx, endpoint: &ResourceKey) -> Result<Vec<String>> {
    let endpoint = endpoint.clone();
    let found = cx.state.database.read(move |session| components_of(session, &endpoint));
    Ok(found.await?.into_iter().map(|(_, record)| record.variant).collect())
}

/// Refuses what cannot be changed of a variant for components.
///
/// # Errors
/// [`store::Error::Invalid`].
pub fn check_change(variant: &DeployedVariant, wanted: &DesiredWeightAndCapacity) -> store::Result<()> {
    let Some(host) = &variant.host else { return Ok(()) };
    let refused = |text: &str| {
        Err(store::Error::Invalid(format!(
            "DesiredWeightsAndCapacities: the variant {} {text}",
            variant.name
        )))
    };
    if wanted.desired_weight.is_some() {
        return refused("is for inference components, which requests name, and has no DesiredWeight.");
    }
    if wanted.desired_instance_count.is_some_and(|count| i64::from(count) > i64::from(MOST_INSTANCES)) {
        return refused(
            "is for inference components, and has too large a DesiredInstanceCount; 100 is the most.",
        );
    }
    if wanted.desired_instance_count.is_some() && host.managed.is_some() {
        return refused(
            "has ManagedInstanceScaling, so that its DesiredInstanceCount follows its components; change MinInstanceCount and \
             MaxInstanceCount with UpdateEndpoint.",
        );
    }
    Ok(())
}
