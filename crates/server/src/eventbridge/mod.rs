//! EventBridge: rules over what happens here, over what callers put, and over time; their targets get it through the deliveries.

mod dispatch;
mod input;
mod pattern;
mod put_events;
mod rules;
mod tags;
mod target;
mod targets;

use store::resources::{Resource, ResourceKey};

use crate::problem::{Problem, Result};
use crate::{Cx, Registry};

pub use dispatch::{fire, start};
pub use target::{Destination, destination};

/// Kind of a rule in the store.
pub const RULE: &str = "event-rule";

/// The one event bus that there is.
const BUS: &str = "default";

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    rules::routes(registry);
    targets::routes(registry);
    put_events::routes(registry);
    tags::routes(registry);
}

/// The ARN of a rule.
fn arn(key: &ResourceKey) -> String {
    format!("arn:aws:events:{}:{}:rule/{}", key.region, key.account, key.name)
}

/// Refuses any event bus but the default one.
fn check_bus(cx: &Cx, bus: Option<&str>) -> Result<()> {
    let own = format!("arn:aws:events:{}:{}:event-bus/{BUS}", cx.caller.region, cx.caller.account);
    match bus {
        None | Some(BUS) => Ok(()),
        Some(bus) if bus == own => Ok(()),
        Some(bus) => Err(Problem::missing(format!("Event bus {bus} does not exist."))),
    }
}

fn key(cx: &Cx, name: &str) -> ResourceKey {
    ResourceKey::new(&*cx.caller.account, &*cx.caller.region, RULE, name)
}

fn no_rule(name: &str) -> Problem {
    Problem::missing(format!("Rule {name} does not exist on EventBus {BUS}."))
}

async fn find(cx: &Cx, name: &str, bus: Option<&str>) -> Result<Resource> {
    check_bus(cx, bus)?;
    let key = key(cx, name);
    let found = cx.state.database.read(move |session| session.find_resource(&key)).await?;
    found.ok_or_else(|| no_rule(name))
}
