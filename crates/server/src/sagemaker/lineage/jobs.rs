//! The lineage of jobs: data sets and images lead to the job, the job to its model.
//!
//! What is here of training jobs and in `processing` of processing jobs shows other kinds the way: [`experiments::begin`] and
//! [`experiments::end`] in the transactions that create and end a job, and [`record_data`] when it begins to run and when it has stored
//! its outputs.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use store::Session;
use store::objects::ObjectStore;
use store::points::Point;
use store::resources::{Resource, ResourceKey};

use super::processing;
use super::record::{Recorder, Thing};
use crate::app::App;
use crate::sagemaker::experiments::{self, Ending, Facts, JobKind};
use crate::sagemaker::kinds::PROCESSING_JOB;
use crate::training::bucket_and_key;
use crate::training::record::TrainingRecord;

/// Objects of a data set that are remembered one by one.
const MOST_OBJECTS: usize = 1_000;

/// Objects that are listed at a time.
const PAGE: usize = 1_000;

/// The user of what the server records by itself.
fn nobody() -> Value {
    Value::Null
}

/// Makes the component of a new training job.
///
/// # Errors
/// As [`experiments::begin`].
pub(super) fn training_began(
    recorder: &Recorder<'_>,
    session: &Session<'_>,
    job: &Resource,
    by: &Value,
) -> store::Result<()> {
    let spec = &job.spec;
    let mut facts = Facts::default();
    for (name, value) in spec["HyperParameters"].as_object().into_iter().flatten() {
        let text: String = value.as_str().unwrap_or_default().chars().take(2_500).collect();
        facts.parameters.insert(name.clone(), parameter(&text));
    }
    for member in ["InstanceType", "InstanceCount", "VolumeSizeInGB"] {
        match &spec["ResourceConfig"][member] {
            Value::Null => {}
            Value::Number(number) => {
                facts.parameters.insert(format!("SageMaker.{member}"), json!({"NumberValue": number}));
            }
            other => {
                facts.parameters.insert(format!("SageMaker.{member}"), json!({"StringValue": other}));
            }
        }
    }
    for (channel, source) in channels(spec) {
        facts.inputs.insert(channel.to_owned(), json!({"Value": source["S3Uri"]}));
    }
    let image = spec["AlgorithmSpecification"]["TrainingImage"].as_str();
    if let Some(image) = image {
        facts.inputs.insert("SageMaker.ImageUri".into(), json!({"Value": image}));
    }
    let component = experiments::begin(session, job, JobKind::Training, facts, by)?;
    if let Some(uri) = image {
        let image = recorder.artifact(&Thing { uri, kind: "Image", ..Thing::default() })?;
        recorder.edge(&image, &component, "ContributedTo")?;
    }
    Ok(())
}

/// A hyperparameter as a parameter: a number where it is one, as the SDK writes them in JSON.
fn parameter(text: &str) -> Value {
    match text.trim_matches('"').parse::<f64>() {
        Ok(number) if number.is_finite() => json!({"NumberValue": number}),
        _ => json!({"StringValue": text}),
    }
}

/// Name and S3 source of each channel that has one.
fn channels(spec: &Value) -> impl Iterator<Item = (&str, &Value)> {
    spec["InputDataConfig"].as_array().into_iter().flatten().filter_map(|channel| {
        let source = &channel["DataSource"]["S3DataSource"];
        source["S3Uri"].as_str()?;
        Some((channel["ChannelName"].as_str().unwrap_or_default(), source))
    })
}

/// Records the data of a job that has begun to run, with hashes of its content. A job that is taken up again is recorded once.
pub async fn record_inputs(app: Arc<App>, key: ResourceKey) {
    let wanted = key.clone();
    let found = app.database.read(move |session| session.find_resource(&wanted)).await;
    let Ok(Some(job)) = found else { return };
    let data =
        if key.kind == PROCESSING_JOB { processing::input_data(&job) } else { training_data(&job.spec) };
    record_data(&app, key, Side::Input, data).await;
}

/// Records what a processing job has stored. Those of other kinds are recorded as they end.
pub async fn record_outputs(app: &Arc<App>, key: &ResourceKey) {
    if key.kind != PROCESSING_JOB {
        return;
    }
    let wanted = key.clone();
    let found = app.database.read(move |session| session.find_resource(&wanted)).await;
    let Ok(Some(job)) = found else { return };
    record_data(app, key.clone(), Side::Output, processing::output_data(&job.spec)).await;
}

/// What a training job reads.
fn training_data(spec: &Value) -> Vec<Data> {
    let mut data = Vec::new();
    for (channel, source) in channels(spec) {
        data.push(Data {
            label: channel.to_owned(),
            kind: "DataSet",
            uri: source["S3Uri"].as_str().unwrap_or_default().to_owned(),
            is_prefix: source["S3DataType"].as_str().unwrap_or("S3Prefix") == "S3Prefix",
        });
    }
    let code = spec["HyperParameters"]["sagemaker_submit_directory"].as_str();
    if let Some(uri) = code.map(|text| text.trim_matches('"')).filter(|uri| uri.starts_with("s3://")) {
        data.push(Data { label: "code".into(), kind: "Code", uri: uri.to_owned(), is_prefix: false });
    }
    data
}

/// Data of a job in S3.
#[derive(Debug, Clone)]
pub struct Data {
    /// A label, for example the channel.
    pub label: String,
    /// `DataSet`, `Model` or `Code`.
    pub kind: &'static str,
    /// Where it is.
    pub uri: String,
    /// Whether the URI means all objects whose keys begin so, and not one object.
    pub is_prefix: bool,
}

/// Where data stands to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The job reads it.
    Input,
    /// The job wrote it.
    Output,
}

/// Records data that a job of any kind reads or wrote, as it is now. Data of a side of which some is recorded stays as it is: a
/// job that is taken up again is recorded once. Jobs do not fail for it; the server's log says what is missing.
pub async fn record_data(app: &Arc<App>, key: ResourceKey, side: Side, data: Vec<Data>) {
    let job = key.name.clone();
    if let Err(error) = try_record_data(app, key, side, data).await {
        tracing::error!(job, error, "data of a job is missing in the lineage");
    }
}

async fn try_record_data(
    app: &Arc<App>,
    key: ResourceKey,
    side: Side,
    data: Vec<Data>,
) -> Result<(), String> {
    if data.is_empty() {
        return Ok(());
    }
    let wanted = key.clone();
    let read = app.database.read(move |session| {
        let Some(job) = session.find_resource(&wanted)? else { return Ok(None) };
        let Some(component) = experiments::component_arn(session, &job)? else { return Ok(None) };
        let known: Vec<String> = match side {
            Side::Input => session.edges_to(&component)?.into_iter().map(|edge| edge.source_type).collect(),
            Side::Output => {
                session.edges_from(&component)?.into_iter().map(|edge| edge.destination_type).collect()
            }
        };
        let is_recorded = known.iter().any(|kind| matches!(&**kind, "DataSet" | "Model" | "Code"));
        Ok((!is_recorded).then_some(component))
    });
    let Some(component) = read.await.map_err(|error| error.with_cause())? else { return Ok(()) };
    let mut found = Vec::new();
    for one in data {
        let content = content(&app.objects, &key.account, &one.uri, one.is_prefix).await?;
        found.push((one, content));
    }
    let now_ms = app.clock.now_ms();
    let written = app.database.write(move |session| {
        let by = nobody();
        let recorder = Recorder::of(session, &key, &by, now_ms);
        for (one, content) in &found {
            let thing = Thing {
                uri: &one.uri,
                kind: one.kind,
                label: Some(&one.label),
                ids: content.ids.clone(),
                properties: content.properties(),
                document: json!({"objects": content.objects}),
            };
            let artifact = recorder.artifact(&thing)?;
            match side {
                Side::Input => recorder.edge(&artifact, &component, "ContributedTo")?,
                Side::Output => recorder.edge(&component, &artifact, "Produced")?,
            }
        }
        Ok(())
    });
    written.await.map_err(|error| error.with_cause())
}

/// What lies at a URI.
#[derive(Default)]
struct Content {
    ids: Vec<(String, String)>,
    /// URIs and ETags; none when there are more than are remembered.
    objects: Vec<(String, String)>,
    count: u64,
    bytes: u64,
}

impl Content {
    fn properties(&self) -> Value {
        let mut properties =
            json!({"ObjectCount": self.count.to_string(), "SizeInBytes": self.bytes.to_string()});
        if let Some((_, hash)) = self.ids.iter().find(|(kind, _)| kind == "Custom") {
            properties["ContentHash"] = hash.clone().into();
        }
        properties
    }
}

/// Reads what lies at a URI now. One object is known by its ETag, many by the hash of all their keys and ETags.
async fn content(store: &ObjectStore, account: &str, uri: &str, is_prefix: bool) -> Result<Content, String> {
    let Some((bucket, prefix)) = bucket_and_key(uri) else { return Ok(Content::default()) };
    let mut content = Content::default();
    let mut hash = Sha256::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = match is_prefix {
            true => store.list_keys(account, bucket, prefix, after.as_deref(), PAGE).await,
            false => store.head(account, bucket, prefix).await.map(|object| vec![object]),
        };
        let page = match page {
            Ok(page) => page,
            // The job says so, if it minds.
            Err(store::Error::Missing { .. } | store::Error::Denied(_)) => return Ok(content),
            Err(error) => return Err(error.with_cause()),
        };
        let is_last = !is_prefix || page.len() < PAGE;
        after = page.last().map(|object| object.key.clone().into_bytes());
        for object in page.into_iter().filter(|object| !object.key.ends_with('/')) {
            hash.update(json!([object.key, object.etag]).to_string());
            content.count += 1;
            content.bytes += object.size;
            if content.count <= MOST_OBJECTS as u64 {
                content.objects.push((format!("s3://{bucket}/{}", object.key), object.etag));
            }
        }
        if is_last {
            break;
        }
    }
    if content.count > MOST_OBJECTS as u64 {
        content.objects.clear();
    }
    content.ids = match content.objects.as_slice() {
        [(only, etag)] if only == uri => vec![("S3ETag".to_owned(), etag.clone())],
        _ if content.count == 0 => Vec::new(),
        _ => vec![("Custom".to_owned(), format!("sha256:{}", hex::encode(hash.finalize())))],
    };
    Ok(content)
}

/// Writes the end of a job into its component. Call it in the transaction that ends the job.
///
/// # Errors
/// When the database fails, or the job's record is damaged.
pub fn ended(session: &Session<'_>, job: &Resource, now_ms: i64) -> store::Result<()> {
    match job.key.kind.as_str() {
        PROCESSING_JOB => processing::ended(session, job, now_ms),
        _ => training_ended(session, job, now_ms),
    }
}

/// The end of a training job, and its model behind it.
fn training_ended(session: &Session<'_>, job: &Resource, now_ms: i64) -> store::Result<()> {
    let record = TrainingRecord::read(&job.document)?;
    let mut outputs = Map::new();
    if let Some(uri) = &record.model_artifacts {
        outputs.insert("SageMaker.ModelArtifact".into(), json!({"Value": uri}));
    }
    let metrics = record
        .final_metrics
        .iter()
        .map(|metric| (metric.name.clone(), vec![Point { at: metric.at, step: None, value: metric.value }]));
    let ending = Ending {
        status: job.status.clone(),
        message: record.failure.as_ref().map(|card| card.reason.clone()),
        started_at: record.training_started_at,
        ended_at: record.training_ended_at,
        outputs,
        metrics: metrics.collect(),
    };
    let Some(component) = experiments::end(session, job, ending, now_ms)? else { return Ok(()) };
    let Some(uri) = &record.model_artifacts else { return Ok(()) };
    let by = nobody();
    let recorder = Recorder::of(session, &job.key, &by, now_ms);
    let ids = recorder.object_ids(uri)?;
    let model = recorder.artifact(&Thing { uri, kind: "Model", ids, ..Thing::default() })?;
    recorder.edge(&component, &model, "Produced")
}
