//! `DataCaptureConfig`: what a configuration may say, and what an endpoint then captures and shows.

use std::sync::Arc;

use serde_json::{Value, json};
use serving::CapturePlan;
use store::resources::ResourceKey;

use super::Target;
use super::format::JsonLines;
use crate::training::bucket_and_key;
use crate::{Error, Result};

/// Checks what the model of the API does not say.
///
/// # Errors
/// [`Error::Validation`] naming the field.
pub fn check(config: &Value) -> Result<()> {
    let uri = config["DestinationS3Uri"].as_str().unwrap_or_default();
    if bucket_and_key(uri).is_none() {
        return Err(Error::Validation(format!(
            "DataCaptureConfig.DestinationS3Uri: {uri:?} is not an S3 URI such as s3://bucket/prefix."
        )));
    }
    let header = &config["CaptureContentTypeHeader"];
    let (csv, json) = (types(&header["CsvContentTypes"]), types(&header["JsonContentTypes"]));
    match csv.iter().find(|kind| json.contains(kind)) {
        None => Ok(()),
        Some(kind) => Err(Error::Validation(format!(
            "DataCaptureConfig.CaptureContentTypeHeader: {kind} is in CsvContentTypes and in JsonContentTypes; leave it in one of them."
        ))),
    }
}

/// Whether anything is to be captured; a configuration that does not say so means it.
pub fn is_enabled(config: &Value) -> bool {
    config["EnableCapture"].as_bool().unwrap_or(true)
}

/// What DescribeEndpoint shows; `is_serving` is whether invocations are answered.
pub fn summary(config: &Value, is_serving: bool) -> Value {
    let is_enabled = is_enabled(config);
    json!({
        "EnableCapture": is_enabled,
        "CaptureStatus": if is_enabled && is_serving { "Started" } else { "Stopped" },
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config["KmsKeyId"].as_str().unwrap_or_default(),
    })
}

/// What an update leaves as it is: `RetainAllVariantProperties` without those of `ExcludeRetainedVariantProperties`.
pub fn retained(retain_all: Option<bool>, excluded: &[String], property: &str) -> bool {
    retain_all.unwrap_or(false) && !excluded.iter().any(|one| one == property)
}

/// What the data plane is to capture for a configuration.
pub fn plan(key: &ResourceKey, config: &Value) -> CapturePlan {
    let none = Vec::new();
    let modes = config["CaptureOptions"].as_array().unwrap_or(&none);
    let asks_for = |side: &str| {
        modes.iter().any(|mode| mode["CaptureMode"] == side || mode["CaptureMode"] == "InputAndOutput")
    };
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let target = Target {
        account: key.account.clone(),
        region: key.region.clone(),
        endpoint: key.name.clone(),
        destination: text(&config["DestinationS3Uri"]).unwrap_or_default(),
        key: text(&config["KmsKeyId"]),
    };
    let header = &config["CaptureContentTypeHeader"];
    let percentage = config["InitialSamplingPercentage"].as_u64().unwrap_or(0).min(100);
    CapturePlan {
        percentage: u8::try_from(percentage).unwrap_or(100),
        input: asks_for("Input"),
        output: asks_for("Output"),
        // A change of the types makes another capture, too.
        target: json!({"place": target, "types": header}),
        format: Arc::new(JsonLines {
            csv_types: types(&header["CsvContentTypes"]),
            json_types: types(&header["JsonContentTypes"]),
        }),
    }
}

fn types(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_means_what_the_service_means() {
        let key = ResourceKey::new("1", "r", "endpoint", "E");
        let config = |more: Value| {
            let mut config = json!({"InitialSamplingPercentage": 30, "DestinationS3Uri": "s3://b/p", "CaptureOptions": []});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            config
        };
        let both = config(json!({"CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}]}));
        let plan_of = |config: &Value| plan(&key, config);
        assert_eq!(
            (plan_of(&both).percentage, plan_of(&both).input, plan_of(&both).output),
            (30, true, true)
        );
        let all = config(json!({"CaptureOptions": [{"CaptureMode": "InputAndOutput"}]}));
        assert!(plan_of(&all).input && plan_of(&all).output && is_enabled(&all));
        let output = config(json!({"EnableCapture": false, "CaptureOptions": [{"CaptureMode": "Output"}]}));
        assert!(!plan_of(&output).input && plan_of(&output).output && !is_enabled(&output));
        assert_eq!(summary(&all, true)["CaptureStatus"], "Started");
        assert_eq!(
            (&summary(&all, false)["CaptureStatus"], &summary(&output, true)["CaptureStatus"]),
            (&json!("Stopped"), &json!("Stopped"))
        );
        assert!(check(&both).is_ok());
        let refused = |config: Value| check(&config).unwrap_err().to_string();
        assert!(refused(json!({"DestinationS3Uri": "https://b/p"})).contains("DestinationS3Uri"));
        let types = json!({"CsvContentTypes": ["a/b"], "JsonContentTypes": ["A/b"]});
        assert!(refused(config(json!({"CaptureContentTypeHeader": types}))).contains("a/b"));
    }

    #[test]
    fn nothing_is_retained_unless_all_is() {
        let excluded = ["DataCaptureConfig".to_owned()];
        assert!(retained(Some(true), &[], "DataCaptureConfig"));
        assert!(retained(Some(true), &excluded, "DesiredWeight"));
        assert!(!retained(Some(true), &excluded, "DataCaptureConfig"));
        assert!(!retained(None, &[], "DesiredWeight") && !retained(Some(false), &[], "DesiredWeight"));
    }
}
