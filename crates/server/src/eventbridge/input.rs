//! What a target gets of an event: all of it, a constant, a part, or a text made of parts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a target gets of an event.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Shaping {
    /// A constant.
    pub input: Option<String>,
    /// Where the part begins.
    pub input_path: Option<String>,
    /// A text with places, and what is put there.
    pub input_transformer: Option<Transformer>,
}

/// A text with places in pointed brackets, and the parts of the event that are put there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Transformer {
    /// Parts by the names of their places.
    pub input_paths_map: BTreeMap<String, String>,
    /// The text.
    pub input_template: String,
}

impl Shaping {
    /// Checks it.
    ///
    /// # Errors
    /// A text that names what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let given = [self.input.is_some(), self.input_path.is_some(), self.input_transformer.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            return Err("Only one of Input, InputPath, or InputTransformer must be provided".into());
        }
        if let Some(input) = &self.input {
            serde_json::from_str::<Value>(input)
                .map_err(|error| format!("JSON syntax error in input: {error}"))?;
        }
        let paths = self
            .input_path
            .iter()
            .chain(self.input_transformer.iter().flat_map(|one| one.input_paths_map.values()));
        for path in paths {
            steps(path).ok_or_else(|| format!("Invalid InputPath: {path:?}"))?;
        }
        Ok(())
    }

    /// What the target gets.
    pub fn of(&self, event: &Value, rule_arn: &str, rule_name: &str, now: &str) -> String {
        if let Some(input) = &self.input {
            return input.clone();
        }
        if let Some(path) = &self.input_path {
            return part(event, path).unwrap_or(&Value::Null).to_string();
        }
        match &self.input_transformer {
            None => event.to_string(),
            Some(transformer) => transformer.fill(event, rule_arn, rule_name, now),
        }
    }
}

impl Transformer {
    fn fill(&self, event: &Value, rule_arn: &str, rule_name: &str, now: &str) -> String {
        let mut filled = String::new();
        let mut rest = self.input_template.as_str();
        let mut in_text = false;
        while let Some(at) = rest.find('<') {
            let (before, after) = rest.split_at(at);
            filled.push_str(before);
            in_text ^= unescaped_quotes(before) % 2 == 1;
            let name = after[1..].split('>').next().filter(|name| after.len() > name.len() + 1);
            let value = name.and_then(|name| match name {
                "aws.events.rule-arn" => Some(Value::from(rule_arn)),
                "aws.events.rule-name" => Some(Value::from(rule_name)),
                "aws.events.event.ingestion-time" => Some(Value::from(now)),
                "aws.events.event" | "aws.events.event.json" => Some(event.clone()),
                name => {
                    let path = self.input_paths_map.get(name)?;
                    Some(part(event, path).cloned().unwrap_or_default())
                }
            });
            match (name, value) {
                (Some(name), Some(value)) => {
                    filled.push_str(&shown(&value, in_text));
                    rest = &after[name.len() + 2..];
                }
                _ => {
                    filled.push('<');
                    rest = &after[1..];
                }
            }
        }
        filled.push_str(rest);
        filled
    }
}

/// A value in a template: inside of a text without quotes of its own, elsewhere as JSON.
fn shown(value: &Value, in_text: bool) -> String {
    match (value, in_text) {
        (Value::Null, true) => String::new(),
        (Value::String(text), true) => {
            let quoted = Value::from(text.as_str()).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }
        (value, true) => value.to_string().replace('"', "\\\""),
        (value, false) => value.to_string(),
    }
}

fn unescaped_quotes(text: &str) -> usize {
    let mut escaped = false;
    text.chars()
        .filter(|letter| {
            let counts = *letter == '"' && !escaped;
            escaped = *letter == '\\' && !escaped;
            counts
        })
        .count()
}

/// The names and numbers of a path such as `$.detail.list[0]`.
fn steps(path: &str) -> Option<Vec<String>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            (end > 0).then(|| steps.push(after[..end].to_owned()))?;
            rest = &after[end..];
        } else {
            let (inner, after) = rest.strip_prefix('[')?.split_once(']')?;
            let name = inner.trim_matches(['\'', '"']);
            (!name.is_empty()).then(|| steps.push(name.to_owned()))?;
            rest = after;
        }
    }
    Some(steps)
}

/// A text as it is, or what a path such as `$.detail.x` leads to in an event; none when that leads nowhere.
pub fn text_or_part(text: &str, event: &Value) -> Option<String> {
    if !text.starts_with("$.") {
        return Some(text.to_owned());
    }
    Some(match part(event, text)? {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

fn part<'a>(event: &'a Value, path: &str) -> Option<&'a Value> {
    steps(path)?.iter().try_fold(event, |value, step| match value {
        Value::Array(elements) => elements.get(step.parse::<usize>().ok()?),
        value => value.get(step),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn targets_get_what_they_asked_for() {
        let event = json!({"id": "1", "detail": {"state": "Com\"pleted", "sizes": [3, 4]}});
        let of = |shaping: Value| {
            let shaping: Shaping = serde_json::from_value(shaping).unwrap();
            shaping.check().unwrap();
            shaping.of(&event, "arn:rule", "rule", "now")
        };
        assert_eq!(of(json!({})), event.to_string());
        assert_eq!(of(json!({"Input": "{\"a\": 1}"})), "{\"a\": 1}");
        assert_eq!(of(json!({"InputPath": "$.detail.sizes[1]"})), "4");
        assert_eq!(of(json!({"InputPath": "$.nothing"})), "null");
        let template = json!({"InputTransformer": {
            "InputPathsMap": {"state": "$.detail.state", "size": "$.detail.sizes[0]"},
            "InputTemplate": "{\"text\": \"it is <state> < 5\", \"state\": <state>, \"size\": <size>, \"rule\": <aws.events.rule-name>}"
        }});
        let filled: Value = serde_json::from_str(&of(template)).unwrap();
        assert_eq!(
            filled,
            json!({"text": "it is Com\"pleted < 5", "state": "Com\"pleted", "size": 3, "rule": "rule"})
        );
    }

    #[test]
    fn parameters_are_texts_or_parts_of_the_event() {
        let event = json!({"detail": {"arn": "a", "size": 3}});
        let texts =
            ["$5", "$.detail.arn", "$.detail.size", "$.detail.none"].map(|text| text_or_part(text, &event));
        let of = |text: &str| Some(text.to_owned());
        assert_eq!(texts, [of("$5"), of("a"), of("3"), None]);
    }

    #[test]
    fn odd_paths_and_two_ways_at_once_are_refused() {
        let refused =
            |shaping: Value| serde_json::from_value::<Shaping>(shaping).unwrap().check().unwrap_err();
        assert!(refused(json!({"Input": "{}", "InputPath": "$"})).contains("Only one of"));
        assert!(refused(json!({"Input": "{"})).contains("JSON"));
        assert!(refused(json!({"InputPath": "detail"})).contains("InputPath"));
    }
}
