//! Our own question to the lineage: what came from this object?

use std::collections::HashSet;

use serde_json::{Value, json};
use store::Session;
use store::resources::Resource;

use super::query::{Walk, Way, short};
use super::{lineage_type, type_of};
use crate::sagemaker::{entities, records};
use crate::{Cx, Error, Registry, Result};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&crate::own_service::SERVICE, "TraceObject", trace_object);
}

/// How far edges are followed: far beyond what a person would make.
const DEPTH: u64 = 100;

async fn trace_object(cx: Cx) -> Result<Value> {
    let uri = entities::required(&cx.input, "Uri").to_owned();
    let Some((bucket, key)) = crate::training::bucket_and_key(&uri) else {
        return Err(Error::Validation(format!("Uri: {uri:?} is not an S3 URI such as s3://bucket/key.")));
    };
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    let traced = cx.state.database.read(move |session| {
        let etag_now = match key.is_empty() {
            true => None,
            false => session.object_etag(&account, &bucket, &key)?,
        };
        let mut traces = Vec::new();
        let mut seen = HashSet::new();
        for arn in session.vertices_that_cover(&account, &region, &uri)? {
            if !seen.insert(arn.clone()) {
                continue;
            }
            let Some(artifact) = session.find_resource_by_arn(&arn)? else { continue };
            let Some(version) = version(&artifact, &uri, etag_now.as_deref()) else { continue };
            let walk = Walk::along(session, std::slice::from_ref(&arn), &[Way::Forth], DEPTH)?;
            traces.push(json!({
                "Source": shown(&artifact),
                "Version": version,
                "Descendants": descendants(session, &walk)?,
            }));
        }
        Ok(traces)
    });
    Ok(json!({"Traces": traced.await?}))
}

/// Whether an artifact holds the object: `current` in the version that is there now, `earlier` in another, `unknown` when it has
/// too many objects to remember them; `None` when it does not hold it.
fn version(artifact: &Resource, uri: &str, etag_now: Option<&str>) -> Option<&'static str> {
    let source = &artifact.spec["Source"];
    let same = |etag: &str| if Some(etag.trim_matches('"')) == etag_now { "current" } else { "earlier" };
    let objects = artifact.document["objects"].as_array();
    if let Some(objects) = objects.filter(|objects| !objects.is_empty()) {
        let found = objects.iter().find(|object| object[0] == uri);
        // A question about a folder is about all that was in it.
        let below =
            || objects.iter().any(|object| object[0].as_str().is_some_and(|one| one.starts_with(uri)));
        return match found {
            Some(object) => Some(same(object[1].as_str().unwrap_or_default())),
            None => below().then_some("unknown"),
        };
    }
    let ids = source["SourceTypes"].as_array().into_iter().flatten();
    let etag = ids.filter(|id| id["SourceIdType"] == "S3ETag").find_map(|id| id["Value"].as_str());
    match etag {
        Some(etag) if source["SourceUri"] == uri => Some(same(etag)),
        // An object has nothing below it.
        Some(_) => None,
        None => Some("unknown"),
    }
}

fn descendants(session: &Session<'_>, walk: &Walk) -> store::Result<Vec<Value>> {
    let mut rows = Vec::new();
    for arn in &walk.met {
        rows.extend(session.find_resource_by_arn(arn)?.as_ref().map(shown));
    }
    Ok(rows)
}

/// A vertex for people: what it stands for, not only what it is called.
fn shown(vertex: &Resource) -> Value {
    let source = match vertex.spec["Source"]["SourceUri"].as_str() {
        Some(uri) => Value::from(uri),
        None => vertex.document["source"]["SourceArn"].clone(),
    };
    json!({
        "Arn": vertex.arn,
        "LineageType": lineage_type(&vertex.key.kind),
        "Type": short(type_of(vertex)),
        "Source": source,
        "CreationTime": records::seconds(vertex.created_at),
    })
}
