//! Writes XML answers of the query protocol.

use api::model::{Kind, Service, ShapeId, Structure, TimestampFormat};
use serde_json::{Map, Value};

use super::query;
use crate::timestamp;

/// XML under construction.
#[derive(Default)]
pub(super) struct Xml(String);

impl Xml {
    /// An element around what `inside` writes.
    pub(super) fn element(&mut self, name: &str, namespace: Option<&str>, inside: impl FnOnce(&mut Xml)) {
        self.0.push('<');
        self.0.push_str(name);
        if let Some(namespace) = namespace {
            self.0.push_str(" xmlns=\"");
            self.text(namespace);
            self.0.push('"');
        }
        self.0.push('>');
        inside(self);
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }

    /// An element with text.
    pub(super) fn leaf(&mut self, name: &str, text: &str) {
        self.element(name, None, |xml| xml.text(text));
    }

    /// Escaped text. Characters that XML cannot carry become U+FFFD; a carriage return would be read as a newline.
    fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\r' => self.0.push_str("&#13;"),
                '\n' | '\t' => self.0.push(character),
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => self.0.push('\u{fffd}'),
                _ => self.0.push(character),
            }
        }
    }

    /// All set members of a structure.
    pub(super) fn members(
        &mut self,
        service: &'static Service,
        structure: &'static Structure,
        value: &Map<String, Value>,
    ) {
        for (name, value) in value {
            let Some(member) = structure.members.iter().find(|member| member.name == name) else { continue };
            self.value(service, member.shape, query::key(service, member), value, member.timestamp_format);
        }
    }

    fn value(
        &mut self,
        service: &'static Service,
        shape: ShapeId,
        name: &str,
        value: &Value,
        format: Option<TimestampFormat>,
    ) {
        match (&service.shape(shape).kind, value) {
            (_, Value::Null) => {}
            (Kind::Structure(structure), Value::Object(value)) => {
                self.element(name, None, |xml| xml.members(service, structure, value));
            }
            (Kind::List { member, flattened: true, .. }, Value::Array(elements)) => {
                for element in elements {
                    self.value(service, *member, name, element, None);
                }
            }
            (Kind::List { member, member_name, .. }, Value::Array(elements)) => {
                self.element(name, None, |xml| {
                    for element in elements {
                        xml.value(service, *member, member_name, element, None);
                    }
                })
            }
            (Kind::Map { flattened: true, .. }, Value::Object(entries)) => {
                self.entries(service, shape, name, entries);
            }
            (Kind::Map { .. }, Value::Object(entries)) => {
                self.element(name, None, |xml| xml.entries(service, shape, "entry", entries));
            }
            (Kind::Timestamp { format: own }, Value::Number(seconds)) => {
                let format = format.or(*own).unwrap_or(TimestampFormat::Iso8601);
                self.leaf(name, &timestamp::to_text(seconds.as_f64().unwrap_or_default(), format));
            }
            (_, Value::String(text)) => self.leaf(name, text),
            (_, value) => self.leaf(name, &value.to_string()),
        }
    }

    fn entries(&mut self, service: &'static Service, map: ShapeId, name: &str, entries: &Map<String, Value>) {
        let Kind::Map { value: shape, key_name, value_name, .. } = &service.shape(map).kind else { return };
        for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
            self.element(name, None, |xml| {
                xml.leaf(key_name, key);
                xml.value(service, *shape, value_name, value, None);
            });
        }
    }

    /// The document.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Xml;

    #[test]
    fn text_is_escaped() {
        let mut xml = Xml::default();
        xml.leaf("a", "<&>\"\r\n\t\u{0}\u{ffff}ä");
        assert_eq!(xml.finish(), "<a>&lt;&amp;&gt;&quot;&#13;\n\t\u{fffd}\u{fffd}ä</a>");
    }
}
