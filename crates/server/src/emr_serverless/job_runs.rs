//! Job runs: start, get, list, cancel. What becomes of a run is read from its processing job.

use std::collections::HashMap;

use api::emr_serverless::{
    CancelJobRun, CancelJobRunInput, CancelJobRunOutput, GetJobRun, GetJobRunInput, GetJobRunOutput,
    ListJobRuns, ListJobRunsInput, ListJobRunsOutput, StartJobRun, StartJobRunInput, StartJobRunOutput,
};
use serde_json::{Value, json};
use store::resources::{Resource, ResourceKey};

use super::{JOB_RUN, applications, id, spark_submit};
use crate::emr::spark_job::{self, SparkJob};
use crate::internal_call::{self, CallError};
use crate::problem::{Problem, Result};
use crate::sagemaker::kinds::PROCESSING_JOB;
use crate::sagemaker::{fields, records::seconds};
use crate::training::record::TrainingRecord;
use crate::{Cx, Error, Registry};

/// What StartJobRun honours.
const HONOURED: &[&str] = &[
    "applicationId",
    "clientToken",
    "executionRoleArn",
    "jobDriver.sparkSubmit.**",
    "configurationOverrides.applicationConfiguration.**",
    "configurationOverrides.monitoringConfiguration.s3MonitoringConfiguration.logUri",
    "tags.**",
    "executionTimeoutMinutes",
    "name",
    "mode",
];
/// Minutes after which a run ends that says nothing about it, as in the service.
const TIMEOUT_MINUTES: i64 = 720;
/// Longest `stateDetails`.
const DETAIL_CHARACTERS: usize = 256;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<StartJobRun, _, _, _>(start_job_run);
    registry.on::<GetJobRun, _, _, _>(get_job_run);
    registry.on::<ListJobRuns, _, _, _>(list_job_runs);
    registry.on::<CancelJobRun, _, _, _>(cancel_job_run);
}

/// Refuses classifications that mean nothing to a local Spark.
///
/// # Errors
/// One sentence that names the classification.
pub fn check_configurations(configurations: &Value, place: &str) -> Result<()> {
    spark_job::check_configurations(configurations)
        .map_err(|problem| Problem::validation(format!("{place}: {problem}")))
}

fn key(cx: &Cx, application: &str, run: &str) -> ResourceKey {
    let name = format!("{application}/{run}");
    ResourceKey::new(&*cx.caller.account, &*cx.caller.region, JOB_RUN, &*name)
}

fn job_name(application: &str, run: &str) -> String {
    format!("emr-serverless-{application}-{run}")
}

fn parts(run: &Resource) -> (&str, &str) {
    run.key.name.split_once('/').unwrap_or((&run.key.name, ""))
}

async fn find(cx: &Cx, application: &str, run: &str) -> Result<Resource> {
    let key = key(cx, application, run);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    found.ok_or_else(|| {
        Problem::missing(format!("Job run {run} of the application {application} does not exist"))
    })
}

async fn start_job_run(cx: Cx, input: StartJobRunInput) -> Result<StartJobRunOutput> {
    fields::check(&cx.input, HONOURED)?;
    let application = applications::find(&cx, &input.application_id).await?;
    if cx.input["jobDriver"]["sparkSubmit"].is_null() {
        return Err(Problem::validation("jobDriver.sparkSubmit must be given."));
    }
    if cx.input["mode"] == "STREAMING" {
        return Err(Problem::validation("mode: STREAMING is not here; a run has an end (BATCH)."));
    }
    let own = &cx.input["configurationOverrides"];
    check_configurations(
        &own["applicationConfiguration"],
        "configurationOverrides.applicationConfiguration",
    )?;
    crate::iam::check_assumable(&cx, &input.execution_role_arn).await?;
    let run = id(&cx, &input.application_id, &input.client_token);
    let request = request(&cx, &application, &run).map_err(Problem::validation)?;
    applications::start_for_run(&cx, &input.application_id).await?;
    let made = store(&cx, &application, &run, &input).await?;
    let caller = internal_call::as_role(
        &cx.state,
        &cx.caller.account,
        &cx.caller.region,
        &input.execution_role_arn,
        "EMRServerless",
    );
    let caller = caller.await.map_err(refused)?;
    match internal_call::call(&cx.state, &caller, "sagemaker", "CreateProcessingJob", request).await {
        Ok(_) => {}
        // The same request came before, or a server was killed before it answered.
        Err(error) if error.message.contains("already exist") => {}
        Err(error) => {
            let key = made.key.clone();
            cx.state.database.write(move |session| session.delete_resource(&key).map(drop)).await?;
            return Err(refused(error));
        }
    }
    Ok(StartJobRunOutput {
        application_id: Some(input.application_id),
        job_run_id: Some(run),
        arn: Some(made.arn),
    })
}

fn refused(error: CallError) -> Problem {
    if error.status >= 500 {
        return Problem::Other(Error::Unavailable(error.message));
    }
    Problem::validation(error.message)
}

/// The request of the run's processing job.
fn request(cx: &Cx, application: &Resource, run: &str) -> Result<Value, String> {
    let (spec, input) = (&application.spec, &*cx.input);
    let release = spec["releaseLabel"].as_str().unwrap_or_default();
    let place = "/monitoringConfiguration/s3MonitoringConfiguration/logUri";
    let logs = input["configurationOverrides"].pointer(place).or_else(|| spec.pointer(place));
    let logs = logs.and_then(Value::as_str).map(|uri| {
        let (uri, application) = (uri.trim_end_matches('/'), &application.key.name);
        format!("{uri}/applications/{application}/jobs/{run}/SPARK_DRIVER")
    });
    let minutes = input["executionTimeoutMinutes"].as_i64().unwrap_or(TIMEOUT_MINUTES);
    let spark_job = SparkJob {
        name: &job_name(&application.key.name, run),
        role_arn: input["executionRoleArn"].as_str().unwrap_or_default(),
        spark_version: spark_job::spark_version(release)?,
        instance_type: &spark_submit::instance_type(input, cx.state.capacity.instance_types())?,
        step: spark_submit::step(input, spec),
        logs,
        max_seconds: (minutes > 0).then(|| minutes.saturating_mul(60)),
    };
    spark_job.request(&cx.caller.region)
}

async fn store(cx: &Cx, application: &Resource, run: &str, input: &StartJobRunInput) -> Result<Resource> {
    let key = key(cx, &application.key.name, run);
    let mut spec = (*cx.input).clone();
    if let Some(members) = spec.as_object_mut() {
        members.remove("clientToken");
        members.remove("tags");
    }
    let now_ms = cx.state.clock.now_ms();
    let made = Resource {
        arn: format!("{}/jobruns/{run}", application.arn),
        key,
        status: "SUBMITTED".into(),
        spec,
        document: json!({
            "createdBy": cx.caller.principal_arn,
            "releaseLabel": application.spec["releaseLabel"],
            "isCancelled": false,
        }),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    let tags: Vec<(String, String)> = input.tags.clone().unwrap_or_default().into_iter().collect();
    let stored = made.clone();
    let written = cx.state.database.write(move |session| {
        // The same request again is the same run.
        if let Some(there) = session.find_resource(&stored.key)? {
            return Ok(there.spec == stored.spec);
        }
        session.insert_resource(&stored)?;
        session.put_tags(&stored.arn, &tags)?;
        session.append_event(&stored.key, "Created", &stored.spec, now_ms)?;
        Ok(true)
    });
    if written.await? {
        return Ok(made);
    }
    Err(Problem::conflict("clientToken: another request with this token asked for another job run."))
}

async fn job_of(cx: &Cx, run: &Resource) -> Result<Option<Resource>> {
    let (application, id) = parts(run);
    let name = job_name(application, id);
    let key = ResourceKey::new(&*run.key.account, &*run.key.region, PROCESSING_JOB, &*name);
    Ok(cx.state.database.read(move |session| session.find_resource(&key)).await?)
}

/// The members of a run that its processing job knows.
fn progress(run: &Resource, job: Option<&Resource>) -> Result<Value> {
    let Some(job) = job else {
        return Ok(json!({
            "state": "FAILED",
            "stateDetails": "The processing job of this run is not there: it was deleted, or the run was never begun.",
            "updatedAt": seconds(run.modified_at),
        }));
    };
    let record = TrainingRecord::read(&job.document)?;
    let is_cancelled = run.document["isCancelled"] == true;
    let (state, detail) = match job.status.as_str() {
        "Completed" => ("SUCCESS", String::new()),
        "Failed" => ("FAILED", record.failure.as_ref().map(|card| card.reason.clone()).unwrap_or_default()),
        "Stopping" => ("CANCELLING", String::new()),
        "Stopped" if is_cancelled => ("CANCELLED", String::new()),
        "Stopped" => ("FAILED", "The run was ended from outside, or ran into its time limit.".to_owned()),
        _ if record.training_started_at.is_some() => ("RUNNING", String::new()),
        _ => ("SCHEDULED", String::new()),
    };
    let detail: String = detail.chars().take(DETAIL_CHARACTERS).collect();
    let ended_at = record.training_ended_at;
    let duration = record.training_started_at.zip(ended_at).map(|(from, to)| (to - from).max(0) / 1_000);
    Ok(json!({
        "state": state,
        "stateDetails": if detail.is_empty() { format!("The processing job {}", job.key.name) } else { detail },
        "updatedAt": seconds(job.modified_at),
        "startedAt": record.training_started_at.map(seconds),
        "endedAt": ended_at.map(seconds),
        "totalExecutionDurationSeconds": duration,
    }))
}

async fn get_job_run(cx: Cx, input: GetJobRunInput) -> Result<GetJobRunOutput> {
    if input.attempt.is_some_and(|attempt| attempt != 1) {
        return Err(Problem::missing("The job run has one attempt."));
    }
    let run = find(&cx, &input.application_id, &input.job_run_id).await?;
    let progress = progress(&run, job_of(&cx, &run).await?.as_ref())?;
    let arn = run.arn.clone();
    let tags = cx.state.database.read(move |session| session.tags(&arn)).await?;
    let mut described = run.spec.clone();
    let more = json!({
        "applicationId": parts(&run).0,
        "jobRunId": parts(&run).1,
        "arn": run.arn,
        "createdBy": run.document["createdBy"],
        "createdAt": seconds(run.created_at),
        "executionRole": run.spec["executionRoleArn"],
        "releaseLabel": run.document["releaseLabel"],
        "executionTimeoutMinutes": run.spec["executionTimeoutMinutes"].as_i64().unwrap_or(TIMEOUT_MINUTES),
        "mode": "BATCH",
        "attempt": 1,
        "tags": tags.into_iter().collect::<HashMap<String, String>>(),
    });
    if let Value::Object(described) = &mut described {
        for members in [more, progress] {
            described.extend(members.as_object().cloned().unwrap_or_default());
        }
        described.remove("executionRoleArn");
    }
    Ok(serde_json::from_value(json!({"jobRun": described})).map_err(Error::internal)?)
}

/// The runs of an application, the newest first.
async fn runs(cx: &Cx, application: &str) -> Result<Vec<Resource>> {
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let inside = format!("{application}/");
    let mut found = cx.state.database.read(|session| session.all_resources(JOB_RUN)).await?;
    found.retain(|run| {
        run.key.account == account && run.key.region == region && run.key.name.starts_with(&inside)
    });
    found.sort_by(|one, other| (other.created_at, &other.key.name).cmp(&(one.created_at, &one.key.name)));
    Ok(found)
}

/// Whether an application has runs that are not over.
pub async fn any_active(cx: &Cx, application: &str) -> Result<bool> {
    for run in runs(cx, application).await? {
        let state = progress(&run, job_of(cx, &run).await?.as_ref())?["state"].clone();
        if !["SUCCESS", "FAILED", "CANCELLED"].iter().any(|over| state == *over) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn list_job_runs(cx: Cx, input: ListJobRunsInput) -> Result<ListJobRunsOutput> {
    applications::find(&cx, &input.application_id).await?;
    let states: Vec<String> = input.states.unwrap_or_default().iter().map(ToString::to_string).collect();
    let limit = input.max_results.unwrap_or(50).unsigned_abs() as usize;
    let created_after = input.created_at_after.map_or(i64::MIN, |at| at.as_millis());
    let created_before = input.created_at_before.map_or(i64::MAX, |at| at.as_millis());
    let mut left = runs(&cx, &input.application_id).await?;
    if let Some(token) = &input.next_token {
        let at = left.iter().position(|run| parts(run).1 == token);
        let at = at.ok_or_else(|| Problem::validation("nextToken is not valid."))?;
        left.drain(..=at);
    }
    left.retain(|run| (created_after..=created_before).contains(&run.created_at));
    let (mut shown, mut next_token) = (Vec::new(), None);
    for run in &left {
        let progress = progress(run, job_of(&cx, run).await?.as_ref())?;
        if !states.is_empty() && !states.iter().any(|state| progress["state"] == **state) {
            continue;
        }
        if shown.len() == limit {
            next_token = shown.last().and_then(|last: &Value| last["id"].as_str().map(str::to_owned));
            break;
        }
        shown.push(json!({
            "applicationId": parts(run).0,
            "id": parts(run).1,
            "name": run.spec["name"],
            "mode": "BATCH",
            "arn": run.arn,
            "createdBy": run.document["createdBy"],
            "createdAt": seconds(run.created_at),
            "updatedAt": progress["updatedAt"],
            "executionRole": run.spec["executionRoleArn"],
            "state": progress["state"],
            "stateDetails": progress["stateDetails"],
            "releaseLabel": run.document["releaseLabel"],
            "type": "SPARK",
            "attempt": 1,
        }));
    }
    let listed = json!({"jobRuns": shown, "nextToken": next_token});
    Ok(serde_json::from_value(listed).map_err(Error::internal)?)
}

async fn cancel_job_run(cx: Cx, input: CancelJobRunInput) -> Result<CancelJobRunOutput> {
    fields::check(&cx.input, &["applicationId", "jobRunId"])?;
    let run = find(&cx, &input.application_id, &input.job_run_id).await?;
    let job = job_of(&cx, &run).await?;
    let is_over = job.as_ref().is_none_or(|job| job.status != "InProgress" && job.status != "Stopping");
    let (id, key, now_ms) = (parts(&run).1.to_owned(), run.key.clone(), cx.state.clock.now_ms());
    if is_over {
        return Err(Problem::validation(format!("Job run {id} is over and cannot be cancelled.")));
    }
    let marked = cx.state.database.write(move |session| {
        session.update_resource(&key, now_ms, |resource| {
            resource.document["isCancelled"] = true.into();
            Ok(())
        })?;
        session.append_event(&key, "CancellationRequested", &Value::Null, now_ms)
    });
    marked.await?;
    let role = run.spec["executionRoleArn"].as_str().unwrap_or_default();
    let (account, region) = (&cx.caller.account, &cx.caller.region);
    let caller = internal_call::as_role(&cx.state, account, region, role, "EMRServerless").await;
    let stop = json!({"ProcessingJobName": job_name(parts(&run).0, parts(&run).1)});
    let caller = caller.map_err(refused)?;
    match internal_call::call(&cx.state, &caller, "sagemaker", "StopProcessingJob", stop).await {
        Err(error) if error.status >= 500 => return Err(refused(error)),
        // It ended just before.
        _ => {}
    }
    Ok(CancelJobRunOutput { application_id: Some(input.application_id), job_run_id: Some(id) })
}
