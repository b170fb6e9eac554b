//! QueryLineage: what lies before and behind a vertex.

use std::collections::{HashMap, HashSet};

use api::sagemaker::SERVICE;
use serde_json::{Value, json};
use store::Session;
use store::lineage::Edge;
use store::resources::Resource;

use super::{lineage_type, type_of};
use crate::sagemaker::{entities, fields};
use crate::{Cx, Error, Registry, Result};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on_value(&SERVICE, "QueryLineage", query_lineage);
}

/// Deepest look, as in the service; also what is looked at when the caller says nothing.
const MOST_DEPTH: u64 = 10;

/// Vertices on a page when the caller names no number, as in the service.
const DEFAULT_ROWS: u64 = 50;

/// Which way edges are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To what the vertex came from.
    Back,
    /// To what came from the vertex.
    Forth,
}

async fn query_lineage(cx: Cx) -> Result<Value> {
    let honoured =
        ["StartArns", "Direction", "IncludeEdges", "Filters.**", "MaxDepth", "MaxResults", "NextToken"];
    fields::check(&cx.input, &honoured)?;
    let input = cx.input.clone();
    let Some(start) = input["StartArns"][0].as_str().map(str::to_owned) else {
        return Err(Error::Validation("StartArns must name one vertex.".into()));
    };
    let from: usize = match entities::text(&input, "NextToken") {
        None => 0,
        Some(token) => token
            .strip_prefix("vertex/")
            .and_then(|row| row.parse().ok())
            .ok_or_else(|| Error::Validation("The pagination token NextToken is not valid.".into()))?,
    };
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let answered = cx.state.database.read(move |session| {
        let found = session.find_resource_by_arn(&start)?;
        let is_own = |one: &Resource| {
            one.key.account == account && one.key.region == region && lineage_type(&one.key.kind).is_some()
        };
        if !found.as_ref().is_some_and(is_own) {
            return Ok(Err(Error::not_found("vertex", start)));
        }
        let ways: &[Way] = match entities::text(&input, "Direction") {
            Some("Ascendants") => &[Way::Back],
            Some("Descendants") => &[Way::Forth],
            _ => &[Way::Back, Way::Forth],
        };
        let depth = input["MaxDepth"].as_u64().unwrap_or(MOST_DEPTH).min(MOST_DEPTH);
        let walk = Walk::along(session, &[start], ways, depth)?;
        answer(session, &walk, &input, from).map(Ok)
    });
    answered.await?
}

/// What a walk through the graph met.
pub(super) struct Walk {
    /// ARNs in the order of their distance, without the start.
    pub(super) met: Vec<String>,
    /// The edges that were followed.
    edges: Vec<Edge>,
}

impl Walk {
    /// Follows edges from `starts`, each way by itself, up to `depth` edges far.
    pub(super) fn along(
        session: &Session<'_>,
        starts: &[String],
        ways: &[Way],
        depth: u64,
    ) -> store::Result<Walk> {
        let mut walk = Walk { met: Vec::new(), edges: Vec::new() };
        let mut known: HashSet<String> = starts.iter().cloned().collect();
        for way in ways {
            // A vertex that lies both before and behind is followed both ways.
            let mut seen: HashSet<String> = starts.iter().cloned().collect();
            let mut front: Vec<String> = starts.to_vec();
            for _ in 0..depth {
                let mut next = Vec::new();
                for arn in &front {
                    let edges =
                        if *way == Way::Back { session.edges_to(arn)? } else { session.edges_from(arn)? };
                    for edge in edges {
                        let other = if *way == Way::Back { &edge.source } else { &edge.destination };
                        if seen.insert(other.clone()) {
                            next.push(other.clone());
                            if known.insert(other.clone()) {
                                walk.met.push(other.clone());
                            }
                        }
                        walk.edges.push(edge);
                    }
                }
                if next.is_empty() {
                    break;
                }
                front = next;
            }
        }
        Ok(walk)
    }
}

fn answer(session: &Session<'_>, walk: &Walk, input: &Value, from: usize) -> store::Result<Value> {
    let rows = input["MaxResults"].as_u64().unwrap_or(DEFAULT_ROWS).max(1) as usize;
    let mut vertices = Vec::new();
    let mut next_token = None;
    let mut earlier: HashSet<&str> = HashSet::new();
    for arn in &walk.met {
        let Some(vertex) = session.find_resource_by_arn(arn)? else { continue };
        if !passes(&vertex, &input["Filters"]) {
            continue;
        }
        if earlier.len() < from {
            earlier.insert(arn);
            continue;
        }
        if vertices.len() == rows {
            next_token = Some(format!("vertex/{}", from + rows));
            break;
        }
        vertices.push(json!({
            "Arn": vertex.arn,
            "Type": short(type_of(&vertex)),
            "LineageType": lineage_type(&vertex.key.kind),
        }));
    }
    let mut edges: HashMap<(&str, &str), Value> = HashMap::new();
    if input["IncludeEdges"] != false {
        let shown: HashSet<&str> = vertices.iter().filter_map(|vertex| vertex["Arn"].as_str()).collect();
        earlier.extend(input["StartArns"][0].as_str());
        // An edge is on the page of the later one of its ends.
        let is_known = |arn: &str| shown.contains(arn) || earlier.contains(arn);
        let is_here = |edge: &&Edge| {
            let (source, destination) = (edge.source.as_str(), edge.destination.as_str());
            is_known(source)
                && is_known(destination)
                && (shown.contains(source) || shown.contains(destination))
        };
        for edge in walk.edges.iter().filter(is_here) {
            let value = json!({
                "SourceArn": edge.source,
                "DestinationArn": edge.destination,
                "AssociationType": edge.kind,
            });
            edges.insert((&edge.source, &edge.destination), value);
        }
    }
    let mut edges: Vec<_> = edges.into_iter().collect();
    edges.sort_by_key(|(ends, _)| *ends);
    let edges: Vec<Value> = edges.into_iter().map(|(_, edge)| edge).collect();
    Ok(json!({"Vertices": vertices, "Edges": edges, "NextToken": next_token}))
}

/// A vertex of a training job is a `TrainingJob` here, where lists of associations say `SageMakerTrainingJob`.
pub(super) fn short(name: &str) -> &str {
    match name {
        "SageMakerTrainingJob" => "TrainingJob",
        "SageMakerProcessingJob" => "ProcessingJob",
        "SageMakerTransformJob" => "TransformJob",
        other => other,
    }
}

fn passes(vertex: &Resource, filters: &Value) -> bool {
    let one_of = |member: &str, matches: &dyn Fn(&str) -> bool| match filters[member].as_array() {
        Some(wanted) if !wanted.is_empty() => wanted.iter().filter_map(Value::as_str).any(matches),
        _ => true,
    };
    let kind = type_of(vertex);
    let bound = |member: &str| entities::milliseconds(&filters[member]);
    one_of("Types", &|wanted| wanted == kind || wanted == short(kind))
        && one_of("LineageTypes", &|wanted| Some(wanted) == lineage_type(&vertex.key.kind))
        && bound("CreatedAfter").is_none_or(|bound| vertex.created_at > bound)
        && bound("CreatedBefore").is_none_or(|bound| vertex.created_at < bound)
        && bound("ModifiedAfter").is_none_or(|bound| vertex.modified_at > bound)
        && bound("ModifiedBefore").is_none_or(|bound| vertex.modified_at < bound)
        && filters["Properties"]
            .as_object()
            .is_none_or(|wanted| wanted.iter().all(|(name, value)| vertex.spec["Properties"][name] == *value))
}
