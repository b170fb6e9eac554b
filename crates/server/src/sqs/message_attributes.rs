//! Attributes of a message: their rules, their size, and which of them a receiver asked for.

use std::collections::BTreeMap;

use api::Blob;
use api::sqs::{MessageAttributeValue, MessageSystemAttributeValue};
use serde::{Deserialize, Serialize};

use super::error::{Problem, Result};

/// Most attributes of a message.
const MOST_ATTRIBUTES: usize = 10;

/// One attribute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// `String`, `Number` or `Binary`, perhaps with a label of the caller's.
    pub data_type: String,
    /// Its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Blob>,
}

/// What a message carries beside its body, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attributes {
    /// The caller's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub own: BTreeMap<String, Attribute>,
    /// Those of the service that a caller may set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub system: BTreeMap<String, Attribute>,
}

impl Attribute {
    /// The mark of its kind and its bytes, as digests have them.
    pub fn value(&self) -> (u8, &[u8]) {
        match (&self.text, &self.bytes) {
            (Some(text), _) => (1, text.as_bytes()),
            (None, bytes) => (2, bytes.as_ref().map_or(&[], |bytes| bytes.0.as_slice())),
        }
    }

    fn bytes_of(name: &str, attribute: &Attribute) -> usize {
        name.len() + attribute.data_type.len() + attribute.value().1.len()
    }
}

impl Attributes {
    /// Reads what a send gives.
    ///
    /// # Errors
    /// For what breaks a rule of the service.
    pub fn read(
        own: Option<BTreeMap<String, MessageAttributeValue>>,
        system: Option<BTreeMap<String, MessageSystemAttributeValue>>,
    ) -> Result<Attributes> {
        let mut read = Attributes::default();
        for (name, value) in own.unwrap_or_default() {
            check_name(&name)?;
            if value.string_list_values.is_some() || value.binary_list_values.is_some() {
                return Err(list_value(&name));
            }
            let attribute = attribute(&name, value.data_type, value.string_value, value.binary_value)?;
            read.own.insert(name, attribute);
        }
        if read.own.len() > MOST_ATTRIBUTES {
            let text = format!(
                "Number of message attributes [{}] exceeds the allowed maximum [10].",
                read.own.len()
            );
            return Err(Problem::new("InvalidParameterValue", text));
        }
        for (name, value) in system.unwrap_or_default() {
            if value.string_list_values.is_some() || value.binary_list_values.is_some() {
                return Err(list_value(&name));
            }
            let attribute = attribute(&name, value.data_type, value.string_value, value.binary_value)?;
            if attribute.data_type != "String" {
                let text = format!("The message system attribute '{name}' must be of type String.");
                return Err(Problem::new("InvalidParameterValue", text));
            }
            read.system.insert(name, attribute);
        }
        Ok(read)
    }

    /// What they count for in the size of a message.
    pub fn byte_count(&self) -> usize {
        self.own.iter().map(|(name, attribute)| Attribute::bytes_of(name, attribute)).sum()
    }

    /// The caller's attributes that a receiver asked for, by name, prefix or `All`.
    pub fn asked_for(&self, names: &[String]) -> BTreeMap<String, Attribute> {
        let wanted = |name: &str| {
            names.iter().any(|asked| match asked.as_str() {
                "All" | ".*" => true,
                asked => asked.strip_suffix(".*").map_or(asked == name, |prefix| name.starts_with(prefix)),
            })
        };
        self.own
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, one)| (name.clone(), one.clone()))
            .collect()
    }
}

/// An attribute as a receiver gets it.
pub fn to_wire(attribute: Attribute) -> MessageAttributeValue {
    MessageAttributeValue {
        data_type: attribute.data_type,
        string_value: attribute.text,
        binary_value: attribute.bytes,
        string_list_values: None,
        binary_list_values: None,
    }
}

fn list_value(name: &str) -> Problem {
    let text = format!("Message attribute list values in SendMessage operation are not supported: {name}.");
    Problem::new("UnsupportedOperation", text)
}

fn check_name(name: &str) -> Result<()> {
    let lower = name.to_ascii_lowercase();
    let fits = (1..=256).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !name.contains("..")
        && !lower.starts_with("aws.")
        && !lower.starts_with("amazon.");
    if fits {
        return Ok(());
    }
    let text = format!(
        "Message (user) attribute name {name:?} is not valid: it has up to 256 letters, digits, '-', '_' and single '.', does not \
         begin or end with a period, and not with AWS. or Amazon."
    );
    Err(Problem::new("InvalidParameterValue", text))
}

/// An attribute of a message by the rules of the service; the error is a text for the caller.
///
/// # Errors
/// For what breaks a rule.
pub fn checked(
    name: &str,
    data_type: String,
    text: Option<String>,
    bytes: Option<Blob>,
) -> std::result::Result<Attribute, String> {
    let checked = check_name(name).and_then(|()| attribute(name, data_type, text, bytes));
    checked.map_err(|problem| match problem {
        Problem::Code(_, text) | Problem::Denied(text) => text,
        Problem::Other(error) => error.to_string(),
    })
}

fn attribute(name: &str, data_type: String, text: Option<String>, bytes: Option<Blob>) -> Result<Attribute> {
    let invalid = |text: String| Err(Problem::new("InvalidParameterValue", text));
    let base = data_type.split('.').next().unwrap_or_default();
    if data_type.len() > 256 || !matches!(base, "String" | "Number" | "Binary") {
        return invalid(format!(
            "The type of message (user) attribute '{name}' is invalid. You must use only the following supported type prefixes: \
             Binary, Number, String."
        ));
    }
    let wants_bytes = base == "Binary";
    let empty = |value: &Option<Blob>| value.as_ref().is_none_or(|bytes| bytes.0.is_empty());
    if (wants_bytes && empty(&bytes)) || (!wants_bytes && text.as_ref().is_none_or(String::is_empty)) {
        return invalid(format!(
            "The message (user) attribute '{name}' must contain a non-empty value of type '{data_type}'."
        ));
    }
    if (wants_bytes && text.is_some()) || (!wants_bytes && bytes.is_some()) {
        return invalid(format!(
            "The message (user) attribute '{name}' must have one value, of its own type."
        ));
    }
    if base == "Number" && text.as_ref().is_some_and(|text| text.trim().parse::<f64>().is_err()) {
        return invalid(format!("Can't cast the value of message (user) attribute '{name}' to a number."));
    }
    Ok(Attribute { data_type, text, bytes })
}
