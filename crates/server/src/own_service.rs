//! Our own small service beside those of AWS, on the same wire: what no AWS operation can answer.

use std::collections::BTreeMap;

use api::model::{Kind, Location, Member, OperationModel, Protocol, Service, Shape, Structure};
use runner::workload::Observation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::resources::Resource;

use crate::sagemaker::kinds::TRAINING_JOB;
use crate::sagemaker::record_key;
use crate::training::explain;
use crate::training::record::{FailureCard, TrainingRecord};
use crate::training::run_facts::RunFacts;
use crate::{Cx, Error, Registry, Result};

/// Its model: JSON 1.1 with target `Modelyard.OPERATION`, signed for `modelyard`.
pub static SERVICE: Service = Service {
    id: "modelyard",
    signing_name: "modelyard",
    target_prefix: Some("Modelyard"),
    api_version: "2026-01-01",
    xml_namespace: None,
    protocols: &[Protocol::Json11],
    operations: &[
        operation("DescribeFailure", 0, 2),
        operation("DescribeRun", 0, 4),
        operation("ExplainTrainingJob", 0, 11),
        operation("InterruptTrainingJob", 0, 15),
        operation("ListEvents", 6, 9),
        operation("OpenShell", 13, 14),
    ],
    shapes: &[
        structure("DescribeFailureInput", &[member("TrainingJobName", 1, true)]),
        Shape {
            name: "TrainingJobName",
            kind: Kind::String { min: Some(1), max: Some(63), pattern: None, values: &[] },
        },
        structure("DescribeFailureOutput", &[member("Card", 3, false)]),
        Shape { name: "FailureCard", kind: Kind::Document },
        structure("DescribeRunOutput", &[member("Hosts", 5, false)]),
        Shape { name: "RunFacts", kind: Kind::Document },
        structure("ListEventsInput", &[member("After", 7, false), member("MaxResults", 8, false)]),
        Shape { name: "Position", kind: Kind::Long { min: Some(0.0), max: None } },
        Shape { name: "MaxResults", kind: Kind::Integer { min: Some(1.0), max: Some(1000.0) } },
        structure("ListEventsOutput", &[member("Events", 10, false), member("Position", 7, false)]),
        Shape { name: "Events", kind: Kind::Document },
        structure("ExplainTrainingJobOutput", &[member("Explanation", 12, false)]),
        Shape { name: "Explanation", kind: Kind::Document },
        structure("OpenShellInput", &[member("TrainingJobName", 1, true), member("Host", 1, false)]),
        structure("OpenShellOutput", &[member("Host", 1, false), member("Workload", 1, false)]),
        structure("InterruptTrainingJobOutput", &[member("Interruptions", 16, false)]),
        Shape { name: "Interruptions", kind: Kind::Integer { min: Some(0.0), max: None } },
    ],
};

const fn operation(name: &'static str, input: u32, output: u32) -> OperationModel {
    OperationModel {
        name,
        method: "POST",
        uri: "/",
        status: 200,
        input: Some(input),
        output: Some(output),
        result_wrapper: None,
        errors: &[],
    }
}

const fn structure(name: &'static str, members: &'static [Member]) -> Shape {
    Shape {
        name,
        kind: Kind::Structure(Structure {
            members,
            payload: None,
            event_stream: false,
            union: false,
            error: None,
        }),
    }
}

const fn member(name: &'static str, shape: u32, required: bool) -> Member {
    Member {
        name,
        wire_name: name,
        location: Location::Body,
        shape,
        required,
        timestamp_format: None,
        streaming: false,
        idempotency_token: false,
    }
}

/// Answers the whole failure card of a training job.
pub struct DescribeFailure;

impl api::Operation for DescribeFailure {
    const SERVICE: &'static Service = &SERVICE;
    const NAME: &'static str = "DescribeFailure";
    type Input = DescribeFailureInput;
    type Output = DescribeFailureOutput;
}

/// Input of [`DescribeFailure`].
#[derive(Deserialize)]
pub struct DescribeFailureInput {
    /// Name of the job.
    #[serde(rename = "TrainingJobName")]
    pub training_job_name: String,
}

/// Output of [`DescribeFailure`].
#[derive(Serialize)]
pub struct DescribeFailureOutput {
    /// The card of a job that failed.
    #[serde(rename = "Card", skip_serializing_if = "Option::is_none")]
    pub card: Option<FailureCard>,
}

/// Answers why a training job is where it is.
pub struct ExplainTrainingJob;

impl api::Operation for ExplainTrainingJob {
    const SERVICE: &'static Service = &SERVICE;
    const NAME: &'static str = "ExplainTrainingJob";
    type Input = DescribeFailureInput;
    type Output = ExplainTrainingJobOutput;
}

/// Output of [`ExplainTrainingJob`].
#[derive(Serialize)]
pub struct ExplainTrainingJobOutput {
    /// The answer.
    #[serde(rename = "Explanation")]
    pub explanation: Value,
}

/// Allows a shell in a running job and says where it is.
pub struct OpenShell;

impl api::Operation for OpenShell {
    const SERVICE: &'static Service = &SERVICE;
    const NAME: &'static str = "OpenShell";
    type Input = OpenShellInput;
    type Output = OpenShellOutput;
}

/// Input of [`OpenShell`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenShellInput {
    /// Name of the job.
    pub training_job_name: String,
    /// The host to open it on; the first one unless given.
    pub host: Option<String>,
}

/// Output of [`OpenShell`].
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenShellOutput {
    /// The host.
    pub host: String,
    /// Id of its workload.
    pub workload: String,
}

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<DescribeFailure, _, _, _>(describe_failure);
    registry.on::<DescribeRun, _, _, _>(describe_run);
    registry.on::<ExplainTrainingJob, _, _, _>(explain_training_job);
    registry.on::<OpenShell, _, _, _>(open_shell);
}

/// Answers how a training job's program is kept in and what it uses of the machine.
pub struct DescribeRun;

impl api::Operation for DescribeRun {
    const SERVICE: &'static Service = &SERVICE;
    const NAME: &'static str = "DescribeRun";
    type Input = DescribeFailureInput;
    type Output = DescribeRunOutput;
}

/// Output of [`DescribeRun`].
#[derive(Serialize)]
pub struct DescribeRunOutput {
    /// The facts of each host, by its name, on which the program runs or has run.
    #[serde(rename = "Hosts")]
    pub hosts: BTreeMap<String, RunFacts>,
}

async fn describe_run(cx: Cx, input: DescribeFailureInput) -> Result<DescribeRunOutput> {
    let resource = find(&cx, input.training_job_name).await?;
    let record = TrainingRecord::read(&resource.document)?;
    let mut hosts = BTreeMap::new();
    for host in record.hosts {
        let run = match host.run {
            Some(run) => Some(run),
            None => RunFacts::so_far(&cx.state, &host.workload).map_err(Error::internal)?,
        };
        hosts.extend(run.map(|run| (host.name, run)));
    }
    Ok(DescribeRunOutput { hosts })
}

async fn explain_training_job(cx: Cx, input: DescribeFailureInput) -> Result<ExplainTrainingJobOutput> {
    let resource = find(&cx, input.training_job_name).await?;
    let explanation = explain::explain(&cx.state, &resource).await?;
    Ok(ExplainTrainingJobOutput { explanation: explain::to_value(&explanation) })
}

async fn open_shell(cx: Cx, input: OpenShellInput) -> Result<OpenShellOutput> {
    let resource = find(&cx, input.training_job_name).await?;
    let name = &resource.key.name;
    if resource.spec["RemoteDebugConfig"]["EnableRemoteDebug"] != true {
        return Err(Error::Validation(format!(
            "RemoteDebugConfig.EnableRemoteDebug of {name} is not true: ask for it in CreateTrainingJob, or with UpdateTrainingJob \
             while the job runs."
        )));
    }
    let hosts = TrainingRecord::read(&resource.document)?.hosts;
    let names = || hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
    let host = match &input.host {
        None => hosts.first(),
        Some(wanted) => {
            let found = hosts.iter().find(|host| host.name == *wanted);
            if found.is_none() && !hosts.is_empty() {
                return Err(Error::Validation(format!(
                    "Host: {name} has no host {wanted:?}; it has {}.",
                    names()
                )));
            }
            found
        }
    };
    let running = host.filter(|host| {
        matches!(cx.state.executor.observe(&host.workload), Ok(Observation::Running { pid: Some(_), .. }))
    });
    let Some(host) = running.cloned() else {
        let status = &resource.status;
        return Err(Error::Validation(format!(
            "A shell can be opened while the program of {name} runs; its status is {status}. `modelyard jobs why {name}` says more."
        )));
    };
    let (key, now_ms) = (resource.key.clone(), cx.state.clock.now_ms());
    let detail = json!({"host": host.name, "principal": cx.caller.principal_arn});
    let noted =
        cx.state.database.write(move |session| session.append_event(&key, "ShellOpened", &detail, now_ms));
    noted.await?;
    Ok(OpenShellOutput { host: host.name, workload: host.workload })
}

/// The training job of this name.
pub async fn find(cx: &Cx, name: String) -> Result<Resource> {
    let key = record_key(cx, TRAINING_JOB, &name);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    found.ok_or_else(|| Error::not_found(TRAINING_JOB, name))
}

async fn describe_failure(cx: Cx, input: DescribeFailureInput) -> Result<DescribeFailureOutput> {
    let resource = find(&cx, input.training_job_name).await?;
    Ok(DescribeFailureOutput { card: TrainingRecord::read(&resource.document)?.failure })
}
