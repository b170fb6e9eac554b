//! Paths into JSON as pipeline definitions write them: dots, `[0]` and `['name']`.

use serde_json::Value;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A member, or the element of a list that has this name.
    Name(String),
    /// An element of a list.
    Index(usize),
}

/// Reads a path such as `Outputs['train'].S3Output.S3Uri` or `metrics[0].value`.
///
/// # Errors
/// One sentence that says what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        rest = match rest.strip_prefix('[') {
            Some(inner) => {
                let (part, after) = bracket(inner).ok_or_else(|| {
                    format!("the path {text:?} has a bracket that holds neither a number nor a quoted name")
                })?;
                parts.push(part);
                after
            }
            None => {
                let name = if parts.is_empty() { rest } else { rest.strip_prefix('.').unwrap_or(rest) };
                let end = name.find(['.', '[']).unwrap_or(name.len());
                if end == 0 {
                    return Err(format!("the path {text:?} has an empty part"));
                }
                parts.push(Part::Name(name[..end].to_owned()));
                &name[end..]
            }
        };
        if rest == "." {
            return Err(format!("the path {text:?} ends in a dot"));
        }
    }
    if parts.is_empty() { Err("the path is empty".to_owned()) } else { Ok(parts) }
}

/// What stands in a bracket, and what follows it.
fn bracket(inner: &str) -> Option<(Part, &str)> {
    for quote in ['\'', '"'] {
        if let Some(quoted) = inner.strip_prefix(quote) {
            let end = quoted.find(quote)?;
            let after = quoted[end + 1..].strip_prefix(']')?;
            return Some((Part::Name(quoted[..end].to_owned()), after));
        }
    }
    let end = inner.find(']')?;
    Some((Part::Index(inner[..end].parse().ok()?), &inner[end + 1..]))
}

/// What a path leads to. A name finds the element of a list that carries it in a member ending in `Name`, as in
/// `Outputs['train']`.
pub fn follow<'a>(value: &'a Value, path: &[Part]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, part| match (value, part) {
        (Value::Object(members), Part::Name(name)) => members.get(name),
        (Value::Array(elements), Part::Index(index)) => elements.get(*index),
        (Value::Array(elements), Part::Name(name)) => {
            elements.iter().find(|element| is_called(element, name))
        }
        _ => None,
    })
}

fn is_called(element: &Value, name: &str) -> bool {
    let Some(members) = element.as_object() else { return false };
    members.iter().any(|(member, value)| member.ends_with("Name") && value == name)
}

/// A path as a definition writes it.
pub fn text(path: &[Part]) -> String {
    let mut text = String::new();
    for part in path {
        match part {
            Part::Name(name) if name.contains(['.', '[', '/', ':', ' ']) => {
                text.push_str(&format!("['{name}']"));
            }
            Part::Name(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Part::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn brackets_and_dots_lead_through_members_and_lists() {
        let value = json!({"Outputs": [{"OutputName": "val", "S3": {"Uri": "v"}}, {"OutputName": "train", "S3": {"Uri": "t"}}], "Map": {"a.b": 1}});
        let at = |text: &str| follow(&value, &parse(text).unwrap()).cloned();
        assert_eq!(at("Outputs['train'].S3.Uri"), Some(json!("t")));
        assert_eq!(at("Outputs[0].S3.Uri"), Some(json!("v")));
        assert_eq!(at("Outputs[\"val\"].OutputName"), Some(json!("val")));
        assert_eq!(at("Map['a.b']"), Some(json!(1)));
        assert_eq!(at("Outputs['test']"), None);
        assert_eq!(at("Outputs[7]"), None);
    }

    #[test]
    fn malformed_paths_are_refused() {
        for text in ["", "a..b", ".a", "a.", "a[", "a[x]", "a['x]", "a[-1]", "a[99999999999999999999999]"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(text(&parse("a[0]['b.c'].d").unwrap()), "a[0]['b.c'].d");
    }
}
