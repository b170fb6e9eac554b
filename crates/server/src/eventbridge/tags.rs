//! Tags of rules.

use api::events::{
    ListTagsForResource, ListTagsForResourceInput, ListTagsForResourceOutput, Tag, TagResource,
    TagResourceInput, TagResourceOutput, UntagResource, UntagResourceInput, UntagResourceOutput,
};

use super::find;
use crate::problem::{Problem, Result};
use crate::{Cx, Registry, tags};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<TagResource, _, _, _>(tag_resource);
    registry.on::<UntagResource, _, _, _>(untag_resource);
    registry.on::<ListTagsForResource, _, _, _>(list_tags_for_resource);
}

/// The rule's ARN, if there is such a rule.
async fn rule(cx: &Cx, arn: &str) -> Result<String> {
    let name = arn.rsplit_once(":rule/").map(|(_, name)| name);
    let missing = || Problem::missing(format!("Resource {arn} does not exist."));
    let found = find(cx, name.ok_or_else(missing)?, None).await?;
    if found.arn == arn { Ok(found.arn) } else { Err(missing()) }
}

async fn tag_resource(cx: Cx, input: TagResourceInput) -> Result<TagResourceOutput> {
    let arn = rule(&cx, &input.resource_arn).await?;
    let pairs = input.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
    tags::put(&cx.state, arn, pairs).await?;
    Ok(TagResourceOutput::default())
}

async fn untag_resource(cx: Cx, input: UntagResourceInput) -> Result<UntagResourceOutput> {
    let arn = rule(&cx, &input.resource_arn).await?;
    tags::delete(&cx.state, arn, input.tag_keys).await?;
    Ok(UntagResourceOutput::default())
}

async fn list_tags_for_resource(
    cx: Cx,
    input: ListTagsForResourceInput,
) -> Result<ListTagsForResourceOutput> {
    let arn = rule(&cx, &input.resource_arn).await?;
    let shown = tags::of(&cx.state, &arn)?.into_iter().map(|(key, value)| Tag { key, value });
    Ok(ListTagsForResourceOutput { tags: Some(shown.collect()) })
}
