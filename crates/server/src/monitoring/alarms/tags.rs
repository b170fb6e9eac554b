//! Tags of alarms.

use api::cloudwatch::{
    ListTagsForResource, ListTagsForResourceInput, ListTagsForResourceOutput, Tag, TagResource,
    TagResourceInput, TagResourceOutput, UntagResource, UntagResourceInput, UntagResourceOutput,
};

use super::put::in_own_words;
use super::{Refusal, Result};
use crate::{Cx, Registry, tags};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<TagResource, _, _, _>(tag_resource);
    registry.on::<UntagResource, _, _, _>(untag_resource);
    registry.on::<ListTagsForResource, _, _, _>(list_tags_for_resource);
}

/// Keys and values of tags, unless a key is reserved.
pub(super) fn checked(given: Option<Vec<Tag>>) -> Result<Vec<(String, String)>> {
    let pairs: Vec<(String, String)> =
        given.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)).collect();
    match pairs.iter().any(|(key, _)| tags::is_reserved(key)) {
        true => Err(Refusal::Validation(tags::RESERVED.into())),
        false => Ok(pairs),
    }
}

/// The ARN, if it is that of an alarm of the caller.
async fn alarm(cx: &Cx, arn: String) -> Result<String> {
    let name =
        super::name_of(&arn, (&cx.caller.account, &cx.caller.region)).ok().filter(|name| **name != arn);
    let missing =
        || Refusal::Named("ResourceNotFoundException", format!("There is no alarm with the ARN {arn}."));
    let key = super::key(cx, name.ok_or_else(missing)?);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    found.map(|alarm| alarm.arn).ok_or_else(missing)
}

async fn tag_resource(cx: Cx, input: TagResourceInput) -> Result<TagResourceOutput> {
    let arn = alarm(&cx, input.resource_arn).await?;
    let tags = checked(Some(input.tags))?;
    cx.state.database.write(move |session| session.put_tags(&arn, &tags)).await.map_err(in_own_words)?;
    Ok(TagResourceOutput::default())
}

async fn untag_resource(cx: Cx, input: UntagResourceInput) -> Result<UntagResourceOutput> {
    let arn = alarm(&cx, input.resource_arn).await?;
    tags::delete(&cx.state, arn, input.tag_keys).await?;
    Ok(UntagResourceOutput::default())
}

async fn list_tags_for_resource(
    cx: Cx,
    input: ListTagsForResourceInput,
) -> Result<ListTagsForResourceOutput> {
    let arn = alarm(&cx, input.resource_arn).await?;
    let shown = tags::of(&cx.state, &arn)?.into_iter().map(|(key, value)| Tag { key, value });
    Ok(ListTagsForResourceOutput { tags: Some(shown.collect()) })
}
