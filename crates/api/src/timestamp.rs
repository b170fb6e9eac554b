//! Points in time as the typed form carries them.

use serde_json::Value;

use crate::form::{Form, FormError};

/// A point in time with millisecond precision; its form is seconds since 1970 with a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    milliseconds: i64,
}

impl Timestamp {
    /// The time this many milliseconds after the start of 1970, UTC.
    pub fn from_millis(milliseconds: i64) -> Timestamp {
        Timestamp { milliseconds }
    }

    /// Milliseconds since the start of 1970, UTC.
    pub fn as_millis(self) -> i64 {
        self.milliseconds
    }

    /// Seconds since the start of 1970, UTC, rounded to the nearest millisecond.
    pub fn from_seconds(seconds: f64) -> Timestamp {
        Timestamp { milliseconds: (seconds * 1000.0).round() as i64 }
    }

    /// Seconds since the start of 1970, UTC.
    pub fn as_seconds(self) -> f64 {
        self.milliseconds as f64 / 1000.0
    }
}

impl Form for Timestamp {
    fn read(value: Value) -> Result<Self, FormError> {
        value.as_f64().map(Timestamp::from_seconds).ok_or_else(|| FormError::wanted("seconds since 1970"))
    }

    fn write(&self) -> Value {
        Value::from(self.as_seconds())
    }
}

crate::form::serde_by_form!(Timestamp);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Timestamp;

    #[test]
    fn the_form_is_seconds_with_a_fraction_of_milliseconds() {
        let at = Timestamp::from_millis(1_769_860_800_123);
        assert_eq!(serde_json::to_value(at).unwrap().to_string(), "1769860800.123");
        let read: Timestamp = serde_json::from_value(json!(1_769_860_800.123_4)).unwrap();
        assert_eq!(read, at);
        let whole: Timestamp = serde_json::from_value(json!(-1)).unwrap();
        assert_eq!(whole.as_millis(), -1000);
        assert!(serde_json::from_value::<Timestamp>(json!("2026-01-31")).is_err());
    }
}
