//! Reads some members of a stored document and steps over the others, which takes a fraction of the time.

use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::Result;

/// The members of spec and document that a list reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members {
    /// Of the spec.
    pub spec: Vec<String>,
    /// Of the document; `None` for all.
    pub document: Option<Vec<String>>,
}

/// The document with these members of it, or all.
pub(crate) fn parse(text: &str, members: Option<&[String]>) -> Result<Value> {
    if let Some(members) = members
        && text.starts_with('{')
    {
        let picked = serde_json::Deserializer::from_str(text).deserialize_map(Picker(members))?;
        return Ok(Value::Object(picked));
    }
    Ok(serde_json::from_str(text)?)
}

struct Picker<'a>(&'a [String]);

impl<'de> Visitor<'de> for Picker<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut picked = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if self.0.contains(&name) {
                picked.insert(name, entries.next_value()?);
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(picked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn named_members_are_read_whole() {
        let text = json!({"a": {"b": [1, "}"]}, "c": "{", "d": null}).to_string();
        let read = |members: Option<&[String]>| parse(&text, members).unwrap();
        assert_eq!(read(Some(&["a".into(), "none".into()])), json!({"a": {"b": [1, "}"]}}));
        assert_eq!(read(Some(&[])), json!({}));
        assert_eq!(read(None)["c"], "{");
        assert_eq!(parse("null", Some(&[])).unwrap(), Value::Null);
    }
}
