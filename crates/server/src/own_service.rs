//! Our own small service beside those of AWS, on the same wire: what no AWS operation can answer.

use std::collections::BTreeMap;

use api::model::{Kind, Location, Member, OperationModel, Protocol, Service, Shape, Structure};
use runner::workload::Observation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::resources::Resource;

use crate::sagemaker::kinds::{PROCESSING_JOB, TRAINING_JOB, TRANSFORM_JOB};
use crate::sagemaker::record_key;
use crate::training::explain;
use crate::training::record::{FailureCard, TrainingRecord};
use crate::training::run_facts::RunFacts;
use crate::{Cx, Error, Registry, Result};

/// An operation of our own service by its name, with the shapes of its input and its output.
macro_rules! own_operation {
    ($(#[$about:meta])* $name:ident($input:ty) -> $output:ty) => {
        $(#[$about])*
        pub struct $name;

        impl ::api::Operation for $name {
            const SERVICE: &'static ::api::model::Service = &$crate::own_service::SERVICE;
            const NAME: &'static str = stringify!($name);
            type Input = $input;
            type Output = $output;
        }
    };
}

pub(crate) use own_operation;

/// Its model: JSON 1.1 with target `Modelyard.OPERATION`, signed for `modelyard`.
pub static SERVICE: Service = Service {
    id: "modelyard",
    signing_name: "modelyard",
    target_prefix: Some("Modelyard"),
    api_version: "2026-01-01",
    xml_namespace: None,
    protocols: &[Protocol::Json11],
    operations: &[
        operation("Clean", 30, 31),
        operation("CompareEndpointVariants", 50, 51),
        operation("DescribeAsyncQueue", 45, 46),
        operation("DescribeEndpointDeployment", 37, 48),
        operation("DescribeEndpointEngines", 37, 38),
        operation("DescribeEndpointModels", 37, 55),
        operation("DescribeFailure", 0, 2),
        operation("DescribeFiles", 21, 28),
        operation("DescribeModelPackageHistory", 17, 19),
        operation("DescribeRun", 0, 4),
        operation("DescribeShadow", 37, 57),
        operation("ExplainPipelineExecution", 25, 11),
        operation("ExplainTrainingJob", 0, 11),
        operation("InterruptTrainingJob", 0, 15),
        operation("ListEvents", 6, 9),
        operation("OpenShell", 13, 14),
        operation("ReplayCapture", 41, 42),
        operation("TraceObject", 21, 23),
    ],
    shapes: &[
        structure("DescribeFailureInput", &[member("TrainingJobName", 1, true), member("Kind", 27, false)]),
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
        structure(
            "OpenShellInput",
            &[member("TrainingJobName", 1, true), member("Host", 1, false), member("Kind", 27, false)],
        ),
        structure("OpenShellOutput", &[member("Host", 1, false), member("Workload", 1, false)]),
        structure("InterruptTrainingJobOutput", &[member("Interruptions", 16, false)]),
        Shape { name: "Interruptions", kind: Kind::Integer { min: Some(0.0), max: None } },
        structure("DescribeModelPackageHistoryInput", &[member("ModelPackageName", 18, true)]),
        Shape {
            name: "ModelPackageName",
            kind: Kind::String { min: Some(1), max: Some(2048), pattern: None, values: &[] },
        },
        structure("DescribeModelPackageHistoryOutput", &[member("History", 20, false)]),
        Shape { name: "ModelPackageHistory", kind: Kind::Document },
        structure("TraceObjectInput", &[member("Uri", 22, true)]),
        Shape {
            name: "Uri",
            kind: Kind::String { min: Some(1), max: Some(2048), pattern: None, values: &[] },
        },
        structure("TraceObjectOutput", &[member("Traces", 24, false)]),
        Shape { name: "Traces", kind: Kind::Document },
        structure("ExplainPipelineExecutionInput", &[member("Execution", 26, true)]),
        Shape {
            name: "PipelineExecutionArnOrId",
            kind: Kind::String { min: Some(1), max: Some(2048), pattern: None, values: &[] },
        },
        Shape {
            name: "KindOfJob",
            kind: Kind::String {
                min: None,
                max: None,
                pattern: None,
                values: &["training", "processing", "transform"],
            },
        },
        structure("DescribeFilesOutput", &[member("Table", 29, false)]),
        Shape { name: "TableDescription", kind: Kind::Document },
        structure(
            "CleanInput",
            &[
                member("Kind", 32, true),
                member("After", 33, false),
                member("Days", 34, false),
                member("DryRun", 35, false),
            ],
        ),
        structure(
            "CleanOutput",
            &[
                member("Items", 36, false),
                member("Bytes", 36, false),
                member("Days", 34, false),
                member("After", 33, false),
            ],
        ),
        Shape {
            name: "CleanKind",
            kind: Kind::String { min: Some(1), max: Some(64), pattern: None, values: &[] },
        },
        Shape {
            name: "CleanPosition",
            kind: Kind::String { min: Some(1), max: Some(8192), pattern: None, values: &[] },
        },
        Shape { name: "Days", kind: Kind::Integer { min: Some(1.0), max: Some(36_500.0) } },
        Shape { name: "Flag", kind: Kind::Boolean },
        Shape { name: "Count", kind: Kind::Long { min: Some(0.0), max: None } },
        structure("DescribeEndpointEnginesInput", &[member("EndpointName", 39, true)]),
        structure(
            "DescribeEndpointEnginesOutput",
            &[member("Engines", 40, false), member("Batches", 40, false)],
        ),
        Shape {
            name: "EndpointName",
            kind: Kind::String { min: Some(1), max: Some(63), pattern: None, values: &[] },
        },
        Shape { name: "Engines", kind: Kind::Document },
        structure(
            "ReplayCaptureInput",
            &[
                member("EndpointName", 39, true),
                member("CandidateName", 39, true),
                member("Since", 7, false),
                member("Tolerance", 43, false),
                member("MaxResults", 8, false),
                member("After", 33, false),
            ],
        ),
        structure("ReplayCaptureOutput", &[member("Report", 44, false), member("After", 33, false)]),
        Shape { name: "Tolerance", kind: Kind::Float { min: Some(0.0), max: Some(1.0) } },
        Shape { name: "ReplayReport", kind: Kind::Document },
        structure(
            "DescribeAsyncQueueInput",
            &[member("EndpointName", 39, true), member("MaxResults", 8, false)],
        ),
        structure("DescribeAsyncQueueOutput", &[member("Queue", 47, false)]),
        Shape { name: "AsyncQueue", kind: Kind::Document },
        structure("DescribeEndpointDeploymentOutput", &[member("Deployment", 49, false)]),
        Shape { name: "EndpointDeployment", kind: Kind::Document },
        structure(
            "CompareEndpointVariantsInput",
            &[
                member("EndpointName", 39, true),
                member("Hours", 53, false),
                member("Namespace", 54, false),
                member("MetricName", 54, false),
            ],
        ),
        structure("CompareEndpointVariantsOutput", &[member("Comparison", 52, false)]),
        Shape { name: "VariantComparison", kind: Kind::Document },
        Shape { name: "Hours", kind: Kind::Integer { min: Some(1.0), max: Some(8760.0) } },
        Shape {
            name: "MetricNamePart",
            kind: Kind::String { min: Some(1), max: Some(255), pattern: None, values: &[] },
        },
        structure(
            "DescribeEndpointModelsOutput",
            &[member("Models", 56, false), member("Variants", 56, false)],
        ),
        Shape { name: "LoadedModels", kind: Kind::Document },
        structure("DescribeShadowOutput", &[member("Shadow", 58, false)]),
        Shape { name: "Shadow", kind: Kind::Document },
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

/// The kinds of jobs, in a word and as resources.
const KINDS: [(&str, &str); 3] =
    [("training", TRAINING_JOB), ("processing", PROCESSING_JOB), ("transform", TRANSFORM_JOB)];

own_operation! {
    /// Answers the whole failure card of a training job.
    DescribeFailure(DescribeFailureInput) -> DescribeFailureOutput
}

/// Input of [`DescribeFailure`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeFailureInput {
    /// Name of the job.
    pub training_job_name: String,
    /// `training`, `processing` or `transform`, where jobs of several kinds have the name.
    pub kind: Option<String>,
}

/// Output of [`DescribeFailure`].
#[derive(Serialize)]
pub struct DescribeFailureOutput {
    /// The card of a job that failed.
    #[serde(rename = "Card", skip_serializing_if = "Option::is_none")]
    pub card: Option<FailureCard>,
}

own_operation! {
    /// Answers why a training job is where it is.
    ExplainTrainingJob(DescribeFailureInput) -> ExplainTrainingJobOutput
}

/// Output of [`ExplainTrainingJob`].
#[derive(Serialize)]
pub struct ExplainTrainingJobOutput {
    /// The answer.
    #[serde(rename = "Explanation")]
    pub explanation: Value,
}

own_operation! {
    /// Allows a shell in a running job and says where it is.
    OpenShell(OpenShellInput) -> OpenShellOutput
}

/// Input of [`OpenShell`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenShellInput {
    /// Name of the job.
    pub training_job_name: String,
    /// The host to open it on; the first one unless given.
    pub host: Option<String>,
    /// As in [`DescribeFailureInput`].
    pub kind: Option<String>,
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

own_operation! {
    /// Answers how a training job's program is kept in and what it uses of the machine.
    DescribeRun(DescribeFailureInput) -> DescribeRunOutput
}

/// Output of [`DescribeRun`].
#[derive(Serialize)]
pub struct DescribeRunOutput {
    /// The facts of each host, by its name, on which the program runs or has run.
    #[serde(rename = "Hosts")]
    pub hosts: BTreeMap<String, RunFacts>,
}

async fn describe_run(cx: Cx, input: DescribeFailureInput) -> Result<DescribeRunOutput> {
    let resource = find(&cx, input.training_job_name, input.kind).await?;
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
    let resource = find(&cx, input.training_job_name, input.kind).await?;
    let explanation = explain::explain(&cx.state, &resource).await?;
    Ok(ExplainTrainingJobOutput { explanation: explain::to_value(&explanation) })
}

async fn open_shell(cx: Cx, input: OpenShellInput) -> Result<OpenShellOutput> {
    let resource = find(&cx, input.training_job_name, input.kind).await?;
    let name = &resource.key.name;
    // Requests of other jobs have no field that could say so.
    if resource.key.kind == TRAINING_JOB && resource.spec["RemoteDebugConfig"]["EnableRemoteDebug"] != true {
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
            && matches!(cx.state.executor.is_held(&host.workload), Ok(false))
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

/// The job of this name, which may be of any kind unless `kind` says a word of [`KINDS`].
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Validation`] when jobs of several kinds have the name.
pub async fn find(cx: &Cx, name: String, kind: Option<String>) -> Result<Resource> {
    let wanted = KINDS.iter().filter(|(word, _)| kind.as_deref().is_none_or(|kind| kind == *word));
    let wanted: Vec<(&str, &str)> = wanted.copied().collect();
    let missing = wanted.first().map_or(TRAINING_JOB, |(_, kind)| *kind);
    let keys: Vec<_> = wanted.iter().map(|(word, kind)| (*word, record_key(cx, kind, &name))).collect();
    let found = cx.state.database.read(move |session| {
        let mut found = Vec::new();
        for (word, key) in keys {
            found.extend(session.find_resource(&key)?.map(|job| (word, job)));
        }
        Ok(found)
    });
    let mut found = found.await?;
    if found.len() > 1 {
        let words: Vec<&str> = found.iter().map(|(word, _)| *word).collect();
        return Err(Error::Validation(same_name(&name, &words)));
    }
    found.pop().map(|(_, job)| job).ok_or_else(|| Error::not_found(missing, name))
}

/// What is said when jobs of these kinds share a name.
pub fn same_name(name: &str, words: &[&str]) -> String {
    let jobs: Vec<String> = words.iter().map(|word| format!("a {word} job")).collect();
    format!(
        "{} have the name {name}: say which one is meant (Kind, or --kind {}).",
        jobs.join(" and "),
        words.join(" or --kind ")
    )
    .replacen('a', "A", 1)
}

async fn describe_failure(cx: Cx, input: DescribeFailureInput) -> Result<DescribeFailureOutput> {
    let resource = find(&cx, input.training_job_name, input.kind).await?;
    Ok(DescribeFailureOutput { card: TrainingRecord::read(&resource.document)?.failure })
}
