//! Tags of functions.

use api::lambda::{
    ListTags, ListTagsInput, ListTagsOutput, TagResource, TagResourceInput, TagResourceOutput, UntagResource,
    UntagResourceInput, UntagResourceOutput,
};

use super::error::{Problem, Result};
use super::find;
use crate::{Cx, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<TagResource, _, _, _>(tag_resource);
    registry.on::<UntagResource, _, _, _>(untag_resource);
    registry.on::<ListTags, _, _, _>(list_tags);
}

/// Refuses tags that the service keeps for itself.
pub fn check(tags: &[(String, String)]) -> Result<()> {
    match tags.iter().find(|(key, _)| crate::tags::is_reserved(key)) {
        None => Ok(()),
        Some((key, _)) => {
            Err(Problem::invalid(format!("Tags: the key {key:?} begins with aws:, which is reserved.")))
        }
    }
}

async fn tag_resource(cx: Cx, input: TagResourceInput) -> Result<TagResourceOutput> {
    let found = find(&cx, &input.resource, None).await?;
    let tags: Vec<(String, String)> = input.tags.into_iter().collect();
    check(&tags)?;
    let tagged = cx.state.database.write(move |session| session.put_tags(&found.arn, &tags)).await;
    tagged.map_err(|error| match error {
        store::Error::Invalid(text) => Problem::invalid(text),
        other => other.into(),
    })?;
    Ok(TagResourceOutput::default())
}

async fn untag_resource(cx: Cx, input: UntagResourceInput) -> Result<UntagResourceOutput> {
    let found = find(&cx, &input.resource, None).await?;
    cx.state.database.write(move |session| session.delete_tags(&found.arn, &input.tag_keys)).await?;
    Ok(UntagResourceOutput::default())
}

async fn list_tags(cx: Cx, input: ListTagsInput) -> Result<ListTagsOutput> {
    let found = find(&cx, &input.resource, None).await?;
    let tags = cx.state.database.read(move |session| session.tags(&found.arn)).await?;
    Ok(ListTagsOutput { tags: Some(tags.into_iter().collect()) })
}
