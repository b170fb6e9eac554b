//! Topics: make, delete, list, and their attributes.

use std::collections::BTreeMap;

use api::sns::{
    CreateTopic, CreateTopicInput, CreateTopicOutput, DeleteTopic, DeleteTopicInput, DeleteTopicOutput,
    GetTopicAttributes, GetTopicAttributesInput, GetTopicAttributesOutput, ListTopics, ListTopicsInput,
    ListTopicsOutput, Topic,
};
use serde_json::{Value, json};
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};

use super::{PAGE, TOPIC, arn, find, invalid, own_key, subscriptions_of};
use crate::problem::Result;
use crate::{Cx, Error, Registry};

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<CreateTopic, _, _, _>(create_topic);
    registry.on::<DeleteTopic, _, _, _>(delete_topic);
    registry.on::<ListTopics, _, _, _>(list_topics);
    registry.on::<GetTopicAttributes, _, _, _>(get_topic_attributes);
}

async fn create_topic(cx: Cx, input: CreateTopicInput) -> Result<CreateTopicOutput> {
    crate::sagemaker::fields::check(&cx.input, &["Name", "Attributes.**", "Tags.**"])?;
    let name = &input.name;
    if name.ends_with(".fifo") {
        return Err(Error::field("a first-in-first-out topic").into());
    }
    let fits = (1..=256).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if !fits {
        return Err(invalid("Topic Name", "a name has 1 to 256 letters, digits, hyphens and underscores"));
    }
    let mut display_name = None;
    for (attribute, value) in input.attributes.unwrap_or_default() {
        match (attribute.as_str(), value.as_str()) {
            ("DisplayName", _) => display_name = Some(value),
            ("FifoTopic", "false") => {}
            _ => return Err(Error::field(&format!("Attributes.{attribute} {value}")).into()),
        }
    }
    let tags: Vec<(String, String)> =
        input.tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)).collect();
    if tags.iter().any(|(key, _)| crate::tags::is_reserved(key)) {
        return Err(invalid("Tags", crate::tags::RESERVED));
    }
    let key = ResourceKey::new(&*cx.caller.account, &*cx.caller.region, TOPIC, name);
    let now_ms = cx.state.clock.now_ms();
    let topic = Resource {
        arn: arn(&key),
        key,
        status: "Created".into(),
        spec: json!({"DisplayName": display_name}),
        document: Value::Null,
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    let topic_arn = topic.arn.clone();
    let made = cx.state.database.write(move |session| {
        if let Some(there) = session.find_resource(&topic.key)? {
            return Ok(there.spec == topic.spec || topic.spec["DisplayName"].is_null());
        }
        session.insert_resource(&topic)?;
        session.put_tags(&topic.arn, &tags)?;
        session.append_event(&topic.key, "Created", &topic.spec, now_ms)?;
        Ok(true)
    });
    match made.await? {
        true => Ok(CreateTopicOutput { topic_arn: Some(topic_arn) }),
        false => Err(invalid("Attributes", "Topic already exists with different attributes")),
    }
}

/// Deletes a topic with its subscriptions; one that is gone is no problem.
async fn delete_topic(cx: Cx, input: DeleteTopicInput) -> Result<DeleteTopicOutput> {
    let (key, now_ms) = (own_key(&cx, &input.topic_arn)?, cx.state.clock.now_ms());
    let deleted = cx.state.database.write(move |session| {
        if session.find_resource(&key)?.is_none() {
            return Ok(());
        }
        for subscription in subscriptions_of(session, &key)? {
            session.delete_resource(&subscription.key)?;
            session.append_event(&subscription.key, "Deleted", &Value::Null, now_ms)?;
        }
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    deleted.await?;
    Ok(DeleteTopicOutput::default())
}

async fn list_topics(cx: Cx, input: ListTopicsInput) -> Result<ListTopicsOutput> {
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let query = ListQuery {
        sort_by: SortBy::Name,
        limit: PAGE,
        next_token: input.next_token,
        ..ListQuery::default()
    };
    let read =
        cx.state.database.read(move |session| session.list_resources(&account, &region, TOPIC, &query));
    let page = read.await?;
    let topics = page.resources.into_iter().map(|topic| Topic { topic_arn: Some(topic.arn) });
    Ok(ListTopicsOutput { topics: Some(topics.collect()), next_token: page.next_token })
}

async fn get_topic_attributes(cx: Cx, input: GetTopicAttributesInput) -> Result<GetTopicAttributesOutput> {
    let topic = find(&cx, &input.topic_arn).await?;
    let key = topic.key.clone();
    let subscribed = cx.state.database.read(move |session| subscriptions_of(session, &key)).await?.len();
    let attributes = BTreeMap::from([
        ("TopicArn".to_owned(), topic.arn),
        ("Owner".to_owned(), topic.key.account),
        ("DisplayName".to_owned(), topic.spec["DisplayName"].as_str().unwrap_or_default().to_owned()),
        ("SubscriptionsConfirmed".to_owned(), subscribed.to_string()),
        ("SubscriptionsPending".to_owned(), "0".to_owned()),
        ("SubscriptionsDeleted".to_owned(), "0".to_owned()),
    ]);
    Ok(GetTopicAttributesOutput { attributes: Some(attributes) })
}
