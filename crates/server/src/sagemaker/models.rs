//! Models: what an endpoint serves.

use api::sagemaker::{
    CreateModel, CreateModelInput, CreateModelOutput, DeleteModel, DeleteModelInput, DeleteModelOutput,
    DescribeModel, DescribeModelInput, DescribeModelOutput, ListModels, ListModelsInput, ListModelsOutput,
    ModelSummary,
};
use serde_json::{Value, json};

use super::kinds::MODEL;
use super::{fields, listing, records};
use crate::{Cx, Error, Registry, Result};

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
    "Containers.Image",
    "Containers.Mode",
    "Containers.ModelDataUrl",
    "Containers.Environment.**",
    "ExecutionRoleArn",
    "EnableNetworkIsolation",
    "Tags.**",
];

/// The one container of a model, which may be given either way.
pub fn container(spec: &Value) -> &Value {
    let primary = &spec["PrimaryContainer"];
    if primary.is_null() { &spec["Containers"][0] } else { primary }
}

/// URI of the model's archive: `ModelDataUrl`, or a compressed S3 object.
pub fn model_data(container: &Value) -> Option<&str> {
    container["ModelDataUrl"]
        .as_str()
        .or_else(|| container["ModelDataSource"]["S3DataSource"]["S3Uri"].as_str())
}

async fn create_model(cx: Cx, input: CreateModelInput) -> Result<CreateModelOutput> {
    fields::check(&cx.input, HONOURED)?;
    check(&cx.input)?;
    let tags = records::tag_pairs(input.tags.as_deref())?;
    let resource = records::new_resource(&cx, MODEL, &input.model_name, "Created", json!({}));
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

/// Rules that the model of the API cannot say.
fn check(raw: &Value) -> Result<()> {
    let containers = raw["Containers"].as_array().map_or(0, Vec::len);
    match (raw["PrimaryContainer"].is_null(), containers) {
        (false, 0) | (true, 1) => {}
        (true, 0) => return Err(Error::Validation("PrimaryContainer or Containers must be given.".into())),
        (false, _) => {
            return Err(Error::Validation("PrimaryContainer and Containers cannot both be given.".into()));
        }
        (true, _) => return Err(Error::field("Containers with more than one element")),
    }
    let container = container(raw);
    if container["Image"].is_null() {
        return Err(Error::Validation("Image must be given for the container.".into()));
    }
    if let Some(mode) = container["Mode"].as_str()
        && mode != "SingleModel"
    {
        return Err(Error::field(&format!("Mode {mode}")));
    }
    if !container["ModelDataUrl"].is_null() && !container["ModelDataSource"].is_null() {
        return Err(Error::Validation("ModelDataUrl and ModelDataSource cannot both be given.".into()));
    }
    let source = &container["ModelDataSource"]["S3DataSource"];
    for (name, works) in [("S3DataType", "S3Object"), ("CompressionType", "Gzip")] {
        if let Some(value) = source[name].as_str()
            && value != works
        {
            return Err(Error::field(&format!("ModelDataSource.S3DataSource.{name} {value}")));
        }
    }
    if let Some(uri) = model_data(container)
        && crate::training::bucket_and_key(uri).is_none_or(|(_, key)| key.is_empty() || key.ends_with('/'))
    {
        return Err(Error::Validation(format!("ModelDataUrl: {uri:?} is not the S3 URI of an object.")));
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
