//! The query protocol: dotted form keys in, XML out.

use std::collections::BTreeMap;

use api::model::{Kind, Member, Service, ShapeId, Structure};
use serde_json::{Map, Value};

use super::typed::{self, Misfit, Path, Read};

/// Deepest key that is read; models nest far less.
const MAX_DEPTH: usize = 64;

/// The parameters as a tree, one level per dot.
#[derive(Default)]
struct Node {
    value: Option<String>,
    children: BTreeMap<String, Node>,
}

/// Reads the parameters of a query request as the members of a structure.
pub(super) fn input(
    service: &'static Service,
    structure: &'static Structure,
    parameters: &[(String, String)],
) -> Read<Map<String, Value>> {
    let mut root = Node::default();
    for (name, value) in parameters {
        if matches!(name.as_str(), "Action" | "Version") {
            continue;
        }
        if name.split('.').count() > MAX_DEPTH {
            return Err(Misfit::Serialization(format!("A parameter name has more than {MAX_DEPTH} parts.")));
        }
        let mut node = &mut root;
        for part in name.split('.') {
            node = node.children.entry(part.to_owned()).or_default();
        }
        if node.value.replace(value.clone()).is_some() {
            return Err(Misfit::Serialization(format!("The parameter {name} is given more than once.")));
        }
    }
    members(service, structure, root, &mut Path::default())
}

/// Name of a member in keys and XML: a flattened list goes by the name of its elements, where the model gives them one.
pub(super) fn key(service: &'static Service, member: &Member) -> &'static str {
    match &service.shape(member.shape).kind {
        Kind::List { flattened: true, member_name, .. } if *member_name != "member" => member_name,
        _ => member.wire_name,
    }
}

fn members(
    service: &'static Service,
    structure: &'static Structure,
    mut node: Node,
    path: &mut Path,
) -> Read<Map<String, Value>> {
    let mut read = Map::new();
    for member in structure.members {
        let key = key(service, member);
        if let Some(child) = node.children.remove(key) {
            let value = path.member(key, |path| value(service, member.shape, child, path))?;
            read.insert(member.name.to_owned(), value);
        }
    }
    match node.children.keys().next() {
        None => Ok(read),
        Some(name) => Err(path.member(name, |path| Misfit::unknown(path.text()))),
    }
}

fn value(service: &'static Service, shape: ShapeId, node: Node, path: &mut Path) -> Read<Value> {
    match &service.shape(shape).kind {
        Kind::Structure(structure) => {
            bare(&node, path)?;
            members(service, structure, node, path).map(Value::Object)
        }
        Kind::List { member, member_name, flattened, .. } => {
            bare(&node, path)?;
            let elements = numbered(node, (!flattened).then_some(member_name), path)?;
            let mut read = Vec::with_capacity(elements.len());
            for (index, (_, element)) in elements.into_iter().enumerate() {
                read.push(path.element(index, |path| value(service, *member, element, path))?);
            }
            Ok(Value::Array(read))
        }
        Kind::Map { key, value: shape, key_name, value_name, flattened, .. } => {
            bare(&node, path)?;
            let mut read = Map::new();
            for (_, mut entry) in numbered(node, (!flattened).then_some(&"entry"), path)? {
                let named = entry.children.remove(*key_name).and_then(|key| key.value);
                let name =
                    named.ok_or_else(|| path.malformed(&format!("a map whose entries have a {key_name}")))?;
                let given = entry.children.remove(*value_name).unwrap_or_default();
                if let Some(extra) = entry.children.keys().next() {
                    return Err(path.member(extra, |path| Misfit::unknown(path.text())));
                }
                let Value::String(name) = typed::from_text(service, *key, name, path)? else {
                    return Err(path.malformed("a map with text as keys"));
                };
                let given = path.member(&name, |path| value(service, *shape, given, path))?;
                if read.insert(name, given).is_some() {
                    return Err(path.malformed("a map with each key once"));
                }
            }
            Ok(Value::Object(read))
        }
        _ => match node.children.keys().next() {
            Some(extra) => Err(path.member(extra, |path| Misfit::unknown(path.text()))),
            None => typed::from_text(service, shape, node.value.unwrap_or_default(), path),
        },
    }
}

/// Collections and structures have no text of their own; clients write an empty one for an empty collection.
fn bare(node: &Node, path: &Path) -> Read<()> {
    match node.value.as_deref() {
        None | Some("") => Ok(()),
        Some(_) => Err(path.malformed("given by its parts, not as text")),
    }
}

/// The numbered children in order, one level deeper when they are wrapped.
fn numbered(mut node: Node, wrapper: Option<&&'static str>, path: &mut Path) -> Read<Vec<(u64, Node)>> {
    if let Some(wrapper) = wrapper {
        let inner = node.children.remove(*wrapper).unwrap_or_default();
        if let Some(extra) = node.children.keys().next() {
            return Err(path.member(extra, |path| Misfit::unknown(path.text())));
        }
        node = inner;
    }
    let mut elements = Vec::with_capacity(node.children.len());
    for (name, child) in node.children {
        let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let index = name.parse::<u64>().ok().filter(|index| digits && *index > 0);
        let index = index.ok_or_else(|| path.malformed("numbered from 1"))?;
        elements.push((index, child));
    }
    elements.sort_by_key(|(index, _)| *index);
    if elements.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(path.malformed("numbered with each number once"));
    }
    Ok(elements)
}
