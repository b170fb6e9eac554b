//! Subscriptions: queues and functions that get what a topic is told.

use api::sns::{
    ListSubscriptions, ListSubscriptionsByTopic, ListSubscriptionsByTopicInput,
    ListSubscriptionsByTopicOutput, ListSubscriptionsInput, ListSubscriptionsOutput, Subscribe,
    SubscribeInput, SubscribeOutput, Subscription, Unsubscribe, UnsubscribeInput, UnsubscribeOutput,
};
use serde_json::{Value, json};
use store::resources::{ListQuery, Page, Resource, ResourceKey, SortBy};

use super::subscription_attributes::{self, RAW};
use super::{PAGE, SUBSCRIPTION, arn, find, invalid, missing, subscriptions_of};
use crate::problem::{Problem, Result};
use crate::{Cx, Registry, lambda};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<Subscribe, _, _, _>(subscribe);
    registry.on::<Unsubscribe, _, _, _>(unsubscribe);
    registry.on::<ListSubscriptions, _, _, _>(list_subscriptions);
    registry.on::<ListSubscriptionsByTopic, _, _, _>(list_subscriptions_by_topic);
}

async fn subscribe(cx: Cx, input: SubscribeInput) -> Result<SubscribeOutput> {
    let topic = find(&cx, &input.topic_arn).await?;
    let endpoint = input.endpoint.unwrap_or_default();
    check_endpoint(&cx, &input.protocol, &endpoint)?;
    let mut is_raw = false;
    for (name, value) in input.attributes.unwrap_or_default() {
        is_raw = subscription_attributes::raw(&input.protocol, &name, &value)?;
    }
    let id = uuid::Uuid::new_v4();
    let key = ResourceKey::new(
        &*topic.key.account,
        &*topic.key.region,
        SUBSCRIPTION,
        format!("{}/{id}", topic.key.name),
    );
    let now_ms = cx.state.clock.now_ms();
    let subscription = Resource {
        arn: arn(&key),
        key,
        status: "Confirmed".into(),
        spec: json!({"Protocol": input.protocol, "Endpoint": endpoint}),
        document: json!({RAW: is_raw}),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    let subscribed = cx.state.database.write(move |session| {
        // The topic may have been deleted meanwhile.
        session.resource(&topic.key)?;
        // A second subscription of the same endpoint is the first one, as in the service.
        let known =
            subscriptions_of(session, &topic.key)?.into_iter().find(|one| one.spec == subscription.spec);
        if let Some(known) = known {
            return Ok((known.document == subscription.document).then_some(known.arn));
        }
        session.insert_resource(&subscription)?;
        session.append_event(&subscription.key, "Created", &subscription.spec, now_ms)?;
        Ok(Some(subscription.arn))
    });
    let subscribed = subscribed.await.map_err(|error| match error {
        store::Error::Missing { .. } => missing("Topic"),
        other => other.into(),
    })?;
    let already = || invalid("Attributes", "Subscription already exists with different attributes");
    Ok(SubscribeOutput { subscription_arn: Some(subscribed.ok_or_else(already)?) })
}

/// Refuses what a topic cannot tell.
fn check_endpoint(cx: &Cx, protocol: &str, endpoint: &str) -> Result<()> {
    let parts: Vec<&str> = endpoint.split(':').collect();
    let owner = match (protocol, parts.as_slice()) {
        ("sqs", ["arn", _, "sqs", _, _, name]) if name.ends_with(".fifo") => {
            return Err(invalid(
                "Endpoint",
                "a first-in-first-out queue cannot be subscribed to a standard topic",
            ));
        }
        ("sqs", ["arn", _, "sqs", _, account, _]) => *account,
        ("sqs", _) => return Err(invalid("SQS endpoint ARN", format!("{endpoint:?} is no ARN of a queue"))),
        ("lambda", _) => match lambda::key_of_arn(endpoint) {
            Some(key) if key.account == cx.caller.account => return Ok(()),
            Some(_) => "another",
            None => {
                let reason =
                    format!("{endpoint:?} is no ARN of a function; versions and aliases are not done");
                return Err(invalid("Lambda endpoint ARN", reason));
            }
        },
        (protocol, _) => {
            return Err(Problem::Code(
                "InvalidParameter",
                format!(
                    "Invalid parameter: Modelyard does not bring notices over {protocol:?}; subscribe an SQS queue (sqs) or a Lambda \
                     function (lambda)"
                ),
            ));
        }
    };
    if owner == cx.caller.account {
        return Ok(());
    }
    Err(Problem::Code("AuthorizationError", format!("{endpoint} belongs to another account.")))
}

/// Ends a subscription; one that is gone is no problem.
async fn unsubscribe(cx: Cx, input: UnsubscribeInput) -> Result<UnsubscribeOutput> {
    let (key, now_ms) =
        (subscription_attributes::key_of(&cx, &input.subscription_arn)?, cx.state.clock.now_ms());
    let ended = cx.state.database.write(move |session| {
        if session.find_resource(&key)?.is_none() {
            return Ok(());
        }
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    ended.await?;
    Ok(UnsubscribeOutput::default())
}

async fn page(cx: &Cx, topic: Option<String>, next_token: Option<String>) -> Result<Page> {
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let query =
        ListQuery { below: topic, sort_by: SortBy::Name, limit: PAGE, next_token, ..ListQuery::default() };
    let read = cx
        .state
        .database
        .read(move |session| session.list_resources(&account, &region, SUBSCRIPTION, &query));
    Ok(read.await?)
}

async fn list_subscriptions(cx: Cx, input: ListSubscriptionsInput) -> Result<ListSubscriptionsOutput> {
    let page = page(&cx, None, input.next_token).await?;
    let subscriptions = page.resources.into_iter().map(described).collect();
    Ok(ListSubscriptionsOutput { subscriptions: Some(subscriptions), next_token: page.next_token })
}

async fn list_subscriptions_by_topic(
    cx: Cx,
    input: ListSubscriptionsByTopicInput,
) -> Result<ListSubscriptionsByTopicOutput> {
    let topic = find(&cx, &input.topic_arn).await?;
    let page = page(&cx, Some(topic.key.name), input.next_token).await?;
    let subscriptions = page.resources.into_iter().map(described).collect();
    Ok(ListSubscriptionsByTopicOutput { subscriptions: Some(subscriptions), next_token: page.next_token })
}

fn described(subscription: Resource) -> Subscription {
    let text = |name: &str| subscription.spec[name].as_str().map(str::to_owned);
    Subscription {
        protocol: text("Protocol"),
        endpoint: text("Endpoint"),
        topic_arn: subscription.arn.rsplit_once(':').map(|(topic, _)| topic.to_owned()),
        subscription_arn: Some(subscription.arn),
        owner: Some(subscription.key.account),
    }
}
