//! Actions and contexts: create, describe, list, update, delete.

use api::sagemaker::SERVICE;
use serde_json::{Value, json};
use store::links::Narrowing;

use super::artifacts;
use crate::sagemaker::entities::{self, Noun};
use crate::sagemaker::{fields, kinds};
use crate::{Cx, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "CreateAction", |cx| create(cx, &ACTION));
    registry.on_value(&SERVICE, "DescribeAction", |cx| describe(cx, &ACTION));
    registry.on_value(&SERVICE, "ListActions", |cx| list(cx, &ACTION));
    registry.on_value(&SERVICE, "UpdateAction", |cx| update(cx, &ACTION));
    registry.on_value(&SERVICE, "DeleteAction", |cx| delete(cx, &ACTION));
    registry.on_value(&SERVICE, "CreateContext", |cx| create(cx, &CONTEXT));
    registry.on_value(&SERVICE, "DescribeContext", |cx| describe(cx, &CONTEXT));
    registry.on_value(&SERVICE, "ListContexts", |cx| list(cx, &CONTEXT));
    registry.on_value(&SERVICE, "UpdateContext", |cx| update(cx, &CONTEXT));
    registry.on_value(&SERVICE, "DeleteContext", |cx| delete(cx, &CONTEXT));
}

/// What tells actions from contexts.
struct Sort {
    noun: Noun,
    kind_member: &'static str,
    honoured: &'static [&'static str],
    updated: &'static [&'static str],
    list: &'static str,
    summary: &'static [&'static str],
}

static ACTION: Sort = Sort {
    noun: Noun { kind: kinds::ACTION, name: "ActionName", arn: "ActionArn" },
    kind_member: "ActionType",
    honoured: &[
        "ActionName",
        "Source.**",
        "ActionType",
        "Description",
        "Status",
        "Properties.**",
        "MetadataProperties.**",
        "Tags.**",
    ],
    updated: &["Description", "Status"],
    list: "ActionSummaries",
    summary: &[
        "ActionArn",
        "ActionName",
        "Source",
        "ActionType",
        "Status",
        "CreationTime",
        "LastModifiedTime",
    ],
};

static CONTEXT: Sort = Sort {
    noun: Noun { kind: kinds::CONTEXT, name: "ContextName", arn: "ContextArn" },
    kind_member: "ContextType",
    honoured: &["ContextName", "Source.**", "ContextType", "Description", "Properties.**", "Tags.**"],
    updated: &["Description"],
    list: "ContextSummaries",
    summary: &["ContextArn", "ContextName", "Source", "ContextType", "CreationTime", "LastModifiedTime"],
};

/// Most properties of either, as in the service.
const MOST_PROPERTIES: usize = 30;

async fn create(cx: Cx, sort: &'static Sort) -> Result<Value> {
    fields::check(&cx.input, sort.honoured)?;
    let uri = entities::required(&cx.input["Source"], "SourceUri").to_owned();
    let name = entities::required(&cx.input, sort.noun.name);
    let kind = entities::required(&cx.input, sort.kind_member);
    let created = entities::create(&cx, sort.noun, name, kind, move |session, vertex| {
        session.put_lineage_uri(&vertex.key.account, &vertex.key.region, &uri, &vertex.arn)
    });
    Ok(json!({sort.noun.arn: created.await?}))
}

async fn describe(cx: Cx, sort: &'static Sort) -> Result<Value> {
    let resource = entities::find(&cx, sort.noun.kind, entities::required(&cx.input, sort.noun.name)).await?;
    let mut shown = entities::shown(&resource, sort.noun);
    shown.insert("LineageGroupArn".into(), super::groups::arn(&cx).into());
    Ok(Value::Object(shown))
}

async fn list(cx: Cx, sort: &'static Sort) -> Result<Value> {
    let uri = entities::text(&cx.input, "SourceUri").map(|uri| Narrowing::Uri(uri.to_owned()));
    let kind = entities::text(&cx.input, sort.kind_member);
    let page = entities::page(&cx, sort.noun.kind, kind, uri.into_iter().collect()).await?;
    let rows = page
        .resources
        .iter()
        .map(|resource| entities::picked(&entities::shown(resource, sort.noun), sort.summary));
    Ok(entities::listed(sort.list, rows.collect(), page.next_token))
}

async fn update(cx: Cx, sort: &'static Sort) -> Result<Value> {
    let always = [sort.noun.name, "Properties.**", "PropertiesToRemove"];
    fields::check(&cx.input, &[sort.updated, &always].concat())?;
    let resource = entities::find(&cx, sort.noun.kind, entities::required(&cx.input, sort.noun.name)).await?;
    let input = cx.input.clone();
    let updated = entities::update(&cx, resource.key, move |resource| {
        entities::replace(&mut resource.spec, &input, sort.updated);
        entities::merge(&mut resource.spec, &input, "Properties", "PropertiesToRemove", MOST_PROPERTIES)
    });
    Ok(json!({sort.noun.arn: updated.await?.arn}))
}

async fn delete(cx: Cx, sort: &'static Sort) -> Result<Value> {
    let resource = entities::find(&cx, sort.noun.kind, entities::required(&cx.input, sort.noun.name)).await?;
    Ok(json!({sort.noun.arn: artifacts::delete(&cx, resource).await?}))
}
