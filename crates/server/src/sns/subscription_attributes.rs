//! Attributes of a subscription: whether its queue gets messages raw.

use std::collections::BTreeMap;

use api::sns::{
    GetSubscriptionAttributes, GetSubscriptionAttributesInput, GetSubscriptionAttributesOutput,
    SetSubscriptionAttributes, SetSubscriptionAttributesInput, SetSubscriptionAttributesOutput,
};
use store::resources::ResourceKey;

use super::{SUBSCRIPTION, invalid, missing};
use crate::problem::{Problem, Result};
use crate::{Cx, Error, Registry};

/// The attribute that leaves the envelope away.
pub const RAW: &str = "RawMessageDelivery";

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<GetSubscriptionAttributes, _, _, _>(get_subscription_attributes);
    registry.on::<SetSubscriptionAttributes, _, _, _>(set_subscription_attributes);
}

/// Whether a subscription is raw, by an attribute that is given.
///
/// # Errors
/// For any other attribute, and where raw delivery makes no sense.
pub fn raw(protocol: &str, name: &str, value: &str) -> Result<bool> {
    if name != RAW {
        return Err(Error::field(&format!("the attribute {name} of a subscription")).into());
    }
    match (protocol, value.to_ascii_lowercase().as_str()) {
        (_, "false") => Ok(false),
        ("sqs", "true") => Ok(true),
        (_, "true") => Err(invalid("Attributes", format!("raw delivery is not for the protocol {protocol}"))),
        _ => Err(invalid("Attributes", format!("{RAW} is true or false, not {value:?}"))),
    }
}

/// The key of a subscription of the caller's account and region.
pub fn key_of(cx: &Cx, arn: &str) -> Result<ResourceKey> {
    let parts: Vec<&str> = arn.split(':').collect();
    match parts.as_slice() {
        ["arn", _, "sns", region, account, topic, id]
            if *account == cx.caller.account && *region == cx.caller.region =>
        {
            Ok(ResourceKey::new(*account, *region, SUBSCRIPTION, format!("{topic}/{id}")))
        }
        ["arn", _, "sns", _, _, _, _] => Err(missing("Subscription")),
        _ => Err(invalid("SubscriptionArn", format!("{arn:?} is no ARN of a subscription"))),
    }
}

async fn get_subscription_attributes(
    cx: Cx,
    input: GetSubscriptionAttributesInput,
) -> Result<GetSubscriptionAttributesOutput> {
    let key = key_of(&cx, &input.subscription_arn)?;
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    let subscription = found.ok_or_else(|| missing("Subscription"))?;
    let text = |name: &str| subscription.spec[name].as_str().unwrap_or_default().to_owned();
    let topic = subscription.arn.rsplit_once(':').map_or("", |(topic, _)| topic);
    let attributes = BTreeMap::from([
        ("SubscriptionArn".to_owned(), subscription.arn.clone()),
        ("TopicArn".to_owned(), topic.to_owned()),
        ("Owner".to_owned(), subscription.key.account.clone()),
        ("Protocol".to_owned(), text("Protocol")),
        ("Endpoint".to_owned(), text("Endpoint")),
        (RAW.to_owned(), (subscription.document[RAW] == true).to_string()),
        ("PendingConfirmation".to_owned(), "false".to_owned()),
        ("ConfirmationWasAuthenticated".to_owned(), "true".to_owned()),
    ]);
    Ok(GetSubscriptionAttributesOutput { attributes: Some(attributes) })
}

async fn set_subscription_attributes(
    cx: Cx,
    input: SetSubscriptionAttributesInput,
) -> Result<SetSubscriptionAttributesOutput> {
    let (key, now_ms) = (key_of(&cx, &input.subscription_arn)?, cx.state.clock.now_ms());
    let (name, value) = (input.attribute_name, input.attribute_value.unwrap_or_default());
    let set = cx.state.database.write(move |session| {
        let Some(subscription) = session.find_resource(&key)? else {
            return Ok(Err(missing("Subscription")));
        };
        let protocol = subscription.spec["Protocol"].as_str().unwrap_or_default();
        let is_raw = match raw(protocol, &name, &value) {
            Ok(is_raw) => is_raw,
            Err(problem) => return Ok(Err::<(), Problem>(problem)),
        };
        session.update_resource(&key, now_ms, |subscription| {
            subscription.document[RAW] = is_raw.into();
            Ok(())
        })?;
        Ok(Ok(()))
    });
    set.await??;
    Ok(SetSubscriptionAttributesOutput::default())
}
