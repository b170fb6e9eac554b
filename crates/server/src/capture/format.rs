//! The service's JSON form of a captured invocation, one line each.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serving::{CaptureFormat, CapturedBody, CapturedInvocation};

/// Writes lines; bodies of types that are in neither list go into base64.
pub struct JsonLines {
    /// Media types that are kept as CSV, in lower case.
    pub csv_types: Vec<String>,
    /// Media types that are kept as JSON, in lower case.
    pub json_types: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    capture_data: Data<'a>,
    event_metadata: Metadata<'a>,
    event_version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_input: Option<Side<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_output: Option<Side<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Side<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_content_type: Option<&'a str>,
    mode: &'static str,
    data: std::borrow::Cow<'a, str>,
    encoding: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    event_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    inference_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_attributes: Option<[&'a str; 1]>,
    // Ours: without them the request could not be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_container_hostname: Option<&'a str>,
    inference_time: String,
}

impl CaptureFormat for JsonLines {
    fn write(&self, captured: &CapturedInvocation, line: &mut Vec<u8>) {
        let text = Line {
            capture_data: Data {
                endpoint_input: captured.input.as_ref().map(|body| self.side("INPUT", body)),
                endpoint_output: captured.output.as_ref().map(|body| self.side("OUTPUT", body)),
            },
            event_metadata: Metadata {
                event_id: captured.request_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
                inference_id: captured.inference_id.as_deref(),
                custom_attributes: captured.custom_attributes.as_deref().map(|text| [text]),
                target_model: captured.target_model.as_deref(),
                target_container_hostname: captured.target_container.as_deref(),
                inference_time: crate::events::moment(captured.at_ms),
            },
            event_version: "0",
        };
        serde_json::to_writer(line, &text).expect("texts serialize, and memory takes what is written");
    }
}

impl JsonLines {
    fn side<'a>(&self, mode: &'static str, body: &'a CapturedBody) -> Side<'a> {
        let kind = body.content_type.as_deref().map(media_type).unwrap_or_default();
        let encoding = match std::str::from_utf8(&body.data) {
            Ok(text) if self.csv_types.contains(&kind) => Some((text, "CSV")),
            Ok(text) if self.json_types.contains(&kind) => Some((text, "JSON")),
            // What says that it is text and is not must not be changed.
            _ => None,
        };
        let (data, encoding) = match encoding {
            Some((text, encoding)) => (text.into(), encoding),
            None => (STANDARD.encode(&body.data).into(), "BASE64"),
        };
        Side { observed_content_type: body.content_type.as_deref(), mode, data, encoding }
    }
}

/// A media type without its parameters, in lower case.
pub fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn line(input: Option<(&str, &'static [u8])>, output: Option<(&str, &'static [u8])>) -> Value {
        line_of(input, output, None)
    }

    fn line_of(
        input: Option<(&str, &'static [u8])>,
        output: Option<(&str, &'static [u8])>,
        target_model: Option<&str>,
    ) -> Value {
        let body = |(kind, data): (&str, &'static [u8])| CapturedBody {
            content_type: Some(kind.to_owned()),
            data: Bytes::from_static(data),
        };
        let captured = CapturedInvocation {
            request_id: Some("id".into()),
            variant: "v".into(),
            at_ms: 1_769_860_800_999,
            latency: std::time::Duration::ZERO,
            custom_attributes: Some("a=1".into()),
            inference_id: Some("mine".into()),
            target_model: target_model.map(str::to_owned),
            target_container: None,
            input: input.map(body),
            output: output.map(body),
        };
        let format =
            JsonLines { csv_types: vec!["text/csv".into()], json_types: vec!["application/json".into()] };
        let mut line = Vec::new();
        format.write(&captured, &mut line);
        assert!(!line.contains(&b'\n'));
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_line_is_as_the_service_writes_it() {
        assert_eq!(
            line(Some(("text/csv; charset=utf-8", b"1,2\n3,4")), Some(("application/json", b"{\"a\":\n1}"))),
            json!({
                "captureData": {
                    "endpointInput": {
                        "observedContentType": "text/csv; charset=utf-8", "mode": "INPUT", "data": "1,2\n3,4", "encoding": "CSV",
                    },
                    "endpointOutput": {
                        "observedContentType": "application/json", "mode": "OUTPUT", "data": "{\"a\":\n1}", "encoding": "JSON",
                    },
                },
                "eventMetadata": {
                    "eventId": "id", "inferenceId": "mine", "customAttributes": ["a=1"], "inferenceTime": "2026-01-31T12:00:00Z",
                },
                "eventVersion": "0",
            })
        );
    }

    #[test]
    fn the_model_that_was_named_is_kept() {
        let metadata = &line_of(None, None, Some("a/b.tar.gz"))["eventMetadata"];
        assert_eq!(metadata["targetModel"], "a/b.tar.gz");
        assert_eq!(metadata.get("targetContainerHostname"), None);
    }

    #[test]
    fn what_is_in_no_list_or_no_text_goes_into_base64() {
        let other = line(Some(("application/x-npy", b"\x01\xff")), None);
        let input = &other["captureData"]["endpointInput"];
        assert_eq!((&input["data"], &input["encoding"]), (&json!("Af8="), &json!("BASE64")));
        assert_eq!(other["captureData"].get("endpointOutput"), None);
        let broken = line(None, Some(("text/csv", b"\xff")));
        assert_eq!(broken["captureData"]["endpointOutput"]["encoding"], "BASE64");
    }
}
