//! Models: what an endpoint serves.

use api::sagemaker::{
    CreateModel, CreateModelInput, CreateModelOutput, DeleteModel, DeleteModelInput, DeleteModelOutput,
    DescribeModel, DescribeModelInput, DescribeModelOutput, ListModels, ListModelsInput, ListModelsOutput,
    ModelSummary,
};
use serde_json::{Value, json};

use super::kinds::MODEL;
use super::{fields, listing, multi_container, package_deployment, records};
use crate::endpoints::model_data::ModelForm;
use crate::{Cx, Error, Registry, Result};

/// The words of the API for the objects below a prefix, and for data that is no archive.
const PREFIX: &str = "S3Prefix";
const UNCOMPRESSED: &str = "None";

/// The word of the API for a container of many models.
const MULTI_MODEL: &str = "MultiModel";

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateModel, _, _, _>(create_model);
    registry.on::<DescribeModel, _, _, _>(describe_model);
    registry.on::<ListModels, _, _, _>(list_models);
    registry.on::<DeleteModel, _, _, _>(delete_model);
}

const HONOURED: &[&str] = &[
    "ModelName",
    "PrimaryContainer.Image",
    "PrimaryContainer.Mode",
    "PrimaryContainer.ModelDataUrl",
    "PrimaryContainer.ModelDataSource.S3DataSource.S3Uri",
    "PrimaryContainer.ModelDataSource.S3DataSource.S3DataType",
    "PrimaryContainer.ModelDataSource.S3DataSource.CompressionType",
    "PrimaryContainer.Environment.**",
    "PrimaryContainer.ModelPackageName",
    "PrimaryContainer.InferenceSpecificationName",
    "PrimaryContainer.ContainerHostname",
    "PrimaryContainer.MultiModelConfig.ModelCacheSetting",
    "Containers.Image",
    "Containers.Mode",
    "Containers.ModelDataUrl",
    "Containers.ModelDataSource.S3DataSource.S3Uri",
    "Containers.ModelDataSource.S3DataSource.S3DataType",
    "Containers.ModelDataSource.S3DataSource.CompressionType",
    "Containers.ContainerHostname",
    "Containers.MultiModelConfig.ModelCacheSetting",
    "Containers.Environment.**",
    "Containers.ModelPackageName",
    "Containers.InferenceSpecificationName",
    "InferenceExecutionConfig.Mode",
    "ExecutionRoleArn",
    "EnableNetworkIsolation",
    "Tags.**",
];

/// The one container of a model, which may be given either way; the first where there are several.
pub fn container(spec: &Value) -> &Value {
    let primary = &spec["PrimaryContainer"];
    if primary.is_null() { &spec["Containers"][0] } else { primary }
}

/// All containers of a model.
pub fn containers(spec: &Value) -> Vec<&Value> {
    match spec["Containers"].as_array() {
        Some(containers) if spec["PrimaryContainer"].is_null() => containers.iter().collect(),
        _ => vec![&spec["PrimaryContainer"]],
    }
}

/// Whether a container has many models.
pub fn has_many_models(container: &Value) -> bool {
    container["Mode"] == MULTI_MODEL
}

/// URI of the model's data: `ModelDataUrl`, or that of `ModelDataSource`.
pub fn model_data(container: &Value) -> Option<&str> {
    container["ModelDataUrl"]
        .as_str()
        .or_else(|| container["ModelDataSource"]["S3DataSource"]["S3Uri"].as_str())
}

/// What there is at that URI.
pub fn model_form(container: &Value) -> ModelForm {
    let source = &container["ModelDataSource"]["S3DataSource"];
    match source["CompressionType"].as_str() {
        Some(UNCOMPRESSED) if source["S3DataType"] == PREFIX => ModelForm::Files,
        Some(UNCOMPRESSED) => ModelForm::File,
        _ => ModelForm::Archive,
    }
}

async fn create_model(cx: Cx, input: CreateModelInput) -> Result<CreateModelOutput> {
    fields::check(&cx.input, HONOURED)?;
    check_containers(&cx.input)?;
    let (cx, document) = package_deployment::resolve(cx).await?;
    for container in containers(&cx.input) {
        check(container)?;
    }
    multi_container::check(&cx.input)?;
    if let Some(role) = &input.execution_role_arn {
        crate::iam::check_assumable(&cx, role).await?;
    }
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let resource = records::new_resource(&cx, MODEL, &input.model_name, "Created", document);
    let arn = resource.arn.clone();
    records::insert(&cx, resource, tags, "Cannot create already existing model", false).await.map_err(
        |error| {
            match error {
                // The service says ValidationException for a taken model name.
                Error::Exists { .. } => {
                    Error::Validation(format!("Cannot create already existing model \"{arn}\"."))
                }
                other => other,
            }
        },
    )?;
    Ok(CreateModelOutput { model_arn: Some(arn) })
}

/// The one container may be given in one of two ways.
fn check_containers(raw: &Value) -> Result<()> {
    let containers = raw["Containers"].as_array().map_or(0, Vec::len);
    match (raw["PrimaryContainer"].is_null(), containers) {
        (false, 0) | (true, 1..) => {}
        (true, 0) => return Err(Error::Validation("PrimaryContainer or Containers must be given.".into())),
        (false, _) => {
            return Err(Error::Validation("PrimaryContainer and Containers cannot both be given.".into()));
        }
    }
    Ok(())
}

/// Rules for a container that the model of the API cannot say.
fn check(container: &Value) -> Result<()> {
    if container["Image"].is_null() {
        return Err(Error::Validation("Image must be given for the container.".into()));
    }
    let has_many = has_many_models(container);
    if !has_many && !container["MultiModelConfig"].is_null() {
        return Err(Error::Validation("MultiModelConfig needs Mode MultiModel.".into()));
    }
    if !container["ModelDataUrl"].is_null() && !container["ModelDataSource"].is_null() {
        return Err(Error::Validation("ModelDataUrl and ModelDataSource cannot both be given.".into()));
    }
    if has_many {
        return check_prefix(container);
    }
    let source = &container["ModelDataSource"]["S3DataSource"];
    let form = model_form(container);
    if source["S3DataType"] == PREFIX && form != ModelForm::Files {
        return Err(Error::Validation(
            "ModelDataSource.S3DataSource: S3DataType S3Prefix needs CompressionType None; an archive is an S3Object."
                .into(),
        ));
    }
    let Some(uri) = model_data(container) else { return Ok(()) };
    let key = crate::training::bucket_and_key(uri).map(|(_, key)| key);
    match form {
        ModelForm::Files if key.is_none_or(|key| !key.ends_with('/')) => Err(Error::Validation(format!(
            "ModelDataSource.S3DataSource.S3Uri: {uri:?} is not an S3 prefix that ends with a slash."
        ))),
        ModelForm::Archive | ModelForm::File
            if key.is_none_or(|key| key.is_empty() || key.ends_with('/')) =>
        {
            Err(Error::Validation(format!("ModelDataUrl: {uri:?} is not the S3 URI of an object.")))
        }
        _ => Ok(()),
    }
}

/// The models of a container that has many lie below a prefix.
fn check_prefix(container: &Value) -> Result<()> {
    if !container["ModelDataSource"].is_null() {
        return Err(Error::field("ModelDataSource with Mode MultiModel"));
    }
    if !container["ModelPackageName"].is_null() {
        return Err(Error::field("ModelPackageName with Mode MultiModel"));
    }
    let Some(uri) = container["ModelDataUrl"].as_str() else {
        return Err(Error::Validation(
            "ModelDataUrl must be given for Mode MultiModel: the S3 prefix below which the archives lie."
                .into(),
        ));
    };
    if crate::training::bucket_and_key(uri).is_none() {
        return Err(Error::Validation(format!("ModelDataUrl: {uri:?} is not an S3 URI.")));
    }
    Ok(())
}

async fn describe_model(cx: Cx, input: DescribeModelInput) -> Result<DescribeModelOutput> {
    let resource = records::find(&cx, MODEL, &input.model_name).await?;
    records::described(
        &resource,
        json!({
            "ModelArn": resource.arn,
            "CreationTime": records::seconds(resource.created_at),
        }),
    )
}

async fn list_models(cx: Cx, input: ListModelsInput) -> Result<ListModelsOutput> {
    let filters = listing::Filters {
        name_contains: input.name_contains,
        created_after: input.creation_time_after,
        created_before: input.creation_time_before,
        sort_by: input.sort_by.map(|column| column.to_string()),
        sort_order: input.sort_order.map(|order| order.to_string()),
        max_results: input.max_results,
        next_token: input.next_token,
        ..Default::default()
    };
    let page = listing::page(&cx, MODEL, filters, "Descending").await?;
    let models = page.resources.into_iter().map(|resource| ModelSummary {
        model_name: Some(resource.key.name),
        model_arn: Some(resource.arn),
        creation_time: Some(api::Timestamp::from_millis(resource.created_at)),
    });
    Ok(ListModelsOutput { models: Some(models.collect()), next_token: page.next_token })
}

async fn delete_model(cx: Cx, input: DeleteModelInput) -> Result<DeleteModelOutput> {
    let resource = records::find(&cx, MODEL, &input.model_name).await?;
    records::delete(&cx, resource.key).await?;
    Ok(DeleteModelOutput::default())
}
