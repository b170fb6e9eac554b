//! Tags of log groups, by ARN and, as clients of before 2022 have it, by name.

use std::collections::BTreeMap;

use api::logs::{
    ListTagsForResource, ListTagsForResourceInput, ListTagsForResourceOutput, ListTagsLogGroup,
    ListTagsLogGroupInput, ListTagsLogGroupOutput, TagLogGroup, TagLogGroupInput, TagLogGroupOutput,
    TagResource, TagResourceInput, TagResourceOutput, UntagLogGroup, UntagLogGroupInput, UntagLogGroupOutput,
    UntagResource, UntagResourceInput, UntagResourceOutput,
};
use store::logs::{GROUP_KIND, GroupKey};

use super::{GroupArn, group_arn, named_group, refusal};
use crate::{Cx, Error, Registry, Result};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<TagResource, _, _, _>(tag_resource);
    registry.on::<UntagResource, _, _, _>(untag_resource);
    registry.on::<ListTagsForResource, _, _, _>(list_tags_for_resource);
    registry.on::<TagLogGroup, _, _, _>(tag_log_group);
    registry.on::<UntagLogGroup, _, _, _>(untag_log_group);
    registry.on::<ListTagsLogGroup, _, _, _>(list_tags_log_group);
}

/// Tags that a request gives, checked for what the model does not say.
pub(super) fn checked(tags: BTreeMap<String, String>) -> Result<Vec<(String, String)>> {
    if tags.keys().any(|key| crate::tags::is_reserved(key)) {
        return Err(Error::invalid_parameter(crate::tags::RESERVED));
    }
    Ok(tags.into_iter().collect())
}

/// The service's words for more tags than a group may have.
pub(super) fn too_many(error: store::Error) -> Error {
    match error {
        store::Error::Invalid(text) => Error::LimitExceeded(text),
        other => refusal(other),
    }
}

async fn put(cx: &Cx, key: GroupKey, tags: BTreeMap<String, String>) -> Result<()> {
    let (arn, tags) = (group_arn(&key), checked(tags)?);
    let tagged = cx.state.database.write(move |session| {
        session.require_log_group(&key)?;
        session.put_tags(&arn, &tags)
    });
    tagged.await.map_err(too_many)
}

async fn remove(cx: &Cx, key: GroupKey, names: Vec<String>) -> Result<()> {
    let arn = group_arn(&key);
    let untagged = cx.state.database.write(move |session| {
        session.require_log_group(&key)?;
        session.delete_tags(&arn, &names)
    });
    untagged.await.map_err(refusal)
}

async fn list(cx: &Cx, key: GroupKey) -> Result<BTreeMap<String, String>> {
    let arn = group_arn(&key);
    let read = cx.state.database.read(move |session| {
        session.require_log_group(&key)?;
        session.tags(&arn)
    });
    Ok(read.await.map_err(refusal)?.into_iter().collect())
}

/// The caller's group with this ARN, which has no `:*` behind.
fn of_arn(cx: &Cx, arn: &str) -> Result<GroupKey> {
    let found = GroupArn::parse(arn).filter(|_| !arn.ends_with(":*")).ok_or_else(|| {
        Error::invalid_parameter(format!(
            "{arn} is not the ARN of a log group; one looks like arn:aws:logs:REGION:ACCOUNT:log-group:NAME."
        ))
    })?;
    if found.account != cx.caller.account || found.region != cx.caller.region {
        return Err(Error::not_found(GROUP_KIND, found.name));
    }
    Ok(named_group(cx, found.name.to_owned()))
}

async fn tag_resource(cx: Cx, input: TagResourceInput) -> Result<TagResourceOutput> {
    put(&cx, of_arn(&cx, &input.resource_arn)?, input.tags).await?;
    Ok(TagResourceOutput::default())
}

async fn untag_resource(cx: Cx, input: UntagResourceInput) -> Result<UntagResourceOutput> {
    remove(&cx, of_arn(&cx, &input.resource_arn)?, input.tag_keys).await?;
    Ok(UntagResourceOutput::default())
}

async fn list_tags_for_resource(
    cx: Cx,
    input: ListTagsForResourceInput,
) -> Result<ListTagsForResourceOutput> {
    let tags = list(&cx, of_arn(&cx, &input.resource_arn)?).await?;
    Ok(ListTagsForResourceOutput { tags: Some(tags) })
}

async fn tag_log_group(cx: Cx, input: TagLogGroupInput) -> Result<TagLogGroupOutput> {
    put(&cx, named_group(&cx, input.log_group_name), input.tags).await?;
    Ok(TagLogGroupOutput::default())
}

async fn untag_log_group(cx: Cx, input: UntagLogGroupInput) -> Result<UntagLogGroupOutput> {
    remove(&cx, named_group(&cx, input.log_group_name), input.tags).await?;
    Ok(UntagLogGroupOutput::default())
}

async fn list_tags_log_group(cx: Cx, input: ListTagsLogGroupInput) -> Result<ListTagsLogGroupOutput> {
    let tags = list(&cx, named_group(&cx, input.log_group_name)).await?;
    Ok(ListTagsLogGroupOutput { tags: Some(tags) })
}
