//! Artifacts: create, describe, list, update, delete.

use api::sagemaker::SERVICE;
use serde_json::{Value, json};
use store::links::Narrowing;
use store::resources::Resource;

use super::record;
use crate::sagemaker::entities::{self, Noun};
use crate::sagemaker::{fields, kinds};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "CreateArtifact", create_artifact);
    registry.on_value(&SERVICE, "DescribeArtifact", describe_artifact);
    registry.on_value(&SERVICE, "ListArtifacts", list_artifacts);
    registry.on_value(&SERVICE, "UpdateArtifact", update_artifact);
    registry.on_value(&SERVICE, "DeleteArtifact", delete_artifact);
}

/// An artifact is named by what it stands for; `ArtifactName` is a label.
const ARTIFACT: Noun = Noun { kind: kinds::ARTIFACT, name: "ArtifactId", arn: "ArtifactArn" };

/// Most properties of an artifact, as in the service.
const MOST_PROPERTIES: usize = 30;

async fn create_artifact(cx: Cx) -> Result<Value> {
    let honoured =
        ["ArtifactName", "Source.**", "ArtifactType", "Properties.**", "MetadataProperties.**", "Tags.**"];
    fields::check(&cx.input, &honoured)?;
    let source = &cx.input["Source"];
    let uri = entities::required(source, "SourceUri").to_owned();
    let id = record::identity(&uri, &source_ids(source));
    let kind = entities::required(&cx.input, "ArtifactType");
    let created = entities::create(&cx, ARTIFACT, &id, kind, move |session, artifact| {
        session.put_lineage_uri(&artifact.key.account, &artifact.key.region, &uri, &artifact.arn)
    });
    let arn = created.await.map_err(|error| match error {
        Error::Validation(text) if text.contains("already exists") => Error::Validation(format!(
            "An artifact with this SourceUri and these SourceTypes already exists ({}).",
            crate::sagemaker::records::arn(&cx, ARTIFACT.kind, &id)
        )),
        other => other,
    })?;
    Ok(json!({"ArtifactArn": arn}))
}

fn source_ids(source: &Value) -> Vec<(String, String)> {
    let types = source["SourceTypes"].as_array().into_iter().flatten();
    types
        .map(|one| {
            (entities::required(one, "SourceIdType").to_owned(), entities::required(one, "Value").to_owned())
        })
        .collect()
}

async fn describe_artifact(cx: Cx) -> Result<Value> {
    let resource = entities::find(&cx, ARTIFACT.kind, entities::required(&cx.input, "ArtifactArn")).await?;
    let mut shown = entities::shown(&resource, ARTIFACT);
    shown.remove(ARTIFACT.name);
    shown.insert("LineageGroupArn".into(), super::groups::arn(&cx).into());
    // The document's `source` is a job's; an artifact's own is in the request.
    shown.insert("Source".into(), resource.spec["Source"].clone());
    Ok(Value::Object(shown))
}

async fn list_artifacts(cx: Cx) -> Result<Value> {
    let uri = entities::text(&cx.input, "SourceUri").map(|uri| Narrowing::Uri(uri.to_owned()));
    let kind = entities::text(&cx.input, "ArtifactType");
    let page = entities::page(&cx, ARTIFACT.kind, kind, uri.into_iter().collect()).await?;
    let rows = page.resources.iter().map(|resource| {
        let members =
            ["ArtifactArn", "ArtifactName", "Source", "ArtifactType", "CreationTime", "LastModifiedTime"];
        entities::picked(&entities::shown(resource, ARTIFACT), &members)
    });
    Ok(entities::listed("ArtifactSummaries", rows.collect(), page.next_token))
}

async fn update_artifact(cx: Cx) -> Result<Value> {
    fields::check(&cx.input, &["ArtifactArn", "ArtifactName", "Properties.**", "PropertiesToRemove"])?;
    let resource = entities::find(&cx, ARTIFACT.kind, entities::required(&cx.input, "ArtifactArn")).await?;
    let input = cx.input.clone();
    let updated = entities::update(&cx, resource.key, move |resource| {
        entities::replace(&mut resource.spec, &input, &["ArtifactName"]);
        entities::merge(&mut resource.spec, &input, "Properties", "PropertiesToRemove", MOST_PROPERTIES)
    });
    Ok(json!({"ArtifactArn": updated.await?.arn}))
}

async fn delete_artifact(cx: Cx) -> Result<Value> {
    fields::check(&cx.input, &["ArtifactArn", "Source.**"])?;
    let named = match (entities::text(&cx.input, "ArtifactArn"), cx.input["Source"].is_null()) {
        (Some(arn), true) => arn.to_owned(),
        (None, false) => {
            let source = &cx.input["Source"];
            record::identity(entities::required(source, "SourceUri"), &source_ids(source))
        }
        _ => return Err(Error::Validation("Exactly one of ArtifactArn and Source must be given.".into())),
    };
    let resource = entities::find(&cx, ARTIFACT.kind, &named).await?;
    let arn = delete(&cx, resource).await?;
    Ok(json!({"ArtifactArn": arn}))
}

/// Deletes a vertex that no association holds; returns its ARN.
pub(super) async fn delete(cx: &Cx, resource: Resource) -> Result<String> {
    let (key, arn, now_ms) = (resource.key, resource.arn.clone(), cx.state.clock.now_ms());
    let deleted = cx.state.database.write(move |session| {
        if !session.edges_from(&arn)?.is_empty() || !session.edges_to(&arn)?.is_empty() {
            return Err(store::Error::Precondition(format!(
                "The {} {arn} has associations: delete them first.",
                key.kind
            )));
        }
        session.delete_lineage_uris(&arn)?;
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    deleted.await.map_err(entities::missing_or)?;
    Ok(resource.arn)
}
