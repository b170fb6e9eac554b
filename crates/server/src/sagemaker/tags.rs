//! Tags of any SageMaker resource, by ARN.

use api::sagemaker::{
    AddTags, AddTagsInput, AddTagsOutput, DeleteTags, DeleteTagsInput, DeleteTagsOutput, ListTags,
    ListTagsInput, ListTagsOutput, Tag,
};

use super::kinds::{self, MODEL_PACKAGE};
use super::package_access;
use super::records::tag_pairs;
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<AddTags, _, _, _>(add_tags);
    registry.on::<ListTags, _, _, _>(list_tags);
    registry.on::<DeleteTags, _, _, _>(delete_tags);
}

async fn add_tags(cx: Cx, input: AddTagsInput) -> Result<AddTagsOutput> {
    let arn = changeable_resource(&cx, &input.resource_arn).await?;
    let pairs = tag_pairs(Some(&input.tags))?;
    let tags = cx
        .state
        .database
        .write(move |session| {
            session.put_tags(&arn, &pairs)?;
            session.tags(&arn)
        })
        .await?;
    Ok(AddTagsOutput { tags: Some(wire_tags(tags)) })
}

async fn list_tags(cx: Cx, input: ListTagsInput) -> Result<ListTagsOutput> {
    let arn = tagged_resource(&cx, &input.resource_arn).await?;
    let tags = cx.state.database.read(move |session| session.tags(&arn)).await?;
    // A resource has at most 50 tags; a page holds at least 50.
    if input.next_token.is_some() {
        return Err(Error::Validation("The pagination token NextToken is not valid.".into()));
    }
    Ok(ListTagsOutput { tags: Some(wire_tags(tags)), next_token: None })
}

async fn delete_tags(cx: Cx, input: DeleteTagsInput) -> Result<DeleteTagsOutput> {
    let arn = changeable_resource(&cx, &input.resource_arn).await?;
    cx.state.database.write(move |session| session.delete_tags(&arn, &input.tag_keys)).await?;
    Ok(DeleteTagsOutput::default())
}

/// As [`tagged_resource`], for those that have tags of their own.
async fn changeable_resource(cx: &Cx, arn: &str) -> Result<String> {
    let tagged = tagged_resource(cx, arn).await?;
    if tagged == arn.to_lowercase() || !tagged.contains(":model-package-group/") {
        return Ok(tagged);
    }
    Err(Error::Validation(format!(
        "ResourceArn: a version has the tags of its group; change those of {tagged}."
    )))
}

/// The ARN under which the tags of a resource of the caller's account are kept; a version of a model has those of its group.
async fn tagged_resource(cx: &Cx, arn: &str) -> Result<String> {
    let wanted = arn.to_owned();
    let found = cx.state.database.read(move |session| session.find_resource_by_arn(&wanted)).await?;
    match found {
        Some(resource) if resource.key.account == cx.caller.account => {
            match package_access::group_key(&resource.key).filter(|_| resource.key.kind == MODEL_PACKAGE) {
                Some(group) => Ok(kinds::arn(&group.region, &group.account, &group.kind, &group.name)),
                None => Ok(resource.arn),
            }
        }
        _ => Err(Error::Validation(format!("Could not find the resource {arn:?}."))),
    }
}

fn wire_tags(tags: Vec<(String, String)>) -> Vec<Tag> {
    tags.into_iter().map(|(key, value)| Tag { key, value }).collect()
}
