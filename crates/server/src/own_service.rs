//! Our own small service beside those of AWS, on the same wire: what no AWS operation can answer.

use api::model::{Kind, Location, Member, OperationModel, Protocol, Service, Shape, Structure};
use serde::{Deserialize, Serialize};

use crate::sagemaker::kinds::TRAINING_JOB;
use crate::sagemaker::record_key;
use crate::training::record::{FailureCard, TrainingRecord};
use crate::{Cx, Error, Registry, Result};

/// Its model: JSON 1.1 with target `Modelyard.OPERATION`, signed for `modelyard`.
pub static SERVICE: Service = Service {
    id: "modelyard",
    signing_name: "modelyard",
    target_prefix: Some("Modelyard"),
    api_version: "2026-01-01",
    xml_namespace: None,
    protocols: &[Protocol::Json11],
    operations: &[OperationModel {
        name: "DescribeFailure",
        method: "POST",
        uri: "/",
        status: 200,
        input: Some(0),
        output: Some(2),
        result_wrapper: None,
        errors: &[],
    }],
    shapes: &[
        structure("DescribeFailureInput", &[member("TrainingJobName", 1, true)]),
        Shape {
            name: "TrainingJobName",
            kind: Kind::String { min: Some(1), max: Some(63), pattern: None, values: &[] },
        },
        structure("DescribeFailureOutput", &[member("Card", 3, false)]),
        Shape { name: "FailureCard", kind: Kind::Document },
    ],
};

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
}

async fn describe_failure(cx: Cx, input: DescribeFailureInput) -> Result<DescribeFailureOutput> {
    let key = record_key(&cx, TRAINING_JOB, &input.training_job_name);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    let resource = found.ok_or_else(|| Error::not_found(TRAINING_JOB, input.training_job_name))?;
    Ok(DescribeFailureOutput { card: TrainingRecord::read(&resource.document)?.failure })
}
