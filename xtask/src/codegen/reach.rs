//! Which shapes the operations of a service need as types, and on which side they travel.

use std::collections::BTreeSet;

use serde_json::Value;

use super::model::{self, Model};

/// Shapes that inputs and outputs reach.
pub struct Reach<'model> {
    /// Shapes inside any input.
    pub inputs: BTreeSet<&'model str>,
    /// Shapes inside any output.
    pub outputs: BTreeSet<&'model str>,
}

impl<'model> Reach<'model> {
    /// Walks the operations that get types.
    pub fn of(model: &'model Model) -> Reach<'model> {
        let mut reach = Reach { inputs: BTreeSet::new(), outputs: BTreeSet::new() };
        for (_, operation) in model.typed_operations() {
            walk(model, &operation["input"], &mut reach.inputs);
            walk(model, &operation["output"], &mut reach.outputs);
        }
        reach
    }

    /// Whether the shape is inside any input or output.
    pub fn contains(&self, shape: &str) -> bool {
        self.inputs.contains(shape) || self.outputs.contains(shape)
    }
}

fn walk<'model>(model: &'model Model, reference: &'model Value, reached: &mut BTreeSet<&'model str>) {
    let name = model::target(reference);
    if name.is_empty() || !reached.insert(name) {
        return;
    }
    let shape = model.shape(name);
    for (_, member) in model::members(shape) {
        walk(model, member, reached);
    }
    for part in ["member", "key", "value"] {
        walk(model, &shape[part], reached);
    }
}

/// Whether a value of `shape` holds a value of `wanted` without a list or map between them.
pub fn holds_directly(model: &Model, shape: &str, wanted: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut waiting = vec![shape];
    while let Some(name) = waiting.pop() {
        if name == wanted {
            return true;
        }
        if seen.insert(name) {
            waiting.extend(model::members(model.shape(name)).map(|(_, member)| model::target(member)));
        }
    }
    false
}
