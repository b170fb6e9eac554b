//! How an endpoint answers later: what `AsyncInferenceConfig` of its configuration says.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::objects::Protection;

use crate::training::bucket_and_key;
use crate::{Error, Result};

/// Where answers and failures go, who is told, and how many requests an instance has at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsyncSettings {
    /// S3 URI below which answers are put.
    pub output_path: String,
    /// S3 URI below which failures are put; beside the answers when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_path: Option<String>,
    /// Key that encrypts both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// ARN of the topic that is told of answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_topic: Option<String>,
    /// ARN of the topic that is told of failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_topic: Option<String>,
    /// Topics that get the answer as well, in the words of the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_in: Vec<String>,
    /// Requests that an instance has at once, when the configuration says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_at_once: Option<u32>,
}

impl AsyncSettings {
    /// What an endpoint configuration says; `None` when its endpoints answer at once.
    ///
    /// # Errors
    /// [`Error::Validation`] for paths that are missing or no S3 URIs.
    pub fn of(config: &Value) -> Result<Option<AsyncSettings>> {
        let config = &config["AsyncInferenceConfig"];
        if config.is_null() {
            return Ok(None);
        }
        let output = &config["OutputConfig"];
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let path = |name: &str| -> Result<Option<String>> {
            let Some(uri) = text(&output[name]) else { return Ok(None) };
            match bucket_and_key(&uri) {
                Some(_) => Ok(Some(uri.trim_end_matches('/').to_owned())),
                None => Err(Error::Validation(format!(
                    "AsyncInferenceConfig.OutputConfig.{name}: {uri:?} is not an S3 URI such as s3://bucket/prefix."
                ))),
            }
        };
        let Some(output_path) = path("S3OutputPath")? else {
            return Err(Error::Validation(
                "AsyncInferenceConfig.OutputConfig.S3OutputPath is missing: say where answers go, for example \
                 s3://bucket/async-outputs."
                    .into(),
            ));
        };
        let told = &output["NotificationConfig"];
        let response_in = told["IncludeInferenceResponseIn"].as_array().into_iter().flatten();
        Ok(Some(AsyncSettings {
            output_path,
            failure_path: path("S3FailurePath")?,
            kms_key: text(&output["KmsKeyId"]),
            success_topic: text(&told["SuccessTopic"]),
            error_topic: text(&told["ErrorTopic"]),
            response_in: response_in.filter_map(&text).collect(),
            most_at_once: config["ClientConfig"]["MaxConcurrentInvocationsPerInstance"]
                .as_u64()
                .and_then(|most| u32::try_from(most).ok()),
        }))
    }

    /// As DescribeEndpoint shows it.
    pub fn described(&self) -> Value {
        let mut shown = json!({"OutputConfig": {"S3OutputPath": self.output_path}});
        let output = &mut shown["OutputConfig"];
        let optional = [("S3FailurePath", &self.failure_path), ("KmsKeyId", &self.kms_key)];
        for (name, value) in optional.into_iter().filter(|(_, value)| value.is_some()) {
            output[name] = json!(value);
        }
        let topics = [("SuccessTopic", &self.success_topic), ("ErrorTopic", &self.error_topic)];
        for (name, value) in topics.into_iter().filter(|(_, value)| value.is_some()) {
            output["NotificationConfig"][name] = json!(value);
        }
        if !self.response_in.is_empty() {
            output["NotificationConfig"]["IncludeInferenceResponseIn"] = json!(self.response_in);
        }
        if let Some(most) = self.most_at_once {
            shown["ClientConfig"] = json!({"MaxConcurrentInvocationsPerInstance": most});
        }
        shown
    }

    /// How outputs are encrypted, when the configuration says it.
    pub fn protection(&self) -> Option<Protection> {
        let reference = Some(self.kms_key.clone()?);
        Some(Protection::Key { reference, context: std::collections::BTreeMap::new(), bucket_key: false })
    }

    /// The topic for an answer or a failure, and whether it gets the answer as well.
    pub fn topic(&self, ok: bool) -> Option<(&str, bool)> {
        let (topic, word) = match ok {
            true => (&self.success_topic, "SUCCESS_NOTIFICATION_TOPIC"),
            false => (&self.error_topic, "ERROR_NOTIFICATION_TOPIC"),
        };
        Some((topic.as_deref()?, self.response_in.iter().any(|one| one == word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(output: &Value) -> Result<Option<AsyncSettings>> {
        AsyncSettings::of(&json!({"AsyncInferenceConfig": {"OutputConfig": output,
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 3}}}))
    }

    #[test]
    fn a_configuration_is_read_whole_and_shown_again() {
        assert_eq!(AsyncSettings::of(&json!({})).unwrap(), None);
        let output = json!({
            "S3OutputPath": "s3://b/out/", "S3FailurePath": "s3://b/failed", "KmsKeyId": "alias/k",
            "NotificationConfig": {
                "SuccessTopic": "arn:aws:sns:us-east-1:123456789012:good",
                "ErrorTopic": "arn:aws:sns:us-east-1:123456789012:bad",
                "IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"],
            },
        });
        let settings = of(&output).unwrap().unwrap();
        assert_eq!(settings.topic(true), Some(("arn:aws:sns:us-east-1:123456789012:good", true)));
        assert_eq!(settings.topic(false), Some(("arn:aws:sns:us-east-1:123456789012:bad", false)));
        let mut shown = output;
        shown["S3OutputPath"] = "s3://b/out".into();
        let expected =
            json!({"OutputConfig": shown, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 3}});
        assert_eq!(settings.described(), expected);
    }

    #[test]
    fn paths_must_be_of_s3() {
        let refused = |output: &Value| of(output).unwrap_err().to_string();
        assert!(refused(&json!({})).contains("S3OutputPath is missing"));
        assert!(refused(&json!({"S3OutputPath": "https://b/out"})).contains("S3OutputPath"));
        let output = json!({"S3OutputPath": "s3://b/out", "S3FailurePath": "elsewhere"});
        assert!(refused(&output).contains("S3FailurePath"));
    }
}
