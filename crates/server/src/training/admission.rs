//! How a training job asks for its part of the machine: instance types, and the tags that name queue and priority.

use serde_json::Value;

use super::attempt::Attempt;
use super::record::TrainingRecord;
use crate::capacity::{Allocation, Claim, InstanceTypes, Profile};

/// Tag that names the queue of a job.
const QUEUE_TAG: &str = "modelyard:queue";

/// Tag with the priority of a job, a whole number; higher goes first.
const PRIORITY_TAG: &str = "modelyard:priority";

/// Queue of a job that names none.
const DEFAULT_QUEUE: &str = "default";

/// Instance types of a job's hosts, in the order of the hosts.
///
/// # Errors
/// A text that names the instance type that nobody knows.
pub fn hosts(request: &Value, types: &InstanceTypes) -> Result<Vec<(String, Profile)>, String> {
    let resources = &request["ResourceConfig"];
    let whole = std::slice::from_ref(resources);
    let groups = resources["InstanceGroups"].as_array().map_or(whole, Vec::as_slice);
    let mut hosts = Vec::new();
    for group in groups {
        let name = group["InstanceType"].as_str().unwrap_or_default();
        let profile = types.find(name).ok_or_else(|| {
            format!(
                "ResourceConfig.InstanceType: {name:?} is not known here; add it under [capacity.instance_types] in the settings file."
            )
        })?;
        let count = group["InstanceCount"].as_u64().unwrap_or(1);
        hosts.extend((0..count).map(|_| (name.to_owned(), profile.clone())));
    }
    Ok(hosts)
}

/// Queue and priority of a job by its tags.
///
/// # Errors
/// A text when the priority is no whole number.
pub fn queue_and_priority(request: &Value) -> Result<(String, i32), String> {
    let none = Vec::new();
    let tags = request["Tags"].as_array().unwrap_or(&none);
    let tag = |key: &str| tags.iter().find(|tag| tag["Key"] == key).and_then(|tag| tag["Value"].as_str());
    let priority = match tag(PRIORITY_TAG) {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| format!("Tags: {PRIORITY_TAG} must be a whole number, and {text:?} is none."))?,
    };
    Ok((tag(QUEUE_TAG).unwrap_or(DEFAULT_QUEUE).to_owned(), priority))
}

/// What the job asks of the machine.
///
/// # Errors
/// A text that names what is wrong in the request; checked before the job is made, so only settings that changed
/// since can cause it.
pub fn claim(attempt: &Attempt<'_>, record: &TrainingRecord) -> Result<Claim, String> {
    let request = serde_json::to_value(&attempt.request).map_err(|error| error.to_string())?;
    Ok(Claim {
        key: attempt.work.key.clone(),
        hosts: hosts(&request, attempt.app.capacity.instance_types())?,
        queue: record.queue.clone(),
        priority: record.priority,
        spot: attempt.request.enable_managed_spot_training == Some(true),
        enqueued_at: attempt.work.enqueued_at,
    })
}

/// Waits for the job's turn; a job that has to wait shows it by its secondary status.
///
/// # Errors
/// When the database fails or the lease is lost.
pub async fn admit(attempt: &Attempt<'_>, claim: Claim) -> store::Result<Allocation> {
    let mut written = Ok(());
    let waits = async {
        let pending = attempt.update(|record, now_ms| {
            record.prepare_again();
            record.enter("Pending", "Waiting for capacity", now_ms);
        });
        written = pending.await.map(drop);
    };
    let allocation = attempt.app.capacity.admit(claim, waits).await;
    written?;
    Ok(allocation)
}
