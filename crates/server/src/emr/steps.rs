//! Steps of a cluster: add, describe, list, cancel.

use api::emr::{
    AddJobFlowSteps, AddJobFlowStepsInput, AddJobFlowStepsOutput, CancelSteps, CancelStepsInput,
    CancelStepsOutput, DescribeStep, DescribeStepInput, DescribeStepOutput, ListSteps, ListStepsInput,
    ListStepsOutput,
};
use serde_json::{Value, json};

use super::record::{Cluster, ClusterRecord, StepRecord, StepState, properties};
use super::spark_job::{self, SparkJob};
use super::{clusters, find, invalid, new_id};
use crate::problem::{Problem, Result};
use crate::sagemaker::fields;
use crate::{Cx, Error, Registry};

/// What AddJobFlowSteps honours.
const HONOURED: &[&str] =
    &["JobFlowId", "ExecutionRoleArn", "Steps.Name", "Steps.ActionOnFailure", "Steps.HadoopJarStep.**"];
/// Most steps that wait or run, as in the service.
const MOST_STEPS: usize = 256;
/// Most steps that are kept of one cluster.
const MOST_KEPT: usize = 10_000;
/// Steps on a page.
const PAGE: usize = 50;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<AddJobFlowSteps, _, _, _>(add_job_flow_steps);
    registry.on::<DescribeStep, _, _, _>(describe_step);
    registry.on::<ListSteps, _, _, _>(list_steps);
    registry.on::<CancelSteps, _, _, _>(cancel_steps);
}

/// Records of the steps in a request.
pub fn new_records(wanted: &Value, execution_role: Option<&str>, now_ms: i64) -> Vec<StepRecord> {
    let wanted = wanted.as_array().into_iter().flatten();
    let role = execution_role.map(str::to_owned);
    wanted.map(|config| StepRecord::new(new_id("s-"), config.clone(), role.clone(), now_ms)).collect()
}

/// Refuses what cannot be run.
///
/// # Errors
/// One sentence that names the step.
pub async fn check(cx: &Cx, cluster: &Cluster, step: &StepRecord) -> Result<()> {
    let name = step.config["Name"].as_str().unwrap_or_default();
    let about = |text: String| Problem::validation(format!("The step {name:?}: {text}"));
    let jar = &step.config["HadoopJarStep"];
    let is_runner = |runner: &str| {
        jar["Jar"].as_str().and_then(|jar| jar.rsplit('/').next()).is_some_and(|file| file == runner)
    };
    let runs_program = is_runner("command-runner.jar") || is_runner("script-runner.jar");
    if runs_program && jar["Args"].as_array().is_none_or(Vec::is_empty) {
        return Err(about("HadoopJarStep.Args must name the program that is to run.".into()));
    }
    if runs_program && jar["MainClass"].is_string() {
        return Err(about("HadoopJarStep.MainClass goes with a jar of your own alone; leave it out.".into()));
    }
    if let Some(role) = &step.execution_role {
        crate::iam::check_assumable(cx, role).await?;
    }
    let types = cx.state.capacity.instance_types();
    job(cluster, step, types, &cx.caller.account, &cx.caller.region).map(drop).map_err(about)
}

/// The name of a step's processing job.
pub fn job_name(cluster: &Cluster, step: &StepRecord) -> String {
    format!("emr-{}-{}", cluster.resource.key.name, step.id).to_ascii_lowercase()
}

/// A step as the role that it acts as and the input of CreateProcessingJob.
///
/// # Errors
/// One sentence.
pub fn job(
    cluster: &Cluster,
    step: &StepRecord,
    types: &crate::capacity::InstanceTypes,
    account: &str,
    region: &str,
) -> Result<(String, Value), String> {
    let spec = &cluster.resource.spec;
    let role = step.execution_role.as_deref().or_else(|| spec["JobFlowRole"].as_str()).unwrap_or_default();
    let role = clusters::role_arn(account, role);
    let machine = clusters::machine(spec).unwrap_or_default();
    let jar = &step.config["HadoopJarStep"];
    let own: serde_json::Map<String, Value> = properties(jar).collect();
    let actions = spec["BootstrapActions"].as_array().into_iter().flatten();
    let spark_job = SparkJob {
        name: &job_name(cluster, step),
        role_arn: &role,
        spark_version: spark_job::spark_version(spec["ReleaseLabel"].as_str().unwrap_or_default())?,
        instance_type: &spark_job::instance_type(types, &machine)?,
        step: json!({
            "Jar": jar["Jar"],
            "MainClass": jar["MainClass"],
            "Args": jar["Args"],
            "Properties": own,
            "Configurations": spec["Configurations"],
            "BootstrapActions":
                actions.map(|action| action["ScriptBootstrapAction"].clone()).collect::<Vec<Value>>(),
        }),
        logs: cluster.logs(&step.id),
        max_seconds: None,
    };
    Ok((role.clone(), spark_job.request(region)?))
}

async fn add_job_flow_steps(cx: Cx, input: AddJobFlowStepsInput) -> Result<AddJobFlowStepsOutput> {
    fields::check(&cx.input, HONOURED)?;
    let missing = |_| Problem::validation("Specified job flow ID does not exist.");
    let cluster = find(&cx, &input.job_flow_id).await.map_err(missing)?;
    let now_ms = cx.state.clock.now_ms();
    let default_role = cluster.resource.spec["StepExecutionRoleArn"].as_str();
    let role = input.execution_role_arn.as_deref().or(default_role);
    let steps = new_records(&cx.input["Steps"], role, now_ms);
    for step in &steps {
        check(&cx, &cluster, step).await?;
    }
    let ids: Vec<String> = steps.iter().map(|step| step.id.clone()).collect();
    let (key, detail) = (cluster.resource.key, json!({"StepIds": ids}));
    let added = cx.state.database.write(move |session| {
        let mut refusal = None;
        session.update_resource(&key, now_ms, |resource| {
            let mut cluster = Cluster::read(resource.clone())?;
            let waiting = cluster.record.steps.iter().filter(|step| step.ended_at.is_none()).count();
            if cluster.is_ended() {
                refusal = Some(format!("Job flow {} is not running, or is terminating.", key.name));
            } else if waiting + steps.len() > MOST_STEPS {
                refusal =
                    Some(format!("Maximum number of active steps ({MOST_STEPS}) for cluster exceeded."));
            } else if cluster.record.steps.len() + steps.len() > MOST_KEPT {
                refusal = Some(format!("A cluster takes {MOST_KEPT} steps in its life; run a new one."));
            } else {
                cluster.record.steps.extend(steps);
                resource.document = cluster.record.to_document();
            }
            Ok(())
        })?;
        if refusal.is_none() {
            session.append_event(&key, "StepsAdded", &detail, now_ms)?;
        }
        Ok(refusal)
    });
    match added.await? {
        Some(refusal) => Err(Problem::validation(refusal)),
        None => Ok(AddJobFlowStepsOutput { step_ids: Some(ids) }),
    }
}

async fn describe_step(cx: Cx, input: DescribeStepInput) -> Result<DescribeStepOutput> {
    let cluster = find(&cx, &input.cluster_id).await?;
    let step = cluster.record.steps.iter().find(|step| step.id == input.step_id);
    let step = step.ok_or_else(|| invalid(format!("Step id '{}' is not valid.", input.step_id)))?;
    let step = cluster.described(step);
    Ok(serde_json::from_value(json!({"Step": step})).map_err(Error::internal)?)
}

async fn list_steps(cx: Cx, input: ListStepsInput) -> Result<ListStepsOutput> {
    let cluster = find(&cx, &input.cluster_id).await?;
    let states: Vec<String> = input.step_states.unwrap_or_default().iter().map(ToString::to_string).collect();
    let ids = input.step_ids.unwrap_or_default();
    if ids.len() > 10 {
        return Err(invalid("StepIds: at most 10 can be given."));
    }
    let mut steps: Vec<&StepRecord> = cluster.record.steps.iter().rev().collect();
    if let Some(marker) = &input.marker {
        let at = steps.iter().position(|step| step.id == *marker);
        let at = at.ok_or_else(|| invalid(format!("Marker '{marker}' is not valid.")))?;
        steps.drain(..=at);
    }
    steps.retain(|step| {
        (states.is_empty() || states.iter().any(|state| state == step.shown_state()))
            && (ids.is_empty() || ids.contains(&step.id))
    });
    let marker = (steps.len() > PAGE).then(|| steps[PAGE - 1].id.clone());
    let steps: Vec<Value> = steps.into_iter().take(PAGE).map(|step| cluster.described(step)).collect();
    Ok(serde_json::from_value(json!({"Steps": steps, "Marker": marker})).map_err(Error::internal)?)
}

async fn cancel_steps(cx: Cx, input: CancelStepsInput) -> Result<CancelStepsOutput> {
    // Both ways of cancelling are the one that a sandbox has: SIGTERM, a while of grace, SIGKILL.
    let cluster = find(&cx, &input.cluster_id).await?;
    let (key, ids, now_ms) = (cluster.resource.key, input.step_ids, cx.state.clock.now_ms());
    let cancelled = cx.state.database.write(move |session| {
        let mut answers = Vec::new();
        session.update_resource(&key, now_ms, |resource| {
            let mut record = ClusterRecord::read(resource)?;
            answers = ids.iter().map(|id| cancel(&mut record, id, now_ms)).collect();
            resource.document = record.to_document();
            Ok(())
        })?;
        session.append_event(&key, "CancellationRequested", &json!({"StepIds": ids}), now_ms)?;
        Ok(answers)
    });
    let answers = cancelled.await?;
    Ok(serde_json::from_value(json!({"CancelStepsInfoList": answers})).map_err(Error::internal)?)
}

fn cancel(record: &mut ClusterRecord, id: &str, now_ms: i64) -> Value {
    let refused = |reason: &str| json!({"StepId": id, "Status": "FAILED", "Reason": reason});
    let Some(step) = record.steps.iter_mut().find(|step| step.id == id) else {
        return refused("Step id is not valid.");
    };
    match step.state {
        StepState::Pending => {
            step.state = StepState::Cancelled;
            step.ended_at = Some(now_ms);
        }
        StepState::Running => step.is_cancelled = true,
        _ => return refused("Step has ended already."),
    }
    json!({"StepId": id, "Status": "SUBMITTED"})
}
