//! What is a processing job's own: its request in common words, its files, its inputs, its outputs, what it says at its end.

mod dataset;
mod furnish;
mod outputs;

use api::sagemaker::{CreateProcessingJobInput, CreateTrainingJobInput};
use serde_json::{Value, json};

pub use dataset::{QueryRecord, has_queries, run_queries};
pub use furnish::furnish;
pub use outputs::{Upload, folders};

use super::attempt::Attempt;
use super::prepare;
use super::record::{FailureCard, HostRecord};

/// Longest `ExitMessage`, in bytes.
const EXIT_MESSAGE_BYTES: usize = 1_024;

/// What the job asks of whoever runs it, in the words of a training job: image, command, machine, role, time, network.
///
/// # Errors
/// When the words do not fit.
pub fn as_training(input: &CreateProcessingJobInput) -> store::Result<CreateTrainingJobInput> {
    let cluster = &input.processing_resources.cluster_config;
    let isolated = input.network_config.as_ref().and_then(|network| network.enable_network_isolation);
    let request = json!({
        "TrainingJobName": input.processing_job_name,
        "AlgorithmSpecification": {
            "TrainingImage": input.app_specification.image_uri,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": input.app_specification.container_entrypoint,
            "ContainerArguments": input.app_specification.container_arguments,
        },
        "RoleArn": input.role_arn,
        "OutputDataConfig": {"S3OutputPath": ""},
        "ResourceConfig": {
            "InstanceType": cluster.instance_type,
            "InstanceCount": cluster.instance_count,
            "VolumeSizeInGB": cluster.volume_size_in_gb,
        },
        "StoppingCondition": input.stopping_condition,
        "Environment": input.environment,
        "EnableNetworkIsolation": isolated,
    });
    Ok(serde_json::from_value(request)?)
}

/// What the job reads as `processingjobconfig.json`: the request with the service's defaults.
fn configuration(input: &CreateProcessingJobInput, arn: &str) -> Value {
    let inputs = input.processing_inputs.iter().flatten().map(|input| {
        let source = input.s3_input.as_ref();
        let mut shown = json!({
            "InputName": input.input_name,
            "S3Input": source.map(|source| json!({
                "LocalPath": source.local_path,
                "S3Uri": source.s3_uri,
                "S3DataDistributionType": or(source.s3_data_distribution_type.as_ref(), "FullyReplicated"),
                "S3DataType": source.s3_data_type.as_str(),
                "S3InputMode": or(source.s3_input_mode.as_ref(), "File"),
                "S3CompressionType": or(source.s3_compression_type.as_ref(), "None"),
                "S3DownloadMode": "StartOfJob",
            })),
        });
        if let Some(definition) = &input.dataset_definition {
            shown["DatasetDefinition"] = json!(definition);
        }
        shown
    });
    let output_config = input.processing_output_config.as_ref();
    let outputs =
        output_config.map(|config| config.outputs.as_slice()).unwrap_or_default().iter().map(|output| {
            let target = output.s3_output.as_ref();
            json!({
                "OutputName": output.output_name,
                "S3Output": target.map(|target| json!({
                    "LocalPath": target.local_path,
                    "S3Uri": target.s3_uri,
                    "S3UploadMode": target.s3_upload_mode.as_str(),
                })),
            })
        });
    let cluster = &input.processing_resources.cluster_config;
    let seconds = input.stopping_condition.as_ref().map(|condition| condition.max_runtime_in_seconds);
    json!({
        "ProcessingJobArn": arn,
        "ProcessingJobName": input.processing_job_name,
        "AppSpecification": {
            "ImageUri": input.app_specification.image_uri,
            "ContainerEntrypoint": input.app_specification.container_entrypoint,
            "ContainerArguments": input.app_specification.container_arguments,
        },
        "Environment": input.environment.clone().unwrap_or_default(),
        "ProcessingInputs": inputs.collect::<Vec<_>>(),
        "ProcessingOutputConfig": {
            "Outputs": outputs.collect::<Vec<_>>(),
            "KmsKeyId": output_config.and_then(|config| config.kms_key_id.clone()),
        },
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": cluster.instance_count,
                "InstanceType": cluster.instance_type,
                "VolumeSizeInGB": cluster.volume_size_in_gb,
                "VolumeKmsKeyId": cluster.volume_kms_key_id,
            },
        },
        "RoleArn": input.role_arn,
        "StoppingCondition": {"MaxRuntimeInSeconds": seconds.unwrap_or(DEFAULT_RUNTIME_SECONDS)},
    })
}

/// The time limit of a job that names none.
const DEFAULT_RUNTIME_SECONDS: i32 = 86_400;

fn or<T: ToString>(given: Option<&T>, default: &str) -> String {
    given.map_or_else(|| default.to_owned(), ToString::to_string)
}

/// What the hosts of an ended job wrote as their message, one after the other, at most 1 KB; nothing for other kinds of jobs.
///
/// # Errors
/// The card of a job whose message is not text.
pub fn exit_message(attempt: &Attempt<'_>, hosts: &[HostRecord]) -> Result<Option<String>, FailureCard> {
    if attempt.kind.processing().is_none() {
        return Ok(None);
    }
    let mut whole = String::new();
    for host in hosts {
        let message = runner::contract::exit_message(&prepare::opt_ml(attempt.app, &host.workload));
        let message = message
            .map_err(|error| FailureCard::new("output", format!("ClientError: {}: {error}.", host.name)))?;
        whole.push_str(&message.unwrap_or_default());
    }
    let mut end = EXIT_MESSAGE_BYTES.min(whole.len());
    while !whole.is_char_boundary(end) {
        end -= 1;
    }
    whole.truncate(end);
    Ok((!whole.is_empty()).then_some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(change: impl FnOnce(&mut Value)) -> CreateProcessingJobInput {
        let mut input = json!({
            "ProcessingJobName": "clean", "RoleArn": "arn:aws:iam::123456789012:role/R",
            "AppSpecification": {"ImageUri": "image:1", "ContainerArguments": ["--all"]},
            "ProcessingResources": {"ClusterConfig": {"InstanceCount": 2, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 7}},
        });
        change(&mut input);
        serde_json::from_value(input).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_told_in_common_words() {
        let input = input(|input| {
            input["NetworkConfig"] = json!({"EnableNetworkIsolation": true});
            input["StoppingCondition"] = json!({"MaxRuntimeInSeconds": 60});
        });
        let request = as_training(&input).unwrap();
        let specification = request.algorithm_specification.unwrap();
        assert_eq!(specification.training_image.as_deref(), Some("image:1"));
        assert_eq!(specification.container_arguments.unwrap(), ["--all"]);
        assert_eq!(request.enable_network_isolation, Some(true));
        assert_eq!(request.stopping_condition.unwrap().max_runtime_in_seconds, Some(60));
        let resources = request.resource_config.unwrap();
        assert_eq!((resources.instance_count, resources.volume_size_in_gb), (Some(2), Some(7)));
    }

    #[test]
    fn the_configuration_has_the_defaults_of_the_service() {
        let input = input(|input| {
            input["ProcessingInputs"] = json!([{"InputName": "in", "S3Input": {
                "S3Uri": "s3://b/p", "LocalPath": "/opt/ml/processing/input", "S3DataType": "S3Prefix"}}]);
            input["ProcessingOutputConfig"] = json!({"Outputs": [{"OutputName": "out", "S3Output": {
                "S3Uri": "s3://b/o", "LocalPath": "/opt/ml/processing/output", "S3UploadMode": "EndOfJob"}}]});
        });
        let expected = json!({
            "ProcessingJobArn": "arn:job", "ProcessingJobName": "clean",
            "AppSpecification": {"ImageUri": "image:1", "ContainerEntrypoint": null, "ContainerArguments": ["--all"]},
            "Environment": {},
            "ProcessingInputs": [{"InputName": "in", "S3Input": {
                "LocalPath": "/opt/ml/processing/input", "S3Uri": "s3://b/p", "S3DataDistributionType": "FullyReplicated",
                "S3DataType": "S3Prefix", "S3InputMode": "File", "S3CompressionType": "None", "S3DownloadMode": "StartOfJob"}}],
            "ProcessingOutputConfig": {"KmsKeyId": null, "Outputs": [{"OutputName": "out", "S3Output": {
                "LocalPath": "/opt/ml/processing/output", "S3Uri": "s3://b/o", "S3UploadMode": "EndOfJob"}}]},
            "ProcessingResources": {"ClusterConfig": {
                "InstanceCount": 2, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 7, "VolumeKmsKeyId": null}},
            "RoleArn": "arn:aws:iam::123456789012:role/R",
            "StoppingCondition": {"MaxRuntimeInSeconds": 86_400},
        });
        assert_eq!(configuration(&input, "arn:job"), expected);
    }
}
