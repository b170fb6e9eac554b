//! Tags of scalable targets.

use api::application_autoscaling::{
    ListTagsForResource, ListTagsForResourceInput, ListTagsForResourceOutput, TagResource, TagResourceInput,
    TagResourceOutput, UntagResource, UntagResourceInput, UntagResourceOutput,
};
use store::tags::MOST_TAGS;

use super::targets::TARGET;
use crate::problem::{Problem, Result};
use crate::{Cx, Registry, tags};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<TagResource, _, _, _>(tag_resource);
    registry.on::<UntagResource, _, _, _>(untag_resource);
    registry.on::<ListTagsForResource, _, _, _>(list_tags_for_resource);
}

/// The ARN of a target of the caller's.
async fn target(cx: &Cx, arn: &str) -> Result<String> {
    let wanted = arn.to_owned();
    let found = cx.state.database.read(move |session| session.find_resource_by_arn(&wanted)).await?;
    let own = found.filter(|found| found.key.kind == TARGET && found.key.account == cx.caller.account);
    own.map(|found| found.arn).ok_or_else(|| Problem::missing(format!("The resource {arn} was not found.")))
}

async fn tag_resource(cx: Cx, input: TagResourceInput) -> Result<TagResourceOutput> {
    let arn = target(&cx, &input.resource_arn).await?;
    let pairs: Vec<(String, String)> = input.tags.into_iter().collect();
    tags::check(&pairs)?;
    cx.state.database.write(move |session| session.put_tags(&arn, &pairs)).await.map_err(
        |error| match error {
            store::Error::Invalid(_) => Problem::Code(
                "TooManyTagsException",
                format!("A scalable target can have at most {MOST_TAGS} tags; remove some first."),
            ),
            other => other.into(),
        },
    )?;
    Ok(TagResourceOutput::default())
}

async fn untag_resource(cx: Cx, input: UntagResourceInput) -> Result<UntagResourceOutput> {
    let arn = target(&cx, &input.resource_arn).await?;
    tags::delete(&cx.state, arn, input.tag_keys).await?;
    Ok(UntagResourceOutput::default())
}

async fn list_tags_for_resource(
    cx: Cx,
    input: ListTagsForResourceInput,
) -> Result<ListTagsForResourceOutput> {
    let arn = target(&cx, &input.resource_arn).await?;
    Ok(ListTagsForResourceOutput { tags: Some(tags::of(&cx.state, &arn)?.into_iter().collect()) })
}
