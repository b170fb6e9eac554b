//! Bytes as the typed form carries them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::form::{Form, FormError};

/// Bytes; their form is base64 with padding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Blob(pub Vec<u8>);

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Blob {
        Blob(bytes)
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Form for Blob {
    fn read(value: Value) -> Result<Self, FormError> {
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        bytes.map(Blob).ok_or_else(|| FormError::wanted("base64 text"))
    }

    fn write(&self) -> Value {
        Value::from(STANDARD.encode(&self.0))
    }
}

crate::form::serde_by_form!(Blob);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Blob;

    #[test]
    fn the_form_is_base64() {
        let blob = Blob(vec![0, 255, 16]);
        assert_eq!(serde_json::to_value(&blob).unwrap(), json!("AP8Q"));
        assert_eq!(serde_json::from_value::<Blob>(json!("AP8Q")).unwrap(), blob);
        assert!(serde_json::from_value::<Blob>(json!("AP8")).is_err(), "padding is part of the form");
    }
}
