//! Brings the endpoint of an experiment to the configuration that the experiment needs, through the operations that a client would call.

use std::sync::Arc;

use serde_json::{Value, json};
use store::resources::{Resource, ResourceKey};
use wire::Caller;

use super::record::{Deployment, ExperimentRecord, STARTING, STOPPING};
use super::rules::{self, Outcome};
use crate::app::App;
use crate::endpoints::EndpointRecord;
use crate::internal_call::{self, CallError};
use crate::sagemaker::kinds::{ENDPOINT, ENDPOINT_CONFIG};

/// Where a deployment stands.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// The endpoint serves it.
    Done,
    /// It goes on.
    Waiting,
    /// The endpoint was told; take it down, so that what comes next is its answer.
    Asked,
    /// It will not come.
    Failed(String),
}

/// The endpoint of an experiment.
pub fn endpoint_key(experiment: &Resource) -> ResourceKey {
    let name = experiment.spec["EndpointName"].as_str().unwrap_or_default();
    ResourceKey { kind: ENDPOINT.into(), name: name.to_owned(), ..experiment.key.clone() }
}

/// Takes the next step of a deployment; each can be repeated.
///
/// # Errors
/// When the database fails, or a stored record is damaged.
pub async fn advance(
    app: &Arc<App>,
    experiment: &Resource,
    record: &ExperimentRecord,
    deployment: &Deployment,
) -> crate::Result<Progress> {
    let key = endpoint_key(experiment);
    let found = app.database.read({
        let key = key.clone();
        move |session| session.find_resource(&key)
    });
    let name = &key.name;
    let Some(endpoint) = found.await? else {
        let is_made_here =
            experiment.status == STARTING && record.config_before.is_none() && !deployment.is_asked;
        if !is_made_here {
            return Ok(Progress::Failed(format!("Endpoint {name} was deleted.")));
        }
        let input = json!({"EndpointName": name, "EndpointConfigName": deployment.config});
        return tell(app, experiment, record, deployment, "CreateEndpoint", input).await;
    };
    let serves = EndpointRecord::read(&endpoint.document)?;
    let is_settled = matches!(endpoint.status.as_str(), "InService" | "Failed");
    let is_reached = match deployment.weight {
        None => serves.config == deployment.config,
        Some(weight) => serves.shadows.first().is_some_and(|shadow| shadow.weight == weight),
    };
    let failure = serves.failure_reason.clone();
    match (endpoint.status.as_str(), is_reached) {
        ("Deleting", _) => Ok(Progress::Failed(format!("Endpoint {name} is being deleted."))),
        ("InService", true) if failure.is_none() => Ok(Progress::Done),
        ("InService" | "Failed", true) => {
            Ok(Progress::Failed(failure.unwrap_or_else(|| format!("Endpoint {name} failed."))))
        }
        _ if !is_settled => Ok(Progress::Waiting),
        (_, false) if deployment.is_asked => Ok(Progress::Failed(failure.unwrap_or_else(|| {
            format!("Endpoint {name} was updated to configuration {} by somebody else.", serves.config)
        }))),
        _ => {
            let (operation, input) = match deployment.weight {
                None => {
                    ("UpdateEndpoint", json!({"EndpointName": name, "EndpointConfigName": deployment.config}))
                }
                Some(weight) => {
                    let shadow = serves.shadows.first().map(|shadow| shadow.name.clone());
                    let change = json!({"VariantName": shadow, "DesiredWeight": weight});
                    (
                        "UpdateEndpointWeightsAndCapacities",
                        json!({"EndpointName": name, "DesiredWeightsAndCapacities": [change]}),
                    )
                }
            };
            tell(app, experiment, record, deployment, operation, input).await
        }
    }
}

/// Makes the configuration, unless it is there, and calls an operation on the endpoint.
async fn tell(
    app: &Arc<App>,
    experiment: &Resource,
    record: &ExperimentRecord,
    deployment: &Deployment,
    operation: &str,
    input: Value,
) -> crate::Result<Progress> {
    let caller = match caller(app, experiment).await {
        Ok(caller) => caller,
        Err(refused) => return Ok(refusal(refused)),
    };
    let wanted = ResourceKey {
        kind: ENDPOINT_CONFIG.into(),
        name: deployment.config.clone(),
        ..experiment.key.clone()
    };
    let is_there = app.database.read(move |session| session.find_resource(&wanted)).await?.is_some();
    if !is_there && deployment.weight.is_none() {
        let config = match configuration(app, experiment, record, &deployment.config).await? {
            Ok(config) => config,
            Err(text) => return Ok(Progress::Failed(text)),
        };
        let made = internal_call::call(app, &caller, "sagemaker", "CreateEndpointConfig", config).await;
        if let Err(refused) = made {
            return Ok(refusal(refused));
        }
    }
    match internal_call::call(app, &caller, "sagemaker", operation, input).await {
        Ok(_) => Ok(Progress::Asked),
        Err(refused) => Ok(refusal(refused)),
    }
}

fn refusal(error: CallError) -> Progress {
    // The server's own fault passes, as does somebody else's update that was faster.
    if error.status >= 500 || error.message.contains("in-progress endpoint") {
        return Progress::Waiting;
    }
    Progress::Failed(error.message)
}

async fn caller(app: &Arc<App>, experiment: &Resource) -> Result<Caller, CallError> {
    let key = &experiment.key;
    let role = experiment.spec["RoleArn"].as_str().unwrap_or_default();
    internal_call::as_role(app, &key.account, &key.region, role, "SageMaker").await
}

/// The endpoint configuration that the experiment needs now; the inner error is a sentence for people.
async fn configuration(
    app: &App,
    experiment: &Resource,
    record: &ExperimentRecord,
    name: &str,
) -> crate::Result<Result<Value, String>> {
    let before = config_before(app, experiment, record).await?.unwrap_or_default();
    let spec = &experiment.spec;
    let variants = match rules::variants(spec) {
        Ok(variants) => variants,
        Err(text) => return Ok(Err(text)),
    };
    let stop = record.stop.as_ref().filter(|_| experiment.status == STOPPING);
    let Some(stop) = stop else {
        let shadow = Some((variants.shadow, variants.percentage));
        let storage = &spec["DataStorageConfig"];
        return Ok(Ok(rules::endpoint_config(name, variants.production, shadow, storage, &before)));
    };
    let wanted = stop.variants.clone().unwrap_or_default();
    let of = |variant: &Value| {
        let wanted = wanted.iter().find(|wanted| wanted["VariantName"] == variant["VariantName"]);
        wanted.unwrap_or(variant).clone()
    };
    let (production, shadow) = (of(variants.production), of(variants.shadow));
    // The experiment's data storage ends with it.
    let config = match stop.outcome {
        Outcome::Production => rules::endpoint_config(name, &production, None, &Value::Null, &before),
        Outcome::Promoted => rules::endpoint_config(name, &shadow, None, &Value::Null, &before),
        Outcome::Both => {
            let shadow = Some((&shadow, variants.percentage));
            rules::endpoint_config(name, &production, shadow, &Value::Null, &before)
        }
    };
    Ok(Ok(config))
}

/// The configuration that the endpoint had before the experiment, if it is still there.
///
/// # Errors
/// When the database fails.
pub async fn config_before(
    app: &App,
    experiment: &Resource,
    record: &ExperimentRecord,
) -> crate::Result<Option<Value>> {
    let Some(name) = &record.config_before else { return Ok(None) };
    let key = ResourceKey { kind: ENDPOINT_CONFIG.into(), name: name.clone(), ..experiment.key.clone() };
    let found = app.database.read(move |session| session.find_resource(&key)).await?;
    Ok(found.map(|found| found.spec))
}
