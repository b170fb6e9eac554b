//! What CreateTransformJob may ask for, beyond what the model of the API says.

use api::sagemaker::CreateTransformJobInput;
use serde_json::Value;

use super::fields;
use crate::capacity::InstanceTypes;
use crate::training::bucket_and_key;
use crate::transform::Format;
use crate::transform::plan::Plan;
use crate::{Error, Result};

/// What a transform job honours; `ExperimentConfig` is recorded and shown.
const HONOURED: &[&str] = &[
    "TransformJobName",
    "ModelName",
    "MaxConcurrentTransforms",
    "ModelClientConfig.**",
    "MaxPayloadInMB",
    "BatchStrategy",
    "Environment.**",
    "TransformInput.**",
    "TransformOutput.**",
    "DataCaptureConfig.**",
    "TransformResources.InstanceType",
    "TransformResources.InstanceCount",
    "DataProcessing.**",
    "Tags.**",
    "ExperimentConfig.**",
];

/// The largest payload, alone and of all requests that are under way at once.
const MOST_PAYLOAD_MB: i32 = 100;

/// The most instances: each is a sandbox on this machine.
const MOST_INSTANCES: i32 = 32;

/// Checks a request.
///
/// # Errors
/// [`Error::Validation`] naming the field, [`Error::NotImplemented`] for what is not done here.
pub fn check(raw: &Value, input: &CreateTransformJobInput, types: &InstanceTypes) -> Result<()> {
    fields::check(raw, HONOURED)?;
    let invalid = |text: String| Err(Error::Validation(text));
    let source = &input.transform_input.data_source.s3_data_source;
    let kind = source.s3_data_type.as_str();
    if !matches!(kind, "S3Prefix" | "ManifestFile") {
        return invalid(format!(
            "TransformInput.DataSource.S3DataSource.S3DataType: {kind} does not go with batch transform; use S3Prefix or ManifestFile."
        ));
    }
    check_uri("TransformInput.DataSource.S3DataSource.S3Uri", &source.s3_uri)?;
    check_uri("TransformOutput.S3OutputPath", &input.transform_output.s3_output_path)?;
    let resources = &input.transform_resources;
    let name = resources.instance_type.to_string();
    if types.find(&name).is_none() {
        return invalid(format!(
            "TransformResources.InstanceType: {name:?} is not known here; add it under [capacity.instance_types] in the settings file."
        ));
    }
    if resources.instance_count > MOST_INSTANCES {
        return Err(Error::field(&format!("TransformResources.InstanceCount above {MOST_INSTANCES}")));
    }
    let payload = input.max_payload_in_mb.unwrap_or(0);
    if payload > MOST_PAYLOAD_MB {
        return invalid(format!(
            "MaxPayloadInMB: it cannot be above {MOST_PAYLOAD_MB}, and {payload} was given."
        ));
    }
    if let Some(at_once) = input.max_concurrent_transforms.filter(|at_once| *at_once > 1)
        && i64::from(at_once) * i64::from(payload) > i64::from(MOST_PAYLOAD_MB)
    {
        return invalid(format!(
            "MaxPayloadInMB: MaxConcurrentTransforms times MaxPayloadInMB cannot be above {MOST_PAYLOAD_MB}, and {at_once} times \
             {payload} was given."
        ));
    }
    if input.batch_strategy.as_ref().is_some_and(|one| one.as_str() == "SingleRecord")
        && input.transform_input.split_type.as_ref().is_none_or(|split| split.as_str() == "None")
    {
        return invalid(
            "BatchStrategy: SingleRecord needs a TransformInput.SplitType of Line, RecordIO or TFRecord."
                .into(),
        );
    }
    Plan::of(input).map_err(Error::Validation)?;
    let Some(capture) = &input.data_capture_config else { return Ok(()) };
    check_uri("DataCaptureConfig.DestinationS3Uri", &capture.destination_s3_uri)?;
    let output = input.transform_output.accept.as_deref().or(input.transform_input.content_type.as_deref());
    if capture.generate_inference_id == Some(true) && output.and_then(Format::of).is_none() {
        return invalid(
            "DataCaptureConfig.GenerateInferenceId: ids can be put into outputs of text/csv, application/json and \
             application/jsonlines; name one in TransformOutput.Accept."
                .into(),
        );
    }
    Ok(())
}

fn check_uri(field: &str, uri: &str) -> Result<()> {
    match bucket_and_key(uri) {
        Some(_) => Ok(()),
        None => {
            Err(Error::Validation(format!("{field}: {uri:?} is not an S3 URI such as s3://bucket/prefix.")))
        }
    }
}
