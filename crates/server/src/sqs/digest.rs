//! The digests that clients compare: of a body, and of attributes in their order.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use sha2::Sha256;

use super::message_attributes::Attribute;

/// MD5 of a text, in hexadecimal.
pub fn md5_hex(text: &str) -> String {
    hex::encode(Md5::digest(text.as_bytes()))
}

/// SHA-256 of a text, in hexadecimal.
pub fn sha256_hex(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// MD5 of attributes in the order of their names: name, type and value, each after its length, and one byte that tells text from
/// bytes. Nothing for no attributes.
pub fn attributes_md5_hex(attributes: &BTreeMap<String, Attribute>) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut whole = Vec::new();
    for (name, attribute) in attributes {
        let (mark, value) = attribute.value();
        whole.extend(prefixed(name.as_bytes()));
        whole.extend(prefixed(attribute.data_type.as_bytes()));
        whole.push(mark);
        whole.extend(prefixed(value));
    }
    Some(hex::encode(Md5::digest(&whole)))
}

fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [length.to_be_bytes().as_slice(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_over_names_types_and_values_in_order() {
        let attribute = |data_type: &str, text: Option<&str>, bytes: Option<Vec<u8>>| Attribute {
            data_type: data_type.into(),
            text: text.map(str::to_owned),
            bytes: bytes.map(api::Blob),
        };
        let attributes = BTreeMap::from([
            ("seal".to_owned(), attribute("Binary", None, Some(vec![0, 255, 16]))),
            ("population".to_owned(), attribute("Number.int", Some("1250800"), None)),
            ("city".to_owned(), attribute("String", Some("Any City"), None)),
        ]);
        assert_eq!(attributes_md5_hex(&attributes).as_deref(), Some("c912338efd765f0c70594d0563793a93"));
        assert_eq!(attributes_md5_hex(&BTreeMap::new()), None);
        assert_eq!(
            md5_hex("Information about the largest city in Any Region."),
            "51b0a3256d59467f973009b739163aa0"
        );
    }
}
