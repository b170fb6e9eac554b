//! Applications: create, get, list, start, stop, delete.

use api::emr_serverless::{
    CreateApplication, CreateApplicationInput, CreateApplicationOutput, DeleteApplication,
    DeleteApplicationInput, DeleteApplicationOutput, GetApplication, GetApplicationInput,
    GetApplicationOutput, ListApplications, ListApplicationsInput, ListApplicationsOutput, StartApplication,
    StartApplicationInput, StartApplicationOutput, StopApplication, StopApplicationInput,
    StopApplicationOutput,
};
use serde_json::{Value, json};
use store::resources::{Resource, ResourceKey};

use super::{APPLICATION, id, job_runs};
use crate::emr::spark_job;
use crate::problem::{Problem, Result};
use crate::sagemaker::{fields, records::seconds};
use crate::{Cx, Error, Registry};

/// What CreateApplication honours, and what it keeps and shows because it only describes workers that do not exist here.
const HONOURED: &[&str] = &[
    "name",
    "releaseLabel",
    "type",
    "clientToken",
    "tags.**",
    "autoStartConfiguration.**",
    "runtimeConfiguration.**",
    "monitoringConfiguration.s3MonitoringConfiguration.logUri",
    "initialCapacity.**",
    "maximumCapacity.**",
    "autoStopConfiguration.**",
    "networkConfiguration.**",
    "architecture",
];

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateApplication, _, _, _>(create_application);
    registry.on::<GetApplication, _, _, _>(get_application);
    registry.on::<ListApplications, _, _, _>(list_applications);
    registry.on::<StartApplication, _, _, _>(start_application);
    registry.on::<StopApplication, _, _, _>(stop_application);
    registry.on::<DeleteApplication, _, _, _>(delete_application);
}

fn key(cx: &Cx, id: &str) -> ResourceKey {
    ResourceKey::new(&*cx.caller.account, &*cx.caller.region, APPLICATION, id)
}

fn missing(id: &str) -> Problem {
    Problem::missing(format!("Application {id} does not exist"))
}

/// An application of the caller's account and region.
pub async fn find(cx: &Cx, id: &str) -> Result<Resource> {
    let key = key(cx, id);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    found.filter(|application| application.status != "TERMINATED").ok_or_else(|| missing(id))
}

async fn create_application(cx: Cx, input: CreateApplicationInput) -> Result<CreateApplicationOutput> {
    fields::check(&cx.input, HONOURED)?;
    if !input.type_.eq_ignore_ascii_case("spark") {
        return Err(Problem::validation(format!(
            "type: {:?} is not here; applications are of the type SPARK.",
            input.type_
        )));
    }
    spark_job::spark_version(&input.release_label)
        .map_err(|problem| Problem::validation(format!("releaseLabel: {problem}")))?;
    job_runs::check_configurations(&cx.input["runtimeConfiguration"], "runtimeConfiguration")?;
    let key = key(&cx, &id(&cx, "", &input.client_token));
    let arn = format!("arn:aws:emr-serverless:{}:{}:/applications/{}", key.region, key.account, key.name);
    let now_ms = cx.state.clock.now_ms();
    let mut spec = (*cx.input).clone();
    if let Some(members) = spec.as_object_mut() {
        members.remove("clientToken");
        members.remove("tags");
    }
    let tags: Vec<(String, String)> = input.tags.unwrap_or_default().into_iter().collect();
    let answer = CreateApplicationOutput {
        application_id: Some(key.name.clone()),
        name: input.name,
        arn: Some(arn.clone()),
    };
    let made = Resource {
        key,
        arn,
        status: "CREATED".into(),
        spec,
        document: json!({}),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    let stored = cx.state.database.write(move |session| {
        // The same request again is the same application.
        if let Some(there) = session.find_resource(&made.key)? {
            return Ok(there.spec == made.spec);
        }
        session.insert_resource(&made)?;
        session.put_tags(&made.arn, &tags)?;
        session.append_event(&made.key, "Created", &made.spec, now_ms)?;
        Ok(true)
    });
    if stored.await? {
        return Ok(answer);
    }
    Err(Problem::conflict("clientToken: another request with this token asked for another application."))
}

async fn get_application(cx: Cx, input: GetApplicationInput) -> Result<GetApplicationOutput> {
    let application = find(&cx, &input.application_id).await?;
    let arn = application.arn.clone();
    let tags = cx.state.database.read(move |session| session.tags(&arn)).await?;
    let mut described = application.spec.clone();
    if let (Value::Object(described), Value::Object(more)) = (&mut described, summary(&application)) {
        described.extend(more);
        described.remove("id");
    }
    described["applicationId"] = application.key.name.clone().into();
    described["tags"] = tags.into_iter().map(|(key, value)| (key, json!(value))).collect();
    Ok(serde_json::from_value(json!({"application": described})).map_err(Error::internal)?)
}

fn summary(application: &Resource) -> Value {
    let spec = &application.spec;
    json!({
        "id": application.key.name,
        "name": spec["name"],
        "arn": application.arn,
        "releaseLabel": spec["releaseLabel"],
        "type": spec["type"],
        "state": application.status,
        "createdAt": seconds(application.created_at),
        "updatedAt": seconds(application.modified_at),
        "architecture": spec["architecture"].as_str().unwrap_or("X86_64"),
    })
}

async fn list_applications(cx: Cx, input: ListApplicationsInput) -> Result<ListApplicationsOutput> {
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let states: Vec<String> = input.states.unwrap_or_default().iter().map(ToString::to_string).collect();
    let after = input.next_token.unwrap_or_default();
    let limit = input.max_results.unwrap_or(50).unsigned_abs() as usize;
    let mut found = cx.state.database.read(|session| session.all_resources(APPLICATION)).await?;
    found.retain(|one| {
        one.key.account == account
            && one.key.region == region
            && one.key.name > after
            && (states.is_empty() || states.contains(&one.status))
    });
    found.sort_by(|one, other| one.key.name.cmp(&other.key.name));
    let more = found.len() > limit;
    found.truncate(limit);
    let next_token = found.last().filter(|_| more).map(|one| one.key.name.clone());
    let applications: Vec<Value> = found.iter().map(summary).collect();
    let listed = json!({"applications": applications, "nextToken": next_token});
    Ok(serde_json::from_value(listed).map_err(Error::internal)?)
}

/// Moves an application into a state, unless `refuse` says why not.
async fn enter(
    cx: &Cx,
    id: &str,
    state: &'static str,
    refuse: impl FnOnce(&Resource) -> Option<Problem> + Send + 'static,
) -> Result<()> {
    let (key, now_ms) = (find(cx, id).await?.key, cx.state.clock.now_ms());
    let changed = cx.state.database.write(move |session| {
        let there = session.resource(&key)?;
        if let Some(problem) = refuse(&there) {
            return Ok(Err(problem));
        }
        if there.status != state {
            session.update_resource(&key, now_ms, |resource| {
                resource.status = state.into();
                Ok(())
            })?;
            session.append_event(&key, "StateChanged", &json!({"state": state}), now_ms)?;
        }
        Ok(Ok(()))
    });
    changed.await?
}

async fn start_application(cx: Cx, input: StartApplicationInput) -> Result<StartApplicationOutput> {
    enter(&cx, &input.application_id, "STARTED", |_| None).await?;
    Ok(StartApplicationOutput::default())
}

/// Starts the application of a job run, as far as it starts by itself.
pub async fn start_for_run(cx: &Cx, id: &str) -> Result<()> {
    enter(cx, id, "STARTED", |application| {
        let by_itself = application.spec["autoStartConfiguration"]["enabled"] != false;
        let refused = application.status != "STARTED" && !by_itself;
        refused.then(|| {
            let id = &application.key.name;
            Problem::conflict(format!("Application {id} is not started, and does not start by itself."))
        })
    })
    .await
}

async fn stop_application(cx: Cx, input: StopApplicationInput) -> Result<StopApplicationOutput> {
    let id = &input.application_id;
    find(&cx, id).await?;
    if job_runs::any_active(&cx, id).await? {
        return Err(Problem::validation(format!(
            "Application {id} has job runs that are not over; cancel them first."
        )));
    }
    enter(&cx, id, "STOPPED", |_| None).await?;
    Ok(StopApplicationOutput::default())
}

async fn delete_application(cx: Cx, input: DeleteApplicationInput) -> Result<DeleteApplicationOutput> {
    let refuse = |application: &Resource| {
        let stands = matches!(application.status.as_str(), "CREATED" | "STOPPED");
        (!stands).then(|| {
            let (id, state) = (&application.key.name, &application.status);
            Problem::validation(format!("Application {id} is in the state {state}; stop it first."))
        })
    };
    enter(&cx, &input.application_id, "TERMINATED", refuse).await?;
    Ok(DeleteApplicationOutput::default())
}
