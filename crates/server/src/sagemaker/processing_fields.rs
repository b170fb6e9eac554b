//! What CreateProcessingJob may ask for, beyond what the model says.

use std::path::Path;

use api::sagemaker::{CreateProcessingJobInput, ProcessingInput, ProcessingOutput};
use serde_json::Value;

use super::{dataset_fields, fields, training_inputs};
use crate::capacity::InstanceTypes;
use crate::training::{MOST_HOSTS, bucket_and_key};
use crate::{Error, Result};

/// What a processing job honours.
const HONOURED: &[&str] = &[
    "ProcessingJobName",
    "ProcessingInputs.InputName",
    "ProcessingInputs.S3Input.**",
    "ProcessingInputs.DatasetDefinition.**",
    "ProcessingOutputConfig.Outputs.OutputName",
    "ProcessingOutputConfig.Outputs.S3Output.**",
    "ProcessingOutputConfig.KmsKeyId",
    "ProcessingResources.ClusterConfig.InstanceType",
    "ProcessingResources.ClusterConfig.InstanceCount",
    "ProcessingResources.ClusterConfig.VolumeSizeInGB",
    "StoppingCondition.MaxRuntimeInSeconds",
    "AppSpecification.ImageUri",
    "AppSpecification.ContainerEntrypoint",
    "AppSpecification.ContainerArguments",
    "Environment.**",
    "NetworkConfig.EnableNetworkIsolation",
    "RoleArn",
    "Tags.**",
    "ExperimentConfig.**",
];

/// Where inputs lie in the container, as in the service.
const INPUT_ROOT: &str = "/opt/ml/processing";

/// Checks a request.
///
/// # Errors
/// [`Error::Validation`] naming the field, [`Error::NotImplemented`] for what is not done here.
pub fn check(raw: &Value, input: &CreateProcessingJobInput, types: &InstanceTypes) -> Result<()> {
    let inputs = input.processing_inputs.as_deref().unwrap_or_default();
    fields::check(raw, HONOURED)?;
    check_image(&input.app_specification.image_uri)?;
    check_cluster(input, types)?;
    let mut names: Vec<&str> = Vec::new();
    for one in inputs {
        check_name("ProcessingInputs.InputName", &one.input_name, &names)?;
        names.push(&one.input_name);
        match (&one.dataset_definition, &one.s3_input) {
            (None, _) => check_input(one)?,
            (Some(definition), None) => dataset_fields::check(&one.input_name, definition)?,
            (Some(_), Some(_)) => {
                return Err(invalid(format!(
                    "ProcessingInputs: the input {:?} has an S3Input and a DatasetDefinition; give one of them.",
                    one.input_name
                )));
            }
        }
    }
    names.clear();
    let outputs = input.processing_output_config.as_ref().map(|config| config.outputs.as_slice());
    for one in outputs.unwrap_or_default() {
        check_name("ProcessingOutputConfig.Outputs.OutputName", &one.output_name, &names)?;
        names.push(&one.output_name);
        check_output(one)?;
    }
    Ok(())
}

/// Images whose programs are the service's own.
fn check_image(image: &str) -> Result<()> {
    let name = image.rsplit('/').next().unwrap_or(image);
    let programs = [
        ("sagemaker-model-monitor-analyzer", "the analyzer of Model Monitor"),
        ("sagemaker-clarify-processing", "the analyzer of Clarify"),
        ("sagemaker-data-wrangler-container", "Data Wrangler's engine"),
    ];
    match programs.iter().find(|(repository, _)| name.split([':', '@']).next() == Some(*repository)) {
        None => Ok(()),
        Some((repository, program)) => Err(Error::NotImplemented(format!(
            "AppSpecification.ImageUri: {program} ({repository}) is not built in yet, and its image cannot be had without the cloud: \
             run the analysis with a script of your own."
        ))),
    }
}

fn check_cluster(input: &CreateProcessingJobInput, types: &InstanceTypes) -> Result<()> {
    let cluster = &input.processing_resources.cluster_config;
    let prefix = "ProcessingResources.ClusterConfig";
    let Some(name) = cluster.instance_type.as_ref().map(ToString::to_string) else {
        return Err(invalid(format!("{prefix}.InstanceType must be given.")));
    };
    let Some(count) = cluster.instance_count else {
        return Err(invalid(format!("{prefix}.InstanceCount must be given.")));
    };
    if types.find(&name).is_none() {
        return Err(invalid(format!(
            "{prefix}.InstanceType: {name:?} is not known here; add it under [capacity.instance_types] in the settings file."
        )));
    }
    if usize::try_from(count).is_ok_and(|count| count > MOST_HOSTS) {
        return Err(Error::field(&format!("{prefix}.InstanceCount above {MOST_HOSTS}")));
    }
    Ok(())
}

/// A name is a folder on this machine, too.
fn check_name(field: &str, name: &str, earlier: &[&str]) -> Result<()> {
    if earlier.contains(&name) {
        return Err(invalid(format!("{field}: the name {name:?} is given twice.")));
    }
    let is_plain =
        !name.is_empty() && name.len() <= 200 && !name.contains(['/', '\0']) && name != "." && name != "..";
    if is_plain { Ok(()) } else { Err(invalid(format!("{field}: {name:?} cannot be a name here."))) }
}

fn check_input(input: &ProcessingInput) -> Result<()> {
    let name = &input.input_name;
    let about = |text: String| invalid(format!("ProcessingInputs: the input {name:?}: {text}"));
    let Some(source) = &input.s3_input else {
        return Err(about("S3Input must be given.".into()));
    };
    let (uri, kind) = (&source.s3_uri, source.s3_data_type.as_str());
    match (bucket_and_key(uri), kind) {
        (None, _) => {
            return Err(about(format!(
                "S3Input.S3Uri: {uri:?} is not an S3 URI such as s3://bucket/prefix."
            )));
        }
        (Some((_, key)), "ManifestFile") if key.is_empty() || key.ends_with('/') => {
            return Err(about(format!(
                "S3Input.S3Uri: {uri:?} must name an object, since S3DataType is ManifestFile."
            )));
        }
        (Some(_), "S3Prefix" | "ManifestFile") => {}
        (Some(_), other) => {
            return Err(Error::field(&format!("ProcessingInputs.S3Input.S3DataType {other}")));
        }
    }
    let mode = source.s3_input_mode.as_ref().map_or_else(|| "File".to_owned(), ToString::to_string);
    let compression = source.s3_compression_type.as_ref().map(ToString::to_string);
    if compression.as_deref() == Some("Gzip") && mode != "Pipe" {
        return Err(about(format!(
            "S3Input.S3CompressionType Gzip can only be used when S3InputMode is Pipe; it is {mode}."
        )));
    }
    check_input_path(source.local_path.as_deref()).map_err(|text| about(format!("S3Input.LocalPath: {text}")))
}

/// Refuses a folder in which no input can lie.
pub(super) fn check_input_path(path: Option<&str>) -> std::result::Result<(), String> {
    let path = path.unwrap_or_default();
    let is_below = Path::new(path).starts_with(INPUT_ROOT) && path.trim_end_matches('/') != INPUT_ROOT;
    if !is_below || !training_inputs::is_usable_folder(path) {
        return Err(format!(
            "{path:?} must be an absolute path that begins with {INPUT_ROOT}/ and has no '..' in it."
        ));
    }
    Ok(())
}

fn check_output(output: &ProcessingOutput) -> Result<()> {
    let name = &output.output_name;
    let about = |text: String| invalid(format!("ProcessingOutputConfig: the output {name:?}: {text}"));
    let Some(target) = &output.s3_output else {
        return Err(about("S3Output must be given.".into()));
    };
    let uri = &target.s3_uri;
    if bucket_and_key(uri).is_none() {
        return Err(about(format!("S3Output.S3Uri: {uri:?} is not an S3 URI such as s3://bucket/prefix.")));
    }
    let path = target.local_path.as_deref().unwrap_or_default();
    let is_reserved =
        ["/opt/ml/config", "/opt/ml/.environment"].iter().any(|own| Path::new(path).starts_with(own));
    if is_reserved || !training_inputs::is_usable_folder(path) {
        return Err(about(format!(
            "S3Output.LocalPath: {path:?} cannot be used; give an absolute path without '..' that is the job's own, such as \
             /opt/ml/processing/output."
        )));
    }
    Ok(())
}

fn invalid(text: String) -> Error {
    Error::Validation(text)
}
