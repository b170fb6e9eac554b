//! `DeploymentConfig` of CreateEndpoint and UpdateEndpoint: what is honoured and refused, and how a deployment begins.

use serde_json::Value;
use store::resources::Resource;

use crate::endpoints::rollout::{self, Deployment, Progress, Side, config};
use crate::endpoints::{DeployedVariant, EndpointRecord};
use crate::monitoring::{AlarmState, alarm_states};
use crate::{Cx, Error, Result};

/// The fields that are honoured.
pub const HONOURED: &[&str] = &[
    "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration.Type",
    "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration.WaitIntervalInSeconds",
    "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration.CanarySize.Type",
    "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration.CanarySize.Value",
    "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration.LinearStepSize.Type",
    "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration.LinearStepSize.Value",
    "DeploymentConfig.BlueGreenUpdatePolicy.TerminationWaitInSeconds",
    "DeploymentConfig.BlueGreenUpdatePolicy.MaximumExecutionTimeoutInSeconds",
    "DeploymentConfig.RollingUpdatePolicy.MaximumBatchSize.Type",
    "DeploymentConfig.RollingUpdatePolicy.MaximumBatchSize.Value",
    "DeploymentConfig.RollingUpdatePolicy.WaitIntervalInSeconds",
    "DeploymentConfig.RollingUpdatePolicy.MaximumExecutionTimeoutInSeconds",
    "DeploymentConfig.RollingUpdatePolicy.RollbackMaximumBatchSize.Type",
    "DeploymentConfig.RollingUpdatePolicy.RollbackMaximumBatchSize.Value",
    "DeploymentConfig.AutoRollbackConfiguration.Alarms.AlarmName",
];

/// The configuration of a request, if it has one.
pub fn given(input: &Value) -> Option<Value> {
    input.get("DeploymentConfig").filter(|given| !given.is_null()).cloned()
}

/// The configuration that an update asks for: its own, or the one that was given last.
///
/// # Errors
/// [`Error::Validation`] when it asks for both.
pub fn wanted(input: &Value, endpoint: &Resource) -> Result<Option<Value>> {
    let own = given(input);
    if input["RetainDeploymentConfig"] != true {
        return Ok(own);
    }
    if own.is_some() {
        return Err(Error::Validation(
            "DeploymentConfig: leave it out when RetainDeploymentConfig is true, or set RetainDeploymentConfig to false.".into(),
        ));
    }
    Ok(EndpointRecord::read(&endpoint.document)?.last_deployment_config)
}

/// Refuses a configuration that these variants could not follow, or whose alarms are not there.
///
/// # Errors
/// [`Error::Validation`] that names the field or the alarm.
pub async fn check(cx: &Cx, config: Option<&Value>, variants: &[DeployedVariant]) -> Result<()> {
    let Some(config) = config else { return Ok(()) };
    config::policy(config, rollout::instances(variants))?;
    let missing = states(cx, config).await?.into_iter().find(|(_, state)| state.is_none());
    missing.map_or(Ok(()), |(name, _)| Err(missing_alarm(&name)))
}

/// Refuses an update whose alarms are not there, or would roll it back at once.
///
/// # Errors
/// [`Error::Validation`] that names the alarm.
pub async fn check_alarms(cx: &Cx, config: Option<&Value>) -> Result<()> {
    let Some(config) = config else { return Ok(()) };
    for (name, state) in states(cx, config).await? {
        match state {
            None => return Err(missing_alarm(&name)),
            Some(AlarmState::Alarm) => {
                return Err(Error::Validation(format!(
                    "DeploymentConfig.AutoRollbackConfiguration: the alarm {name} is in the state ALARM; update the endpoint when it \
                     is not, or leave the alarm out."
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

async fn states(cx: &Cx, config: &Value) -> Result<Vec<(String, Option<AlarmState>)>> {
    let names = config::alarms(config);
    let states = alarm_states(&cx.state, (&cx.caller.account, &cx.caller.region), &names).await?;
    Ok(names
        .into_iter()
        .map(|name| {
            let state = states.get(&name).copied();
            (name, state)
        })
        .collect())
}

fn missing_alarm(name: &str) -> Error {
    Error::Validation(format!(
        "DeploymentConfig.AutoRollbackConfiguration: the alarm {name} does not exist in this account and region; make it with \
         PutMetricAlarm first."
    ))
}

/// Begins to deploy a side; where nothing serves yet, it replaces what there is.
///
/// # Errors
/// When the configuration does not fit the variants.
pub fn begin(
    record: &mut EndpointRecord,
    side: Side,
    config: Option<Value>,
    by: Value,
    now_ms: i64,
) -> store::Result<()> {
    if config.is_some() {
        record.last_deployment_config.clone_from(&config);
    }
    if !record.has_served() {
        record.show(side);
        record.served_generation = None;
        return Ok(());
    }
    // There is nothing to replace but what components are put on.
    if record.hosts_components() {
        if config.is_some() {
            return Err(store::Error::Invalid(
                "DeploymentConfig: an endpoint for inference components has no model to deploy; update the components instead.".into(),
            ));
        }
        record.show(side);
        return Ok(());
    }
    let instances = rollout::instances(&side.variants);
    let policy = match &config {
        Some(config) => {
            config::policy(config, instances).map_err(|error| store::Error::Invalid(error.to_string()))?
        }
        None => rollout::Policy::plain(0),
    };
    let progress = Progress::first(&policy, now_ms);
    record.deployment = Some(Deployment {
        other: side,
        config,
        started_at: now_ms,
        by,
        progress,
        steps: vec![progress],
        reason: None,
    });
    Ok(())
}
