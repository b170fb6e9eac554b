//! The outputs of a processing job: which folder goes where, and when.

use std::collections::BTreeMap;

use api::sagemaker::CreateProcessingJobInput;
use store::objects::Protection;

/// When the files of an output are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// As they are written.
    Continuous,
    /// Once the job has ended well, or was stopped.
    AtEnd,
}

/// An output as the request has it.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its folder in the job.
    pub local_path: String,
    /// Where its files go.
    pub uri: String,
    /// When.
    pub upload: Upload,
    /// With which key they are encrypted; as the bucket prescribes when it is left out.
    pub protection: Option<Protection>,
}

/// The folders of all outputs.
pub fn folders(input: &CreateProcessingJobInput) -> Vec<Output> {
    let Some(config) = &input.processing_output_config else { return Vec::new() };
    let key = config.kms_key_id.clone().filter(|key| !key.is_empty());
    let protection =
        key.map(|key| Protection::Key { reference: Some(key), context: BTreeMap::new(), bucket_key: false });
    let stored = config.outputs.iter().filter_map(|output| output.s3_output.as_ref());
    stored
        .map(|output| Output {
            local_path: output.local_path.clone().unwrap_or_default(),
            uri: output.s3_uri.clone(),
            upload: match output.s3_upload_mode.as_str() {
                "Continuous" => Upload::Continuous,
                _ => Upload::AtEnd,
            },
            protection: protection.clone(),
        })
        .collect()
}
