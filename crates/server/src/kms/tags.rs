//! Tags of keys.

use api::kms::{
    ListResourceTags, ListResourceTagsInput, ListResourceTagsOutput, Tag, TagResource, TagResourceInput,
    TagResourceOutput, UntagResource, UntagResourceInput, UntagResourceOutput,
};
use store::keys::{Key, KeyState};

use super::error::{Problem, Result};
use super::{arn, find, id_reference, page, page_size};
use crate::{Cx, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<TagResource, _, _, _>(tag_resource);
    registry.on::<UntagResource, _, _, _>(untag_resource);
    registry.on::<ListResourceTags, _, _, _>(list_resource_tags);
}

/// Tags as pairs, each key once.
pub fn pairs(tags: Vec<Tag>) -> Result<Vec<(String, String)>> {
    let pairs: Vec<_> = tags.into_iter().map(|tag| (tag.tag_key, tag.tag_value)).collect();
    let mut names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let text = if names.windows(2).any(|two| two[0] == two[1]) {
        "Duplicate tag keys"
    } else if names.iter().any(|name| crate::tags::is_reserved(name)) {
        "aws: prefixed tag key names are not allowed for external use"
    } else {
        return Ok(pairs);
    };
    Err(Problem::Code("TagException", text.into()))
}

async fn tag_resource(cx: Cx, input: TagResourceInput) -> Result<TagResourceOutput> {
    let (arn, tags) = (arn(&taggable(&cx, &input.key_id).await?), pairs(input.tags)?);
    let tagged = cx.state.database.write(move |session| session.put_tags(&arn, &tags)).await;
    tagged.map_err(|error| match error {
        store::Error::Invalid(text) => Problem::Code("LimitExceededException", text),
        other => other.into(),
    })?;
    Ok(TagResourceOutput::default())
}

async fn untag_resource(cx: Cx, input: UntagResourceInput) -> Result<UntagResourceOutput> {
    let arn = arn(&taggable(&cx, &input.key_id).await?);
    cx.state.database.write(move |session| session.delete_tags(&arn, &input.tag_keys)).await?;
    Ok(UntagResourceOutput::default())
}

async fn taggable(cx: &Cx, key_id: &str) -> Result<Key> {
    id_reference(cx, key_id)?;
    let key = find(cx, key_id).await?;
    match key.state {
        KeyState::PendingDeletion => {
            Err(Problem::Code("KMSInvalidStateException", format!("{} is pending deletion.", arn(&key))))
        }
        KeyState::Enabled | KeyState::Disabled => Ok(key),
    }
}

async fn list_resource_tags(cx: Cx, input: ListResourceTagsInput) -> Result<ListResourceTagsOutput> {
    id_reference(&cx, &input.key_id)?;
    let arn = arn(&find(&cx, &input.key_id).await?);
    let tags = cx.state.database.read(move |session| session.tags(&arn)).await?;
    let after = input.marker.unwrap_or_default();
    let tags: Vec<Tag> = tags
        .into_iter()
        .filter(|(name, _)| *name > after)
        .map(|(tag_key, tag_value)| Tag { tag_key, tag_value })
        .collect();
    let (tags, next_marker) = page(tags, page_size(input.limit), |tag| tag.tag_key.clone());
    Ok(ListResourceTagsOutput { tags: Some(tags), truncated: Some(next_marker.is_some()), next_marker })
}
