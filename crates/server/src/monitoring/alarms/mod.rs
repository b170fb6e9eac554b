//! Alarms: conditions over metrics and over other alarms, judged as time passes; a new state is an event and runs actions.

mod actions;
mod composite;
mod deletion;
mod describe;
mod evaluator;
mod history;
mod judge;
mod loaded;
mod plan;
mod put;
mod readings;
mod reason;
mod record;
mod rule;
mod scaling;
mod state_operations;
mod suppression;
mod tags;
mod transition;

use std::collections::BTreeMap;

use store::Session;
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};
use tokio::sync::{Notify, watch};

use super::refusal::{Refusal, Result};
use crate::app::App;
use crate::{Cx, Registry};

pub use evaluator::start;
pub use scaling::{ScalingAlarm, alarms_by_policy, scaling_alarms};

/// Kind of an alarm in the store; alarms of both sorts share their names.
pub const ALARM: &str = "alarm";

/// What the envelope of an alarm's new state says it is.
pub const ALARM_STATE: &str = "CloudWatch Alarm State Change";

/// An alarm was made, or its settings changed.
const CONFIGURED: &str = "AlarmConfigured";

/// An alarm is gone.
const DELETED: &str = "AlarmDeleted";

/// State of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The condition does not hold.
    Ok,
    /// It does.
    Alarm,
    /// Nobody knows.
    InsufficientData,
}

impl State {
    /// In the words of the service.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Ok => "OK",
            State::Alarm => "ALARM",
            State::InsufficientData => "INSUFFICIENT_DATA",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<State> {
        [State::Ok, State::Alarm, State::InsufficientData].into_iter().find(|state| state.as_str() == name)
    }
}

/// What handlers and others of the server share with the evaluator.
#[derive(Debug)]
pub struct Alarms {
    bell: Notify,
    changes: watch::Sender<u64>,
}

impl Default for Alarms {
    fn default() -> Alarms {
        Alarms { bell: Notify::new(), changes: watch::Sender::new(0) }
    }
}

impl Alarms {
    /// Has the alarms looked at now. Without it they are looked at each second.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Changes after each commit that may hold another state of some alarm; [`states`] says which.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// The states of those of the named alarms that exist.
///
/// # Errors
/// When the database fails.
pub async fn states(
    app: &App,
    (account, region): (&str, &str),
    names: &[String],
) -> store::Result<BTreeMap<String, State>> {
    let keys: Vec<ResourceKey> =
        names.iter().map(|name| ResourceKey::new(account, region, ALARM, name)).collect();
    let read = app.database.read(move |session| {
        let mut found = BTreeMap::new();
        for key in keys {
            if let Some(alarm) = session.find_resource(&key)? {
                found.insert(alarm.key.name.clone(), state_of(&alarm));
            }
        }
        Ok(found)
    });
    read.await
}

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    put::routes(registry);
    composite::routes(registry);
    describe::routes(registry);
    history::routes(registry);
    state_operations::routes(registry);
    deletion::routes(registry);
    tags::routes(registry);
}

/// The ARN of an alarm.
fn arn(key: &ResourceKey) -> String {
    format!("arn:aws:cloudwatch:{}:{}:alarm:{}", key.region, key.account, key.name)
}

fn key(cx: &Cx, name: &str) -> ResourceKey {
    ResourceKey::new(&*cx.caller.account, &*cx.caller.region, ALARM, name)
}

/// The state of a stored alarm.
fn state_of(alarm: &Resource) -> State {
    // Only states are ever stored there.
    State::named(&alarm.status).unwrap_or(State::InsufficientData)
}

/// Whether an alarm is over other alarms.
fn is_composite(alarm: &Resource) -> bool {
    alarm.spec["AlarmRule"].is_string()
}

/// The sort of an alarm, in the words of the service.
fn type_of(alarm: &Resource) -> &'static str {
    if is_composite(alarm) { "CompositeAlarm" } else { "MetricAlarm" }
}

/// All alarms of an account and region, by name.
fn all(session: &Session<'_>, account: &str, region: &str) -> store::Result<Vec<Resource>> {
    let query = ListQuery { sort_by: SortBy::Name, limit: usize::MAX, ..ListQuery::default() };
    Ok(session.list_resources(account, region, ALARM, &query)?.resources)
}

/// The name of the alarm that a name or an ARN stands for.
fn name_of<'a>(name_or_arn: &'a str, (account, region): (&str, &str)) -> Result<&'a str> {
    if !name_or_arn.starts_with("arn:") {
        return Ok(name_or_arn);
    }
    let own = format!("arn:aws:cloudwatch:{region}:{account}:alarm:");
    name_or_arn.strip_prefix(&*own).ok_or_else(|| {
        Refusal::Validation(format!("{name_or_arn} is not the ARN of an alarm in this account and region."))
    })
}

/// Rings after a write that alarms, deliveries and whoever watches should see.
fn written(app: &App) {
    app.alarms.ring();
    app.deliveries.ring();
}
