//! What is kept of an inference experiment beside its request, and how it goes from one status to the next.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Session;
use store::resources::{Resource, ResourceKey};

use super::rules::Outcome;
use crate::sagemaker::kinds::INFERENCE_EXPERIMENT;

/// Not deployed yet; its time has not come.
pub const CREATED: &str = "Created";
/// The shadow is being deployed.
pub const STARTING: &str = "Starting";
/// Requests are copied.
pub const RUNNING: &str = "Running";
/// Another shadow, or another share, is being deployed.
pub const UPDATING: &str = "Updating";
/// What is left after it is being deployed.
pub const STOPPING: &str = "Stopping";
/// It ended.
pub const COMPLETED: &str = "Completed";
/// It ended early, or something failed.
pub const CANCELLED: &str = "Cancelled";

/// The status document of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentRecord {
    /// When it starts or started.
    pub start_at_ms: i64,
    /// When it ends.
    pub end_at_ms: i64,
    /// Tells its configurations from those of an experiment that had the name before.
    pub id: String,
    /// What is to be deployed, or is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
    /// Counts deployments.
    #[serde(default)]
    pub deployments: u32,
    /// The configuration that the endpoint had before; none where there was no endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_before: Option<String>,
    /// How it ends, once it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// `StatusReason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at_ms: Option<i64>,
}

/// A configuration on its way to the endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its name.
    pub config: String,
    /// Whether the endpoint was told to take it.
    pub is_asked: bool,
    /// The share of the requests that are copied, where nothing else changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

/// How an experiment ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// `Completed` or `Cancelled`.
    pub status: String,
    /// What is served afterwards.
    pub outcome: Outcome,
    /// With which infrastructure: elements of `ModelVariants`. None: as before the experiment.
    pub variants: Option<Vec<Value>>,
}

impl ExperimentRecord {
    /// Reads a stored document.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(document: &Value) -> store::Result<ExperimentRecord> {
        Ok(ExperimentRecord::deserialize(document)?)
    }

    /// The document to store.
    pub fn to_document(&self) -> Value {
        json!(self)
    }

    /// Lets the next configuration be deployed.
    pub fn deploy_next(&mut self, experiment: &str) {
        self.deployments += 1;
        let short: String = experiment.chars().take(40).collect();
        let config = format!("{}-{}-{}", short.trim_end_matches('-'), self.id, self.deployments);
        self.deployment = Some(Deployment { config, is_asked: false, weight: None });
    }

    /// The name of the configuration that is deployed, or is to be.
    pub fn config(&self) -> Option<&str> {
        self.deployment.as_ref().map(|deployment| deployment.config.as_str())
    }
}

/// Whether nothing happens any more in a status.
pub fn is_over(status: &str) -> bool {
    matches!(status, COMPLETED | CANCELLED)
}

/// Changes an experiment that has one of the statuses `from`, and appends the event of its status. Called within a transaction.
///
/// # Errors
/// [`store::Error::WrongStatus`] for one that has another status by now.
pub fn change(
    session: &Session<'_>,
    key: &ResourceKey,
    from: &[&str],
    now_ms: i64,
    edit: impl FnOnce(&mut Resource, &mut ExperimentRecord) -> store::Result<()>,
) -> store::Result<Resource> {
    let mut reason = None;
    let changed = session.update_resource(key, now_ms, |resource| {
        if !from.contains(&resource.status.as_str()) {
            return Err(store::Error::WrongStatus {
                kind: INFERENCE_EXPERIMENT.into(),
                name: resource.key.name.clone(),
                status: resource.status.clone(),
            });
        }
        let mut record = ExperimentRecord::read(&resource.document)?;
        edit(resource, &mut record)?;
        if is_over(&resource.status) {
            record.completed_at_ms = Some(now_ms);
        }
        resource.document = record.to_document();
        reason = record.reason;
        Ok(())
    })?;
    session.append_event(key, &changed.status, &json!({"Reason": reason}), now_ms)?;
    Ok(changed)
}

/// Whether one of the other experiments of this endpoint is at work, or will be between these times.
///
/// # Errors
/// When the database fails, or a stored record is damaged.
pub fn rival(
    session: &Session<'_>,
    own: &ResourceKey,
    endpoint: &str,
    (start_at, end_at): (i64, i64),
    now_ms: i64,
) -> store::Result<Option<String>> {
    for other in session.all_resources(INFERENCE_EXPERIMENT)? {
        let is_other =
            other.key != *own && other.key.account == own.account && other.key.region == own.region;
        let is_here =
            other.spec["EndpointName"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(endpoint));
        if !is_other || !is_here || is_over(&other.status) {
            continue;
        }
        let record = ExperimentRecord::read(&other.document)?;
        // One that is at work is so until it is over, also where its time has passed.
        let is_at_work = other.status != CREATED;
        let ends_at = if is_at_work { record.end_at_ms.max(now_ms + 1) } else { record.end_at_ms };
        if record.start_at_ms < end_at && start_at < ends_at {
            return Ok(Some(other.key.name));
        }
    }
    Ok(None)
}

/// Refuses an experiment that would use an endpoint at the same time as another one. Called within the transaction that makes or changes
/// it, so that of two at once one is refused.
///
/// # Errors
/// [`store::Error::Precondition`] that names the other one.
pub fn check_rivals(
    session: &Session<'_>,
    own: &ResourceKey,
    endpoint: &str,
    times: (i64, i64),
    now_ms: i64,
) -> store::Result<()> {
    match rival(session, own, endpoint, times, now_ms)? {
        None => Ok(()),
        Some(other) => Err(store::Error::Precondition(format!(
            "Endpoint {endpoint} is used by inference experiment {other} at that time; stop it, or choose another Schedule."
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_have_names_that_the_service_allows() {
        let mut record = ExperimentRecord {
            start_at_ms: 0,
            end_at_ms: 1,
            id: "1a2b3c4d".into(),
            deployment: None,
            deployments: 0,
            config_before: None,
            stop: None,
            reason: None,
            completed_at_ms: None,
        };
        record.deploy_next("short");
        assert_eq!(record.config(), Some("short-1a2b3c4d-1"));
        record.deploy_next(&format!("{}-{}", "x".repeat(39), "y".repeat(80)));
        let config = record.config().unwrap();
        assert!(config.len() <= 63 && config.ends_with("x-1a2b3c4d-2"), "{config}");
        assert_eq!(ExperimentRecord::read(&record.to_document()).unwrap(), record);
    }
}
