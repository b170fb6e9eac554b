//! `GenerateInferenceId`: an id and a time behind each record of the output, for joining it with what turns out to be true.

use serde_json::Value;

use super::data::{self, Format};

/// Appends ids.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// How outputs are written.
    pub format: Format,
    /// Whether an output is one document.
    pub is_whole: bool,
}

impl Stamp {
    /// The records with an id and a time each.
    ///
    /// # Errors
    /// A sentence about an output that is not what its media type says.
    pub fn put(&self, output: &[u8], now_ms: i64) -> Result<Vec<u8>, String> {
        let time = crate::events::moment(now_ms);
        let id = || uuid::Uuid::new_v4().to_string();
        let document = |text: &[u8]| {
            let value: Value = serde_json::from_slice(text).map_err(|error| {
                format!("an inference id cannot be put into the output, which is not JSON: {error}")
            })?;
            let mut members = match value {
                Value::Object(members) => members,
                value => serde_json::Map::from_iter([("SageMakerOutput".to_owned(), value)]),
            };
            members.insert("SageMakerInferenceId".into(), id().into());
            members.insert("SageMakerInferenceTime".into(), time.clone().into());
            Ok::<_, String>(Value::Object(members).to_string())
        };
        if self.is_whole && self.format != Format::Csv {
            return document(output).map(String::into_bytes);
        }
        let mut stamped = Vec::new();
        for line in data::lines(output) {
            if self.format == Format::Csv {
                stamped.extend_from_slice(line);
                stamped.extend_from_slice(format!(",{},{time}", id()).as_bytes());
            } else {
                stamped.extend_from_slice(document(line)?.as_bytes());
            }
            stamped.push(b'\n');
        }
        Ok(stamped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_gets_an_id_of_its_own() {
        let stamped = |format, is_whole, output: &str| {
            String::from_utf8(Stamp { format, is_whole }.put(output.as_bytes(), 1_770_000_000_000).unwrap())
                .unwrap()
        };
        let rows = stamped(Format::Csv, false, "1\n2");
        let cells: Vec<Vec<&str>> = rows.lines().map(|row| row.split(',').collect()).collect();
        assert_eq!((cells[0][0], cells[1][0], cells[0][2]), ("1", "2", "2026-02-02T02:40:00Z"));
        assert_ne!(cells[0][1], cells[1][1]);
        let value: Value = serde_json::from_str(&stamped(Format::Json, true, "[\n1]")).unwrap();
        assert_eq!(value["SageMakerOutput"], serde_json::json!([1]));
        assert!(value["SageMakerInferenceId"].is_string());
        assert!(Stamp { format: Format::JsonLines, is_whole: false }.put(b"nonsense", 0).is_err());
    }
}
