//! What is recorded by itself: each function is called in the transaction of what it records.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use store::Session;
use store::lineage::Edge;
use store::resources::{Resource, ResourceKey};

use super::{jobs, processing, transform, type_of};
use crate::registry::package::PackageRecord;
use crate::sagemaker::kinds::{
    self, ACTION, ARTIFACT, CONTEXT, ENDPOINT, ENDPOINT_CONFIG, MODEL, MODEL_PACKAGE, MODEL_PACKAGE_GROUP,
    PROCESSING_JOB, TRAINING_JOB, TRANSFORM_JOB,
};
use crate::sagemaker::models;
use crate::training::bucket_and_key;

/// The name of the artifact that stands for a URI with these ids of its content, such as `("S3ETag", "…")`. Its type is no part
/// of it: what one job left as a model is the data of the next.
pub fn identity(uri: &str, ids: &[(String, String)]) -> String {
    let mut ids: Vec<(&str, &str)> = ids.iter().map(|(kind, id)| (&**kind, id.trim_matches('"'))).collect();
    ids.sort_unstable();
    let text = json!([uri.trim_end_matches('/'), ids]).to_string();
    let mut name = hex::encode(Sha256::digest(text.as_bytes()));
    name.truncate(32);
    name
}

/// Something with a URI.
#[derive(Debug, Default, Clone)]
pub struct Thing<'a> {
    /// The URI.
    pub uri: &'a str,
    /// For example `DataSet` or `Model`.
    pub kind: &'a str,
    /// A label of at most 120 characters.
    pub label: Option<&'a str>,
    /// Kinds and values of ids of its content.
    pub ids: Vec<(String, String)>,
    /// Properties that are shown.
    pub properties: Value,
    /// What is kept beside.
    pub document: Value,
}

/// Writes vertices and edges of one account and region.
pub struct Recorder<'a> {
    session: &'a Session<'a>,
    place: &'a ResourceKey,
    by: &'a Value,
    now_ms: i64,
}

impl<'a> Recorder<'a> {
    /// A recorder in an open transaction, for the account and region of `place`.
    pub fn of(session: &'a Session<'a>, place: &'a ResourceKey, by: &'a Value, now_ms: i64) -> Recorder<'a> {
        Recorder { session, place, by, now_ms }
    }

    /// The artifact of a thing, made when it is not there; returns its ARN.
    ///
    /// # Errors
    /// When the database fails.
    pub fn artifact(&self, thing: &Thing<'_>) -> store::Result<String> {
        let types: Vec<Value> =
            thing.ids.iter().map(|(kind, id)| json!({"SourceIdType": kind, "Value": id})).collect();
        let mut spec = json!({
            "Source": {"SourceUri": thing.uri, "SourceTypes": types},
            "ArtifactType": thing.kind,
        });
        if let Some(label) = thing.label {
            spec["ArtifactName"] = label.into();
        }
        if thing.properties.as_object().is_some_and(|properties| !properties.is_empty()) {
            spec["Properties"] = thing.properties.clone();
        }
        self.vertex(ARTIFACT, &identity(thing.uri, &thing.ids), thing.kind, thing.uri, spec, &thing.document)
    }

    /// An action, made when it is not there; returns its ARN.
    ///
    /// # Errors
    /// When the database fails.
    pub fn action(&self, name: &str, kind: &str, uri: &str) -> store::Result<String> {
        let spec = json!({
            "ActionName": name, "ActionType": kind, "Status": "Completed",
            "Source": {"SourceUri": uri, "SourceType": "ARN"},
        });
        self.vertex(ACTION, name, kind, uri, spec, &Value::Null)
    }

    /// A context, made when it is not there; returns its ARN.
    ///
    /// # Errors
    /// When the database fails.
    pub fn context(&self, name: &str, kind: &str, uri: &str) -> store::Result<String> {
        let spec = json!({
            "ContextName": name, "ContextType": kind, "Source": {"SourceUri": uri, "SourceType": "ARN"},
        });
        self.vertex(CONTEXT, name, kind, uri, spec, &Value::Null)
    }

    fn vertex(
        &self,
        kind: &'static str,
        name: &str,
        vertex_type: &str,
        uri: &str,
        spec: Value,
        document: &Value,
    ) -> store::Result<String> {
        let (account, region) = (&self.place.account, &self.place.region);
        let arn = kinds::arn(region, account, kind, name);
        if self.session.has_resource(&arn)? {
            // The same under a URI with a slash more.
            self.session.put_lineage_uri(account, region, uri, &arn)?;
            return Ok(arn);
        }
        let mut document = document.as_object().cloned().unwrap_or_default();
        document.insert("created_by".into(), self.by.clone());
        let vertex = Resource {
            key: ResourceKey { kind: kind.into(), name: name.into(), ..self.place.clone() },
            arn: arn.clone(),
            status: vertex_type.into(),
            spec,
            document: Value::Object(document),
            generation: 1,
            created_at: self.now_ms,
            modified_at: self.now_ms,
        };
        self.session.insert_resource(&vertex)?;
        self.session.put_lineage_uri(account, region, uri, &arn)?;
        self.session.append_event(&vertex.key, "Created", &vertex.spec, self.now_ms)?;
        Ok(arn)
    }

    /// An edge between two vertices; nothing when either was deleted, or it is there.
    ///
    /// # Errors
    /// When the database fails.
    pub fn edge(&self, source: &str, destination: &str, kind: &str) -> store::Result<()> {
        let ends =
            (self.session.find_resource_by_arn(source)?, self.session.find_resource_by_arn(destination)?);
        let (Some(from), Some(to)) = ends else { return Ok(()) };
        if from.arn == to.arn {
            return Ok(());
        }
        let edge = Edge {
            source_type: type_of(&from).to_owned(),
            destination_type: type_of(&to).to_owned(),
            source: from.arn,
            destination: to.arn,
            kind: Some(kind.to_owned()),
            created_by: self.by.clone(),
            created_at: self.now_ms,
        };
        self.session.add_edge(&self.place.account, &self.place.region, &edge).map(drop)
    }

    /// The ids of the content of an S3 object as it is now; none when it is not there, or no object.
    ///
    /// # Errors
    /// When the database fails.
    pub fn object_ids(&self, uri: &str) -> store::Result<Vec<(String, String)>> {
        let Some((bucket, key)) = bucket_and_key(uri).filter(|(_, key)| !key.is_empty()) else {
            return Ok(Vec::new());
        };
        let etag = self.session.object_etag(&self.place.account, bucket, key)?;
        Ok(etag.map(|etag| ("S3ETag".to_owned(), etag)).into_iter().collect())
    }
}

/// Records what a new resource says of where it comes from. Call it in the transaction that inserts the resource.
///
/// # Errors
/// When the database fails, or [`store::Error::Invalid`] for an `ExperimentConfig` that names what is not there.
pub fn created(session: &Session<'_>, resource: &Resource, by: &Value) -> store::Result<()> {
    let recorder = Recorder::of(session, &resource.key, by, resource.created_at);
    match resource.key.kind.as_str() {
        TRAINING_JOB => jobs::training_began(&recorder, session, resource, by),
        PROCESSING_JOB => processing::began(&recorder, session, resource, by),
        TRANSFORM_JOB => transform::began(&recorder, session, resource, by),
        MODEL_PACKAGE => package(&recorder, resource),
        MODEL => model(&recorder, session, resource).map(drop),
        ENDPOINT_CONFIG => config(&recorder, session, resource).map(drop),
        ENDPOINT => deployed(session, resource, by, resource.created_at),
        _ => Ok(()),
    }
}

/// A resource of ours as an artifact. One that is deleted and made again is another.
fn own<'a>(resource: &'a Resource, kind: &'a str) -> Thing<'a> {
    Thing {
        uri: &resource.arn,
        kind,
        label: Some(&resource.key.name),
        ids: vec![("Custom".to_owned(), resource.created_at.to_string())],
        ..Thing::default()
    }
}

fn model_data_thing<'a>(recorder: &Recorder<'_>, uri: &'a str) -> store::Result<Thing<'a>> {
    Ok(Thing { uri, kind: "Model", ids: recorder.object_ids(uri)?, ..Thing::default() })
}

/// A package: what its containers are made of leads to it, and it belongs to its group.
fn package(recorder: &Recorder<'_>, package: &Resource) -> store::Result<()> {
    let arn = recorder.artifact(&package_thing(package))?;
    for container in package.spec["InferenceSpecification"]["Containers"].as_array().into_iter().flatten() {
        contents(recorder, container, &arn)?;
    }
    if let Some(group) = PackageRecord::read(&package.document)?.group {
        let uri = kinds::arn(&package.key.region, &package.key.account, MODEL_PACKAGE_GROUP, &group);
        let context = recorder.context(&format!("{group}-aws-model-group"), "ModelGroup", &uri)?;
        recorder.edge(&arn, &context, "AssociatedWith")?;
    }
    Ok(())
}

fn package_thing(package: &Resource) -> Thing<'_> {
    let label = package.arn.split_once("model-package/").map(|(_, name)| name);
    Thing { label, ..own(package, "ModelPackage") }
}

pub(super) fn model(
    recorder: &Recorder<'_>,
    session: &Session<'_>,
    model: &Resource,
) -> store::Result<String> {
    let arn = recorder.artifact(&own(model, "SageMakerModel"))?;
    if let Some(package) = model.document["package"].as_str()
        && let Some(package) = session.find_resource_by_arn(package)?
    {
        let package = recorder.artifact(&package_thing(&package))?;
        recorder.edge(&package, &arn, "ContributedTo")?;
    }
    for container in models::containers(&model.spec) {
        contents(recorder, container, &arn)?;
    }
    Ok(arn)
}

/// The edges from a container's model data and image to what is made of them.
fn contents(recorder: &Recorder<'_>, container: &Value, arn: &str) -> store::Result<()> {
    if let Some(uri) = models::model_data(container) {
        let data = recorder.artifact(&model_data_thing(recorder, uri)?)?;
        recorder.edge(&data, arn, "ContributedTo")?;
    }
    if let Some(uri) = container["Image"].as_str() {
        let image = recorder.artifact(&Thing { uri, kind: "Image", ..Thing::default() })?;
        recorder.edge(&image, arn, "ContributedTo")?;
    }
    Ok(())
}

fn config(recorder: &Recorder<'_>, session: &Session<'_>, config: &Resource) -> store::Result<String> {
    let arn = recorder.artifact(&own(config, "EndpointConfig"))?;
    for model in models_of(session, config)? {
        let model = recorder.artifact(&own(&model, "SageMakerModel"))?;
        recorder.edge(&model, &arn, "ContributedTo")?;
    }
    Ok(arn)
}

/// The models that a configuration deploys, as far as they are still there.
fn models_of(session: &Session<'_>, config: &Resource) -> store::Result<Vec<Resource>> {
    let mut found = Vec::new();
    for variant in config.spec["ProductionVariants"].as_array().into_iter().flatten() {
        let name = variant["ModelName"].as_str().unwrap_or_default();
        let key = ResourceKey { kind: MODEL.into(), name: name.into(), ..config.key.clone() };
        found.extend(session.find_resource(&key)?);
    }
    Ok(found)
}

/// Records that an endpoint deploys its configuration: when it is created, and with each update. Call it in that transaction.
///
/// # Errors
/// When the database fails, or the endpoint's record is damaged.
pub fn deployed(session: &Session<'_>, endpoint: &Resource, by: &Value, now_ms: i64) -> store::Result<()> {
    let recorder = Recorder::of(session, &endpoint.key, by, now_ms);
    let record = crate::endpoints::EndpointRecord::read(&endpoint.document)?;
    let name = &endpoint.key.name;
    let context = recorder.context(&format!("{name}-aws-endpoint"), "Endpoint", &endpoint.arn)?;
    let action = format!("{name}-{now_ms}-aws-model-deployment");
    let action = recorder.action(&action, "ModelDeployment", &endpoint.arn)?;
    recorder.edge(&action, &context, "AssociatedWith")?;
    let key =
        ResourceKey { kind: ENDPOINT_CONFIG.into(), name: record.config.clone(), ..endpoint.key.clone() };
    if let Some(config_resource) = session.find_resource(&key)? {
        let config = config(&recorder, session, &config_resource)?;
        recorder.edge(&config, &action, "ContributedTo")?;
    }
    for variant in record.variants.iter().chain(&record.shadows) {
        // Also on their own: who asks what an endpoint serves means the data, not the records in between.
        if let Some(uri) = &variant.model_data {
            let data = recorder.artifact(&model_data_thing(&recorder, uri)?)?;
            recorder.edge(&data, &action, "ContributedTo")?;
        }
    }
    Ok(())
}
