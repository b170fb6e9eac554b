//! From the request of a processing job to the folders of one of its hosts.

use std::path::{Path, PathBuf};

use api::sagemaker::{Channel, CreateProcessingJobInput};
use runner::contract::{InstanceGroup, ProcessingContract};
use runner::feed::Shard;
use serde_json::json;

use super::super::attempt::Attempt;
use super::super::kind::Contract;
use super::super::prepare::{Furnished, Step, failed, job_directory, opt_ml};
use super::super::record::HostRecord;
use super::super::{channels, sync};
use super::dataset;

/// Puts inputs in place for one host, and makes the folders of outputs.
pub async fn furnish(
    attempt: &Attempt<'_>,
    input: &CreateProcessingJobInput,
    groups: &[InstanceGroup],
    host: &HostRecord,
) -> Step<Furnished> {
    let (app, key) = (attempt.app, &attempt.work.key);
    let record = attempt.record();
    let resolved = match record {
        Ok(record) => dataset::with_results(input, &record.queries),
        Err(error) => return failed("input", format!("InternalServerError: {error}")),
    };
    let hosts: Vec<String> = groups.iter().flat_map(|group| group.hosts.clone()).collect();
    let position = hosts.iter().position(|name| *name == host.name).unwrap_or(0);
    let directory = job_directory(app, &host.workload);
    let opt_ml = opt_ml(app, &host.workload);
    let (mut mounts, mut feeds) = (Vec::new(), Vec::new());
    for one in inputs(&resolved) {
        let channel = match one.channel() {
            Ok(channel) => channel,
            Err(error) => return failed("input", format!("InternalServerError: {error}")),
        };
        let place = channels::Place {
            directory: &directory,
            opt_ml: &opt_ml,
            host: Shard { host: position, hosts: hosts.len() },
            source_channel: one.is_shared_folder.then(|| channel.channel_name.clone()),
            folder: Some(&one.folder),
        };
        match channels::prepare(&app.objects, &key.account, std::slice::from_ref(&channel), "File", &place)
            .await
        {
            Ok(prepared) => {
                mounts.extend(prepared.mounts);
                feeds.extend(prepared.feeds);
            }
            Err(text) => return failed("input", text),
        }
    }
    match sync::restore(attempt, host).await {
        Ok(outputs) => mounts.extend(outputs),
        Err(text) => return failed("output", text),
    }
    for mount in &mounts {
        // The folder that the job sees there, below one that is mounted itself.
        if let Ok(below) = mount.target.strip_prefix("/opt/ml")
            && let Err(error) = tokio::fs::create_dir_all(opt_ml.join(below)).await
        {
            return failed("input", format!("InternalServerError: {}: {error}", mount.target.display()));
        }
    }
    let arn = crate::sagemaker::kinds::arn(&key.region, &key.account, &key.kind, &key.name);
    let contract = ProcessingContract {
        configuration: super::configuration(input, &arn),
        job_arn: arn,
        region: key.region.clone(),
        current_host: host.name.clone(),
        hosts,
        environment: input.environment.clone().unwrap_or_default(),
        entrypoint: input.app_specification.container_entrypoint.clone(),
        arguments: input.app_specification.container_arguments.clone().unwrap_or_default(),
    };
    Ok(Furnished { contract: Contract::Processing(Box::new(contract)), mounts, feeds })
}

/// An input, and where it lies.
struct Input<'a> {
    request: &'a api::sagemaker::ProcessingInput,
    source: &'a api::sagemaker::ProcessingS3Input,
    folder: PathBuf,
    /// Whether other inputs, or outputs, lie in its folder too.
    is_shared_folder: bool,
}

fn inputs(input: &CreateProcessingJobInput) -> Vec<Input<'_>> {
    let folder = |path: Option<&String>| path.map(|path| PathBuf::from(path.trim_end_matches('/')));
    let sources = || {
        let all = input.processing_inputs.iter().flatten();
        all.filter_map(|input| Some((input, input.s3_input.as_ref()?)))
    };
    let outputs = super::folders(input);
    let of_outputs = outputs.iter().filter_map(|output| folder(Some(&output.local_path)));
    let all: Vec<PathBuf> =
        sources().filter_map(|(_, source)| folder(source.local_path.as_ref())).chain(of_outputs).collect();
    let shared = |own: &Path| all.iter().filter(|other| other.starts_with(own)).count() > 1;
    sources()
        .filter_map(|(request, source)| {
            let folder = folder(source.local_path.as_ref())?;
            let is_shared_folder = shared(&folder);
            Some(Input { request, source, folder, is_shared_folder })
        })
        .collect()
}

impl Input<'_> {
    /// The input as a channel, which training jobs have in its place.
    fn channel(&self) -> serde_json::Result<Channel> {
        let source = self.source;
        serde_json::from_value(json!({
            "ChannelName": self.request.input_name,
            "DataSource": {"S3DataSource": {
                "S3DataType": source.s3_data_type,
                "S3Uri": source.s3_uri,
                "S3DataDistributionType": source.s3_data_distribution_type,
            }},
            "InputMode": source.s3_input_mode,
            "CompressionType": source.s3_compression_type,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_other_folders_in_it_is_told() {
        let source = |path: &str| json!({"S3Uri": "s3://b/p", "LocalPath": path, "S3DataType": "S3Prefix", "S3InputMode": "Pipe"});
        let input: CreateProcessingJobInput = serde_json::from_value(json!({
            "ProcessingJobName": "p", "RoleArn": "r", "AppSpecification": {"ImageUri": "i"},
            "ProcessingResources": {"ClusterConfig": {"VolumeSizeInGB": 1}},
            "ProcessingInputs": [
                {"InputName": "outer", "S3Input": source("/opt/ml/processing/input/")},
                {"InputName": "inner", "S3Input": source("/opt/ml/processing/input/code")},
                {"InputName": "alone", "S3Input": source("/opt/ml/processing/inputs")},
                {"InputName": "in-place", "S3Input": source("/opt/ml/processing/both")},
            ],
            "ProcessingOutputConfig": {"Outputs": [{"OutputName": "o", "S3Output": {
                "S3Uri": "s3://b/o", "LocalPath": "/opt/ml/processing/both", "S3UploadMode": "EndOfJob"}}]},
        }))
        .unwrap();
        let found = inputs(&input);
        let shared: Vec<bool> = found.iter().map(|one| one.is_shared_folder).collect();
        assert_eq!(shared, [true, false, false, true]);
        let channel = found[1].channel().unwrap();
        assert_eq!(channels::input_mode(&channel, "File"), "Pipe");
        assert_eq!(found[0].folder, Path::new("/opt/ml/processing/input"));
    }
}
