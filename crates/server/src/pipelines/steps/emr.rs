//! EMR steps: a step of a cluster that is there, or of one that is made for it and ends with it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use store::resources::ResourceKey;
use tokio::sync::Notify;

use super::{Ended, Failure, Run, done, failed, refused};
use crate::emr::CLUSTER;
use crate::pipelines::retry;

/// Time after which a step is looked at again even if nothing was told of it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Where a step of a cluster is found.
struct Place {
    cluster: String,
    step: String,
}

/// Adds the step, or finds it; answers the metadata. Its name is the attempt's own, by which it is found after a crash.
pub async fn start(run: &Run) -> Result<Value, Failure> {
    let place = match find(run).await? {
        Some(place) => place,
        None => add(run).await?,
    };
    let described = describe(run, &place).await?;
    Ok(metadata(&place, &described))
}

fn metadata(place: &Place, described: &Value) -> Value {
    json!({"EMR": {
        "ClusterId": place.cluster,
        "StepId": place.step,
        "StepName": described["Name"],
        "LogFilePath": described["LogUri"],
    }})
}

async fn emr(run: &Run, operation: &str, input: Value) -> Result<Value, Failure> {
    let answer = run.call("emr", operation, input).await;
    answer.map_err(|error| refused("elasticmapreduce", operation, &error))
}

/// The step of this attempt where it was added already.
async fn find(run: &Run) -> Result<Option<Place>, Failure> {
    let cluster = match run.arguments["ClusterId"].as_str() {
        Some(id) => Some(id.to_owned()),
        None => find_cluster(run).await?,
    };
    let Some(cluster) = cluster else { return Ok(None) };
    let mut marker = Value::Null;
    loop {
        let listed = emr(run, "ListSteps", json!({"ClusterId": cluster, "Marker": marker})).await?;
        let step = listed["Steps"].as_array().into_iter().flatten().find(|step| step["Name"] == run.job);
        if let Some(id) = step.and_then(|step| step["Id"].as_str()) {
            return Ok(Some(Place { cluster, step: id.to_owned() }));
        }
        marker = listed["Marker"].clone();
        if marker.is_null() {
            return Ok(None);
        }
    }
}

/// The cluster that was made for this attempt.
async fn find_cluster(run: &Run) -> Result<Option<String>, Failure> {
    let created_after = crate::sagemaker::records::seconds(run.execution.created_at);
    let mut marker = Value::Null;
    loop {
        let input = json!({"CreatedAfter": created_after, "Marker": marker});
        let listed = emr(run, "ListClusters", input).await?;
        let found = listed["Clusters"].as_array().into_iter().flatten().find(|one| one["Name"] == run.job);
        if let Some(id) = found.and_then(|one| one["Id"].as_str()) {
            return Ok(Some(id.to_owned()));
        }
        marker = listed["Marker"].clone();
        if marker.is_null() {
            return Ok(None);
        }
    }
}

async fn add(run: &Run) -> Result<Place, Failure> {
    let arguments = &run.arguments;
    let mut step = arguments["StepConfig"].clone();
    if !step.is_object() {
        return Err(failed("StepConfig must be given."));
    }
    step["Name"] = run.job.clone().into();
    if step["ActionOnFailure"].is_null() {
        step["ActionOnFailure"] = "CONTINUE".into();
    }
    if let Some(cluster) = arguments["ClusterId"].as_str() {
        let input =
            json!({"JobFlowId": cluster, "Steps": [step], "ExecutionRoleArn": arguments["ExecutionRoleArn"]});
        let added = emr(run, "AddJobFlowSteps", input).await?;
        let id = added["StepIds"][0].as_str().unwrap_or_default().to_owned();
        return Ok(Place { cluster: cluster.to_owned(), step: id });
    }
    let mut cluster = arguments["ClusterConfig"].clone();
    if !cluster.is_object() {
        return Err(failed("ClusterId or ClusterConfig must be given."));
    }
    cluster["Name"] = run.job.clone().into();
    cluster["Steps"] = json!([step]);
    if cluster["Instances"].is_object() {
        cluster["Instances"]["KeepJobFlowAliveWhenNoSteps"] = false.into();
    }
    emr(run, "RunJobFlow", cluster).await?;
    find(run).await?.ok_or_else(|| failed("The cluster of the step is not there any more."))
}

async fn describe(run: &Run, place: &Place) -> Result<Value, Failure> {
    let input = json!({"ClusterId": place.cluster, "StepId": place.step});
    Ok(emr(run, "DescribeStep", input).await?["Step"].clone())
}

fn place(run: &Run) -> Option<Place> {
    let member = |name: &str| run.metadata["EMR"][name].as_str().map(str::to_owned);
    Some(Place { cluster: member("ClusterId")?, step: member("StepId")? })
}

/// Describes the step until its state is final.
pub async fn wait(run: &Run) -> Ended {
    let found = match place(run) {
        Some(place) => Some(place),
        None => match find(run).await {
            Ok(found) => found,
            Err(failure) => return failure.into(),
        },
    };
    // It was to stop before it was added.
    let Some(place) = found else { return Ended::Stopped { properties: Value::Null } };
    let woken = Arc::new(Notify::new());
    let execution = &run.execution.key;
    let key = ResourceKey::new(&*execution.account, &*execution.region, CLUSTER, &*place.cluster);
    let _watch = run.app.database.watch(&key, woken.clone());
    loop {
        match describe(run, &place).await {
            Ok(described) => {
                if let Some(ended) = ended(&place, described) {
                    return ended;
                }
            }
            Err(failure) if failure.exception == Some(retry::SERVICE_FAULT) => {
                tracing::warn!(
                    reason = failure.reason,
                    "an EMR step could not be looked at; it will be again"
                );
            }
            Err(failure) => return failure.into(),
        }
        tokio::select! {
            () = woken.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

fn ended(place: &Place, described: Value) -> Option<Ended> {
    let metadata = metadata(place, &described);
    let message = described["Status"]["FailureDetails"]["Message"].as_str().unwrap_or_default();
    let reason = match described["Status"]["State"].as_str() {
        Some("COMPLETED") => return Some(done(metadata, described)),
        Some("CANCELLED") => return Some(Ended::Stopped { properties: described }),
        Some("FAILED" | "INTERRUPTED") => {
            format!("The step {} of the cluster {} failed: {message}", place.step, place.cluster)
        }
        _ => return None,
    };
    let exception = retry::exception(None, 0, message);
    Some(Ended::Failed { reason, exception, metadata, properties: described })
}

/// Cancels the step; a cluster that was made for it ends.
pub async fn stop(run: &Run) {
    let found = match place(run) {
        Some(place) => Some(place),
        None => find(run).await.ok().flatten(),
    };
    let Some(place) = found else { return };
    let stopped = if run.arguments["ClusterId"].is_string() {
        emr(run, "CancelSteps", json!({"ClusterId": place.cluster, "StepIds": [place.step]})).await
    } else {
        emr(run, "TerminateJobFlows", json!({"JobFlowIds": [place.cluster]})).await
    };
    if let Err(failure) = stopped {
        tracing::debug!(reason = failure.reason, "an EMR step was not cancelled");
    }
}
