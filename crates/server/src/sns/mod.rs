//! SNS: topics, and what is subscribed to them. A notice becomes a delivery for each subscription, in the transaction of its cause.

mod envelope;
mod publish;
mod subscription_attributes;
mod subscriptions;
mod topics;

use store::Session;
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::problem::{Problem, Result};
use crate::{Cx, Registry};

pub use publish::{Notice, publish};

/// A topic.
const TOPIC: &str = "sns-topic";
/// A subscription; its name is the topic's, a slash and an id.
const SUBSCRIPTION: &str = "sns-subscription";
/// Topics or subscriptions on a page, as in the service.
const PAGE: usize = 100;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    topics::routes(registry);
    subscriptions::routes(registry);
    subscription_attributes::routes(registry);
    publish::routes(registry);
}

/// Milliseconds since 1970 as the text that notices carry.
pub fn moment(at_ms: i64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    moment.ok().and_then(|moment| moment.format(format).ok()).unwrap_or_default()
}

fn arn(key: &ResourceKey) -> String {
    format!("arn:aws:sns:{}:{}:{}", key.region, key.account, key.name.replace('/', ":"))
}

fn missing(what: &str) -> Problem {
    Problem::Code("NotFound", format!("{what} does not exist"))
}

fn invalid(parameter: &str, reason: impl std::fmt::Display) -> Problem {
    Problem::Code("InvalidParameter", format!("Invalid parameter: {parameter} Reason: {reason}"))
}

/// The key of the topic with this ARN, of any account and region.
fn key_of(topic_arn: &str) -> Option<ResourceKey> {
    let parts: Vec<&str> = topic_arn.split(':').collect();
    match parts.as_slice() {
        ["arn", _, "sns", region, account, name] if !name.is_empty() => {
            Some(ResourceKey::new(*account, *region, TOPIC, *name))
        }
        _ => None,
    }
}

/// The key of a topic of the caller's account and region.
fn own_key(cx: &Cx, topic_arn: &str) -> Result<ResourceKey> {
    let key = key_of(topic_arn)
        .ok_or_else(|| invalid("TopicArn", format!("{topic_arn:?} is no ARN of a topic")))?;
    if key.account != cx.caller.account {
        return Err(Problem::Code("AuthorizationError", format!("{topic_arn} belongs to another account.")));
    }
    if key.region != cx.caller.region {
        return Err(invalid(
            "TopicArn",
            format!("the topic is in {}, the request in {}", key.region, cx.caller.region),
        ));
    }
    Ok(key)
}

/// A topic of the caller's account and region.
async fn find(cx: &Cx, topic_arn: &str) -> Result<Resource> {
    let key = own_key(cx, topic_arn)?;
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    found.ok_or_else(|| missing("Topic"))
}

/// Every subscription of a topic.
fn subscriptions_of(session: &Session<'_>, topic: &ResourceKey) -> store::Result<Vec<Resource>> {
    let mut query = ListQuery {
        below: Some(topic.name.clone()),
        sort_by: SortBy::Name,
        limit: PAGE,
        ..ListQuery::default()
    };
    let mut all = Vec::new();
    loop {
        let page = session.list_resources(&topic.account, &topic.region, SUBSCRIPTION, &query)?;
        all.extend(page.resources);
        match page.next_token {
            Some(token) => query.next_token = Some(token),
            None => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_lead_back_to_their_topics() {
        let key = ResourceKey::new("123456789012", "us-east-1", TOPIC, "done");
        assert_eq!(key_of(&arn(&key)), Some(key));
        assert_eq!(key_of("arn:aws:sqs:us-east-1:123456789012:done"), None);
        assert_eq!(key_of("arn:aws:sns:us-east-1:123456789012:done:some-subscription"), None);
        assert_eq!(moment(1_770_000_001_500), "2026-02-02T02:40:01.500Z");
    }
}
