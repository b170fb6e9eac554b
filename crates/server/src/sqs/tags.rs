//! Tags of queues.

use api::sqs::{
    ListQueueTags, ListQueueTagsInput, ListQueueTagsOutput, TagQueue, TagQueueInput, TagQueueOutput,
    UntagQueue, UntagQueueInput, UntagQueueOutput,
};

use super::error::{Problem, Result};
use super::find;
use crate::{Cx, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<TagQueue, _, _, _>(tag_queue);
    registry.on::<UntagQueue, _, _, _>(untag_queue);
    registry.on::<ListQueueTags, _, _, _>(list_queue_tags);
}

/// Refuses tags that the service does not take.
pub fn check(tags: &[(String, String)]) -> Result<()> {
    let fits = |(key, value): &(String, String)| {
        (1..=128).contains(&key.chars().count())
            && value.chars().count() <= 256
            && !crate::tags::is_reserved(key)
    };
    match tags.iter().find(|tag| !fits(tag)) {
        None => Ok(()),
        Some((key, _)) => {
            let reason =
                "Tag keys have 1 to 128 letters and do not begin with aws:, and tag values have at most 256.";
            Err(Problem::parameter(key, "Tags", reason))
        }
    }
}

async fn tag_queue(cx: Cx, input: TagQueueInput) -> Result<TagQueueOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    let tags: Vec<(String, String)> = input.tags.into_iter().collect();
    check(&tags)?;
    let tagged = cx.state.database.write(move |session| session.put_tags(&queue.arn, &tags)).await;
    tagged.map_err(|error| match error {
        store::Error::Invalid(text) => Problem::new("InvalidParameterValue", text),
        other => other.into(),
    })?;
    Ok(TagQueueOutput::default())
}

async fn untag_queue(cx: Cx, input: UntagQueueInput) -> Result<UntagQueueOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    cx.state.database.write(move |session| session.delete_tags(&queue.arn, &input.tag_keys)).await?;
    Ok(UntagQueueOutput::default())
}

async fn list_queue_tags(cx: Cx, input: ListQueueTagsInput) -> Result<ListQueueTagsOutput> {
    let queue = find(&cx, &input.queue_url).await?;
    let tags = cx.state.database.read(move |session| session.tags(&queue.arn)).await?;
    let tags =
        Some(tags.into_iter().collect()).filter(|tags: &std::collections::BTreeMap<_, _>| !tags.is_empty());
    Ok(ListQueueTagsOutput { tags })
}
