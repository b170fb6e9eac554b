//! What channels and synchronised folders of CreateTrainingJob may ask for, beyond what the model says.

use std::path::Path;

use runner::workload::check_mount_target;
use serde_json::Value;

use crate::training::bucket_and_key;
use crate::{Error, Result};

/// What the service calls the ways in which a channel is read.
const MODES: [&str; 3] = ["File", "Pipe", "FastFile"];

/// Folders of the sandbox's system; nothing may be mounted over them.
const SYSTEM_FOLDERS: [&str; 8] =
    ["/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/run", "/opt/modelyard"];

/// Checks channels and folders.
///
/// # Errors
/// [`Error::Validation`] naming the field, [`Error::NotImplemented`] for a value that is not done here.
pub fn check(raw: &Value) -> Result<()> {
    let mode_of_job = raw["AlgorithmSpecification"]["TrainingInputMode"].as_str().unwrap_or("File");
    check_mode(mode_of_job, "AlgorithmSpecification.TrainingInputMode")?;
    let none = Vec::new();
    let channels = raw["InputDataConfig"].as_array().unwrap_or(&none);
    let mut names: Vec<&str> = Vec::new();
    for channel in channels {
        let name = channel["ChannelName"].as_str().unwrap_or_default();
        if names.contains(&name) {
            return Err(invalid(format!("InputDataConfig: the channel name {name:?} is given twice.")));
        }
        if name.bytes().all(|byte| byte == b'.') {
            return Err(invalid(format!("InputDataConfig: {name:?} cannot be the name of a channel.")));
        }
        names.push(name);
        check_channel(name, channel, mode_of_job)?;
    }
    for channel in channels.iter().filter(|channel| mode(channel, mode_of_job) == "Pipe") {
        let name = channel["ChannelName"].as_str().unwrap_or_default();
        let is_epoch = |other: &&&str| {
            other
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('_'))
                .is_some_and(|epoch| !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()))
        };
        if let Some(other) = names.iter().find(is_epoch) {
            return Err(invalid(format!(
                "InputDataConfig: the channel {other:?} has the name of an epoch of the channel {name:?}, which is in Pipe \
                 mode: rename one of them."
            )));
        }
    }
    check_folder(raw, "CheckpointConfig", "S3Uri")?;
    check_folder(raw, "TensorBoardOutputConfig", "S3OutputPath")
}

fn mode<'a>(channel: &'a Value, of_job: &'a str) -> &'a str {
    channel["InputMode"].as_str().unwrap_or(of_job)
}

fn check_mode(mode: &str, field: &str) -> Result<()> {
    if MODES.contains(&mode) { Ok(()) } else { Err(Error::field(&format!("{field} {mode}"))) }
}

fn check_channel(name: &str, channel: &Value, mode_of_job: &str) -> Result<()> {
    let mode = mode(channel, mode_of_job);
    check_mode(mode, "InputDataConfig.InputMode")?;
    let Some(source) = channel.pointer("/DataSource/S3DataSource") else {
        return Err(invalid(format!(
            "InputDataConfig: the channel {name:?} needs a DataSource.S3DataSource."
        )));
    };
    let uri = source["S3Uri"].as_str().unwrap_or_default();
    let kind = source["S3DataType"].as_str().unwrap_or_default();
    let Some((_, key)) = bucket_and_key(uri) else {
        return Err(invalid(format!(
            "InputDataConfig: the S3Uri {uri:?} of the channel {name:?} is not an S3 URI such as s3://bucket/prefix."
        )));
    };
    let attributes = source["AttributeNames"].as_array().map_or(0, Vec::len);
    match kind {
        "S3Prefix" => {}
        "ManifestFile" | "AugmentedManifestFile" if key.is_empty() || key.ends_with('/') => {
            return Err(invalid(format!(
                "InputDataConfig: the S3Uri {uri:?} of the channel {name:?} must name an object, since its S3DataType is {kind}."
            )));
        }
        "ManifestFile" => {}
        "AugmentedManifestFile" if mode != "Pipe" => {
            return Err(invalid(format!(
                "InputDataConfig: the channel {name:?} has S3DataType AugmentedManifestFile, which can only be used if the \
                 channel's input mode is Pipe; it is {mode}."
            )));
        }
        "AugmentedManifestFile" if attributes == 0 => {
            return Err(invalid(format!(
                "InputDataConfig: AttributeNames must be given for the channel {name:?}, since its S3DataType is \
                 AugmentedManifestFile."
            )));
        }
        "AugmentedManifestFile" => {}
        other => {
            return Err(Error::field(&format!("InputDataConfig.DataSource.S3DataSource.S3DataType {other}")));
        }
    }
    if attributes > 0 && kind != "AugmentedManifestFile" {
        return Err(invalid(format!(
            "InputDataConfig: AttributeNames of the channel {name:?} can only be used with S3DataType AugmentedManifestFile; it is \
             {kind}."
        )));
    }
    for (field, value) in [("CompressionType", "Gzip"), ("RecordWrapperType", "RecordIO")] {
        if mode != "Pipe" && channel[field].as_str() == Some(value) {
            return Err(invalid(format!(
                "InputDataConfig: {field} {value} of the channel {name:?} can only be used in Pipe input mode; in {mode} mode \
                 leave it unset or set it to None."
            )));
        }
    }
    Ok(())
}

/// Checks a folder that is kept the same as a prefix.
fn check_folder(raw: &Value, config: &str, uri_field: &str) -> Result<()> {
    let folder = &raw[config];
    if folder.is_null() {
        return Ok(());
    }
    let uri = folder[uri_field].as_str().unwrap_or_default();
    if bucket_and_key(uri).is_none() {
        return Err(invalid(format!(
            "{config}.{uri_field}: {uri:?} is not an S3 URI such as s3://bucket/prefix."
        )));
    }
    let Some(path) = folder["LocalPath"].as_str().filter(|path| !path.is_empty()) else { return Ok(()) };
    if !is_usable_folder(path) {
        return Err(invalid(format!(
            "{config}.LocalPath: {path:?} cannot be used; give an absolute path without '..' that is the job's own, such as \
             /opt/ml/checkpoints."
        )));
    }
    Ok(())
}

/// Whether a folder of the container is the job's own, so that something may be put there.
pub fn is_usable_folder(path: &str) -> bool {
    let trimmed = Path::new(path.trim_end_matches('/'));
    let is_reserved = SYSTEM_FOLDERS.iter().any(|system| trimmed.starts_with(system))
        || ["/opt", "/opt/ml", "/tmp"].iter().any(|whole| trimmed == Path::new(whole))
        || trimmed.starts_with("/opt/ml/input");
    !is_reserved && check_mount_target(trimmed).is_ok()
}

fn invalid(text: String) -> Error {
    Error::Validation(text)
}
