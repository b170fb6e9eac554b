//! The lineage of transform jobs: the model and the data lead to the job, the job to its outputs.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use store::Session;
use store::resources::{Resource, ResourceKey};

use super::jobs::{Data, Side, record_data};
use super::record::{Recorder, model};
use crate::app::App;
use crate::sagemaker::experiments::{self, Ending, Facts, JobKind};
use crate::sagemaker::kinds::MODEL;
use crate::training::record::TrainingRecord;

/// Makes the component of a new transform job.
///
/// # Errors
/// As [`experiments::begin`].
pub(super) fn began(
    recorder: &Recorder<'_>,
    session: &Session<'_>,
    job: &Resource,
    by: &Value,
) -> store::Result<()> {
    let spec = &job.spec;
    let mut facts = Facts::default();
    for member in ["InstanceType", "InstanceCount"] {
        let name = format!("SageMaker.{member}");
        match &spec["TransformResources"][member] {
            Value::Null => {}
            Value::Number(number) => drop(facts.parameters.insert(name, json!({"NumberValue": number}))),
            other => drop(facts.parameters.insert(name, json!({"StringValue": other}))),
        }
    }
    let uri = &spec["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"];
    facts.inputs.insert("SageMaker.TransformInput".into(), json!({"Value": uri}));
    facts.inputs.insert("SageMaker.ModelName".into(), json!({"Value": spec["ModelName"]}));
    let component = experiments::begin(session, job, JobKind::Transform, facts, by)?;
    let name = spec["ModelName"].as_str().unwrap_or_default();
    let key = ResourceKey { kind: MODEL.into(), name: name.to_owned(), ..job.key.clone() };
    if let Some(resource) = session.find_resource(&key)? {
        let model = model(recorder, session, &resource)?;
        recorder.edge(&model, &component, "ContributedTo")?;
    }
    Ok(())
}

/// Records what a job that has begun to run reads.
pub async fn record_inputs(app: Arc<App>, key: ResourceKey) {
    record(app, key, Side::Input).await;
}

/// Records what a job that has ended wrote.
pub async fn record_outputs(app: Arc<App>, key: ResourceKey) {
    record(app, key, Side::Output).await;
}

async fn record(app: Arc<App>, key: ResourceKey, side: Side) {
    let wanted = key.clone();
    let found = app.database.read(move |session| session.find_resource(&wanted)).await;
    let Ok(Some(job)) = found else { return };
    let source = &job.spec["TransformInput"]["DataSource"]["S3DataSource"];
    let (label, uri, is_prefix) = match side {
        Side::Input => ("input", &source["S3Uri"], source["S3DataType"] == "S3Prefix"),
        Side::Output => ("output", &job.spec["TransformOutput"]["S3OutputPath"], true),
    };
    let uri = uri.as_str().unwrap_or_default().to_owned();
    let data = Data { label: label.into(), kind: "DataSet", uri, is_prefix };
    record_data(&app, key, side, vec![data]).await;
}

/// Writes the end of a transform job into its component. Call it in the transaction that ends the job.
///
/// # Errors
/// When the database fails, or the job's record is damaged.
pub fn ended(session: &Session<'_>, job: &Resource, now_ms: i64) -> store::Result<()> {
    let record = TrainingRecord::read(&job.document)?;
    let mut outputs = Map::new();
    let uri = &job.spec["TransformOutput"]["S3OutputPath"];
    outputs.insert("SageMaker.TransformOutput".into(), json!({"Value": uri}));
    let ending = Ending {
        status: job.status.clone(),
        message: record.failure.as_ref().map(|card| card.reason.clone()),
        started_at: record.training_started_at,
        ended_at: record.training_ended_at,
        outputs,
        metrics: Vec::new(),
    };
    experiments::end(session, job, ending, now_ms).map(drop)
}
