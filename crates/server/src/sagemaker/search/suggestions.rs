//! GetSearchSuggestions: names of properties that begin with a hint.

use std::collections::BTreeSet;

use api::model::Kind;
use api::sagemaker::SERVICE;
use serde_json::{Value, json};
use store::resources::{ListQuery, SortBy};

use super::kinds::{self, Searchable};
use crate::sagemaker::entities;
use crate::{Cx, Registry, Result};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "GetSearchSuggestions", get_search_suggestions);
}

/// Most suggestions of an answer.
const MOST: usize = 100;

/// Resources whose own names are looked at, the newest.
const LOOKED_AT: usize = 100;

async fn get_search_suggestions(cx: Cx) -> Result<Value> {
    let kind = kinds::find(entities::required(&cx.input, "Resource"))?;
    let hint =
        cx.input["SuggestionQuery"]["PropertyNameQuery"]["PropertyNameHint"].as_str().unwrap_or_default();
    let hint = hint.to_lowercase();
    let mut names: BTreeSet<String> = members(kind).map(str::to_owned).collect();
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let now_ms = cx.state.clock.now_ms();
    let own = cx.state.database.read(move |session| {
        let query = ListQuery {
            sort_by: SortBy::ModifiedAt,
            descending: true,
            limit: LOOKED_AT,
            ..Default::default()
        };
        let mut names = BTreeSet::new();
        for resource in session.list_resources(&account, &region, kind.kind, &query)?.resources {
            let mut shown = (kind.describe)(&resource)?;
            for (name, extra) in kind.extras.iter().filter(|(name, _)| kind.named.contains(name)) {
                shown.insert((*name).to_owned(), extra(session, &resource, now_ms)?);
            }
            if let Some(metrics) = shown.get("FinalMetricDataList").cloned() {
                shown.entry("Metrics").or_insert(metrics);
            }
            for property in kind.named {
                names.extend(entries(shown.get(*property)).map(|entry| format!("{property}.{entry}")));
            }
        }
        Ok(names)
    });
    names.extend(own.await?);
    let suggested: Vec<Value> = names
        .into_iter()
        .filter(|name| name.to_lowercase().starts_with(&hint))
        .take(MOST)
        .map(|name| json!({"PropertyName": name}))
        .collect();
    Ok(json!({"PropertyNameSuggestions": suggested}))
}

/// Members of the kind's shape in the model.
fn members(kind: &Searchable) -> impl Iterator<Item = &'static str> + use<> {
    let shape = SERVICE.shapes.iter().find(|shape| shape.name == kind.member);
    let members = match shape.map(|shape| &shape.kind) {
        Some(Kind::Structure(structure)) => structure.members,
        _ => &[],
    };
    members.iter().map(|member| member.name)
}

/// Names of the entries of a map, or of a list of tags or metrics.
fn entries(property: Option<&Value>) -> impl Iterator<Item = &str> {
    let map = property.and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.as_str());
    let list = property.and_then(Value::as_array).into_iter().flatten();
    map.chain(list.filter_map(|one| one["Key"].as_str().or_else(|| one["MetricName"].as_str())))
}
