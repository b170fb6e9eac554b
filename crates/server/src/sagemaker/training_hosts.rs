//! What CreateTrainingJob may ask for of its hosts, beyond what the model says.

use std::collections::BTreeMap;

use api::sagemaker::CreateTrainingJobInput;
use serde_json::Value;

use crate::training::MOST_HOSTS;
use crate::{Error, Result};

/// Checks instance counts, groups, and the launcher that the hyperparameters ask for.
///
/// # Errors
/// [`Error::Validation`] naming the field, [`Error::NotImplemented`] for a value that is not done here.
pub fn check(raw: &Value, input: &CreateTrainingJobInput) -> Result<()> {
    let resources = &raw["ResourceConfig"];
    let groups = resources["InstanceGroups"].as_array().filter(|groups| !groups.is_empty());
    let hosts = match groups {
        Some(groups) => check_groups(resources, groups)?,
        None => {
            let count = resources["InstanceCount"].as_u64();
            if resources["InstanceType"].is_null() || count.is_none() {
                return Err(invalid(
                    "ResourceConfig.InstanceType and ResourceConfig.InstanceCount must be given.".into(),
                ));
            }
            count.unwrap_or_default()
        }
    };
    if hosts == 0 {
        return Err(invalid("ResourceConfig.InstanceCount must be at least 1.".into()));
    }
    if hosts > MOST_HOSTS as u64 {
        return Err(Error::field(&format!("ResourceConfig.InstanceCount above {MOST_HOSTS}")));
    }
    check_channels(raw, groups.map_or(&[], Vec::as_slice))?;
    check_launcher(input)
}

/// Returns the number of hosts.
fn check_groups(resources: &Value, groups: &[Value]) -> Result<u64> {
    for field in ["InstanceType", "InstanceCount"] {
        if !resources[field].is_null() {
            return Err(invalid(format!(
                "ResourceConfig.{field} cannot be given together with ResourceConfig.InstanceGroups."
            )));
        }
    }
    let mut names = Vec::new();
    let mut hosts = 0;
    for group in groups {
        let name = group["InstanceGroupName"].as_str().unwrap_or_default();
        if names.contains(&name) {
            return Err(invalid(format!("ResourceConfig.InstanceGroups: the name {name:?} is given twice.")));
        }
        names.push(name);
        let count = group["InstanceCount"].as_u64().unwrap_or_default();
        if count == 0 {
            return Err(invalid(format!(
                "ResourceConfig.InstanceGroups: InstanceCount of the group {name:?} must be at least 1."
            )));
        }
        hosts += count;
    }
    Ok(hosts)
}

fn check_channels(raw: &Value, groups: &[Value]) -> Result<()> {
    let known: Vec<&str> = groups.iter().filter_map(|group| group["InstanceGroupName"].as_str()).collect();
    for channel in raw["InputDataConfig"].as_array().into_iter().flatten() {
        let named = channel.pointer("/DataSource/S3DataSource/InstanceGroupNames").and_then(Value::as_array);
        for name in named.into_iter().flatten().filter_map(Value::as_str) {
            if !known.contains(&name) {
                let channel = channel["ChannelName"].as_str().unwrap_or_default();
                return Err(invalid(format!(
                    "InputDataConfig: InstanceGroupNames of the channel {channel:?} names {name:?}, which is not in \
                     ResourceConfig.InstanceGroups."
                )));
            }
        }
    }
    Ok(())
}

/// Refuses launchers that do not exist here. A job with an entry point of its own starts what it likes.
fn check_launcher(input: &CreateTrainingJobInput) -> Result<()> {
    let has_entrypoint = input
        .algorithm_specification
        .as_ref()
        .and_then(|specification| specification.container_entrypoint.as_ref())
        .is_some_and(|entrypoint| !entrypoint.is_empty());
    let none = BTreeMap::new();
    let hyperparameters = input.hyper_parameters.as_ref().unwrap_or(&none);
    match runner::contract::unsupported_distribution(hyperparameters) {
        Some(name) if !has_entrypoint => Err(Error::field(&format!("the hyperparameter {name}"))),
        _ => Ok(()),
    }
}

fn invalid(text: String) -> Error {
    Error::Validation(text)
}
