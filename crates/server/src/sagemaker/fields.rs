//! Refuses fields that this release does not honour. Each operation lists what it honours; all else is refused by name,
//! so that a field of a newer model is never ignored.

use serde_json::Value;

use crate::{Error, Result};

/// Refuses the first set field of `input` that is not in `honoured`.
///
/// A path is a chain of member names; list elements have no step of their own; `**` at the end honours everything below.
/// Unset values, `false` and empty collections ask for nothing and pass.
///
/// # Errors
/// [`Error::NotImplemented`] naming the field.
pub fn check(input: &Value, honoured: &[&str]) -> Result<()> {
    match first_unknown(input, "", honoured) {
        None => Ok(()),
        Some(path) => Err(Error::field(&path)),
    }
}

fn first_unknown(value: &Value, path: &str, honoured: &[&str]) -> Option<String> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Array(elements) => elements.iter().find_map(|element| first_unknown(element, path, honoured)),
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if covered(&below, honoured) { None } else { first_unknown(member, &below, honoured) }
        }),
        _ => (!honoured.contains(&path)).then(|| path.to_owned()),
    }
}

fn covered(path: &str, honoured: &[&str]) -> bool {
    honoured.iter().any(|known| known.strip_suffix(".**").is_some_and(|whole| whole == path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_listed_fields_pass() {
        let honoured = ["Name", "Deep.Known", "List.Known", "Map.**"];
        let refused = |input: Value| check(&input, &honoured).err().map(|error| error.to_string());
        assert_eq!(refused(json!({"Name": "n", "Deep": {"Known": 1}, "Map": {"any": {"thing": 1}}})), None);
        assert_eq!(refused(json!({"Flag": false, "Empty": [], "Deep": {"Other": null}})), None);
        assert!(refused(json!({"List": [{"Known": 1}, {"Other": 2}]})).unwrap().contains("List.Other"));
        assert!(refused(json!({"Flag": true})).unwrap().contains("Flag"));
        assert!(refused(json!({"Deep": {"Other": 0}})).unwrap().contains("Deep.Other"));
    }
}
