//! Values in messages, as the services print them.

use serde_json::Value;

/// Longest value that a message shows, in characters.
const MAX_CHARACTERS: usize = 1024;

/// `'text'`, `'[a, b]'`, `'{k=v}'` or `null`.
pub(super) fn value(value: &Value) -> String {
    if value.is_null() {
        return "null".to_owned();
    }
    let mut text = String::new();
    write(value, &mut text);
    format!("'{}'", shortened(&text))
}

/// At most as many characters as a message shows.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn write(value: &Value, text: &mut String) {
    // More would be cut off again.
    if text.len() > MAX_CHARACTERS * 4 {
        return;
    }
    match value {
        Value::String(value) => text.push_str(value),
        Value::Array(elements) => {
            text.push('[');
            separated(elements.iter(), text, write);
            text.push(']');
        }
        Value::Object(entries) => {
            text.push('{');
            separated(entries.iter(), text, |(key, value), text| {
                text.push_str(key);
                text.push('=');
                write(value, text);
            });
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

fn separated<T>(items: impl Iterator<Item = T>, text: &mut String, mut one: impl FnMut(T, &mut String)) {
    for (index, item) in items.enumerate() {
        if text.len() > MAX_CHARACTERS * 4 {
            return;
        }
        if index > 0 {
            text.push_str(", ");
        }
        one(item, text);
    }
}
