//! The service models, read from `models/` with the patches applied.

use serde_json::{Map, Value};

use super::read;
use crate::setup::{Step, root};

/// Of the large services, the operations that get Rust types; types cost build time, tables next to none.
const TYPED: &str = "models/typed_operations.json";

/// Model of one service.
pub struct Model {
    /// Folder name in botocore, for example `sagemaker-runtime`.
    pub id: String,
    document: Value,
    typed: Option<Vec<String>>,
}

impl Model {
    /// Facts about the service itself.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.document["metadata"][name].as_str()
    }

    /// Names of the protocols that the service takes, the preferred one first.
    pub fn protocols(&self) -> Vec<&str> {
        let listed = self.document["metadata"]["protocols"].as_array();
        listed.map(|names| names.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    /// Operations sorted by name.
    pub fn operations(&self) -> Vec<(&str, &Value)> {
        sorted(&self.document["operations"])
    }

    /// The operations that get types, sorted by name.
    pub fn typed_operations(&self) -> Vec<(&str, &Value)> {
        let mut operations = self.operations();
        if let Some(typed) = &self.typed {
            operations.retain(|(name, _)| typed.iter().any(|typed| typed == name));
        }
        operations
    }

    /// Shapes sorted by name.
    pub fn shapes(&self) -> Vec<(&str, &Value)> {
        sorted(&self.document["shapes"])
    }

    /// A shape by name.
    pub fn shape(&self, name: &str) -> &Value {
        &self.document["shapes"][name]
    }
}

/// Members of a structure in the model's order.
pub fn members(shape: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = shape["members"].as_object();
    members.into_iter().flatten().map(|(name, member)| (name.as_str(), member))
}

/// Whether a structure must have this member.
pub fn is_required(shape: &Value, member: &str) -> bool {
    shape["required"].as_array().is_some_and(|names| names.iter().any(|name| name == member))
}

/// The name of the shape that something refers to.
pub fn target(reference: &Value) -> &str {
    reference["shape"].as_str().unwrap_or_default()
}

/// Whether a mark such as `streaming` is set.
pub fn is_set(value: &Value, mark: &str) -> bool {
    value[mark].as_bool().unwrap_or(false)
}

/// Texts of an enumeration; empty for every other shape.
pub fn enumerated(shape: &Value) -> Vec<&str> {
    let texts = shape["enum"].as_array();
    texts.map(|texts| texts.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn sorted(section: &Value) -> Vec<(&str, &Value)> {
    let entries = section.as_object();
    let mut entries: Vec<_> =
        entries.into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}

/// All models, sorted by id.
pub fn all() -> Step<Vec<Model>> {
    let patches = parsed("models/patches.json")?;
    let typed = parsed(TYPED)?;
    let patches = patches.as_array().ok_or("models/patches.json is not a list")?;
    let folder = std::fs::read_dir(root().join("models")).map_err(|error| format!("models: {error}"))?;
    let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ids: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .filter(|id| id != "patches" && id != "typed_operations")
        .collect();
    ids.sort();
    if let Some(stray) = patches.iter().find(|patch| !ids.iter().any(|id| patch["service"] == id.as_str())) {
        return Err(format!("models/patches.json: there is no service {}", stray["service"]));
    }
    let models = ids.into_iter().map(|id| {
        let mut document = parsed(&format!("models/{id}.json"))?;
        for patch in patches.iter().filter(|patch| patch["service"] == id.as_str()) {
            apply(&mut document, patch)
                .map_err(|reason| format!("models/patches.json: {patch}: {reason}"))?;
        }
        let typed = typed_of(&typed[&id], &document["operations"])
            .map_err(|reason| format!("{TYPED}: {id}: {reason}"))?;
        Ok(Model { id, document, typed })
    });
    models.collect()
}

/// The operations to type, where only some are.
fn typed_of(listed: &Value, operations: &Value) -> Step<Option<Vec<String>>> {
    let Some(listed) = listed.as_array() else { return Ok(None) };
    let names = listed.iter().map(|name| match name.as_str() {
        Some(name) if operations[name].is_object() => Ok(name.to_owned()),
        _ => Err(format!("there is no operation {name}")),
    });
    names.collect::<Step<_>>().map(Some)
}

fn parsed(path: &str) -> Step<Value> {
    serde_json::from_str(&read(path.as_ref())?).map_err(|error| format!("{path}: {error}"))
}

/// Sets or removes what the patch's pointer names.
fn apply(document: &mut Value, patch: &Value) -> Result<(), &'static str> {
    if patch["reason"].as_str().unwrap_or_default().is_empty() {
        return Err("a patch has a reason");
    }
    let path = patch["path"].as_str().ok_or("path is a JSON pointer")?;
    let (parent, name) = path.rsplit_once('/').ok_or("path is a JSON pointer")?;
    let name = name.replace("~1", "/").replace("~0", "~");
    let parent: &mut Map<String, Value> =
        document.pointer_mut(parent).and_then(Value::as_object_mut).ok_or("the path leads nowhere")?;
    let value = &patch["value"];
    let before = parent.get(&name).unwrap_or(&Value::Null);
    if before == value {
        return Err("the model says so by now; remove the patch");
    }
    if value.is_null() {
        parent.shift_remove(&name);
    } else {
        parent.insert(name, value.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(path: &str, value: Value) -> Result<Value, &'static str> {
        let mut document = json!({"shapes": {"A": {"max": 3}}});
        apply(&mut document, &json!({"path": path, "value": value, "reason": "r"})).map(|()| document)
    }

    #[test]
    fn patches_set_add_and_remove() {
        assert_eq!(patched("/shapes/A/max", json!(4)).unwrap(), json!({"shapes": {"A": {"max": 4}}}));
        assert_eq!(
            patched("/shapes/A/min", json!(1)).unwrap(),
            json!({"shapes": {"A": {"max": 3, "min": 1}}})
        );
        assert_eq!(patched("/shapes/A/max", Value::Null).unwrap(), json!({"shapes": {"A": {}}}));
    }

    #[test]
    fn patches_without_an_effect_are_refused() {
        assert!(patched("/shapes/A/max", json!(3)).is_err());
        assert!(patched("/shapes/A/min", Value::Null).is_err());
        assert!(patched("/shapes/B/max", json!(3)).is_err());
    }
}
