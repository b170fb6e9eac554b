//! The lineage of processing jobs: their inputs and images lead to the job, the job to its outputs.

use serde_json::{Map, Value, json};
use store::Session;
use store::resources::Resource;

use super::jobs::Data;
use super::record::{Recorder, Thing};
use crate::sagemaker::experiments::{self, Ending, Facts, JobKind};
use crate::training::record::TrainingRecord;

/// Inputs that the SDK's processors put their scripts into.
const CODE: [&str; 2] = ["code", "entrypoint"];

/// Name and S3 source of each input that has one.
fn inputs(spec: &Value) -> impl Iterator<Item = (&str, &Value)> {
    named(&spec["ProcessingInputs"], "InputName", "S3Input")
}

/// Name and S3 place of each output that has one.
fn outputs(spec: &Value) -> impl Iterator<Item = (&str, &Value)> {
    named(&spec["ProcessingOutputConfig"]["Outputs"], "OutputName", "S3Output")
}

fn named<'a>(
    list: &'a Value,
    name: &'static str,
    place: &'static str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    list.as_array().into_iter().flatten().filter_map(move |one| {
        one[place]["S3Uri"].as_str()?;
        Some((one[name].as_str().unwrap_or_default(), &one[place]))
    })
}

/// Makes the component of a new processing job.
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
    for (name, value) in spec["Environment"].as_object().into_iter().flatten() {
        let text: String = value.as_str().unwrap_or_default().chars().take(2_500).collect();
        facts.parameters.insert(name.clone(), json!({"StringValue": text}));
    }
    let cluster = &spec["ProcessingResources"]["ClusterConfig"];
    for member in ["InstanceType", "InstanceCount", "VolumeSizeInGB"] {
        let value = match &cluster[member] {
            Value::Null => continue,
            Value::Number(number) => json!({"NumberValue": number}),
            other => json!({"StringValue": other}),
        };
        facts.parameters.insert(format!("SageMaker.{member}"), value);
    }
    for (name, source) in inputs(spec) {
        facts.inputs.insert(name.to_owned(), json!({"Value": source["S3Uri"]}));
    }
    let image = spec["AppSpecification"]["ImageUri"].as_str();
    if let Some(image) = image {
        facts.inputs.insert("SageMaker.ImageUri".into(), json!({"Value": image}));
    }
    let component = experiments::begin(session, job, JobKind::Processing, facts, by)?;
    if let Some(uri) = image {
        let image = recorder.artifact(&Thing { uri, kind: "Image", ..Thing::default() })?;
        recorder.edge(&image, &component, "ContributedTo")?;
    }
    Ok(())
}

/// What a processing job reads.
pub(super) fn input_data(job: &Resource) -> Vec<Data> {
    let data = inputs(&job.spec).map(|(name, source)| Data {
        label: name.to_owned(),
        kind: if CODE.contains(&name) { "Code" } else { "DataSet" },
        uri: source["S3Uri"].as_str().unwrap_or_default().to_owned(),
        is_prefix: source["S3DataType"].as_str().unwrap_or("S3Prefix") == "S3Prefix",
    });
    // The results of queries are where their own records say.
    let queries = TrainingRecord::read(&job.document).map(|record| record.queries).unwrap_or_default();
    let results = queries.into_iter().filter_map(|query| {
        Some(Data { label: query.input, kind: "DataSet", uri: query.result?, is_prefix: true })
    });
    data.chain(results).collect()
}

/// What a processing job has written.
pub(super) fn output_data(spec: &Value) -> Vec<Data> {
    let data = outputs(spec).map(|(name, place)| Data {
        label: name.to_owned(),
        kind: "DataSet",
        uri: place["S3Uri"].as_str().unwrap_or_default().to_owned(),
        is_prefix: true,
    });
    data.collect()
}

/// Writes the end of a processing job into its component. Call it in the transaction that ends the job.
///
/// # Errors
/// When the database fails, or the job's record is damaged.
pub(super) fn ended(session: &Session<'_>, job: &Resource, now_ms: i64) -> store::Result<()> {
    let record = TrainingRecord::read(&job.document)?;
    let mut written = Map::new();
    if job.status != "Failed" {
        for (name, place) in outputs(&job.spec) {
            written.insert(name.to_owned(), json!({"Value": place["S3Uri"]}));
        }
    }
    let ending = Ending {
        status: job.status.clone(),
        message: record.failure.map(|card| card.reason).or(record.exit_message),
        started_at: record.training_started_at,
        ended_at: record.training_ended_at,
        outputs: written,
        metrics: Vec::new(),
    };
    experiments::end(session, job, ending, now_ms).map(drop)
}
