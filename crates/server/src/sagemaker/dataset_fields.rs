//! What a DatasetDefinition of a processing input may ask for, beyond what the model says.

use api::sagemaker::{
    AthenaDatasetDefinition, DatasetDefinition, ProcessingInput, RedshiftDatasetDefinition,
};

use super::processing_fields;
use crate::query::{self, DATA_CATALOGUE};
use crate::training::bucket_and_key;
use crate::{Cx, Error, Result};

/// The only work group that there is.
const WORK_GROUP: &str = "primary";

/// Checks the definition of one input.
///
/// # Errors
/// [`Error::Validation`] naming the member.
pub fn check(input: &str, definition: &DatasetDefinition) -> Result<()> {
    let about = |text: String| {
        Error::Validation(format!("ProcessingInputs: the input {input:?}: DatasetDefinition{text}"))
    };
    processing_fields::check_input_path(definition.local_path.as_deref())
        .map_err(|text| about(format!(".LocalPath: {text}")))?;
    match (&definition.athena_dataset_definition, &definition.redshift_dataset_definition) {
        (Some(athena), None) => check_athena(athena),
        (None, Some(redshift)) => check_redshift(redshift),
        (Some(_), Some(_)) => {
            Err(" has an AthenaDatasetDefinition and a RedshiftDatasetDefinition; give one of them.".into())
        }
        (None, None) => Err(" needs an AthenaDatasetDefinition or a RedshiftDatasetDefinition.".into()),
    }
    .map_err(about)
}

fn check_athena(athena: &AthenaDatasetDefinition) -> std::result::Result<(), String> {
    let field = ".AthenaDatasetDefinition";
    if !athena.catalog.eq_ignore_ascii_case(DATA_CATALOGUE) {
        return Err(format!("{field}.Catalog: there is only AwsDataCatalog here, not {:?}.", athena.catalog));
    }
    if let Some(group) = athena.work_group.as_deref().filter(|group| *group != WORK_GROUP) {
        return Err(format!(
            "{field}.WorkGroup: there is only the work group {WORK_GROUP} here, not {group:?}; leave WorkGroup out."
        ));
    }
    check_output_uri(field, &athena.output_s3_uri)?;
    let compression = athena.output_compression.as_ref().map(ToString::to_string);
    query::check_output(field, &athena.output_format.to_string(), compression.as_deref())
}

fn check_redshift(redshift: &RedshiftDatasetDefinition) -> std::result::Result<(), String> {
    let field = ".RedshiftDatasetDefinition";
    check_output_uri(field, &redshift.output_s3_uri)?;
    let compression = redshift.output_compression.as_ref().map(|kind| kind.to_string().to_uppercase());
    query::check_output(field, &redshift.output_format.to_string(), compression.as_deref())
}

fn check_output_uri(field: &str, uri: &str) -> std::result::Result<(), String> {
    match bucket_and_key(uri) {
        Some(_) => Ok(()),
        None => Err(format!("{field}.OutputS3Uri: {uri:?} is not an S3 URI such as s3://bucket/prefix.")),
    }
}

/// Checks that the keys and roles are there which definitions name.
///
/// # Errors
/// [`Error::Validation`] naming the member.
pub async fn check_references(cx: &Cx, inputs: &[ProcessingInput]) -> Result<()> {
    for definition in inputs.iter().filter_map(|input| input.dataset_definition.as_ref()) {
        let athena = definition.athena_dataset_definition.as_ref();
        let redshift = definition.redshift_dataset_definition.as_ref();
        let keys = [
            ("AthenaDatasetDefinition.KmsKeyId", athena.and_then(|one| one.kms_key_id.as_deref())),
            ("RedshiftDatasetDefinition.KmsKeyId", redshift.and_then(|one| one.kms_key_id.as_deref())),
        ];
        for (field, key) in keys {
            if let Some(key) = key.filter(|key| !key.is_empty()) {
                crate::kms::check_usable(cx, &format!("ProcessingInputs.DatasetDefinition.{field}"), key)
                    .await?;
            }
        }
        if let Some(redshift) = redshift {
            crate::iam::check_assumable(cx, &redshift.cluster_role_arn).await?;
        }
    }
    Ok(())
}
