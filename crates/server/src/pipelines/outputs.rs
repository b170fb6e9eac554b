//! Output parameters of Lambda and Callback steps: their types, and the forms in which they are shown and referred to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::definition::ParameterKind;
use super::expressions::as_text;

/// Output parameters as a definition declares them.
pub type Declared = [(String, ParameterKind)];

/// Checks outputs that came as texts.
///
/// # Errors
/// One sentence that names the output.
pub fn check(declared: &Declared, outputs: &Value) -> Result<(), String> {
    typed(declared, outputs).map(drop)
}

/// The declared outputs with their types.
///
/// # Errors
/// One sentence that names the output.
pub fn typed(declared: &Declared, given: &Value) -> Result<BTreeMap<String, Value>, String> {
    let mut outputs = BTreeMap::new();
    for (name, kind) in declared {
        let value = match given.get(name) {
            None | Some(Value::Null) => {
                return Err(format!("OutputParameters: the output {name:?} is missing."));
            }
            Some(value) if kind.fits(value) => value.clone(),
            Some(value) => {
                let scalar = Some(value).filter(|value| !value.is_object() && !value.is_array());
                let read = scalar.and_then(|value| kind.from_text(&as_text(value)));
                read.ok_or_else(|| {
                    format!("OutputParameters: {value} is no {} as {name:?} must be.", kind.name())
                })?
            }
        };
        outputs.insert(name.clone(), value);
    }
    Ok(outputs)
}

/// Outputs as references lead into them.
pub fn properties(outputs: &BTreeMap<String, Value>) -> Value {
    let members: Map<String, Value> =
        outputs.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    json!({"OutputParameters": members})
}

/// Outputs as ListPipelineExecutionSteps shows them.
pub fn shown(outputs: &BTreeMap<String, Value>) -> Value {
    outputs.iter().map(|(name, value)| json!({"Name": name, "Value": short(&as_text(value))})).collect()
}

/// At most the 1024 characters that the service shows.
fn short(text: &str) -> &str {
    text.char_indices().nth(1_024).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_take_their_declared_types() {
        let declared = [("n".to_owned(), ParameterKind::Integer), ("s".to_owned(), ParameterKind::String)];
        let outputs = typed(&declared, &json!({"n": "3", "s": 4, "other": 1})).unwrap();
        assert_eq!(json!(outputs), json!({"n": 3, "s": "4"}));
        assert!(typed(&declared, &json!({"n": 1})).unwrap_err().contains("\"s\" is missing"));
        assert!(typed(&declared, &json!({"n": [1], "s": ""})).unwrap_err().contains("is no Integer"));
    }
}
