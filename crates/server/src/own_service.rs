//! Our own small service beside those of AWS, on the same wire: what no AWS operation can answer.

use std::collections::BTreeMap;

use api::model::{Kind, Location, Member, OperationModel, Protocol, Service, Shape, Structure};
use serde::{Deserialize, Serialize};

use crate::sagemaker::kinds::TRAINING_JOB;
use crate::sagemaker::record_key;
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
        operation("ListEvents", 6, 9),
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

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<DescribeFailure, _, _, _>(describe_failure);
    registry.on::<DescribeRun, _, _, _>(describe_run);
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
    let record = training_record(&cx, input.training_job_name).await?;
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

async fn training_record(cx: &Cx, name: String) -> Result<TrainingRecord> {
    let key = record_key(cx, TRAINING_JOB, &name);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    let resource = found.ok_or_else(|| Error::not_found(TRAINING_JOB, name))?;
    Ok(TrainingRecord::read(&resource.document)?)
}

async fn describe_failure(cx: Cx, input: DescribeFailureInput) -> Result<DescribeFailureOutput> {
    Ok(DescribeFailureOutput { card: training_record(&cx, input.training_job_name).await?.failure })
}
