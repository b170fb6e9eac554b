//! PutCompositeAlarm: alarms over other alarms.

use std::collections::{BTreeMap, BTreeSet};

use api::cloudwatch::{PutCompositeAlarm, PutCompositeAlarmInput, PutCompositeAlarmOutput};
use store::Session;
use store::resources::{Resource, ResourceKey};

use super::put::{self, Put};
use super::rule::Rule;
use super::{ALARM, Refusal, Result, all, is_composite, name_of, tags};
use crate::sagemaker::fields;
use crate::{Cx, Registry};

/// Most alarms that a rule names.
const MOST_CHILDREN: usize = 100;

/// Members that are honoured.
const HONOURED: &[&str] = &[
    "AlarmName",
    "AlarmRule",
    "AlarmDescription",
    "ActionsEnabled",
    "OKActions",
    "AlarmActions",
    "InsufficientDataActions",
    "ActionsSuppressor",
    "ActionsSuppressorWaitPeriod",
    "ActionsSuppressorExtensionPeriod",
    "Tags.**",
];

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<PutCompositeAlarm, _, _, _>(put_composite_alarm);
}

async fn put_composite_alarm(cx: Cx, input: PutCompositeAlarmInput) -> Result<PutCompositeAlarmOutput> {
    fields::check(&cx.input, HONOURED)?;
    let tags = tags::checked(input.tags.clone())?;
    let place = (&*cx.caller.account, &*cx.caller.region);
    let rule = Rule::parse(&input.alarm_rule)
        .map_err(|problem| {
            Refusal::Validation(format!("AlarmRule must be a valid rule expression: {problem}."))
        })?
        .renamed(&|name| name_of(&name, place).map(str::to_owned))?;
    let children: Vec<String> = rule.alarms().into_iter().map(str::to_owned).collect();
    if children.len() > MOST_CHILDREN {
        return Err(Refusal::Named(
            "LimitExceededFault",
            format!("A rule names at most {MOST_CHILDREN} alarms; this one names {}.", children.len()),
        ));
    }
    let suppressor = suppressor(&input, place)?;
    let name = input.alarm_name;
    if suppressor.as_deref() == Some(&*name) {
        return Err(Refusal::Validation("An alarm cannot be its own ActionsSuppressor.".into()));
    }
    let put = Put { name, actions_enabled: input.actions_enabled.unwrap_or(true), tags };
    put::store(&cx, put, move |session, key| check(session, key, &children, suppressor.as_deref())).await?;
    Ok(PutCompositeAlarmOutput::default())
}

fn suppressor(input: &PutCompositeAlarmInput, place: (&str, &str)) -> Result<Option<String>> {
    let periods = [
        ("ActionsSuppressorWaitPeriod", input.actions_suppressor_wait_period),
        ("ActionsSuppressorExtensionPeriod", input.actions_suppressor_extension_period),
    ];
    for (name, seconds) in periods {
        match (&input.actions_suppressor, seconds) {
            (Some(_), None) => {
                return Err(Refusal::Validation(format!("{name} is required with ActionsSuppressor.")));
            }
            (None, Some(_)) => {
                return Err(Refusal::Validation(format!("{name} goes with ActionsSuppressor only.")));
            }
            (_, Some(seconds)) if seconds < 0 => {
                return Err(Refusal::Validation(format!("{name} must not be negative.")));
            }
            _ => {}
        }
    }
    input.actions_suppressor.as_deref().map(|name| name_of(name, place).map(str::to_owned)).transpose()
}

/// Whether all alarms exist that a composite alarm names, and none of them depends on it.
fn check(
    session: &Session<'_>,
    key: &ResourceKey,
    children: &[String],
    suppressor: Option<&str>,
) -> store::Result<()> {
    let alarm = |name: &str| ResourceKey::new(&*key.account, &*key.region, ALARM, name);
    let mut missing = Vec::new();
    for child in children {
        if *child != key.name && session.find_resource(&alarm(child))?.is_none() {
            missing.push(child.as_str());
        }
    }
    if !missing.is_empty() {
        return Err(store::Error::Invalid(format!(
            "Could not save the composite alarm as alarms [{}] in the alarm rule do not exist",
            missing.join(", ")
        )));
    }
    if let Some(suppressor) = suppressor
        && session.find_resource(&alarm(suppressor))?.is_none()
    {
        return Err(store::Error::Invalid(format!("The ActionsSuppressor {suppressor} does not exist.")));
    }
    let composites = composites(session, &key.account, &key.region)?;
    let below: BTreeMap<&str, &Vec<String>> =
        composites.iter().map(|(alarm, children)| (&*alarm.key.name, children)).collect();
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<&str> = children.iter().map(String::as_str).collect();
    while let Some(name) = waiting.pop() {
        if name == key.name {
            return Err(store::Error::Invalid(format!(
                "Could not save the composite alarm as its rule makes {name} depend on itself."
            )));
        }
        if seen.insert(name) {
            waiting.extend(below.get(name).into_iter().flat_map(|names| names.iter().map(String::as_str)));
        }
    }
    Ok(())
}

/// The composite alarms of an account and region, each with the names of the alarms that its rule names.
pub(super) fn composites(
    session: &Session<'_>,
    account: &str,
    region: &str,
) -> store::Result<Vec<(Resource, Vec<String>)>> {
    let alarms = all(session, account, region)?.into_iter().filter(is_composite);
    Ok(alarms
        .map(|alarm| {
            let children = children(&alarm);
            (alarm, children)
        })
        .collect())
}

/// The names of the alarms that a composite alarm is over.
pub(super) fn children(alarm: &Resource) -> Vec<String> {
    rule(alarm).map(|rule| rule.alarms().into_iter().map(str::to_owned).collect()).unwrap_or_default()
}

/// The rule of a stored alarm, with names only.
///
/// # Errors
/// A text for the log: it was checked when it was put.
pub(super) fn rule(alarm: &Resource) -> Result<Rule, String> {
    let place = (&*alarm.key.account, &*alarm.key.region);
    let rule = Rule::parse(alarm.spec["AlarmRule"].as_str().unwrap_or_default())?;
    rule.renamed(&|name| name_of(&name, place).map(str::to_owned).map_err(|refusal| format!("{refusal:?}")))
}
