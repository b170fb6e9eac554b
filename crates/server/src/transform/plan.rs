//! What a transform job is to do, from its request and what the model's container wishes.

use api::sagemaker::CreateTransformJobInput;

use super::data::{DataProcessing, Format};
use super::path::Path;
use super::split::Split;

/// The payload when neither the request nor the container names one, as in the service.
const DEFAULT_PAYLOAD_MB: u32 = 6;
/// The longest answer and the longest record that `MaxPayloadInMB` 0 allows: a request is held in memory whole.
pub const UNLIMITED_BYTES: usize = 1 << 31;
/// A record that is filtered may be longer than what is left of it.
const UNFILTERED_BYTES: usize = 256 << 20;
/// How long the model may take for an answer when the request names no time, as in the service.
const DEFAULT_TIMEOUT_SECONDS: u32 = 600;
/// How often a request is repeated when the request names no number, as in the service.
const DEFAULT_RETRIES: u32 = 3;

/// The plan of a job.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How objects are split.
    pub split: Split,
    /// Whether each request has one record.
    pub is_single: bool,
    /// `MaxPayloadInMB`; 0 is no limit.
    pub payload_mb: u32,
    /// Requests that an instance answers at once.
    pub concurrency: u32,
    /// How often a request is repeated.
    pub retries: u32,
    /// How long an answer may take.
    pub timeout_seconds: u32,
    /// Whether objects are compressed by gzip.
    pub is_gzip: bool,
    /// Media type of the requests.
    pub content_type: Option<String>,
    /// Media type of the answers.
    pub accept: Option<String>,
    /// Whether each answer ends its line.
    pub ends_lines: bool,
    /// Filters and join, if there are any.
    pub data: Option<DataProcessing>,
    /// What the request says nothing of.
    pub left_open: LeftOpen,
}

/// What a request leaves to the container, which may have a wish, and to the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOpen {
    /// `BatchStrategy`.
    pub strategy: bool,
    /// `MaxPayloadInMB`.
    pub payload: bool,
    /// `MaxConcurrentTransforms`, which may be 0 as well.
    pub concurrency: bool,
}

impl Plan {
    /// The plan of a request.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn of(input: &CreateTransformJobInput) -> Result<Plan, String> {
        let source = &input.transform_input;
        let split = match source.split_type.as_ref().map_or("None", |split| split.as_str()) {
            "Line" => Split::Line,
            "RecordIO" => Split::RecordIo,
            "TFRecord" => Split::TfRecord,
            _ => Split::None,
        };
        let number = |given: Option<i32>| given.and_then(|number| u32::try_from(number).ok());
        let client = input.model_client_config.as_ref();
        let text = |given: &Option<String>| given.clone().filter(|text| !text.is_empty());
        let content_type = text(&source.content_type);
        let data = data_processing(input, split, content_type.as_deref())?;
        let mut accept = text(&input.transform_output.accept);
        if accept.is_none() && data.as_ref().is_some_and(|data| !data.keeps_answers()) {
            // What is joined or filtered has to be understood.
            accept.clone_from(&content_type);
        }
        Ok(Plan {
            split,
            is_single: input.batch_strategy.as_ref().is_some_and(|one| one.as_str() == "SingleRecord"),
            payload_mb: number(input.max_payload_in_mb).unwrap_or(DEFAULT_PAYLOAD_MB),
            concurrency: number(input.max_concurrent_transforms).unwrap_or(0),
            retries: number(client.and_then(|client| client.invocations_max_retries))
                .unwrap_or(DEFAULT_RETRIES),
            timeout_seconds: number(client.and_then(|client| client.invocations_timeout_in_seconds))
                .unwrap_or(DEFAULT_TIMEOUT_SECONDS),
            is_gzip: source.compression_type.as_ref().is_some_and(|kind| kind.as_str() == "Gzip"),
            content_type,
            accept,
            ends_lines: input
                .transform_output
                .assemble_with
                .as_ref()
                .is_some_and(|one| one.as_str() == "Line"),
            data,
            left_open: LeftOpen {
                strategy: input.batch_strategy.is_none(),
                payload: input.max_payload_in_mb.is_none(),
                concurrency: input.max_concurrent_transforms.is_none_or(|at_once| at_once == 0),
            },
        })
    }

    /// The most bytes of a request's body.
    pub fn payload_bytes(&self) -> usize {
        match self.payload_mb {
            0 => UNLIMITED_BYTES,
            megabytes => megabytes as usize * 1024 * 1024,
        }
    }

    /// The most bytes of a record as it is read.
    pub fn record_bytes(&self) -> usize {
        let is_filtered = self.data.as_ref().is_some_and(|data| !data.input.is_all());
        if is_filtered { self.payload_bytes().max(UNFILTERED_BYTES) } else { self.payload_bytes() }
    }

    /// As the container sees it in `SAGEMAKER_BATCH_STRATEGY`.
    pub fn strategy(&self) -> &'static str {
        if self.is_single { "SINGLE_RECORD" } else { "MULTI_RECORD" }
    }
}

fn data_processing(
    input: &CreateTransformJobInput,
    split: Split,
    content_type: Option<&str>,
) -> Result<Option<DataProcessing>, String> {
    let Some(wanted) = &input.data_processing else { return Ok(None) };
    let path = |field: &str, text: &Option<String>| {
        let text = text.as_deref().unwrap_or("$");
        Path::parse(text)
            .map_err(|problem| format!("DataProcessing.{field}: {text:?} is no JSONPath: {problem}."))
    };
    let filter = path("InputFilter", &wanted.input_filter)?;
    let output = path("OutputFilter", &wanted.output_filter)?;
    let is_joined = wanted.join_source.as_ref().is_some_and(|source| source.as_str() == "Input");
    if filter.is_all() && output.is_all() && !is_joined {
        return Ok(None);
    }
    let understood = "DataProcessing works on text/csv, application/json and application/jsonlines";
    let format = content_type.and_then(Format::of).ok_or_else(|| {
        format!(
            "TransformInput.ContentType: {understood}, and not on {:?}.",
            content_type.unwrap_or_default()
        )
    })?;
    let format = match (format, split) {
        (_, Split::RecordIo | Split::TfRecord) => {
            return Err(format!("TransformInput.SplitType: {understood}, split by Line or not at all."));
        }
        // A document on a line.
        (Format::Json, Split::Line) => Format::JsonLines,
        (Format::JsonLines, Split::None) => {
            return Err(
                "TransformInput.SplitType: DataProcessing of application/jsonlines needs Line.".into()
            );
        }
        (format, _) => format,
    };
    if let Some(accept) = input.transform_output.accept.as_deref().filter(|accept| !accept.is_empty())
        && (is_joined || !output.is_all())
    {
        let answers = Format::of(accept);
        if answers.is_none_or(|answers| (answers == Format::Csv) != (format == Format::Csv)) {
            return Err(format!(
                "TransformOutput.Accept: {accept:?} cannot be joined with or filtered like {}: both must be CSV, or both JSON.",
                content_type.unwrap_or_default()
            ));
        }
    }
    Ok(Some(DataProcessing { format, is_whole: split == Split::None, input: filter, is_joined, output }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(change: impl FnOnce(&mut Value)) -> Result<Plan, String> {
        let mut request = json!({
            "TransformJobName": "t", "ModelName": "m",
            "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in"}},
                "ContentType": "text/csv", "SplitType": "Line"},
            "TransformOutput": {"S3OutputPath": "s3://b/out"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        });
        change(&mut request);
        Plan::of(&serde_json::from_value(request).unwrap())
    }

    #[test]
    fn the_defaults_are_those_of_the_service() {
        let plan = plan(|_| {}).unwrap();
        assert_eq!((plan.payload_bytes(), plan.retries, plan.timeout_seconds), (6 << 20, 3, 600));
        assert_eq!((plan.strategy(), plan.is_gzip, plan.ends_lines), ("MULTI_RECORD", false, false));
        assert!(plan.data.is_none());
    }

    #[test]
    fn what_is_joined_must_be_understood() {
        let data = |data: Value| plan(|request| request["DataProcessing"] = data);
        let joined = data(json!({"JoinSource": "Input"})).unwrap();
        assert_eq!(joined.accept.as_deref(), Some("text/csv"));
        assert!(
            data(json!({"InputFilter": "$", "OutputFilter": "$", "JoinSource": "None"}))
                .unwrap()
                .data
                .is_none()
        );
        assert!(data(json!({"InputFilter": "[1"})).unwrap_err().starts_with("DataProcessing.InputFilter"));
        for (content, accept, split, names) in [
            ("text/csv", "application/json", "Line", "TransformOutput.Accept"),
            ("application/x-image", "application/json", "Line", "TransformInput.ContentType"),
            ("text/csv", "text/csv", "RecordIO", "TransformInput.SplitType"),
            ("application/jsonlines", "application/jsonlines", "None", "TransformInput.SplitType"),
        ] {
            let refused = plan(|request| {
                request["TransformInput"]["ContentType"] = content.into();
                request["TransformInput"]["SplitType"] = split.into();
                request["TransformOutput"]["Accept"] = accept.into();
                request["DataProcessing"] = json!({"JoinSource": "Input"});
            });
            assert!(refused.unwrap_err().starts_with(names), "{names}");
        }
    }
}
