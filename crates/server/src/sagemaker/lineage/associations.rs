//! Associations between vertices: add, delete, list.

use api::sagemaker::SERVICE;
use serde_json::{Value, json};
use store::lineage::{Edge, EdgeOrder, EdgeQuery, EndType};
use store::resources::Resource;

use super::{lineage_type, type_of};
use crate::sagemaker::{entities, fields, records};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "AddAssociation", add_association);
    registry.on_value(&SERVICE, "DeleteAssociation", delete_association);
    registry.on_value(&SERVICE, "ListAssociations", list_associations);
}

/// Rows on a page when the caller names no number, as in the service.
const DEFAULT_ROWS: u64 = 10;

async fn add_association(cx: Cx) -> Result<Value> {
    fields::check(&cx.input, &["SourceArn", "DestinationArn", "AssociationType"])?;
    let (source, destination) = ends(&cx);
    if source == destination {
        return Err(Error::Validation("SourceArn and DestinationArn must differ.".into()));
    }
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let kind = entities::text(&cx.input, "AssociationType").map(str::to_owned);
    let (by, now_ms) = (entities::user(&cx), cx.state.clock.now_ms());
    let answer = json!({"SourceArn": source, "DestinationArn": destination});
    let taken = format!("An association from {source} to {destination} already exists.");
    let added = cx.state.database.write(move |session| {
        let vertex = |arn: &str| {
            let found = session.find_resource_by_arn(arn)?;
            let is_own = |one: &Resource| {
                one.key.account == account
                    && one.key.region == region
                    && lineage_type(&one.key.kind).is_some()
            };
            found
                .filter(is_own)
                .ok_or_else(|| store::Error::Missing { kind: kind_in(arn).to_owned(), name: arn.to_owned() })
        };
        let (source, destination) = (vertex(&source)?, vertex(&destination)?);
        let edge = Edge {
            source_type: type_of(&source).to_owned(),
            destination_type: type_of(&destination).to_owned(),
            source: source.arn,
            destination: destination.arn,
            kind,
            created_by: by,
            created_at: now_ms,
        };
        session.add_edge(&account, &region, &edge)
    });
    match added.await.map_err(entities::missing_or)? {
        true => Ok(answer),
        false => Err(Error::Validation(taken)),
    }
}

fn ends(cx: &Cx) -> (String, String) {
    let end = |member: &str| entities::required(&cx.input, member).to_owned();
    (end("SourceArn"), end("DestinationArn"))
}

/// The kind that an ARN speaks of.
fn kind_in(arn: &str) -> &str {
    arn.rsplit(':').next().and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

async fn delete_association(cx: Cx) -> Result<Value> {
    let (source, destination) = ends(&cx);
    let own = format!("arn:aws:sagemaker:{}:{}:", cx.caller.region, cx.caller.account);
    let answer = json!({"SourceArn": source, "DestinationArn": destination});
    let missing = format!("from {source} to {destination}");
    let is_own = source.starts_with(&own);
    let deleted =
        is_own && cx.state.database.write(move |session| session.delete_edge(&source, &destination)).await?;
    if deleted { Ok(answer) } else { Err(Error::not_found("association", missing)) }
}

async fn list_associations(cx: Cx) -> Result<Value> {
    let input = &cx.input;
    let text = |member: &str| entities::text(input, member).map(str::to_owned);
    let query = EdgeQuery {
        source: text("SourceArn"),
        destination: text("DestinationArn"),
        source_type: text("SourceType").map(end_type),
        destination_type: text("DestinationType").map(end_type),
        kind: text("AssociationType"),
        created_after: entities::milliseconds(&input["CreatedAfter"]),
        created_before: entities::milliseconds(&input["CreatedBefore"]),
        order: match entities::text(input, "SortBy") {
            Some("SourceArn") => EdgeOrder::Source,
            Some("DestinationArn") => EdgeOrder::Destination,
            Some("SourceType") => EdgeOrder::SourceType,
            Some("DestinationType") => EdgeOrder::DestinationType,
            _ => EdgeOrder::CreatedAt,
        },
        descending: entities::text(input, "SortOrder") != Some("Ascending"),
        limit: input["MaxResults"].as_u64().unwrap_or(DEFAULT_ROWS).max(1) as usize,
        next_token: text("NextToken"),
    };
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let listed = cx.state.database.read(move |session| {
        let (edges, next_token) = session.list_edges(&account, &region, &query)?;
        let mut rows = Vec::new();
        for edge in edges {
            let name =
                |arn: &str| session.find_resource_by_arn(arn).map(|found| found.map(|one| label(&one)));
            rows.push(json!({
                "SourceName": name(&edge.source)?,
                "DestinationName": name(&edge.destination)?,
                "SourceArn": edge.source,
                "DestinationArn": edge.destination,
                "SourceType": edge.source_type,
                "DestinationType": edge.destination_type,
                "AssociationType": edge.kind,
                "CreationTime": records::seconds(edge.created_at),
                "CreatedBy": edge.created_by,
            }));
        }
        Ok((rows, next_token))
    });
    let (rows, next_token) = listed.await?;
    Ok(entities::listed("AssociationSummaries", rows, next_token))
}

/// The name of a vertex; of an artifact, its label.
fn label(resource: &Resource) -> Value {
    match resource.key.kind.as_str() {
        super::ARTIFACT => resource.spec["ArtifactName"].clone(),
        _ => resource.key.name.clone().into(),
    }
}

/// The SDK asks for `Action` and the like where a type is meant, too.
fn end_type(name: String) -> EndType {
    match name.as_str() {
        "Artifact" => EndType::ArnPart(":artifact/"),
        "Action" => EndType::ArnPart(":action/"),
        "Context" => EndType::ArnPart(":context/"),
        "TrialComponent" => EndType::ArnPart(":experiment-trial-component/"),
        _ => EndType::Type(name),
    }
}
