//! EMRServerless steps: a job run of an application that is there, or of one that is made for it.

use std::time::Duration;

use api::model::{Kind, Service, ShapeId};
use serde_json::{Map, Value, json};

use super::{Ended, Failure, Run, done, failed, refused};
use crate::pipelines::retry;
use crate::pipelines::step_arguments::EMR_SERVERLESS_JOB;

/// Time after which a run is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

async fn call(run: &Run, operation: &str, input: Value) -> Result<Value, Failure> {
    let answer = run.call("emr-serverless", operation, input).await;
    answer.map_err(|error| refused("emr-serverless", operation, &error))
}

/// Starts the job run, or finds it by the attempt's token; answers the metadata.
pub async fn start(run: &Run) -> Result<Value, Failure> {
    let arguments = &run.arguments;
    let application = match arguments["ApplicationId"].as_str() {
        Some(id) => id.to_owned(),
        None if arguments["ApplicationConfig"].is_object() => {
            let mut config = as_model("CreateApplication", &arguments["ApplicationConfig"]);
            config["clientToken"] = run.client_token.clone().into();
            let made = call(run, "CreateApplication", config).await?;
            made["applicationId"].as_str().unwrap_or_default().to_owned()
        }
        None => return Err(failed("ApplicationId or ApplicationConfig must be given.")),
    };
    let mut input = Map::new();
    let inner = arguments["JobConfig"].as_object().into_iter().flatten();
    let outer = arguments.as_object().into_iter().flatten();
    for (name, value) in inner.chain(outer.filter(|(name, _)| EMR_SERVERLESS_JOB.contains(&name.as_str()))) {
        input.insert(name.clone(), value.clone());
    }
    let mut input = as_model("StartJobRun", &Value::Object(input));
    input["applicationId"] = application.clone().into();
    input["clientToken"] = run.client_token.clone().into();
    if input["name"].is_null() {
        input["name"] = run.job.clone().into();
    }
    let started = call(run, "StartJobRun", input).await?;
    let id = started["jobRunId"].as_str().unwrap_or_default();
    let described = describe(run, &application, id).await?;
    Ok(metadata(&described))
}

fn metadata(described: &Value) -> Value {
    let place = "/configurationOverrides/monitoringConfiguration/s3MonitoringConfiguration/logUri";
    let (application, id) = (&described["applicationId"], &described["jobRunId"]);
    let logs = described.pointer(place).and_then(Value::as_str).map(|uri| {
        let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!("{}/applications/{}/jobs/{}", uri.trim_end_matches('/'), part(application), part(id))
    });
    json!({"EMRServerless": {
        "ApplicationId": application,
        "JobRunId": id,
        "JobRunName": described["name"],
        "LogFilePath": logs,
    }})
}

async fn describe(run: &Run, application: &str, id: &str) -> Result<Value, Failure> {
    let input = json!({"applicationId": application, "jobRunId": id});
    Ok(call(run, "GetJobRun", input).await?["jobRun"].clone())
}

fn place(run: &Run) -> Option<(&str, &str)> {
    let member = |name: &str| run.metadata["EMRServerless"][name].as_str();
    Some((member("ApplicationId")?, member("JobRunId")?))
}

/// Asks for the run until its state is final.
pub async fn wait(run: &Run) -> Ended {
    // It was to stop before it was started.
    let Some((application, id)) = place(run) else { return Ended::Stopped { properties: Value::Null } };
    loop {
        match describe(run, application, id).await {
            Ok(described) => {
                if let Some(ended) = ended(&described) {
                    return ended;
                }
            }
            Err(failure) if failure.exception == Some(retry::SERVICE_FAULT) => {
                tracing::warn!(reason = failure.reason, "a job run could not be looked at; it will be again");
            }
            Err(failure) => return failure.into(),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn ended(described: &Value) -> Option<Ended> {
    let id = described["jobRunId"].as_str().unwrap_or_default();
    let metadata = metadata(described);
    let detail = described["stateDetails"].as_str().unwrap_or_default().to_owned();
    let reason = match described["state"].as_str() {
        Some("SUCCESS") => return Some(done(metadata, json!({"jobRun": described}))),
        Some("CANCELLED") => return Some(Ended::Stopped { properties: json!({"jobRun": described}) }),
        Some("FAILED") => format!("The job run {id} failed: {detail}"),
        _ => return None,
    };
    let exception = retry::exception(None, 0, &detail);
    Some(Ended::Failed { reason, exception, metadata, properties: json!({"jobRun": described}) })
}

/// Cancels the run.
pub async fn stop(run: &Run) {
    let Some((application, id)) = place(run) else { return };
    let input = json!({"applicationId": application, "jobRunId": id});
    if let Err(failure) = call(run, "CancelJobRun", input).await {
        tracing::debug!(reason = failure.reason, "a job run was not cancelled");
    }
}

/// The input of an operation with the names of its model; definitions may write members with a large first letter.
fn as_model(operation: &str, value: &Value) -> Value {
    let service: &'static Service = &api::emr_serverless::SERVICE;
    match service.operation(operation).and_then(|found| found.input) {
        Some(shape) => renamed(service, shape, value),
        None => value.clone(),
    }
}

fn renamed(service: &'static Service, shape: ShapeId, value: &Value) -> Value {
    match (&service.shape(shape).kind, value) {
        (Kind::Structure(structure), Value::Object(members)) => {
            let members = members.iter().map(|(name, value)| {
                let known = structure.members.iter().find(|member| same(member.name, name));
                match known {
                    Some(member) => (member.name.to_owned(), renamed(service, member.shape, value)),
                    // The operation refuses it by its name.
                    None => (name.clone(), value.clone()),
                }
            });
            Value::Object(members.collect())
        }
        (Kind::List { member, .. }, Value::Array(elements)) => {
            elements.iter().map(|element| renamed(service, *member, element)).collect()
        }
        (Kind::Map { value: inner, .. }, Value::Object(members)) => {
            let members = members.iter().map(|(name, value)| (name.clone(), renamed(service, *inner, value)));
            Value::Object(members.collect())
        }
        _ => value.clone(),
    }
}

/// Whether two names differ in the size of the first letter at most.
fn same(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.chars(), other.chars());
    let first = one.next().map(|letter| letter.to_ascii_lowercase());
    first == other.next().map(|letter| letter.to_ascii_lowercase()) && one.as_str() == other.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_get_the_names_of_the_model_and_keys_of_maps_stay() {
        let written = json!({"JobDriver": {"SparkSubmit": {"EntryPoint": "s3://b/a.py"}}, "Tags": {"Team": "x"}, "Odd": 1});
        let expected = json!({"jobDriver": {"sparkSubmit": {"entryPoint": "s3://b/a.py"}}, "tags": {"Team": "x"}, "Odd": 1});
        assert_eq!(as_model("StartJobRun", &written), expected);
        assert_eq!(as_model("StartJobRun", &expected), expected);
    }
}
