//! DescribeAlarms and DescribeAlarmsForMetric.

use api::cloudwatch::{
    AlarmType, CompositeAlarm, DescribeAlarms, DescribeAlarmsForMetric, DescribeAlarmsForMetricInput,
    DescribeAlarmsForMetricOutput, DescribeAlarmsInput, DescribeAlarmsOutput, MetricAlarm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use store::Session;
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};

use super::super::dimension_pairs;
use super::composite::{children, composites};
use super::record::described;
use super::{ALARM, Refusal, Result, actions, is_composite};
use crate::{Cx, Error, Registry};

/// Alarms on a page, unless the caller wants another number.
const PAGE_ALARMS: usize = 50;

/// Rows that are read at a time while alarms are looked for.
const READ_ROWS: usize = 500;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<DescribeAlarms, _, _, _>(describe_alarms);
    registry.on::<DescribeAlarmsForMetric, _, _, _>(describe_alarms_for_metric);
}

async fn describe_alarms(cx: Cx, input: DescribeAlarmsInput) -> Result<DescribeAlarmsOutput> {
    check(&input)?;
    let after = input.next_token.as_deref().map(decode).transpose()?;
    let limit = input.max_records.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAGE_ALARMS);
    let place = (cx.caller.account.clone(), cx.caller.region.clone());
    let is_family = input.children_of_alarm_name.is_some() || input.parents_of_alarm_name.is_some();
    let with_states = input.children_of_alarm_name.is_some();
    let found = cx.state.database.read(move |session| {
        let place = (&*place.0, &*place.1);
        if is_family {
            return family(session, place, &input, after.as_deref(), limit);
        }
        list(session, place, &input, after.as_deref(), limit)
    });
    let mut found = found.await.map_err(|error| match error {
        store::Error::Missing { name, .. } => {
            Refusal::Validation(format!("The composite alarm {name} does not exist."))
        }
        other => other.into(),
    })?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next_token = found.last().filter(|_| has_more).map(|last| URL_SAFE_NO_PAD.encode(&*last.key.name));
    let mut output = DescribeAlarmsOutput {
        metric_alarms: Some(Vec::new()),
        composite_alarms: Some(Vec::new()),
        next_token,
        ..DescribeAlarmsOutput::default()
    };
    for alarm in &found {
        let mut shown = described(alarm)?;
        if is_family {
            shown = short(&shown, with_states);
        }
        if is_composite(alarm) {
            let alarm: CompositeAlarm = serde_json::from_value(shown).map_err(Error::internal)?;
            output.composite_alarms.get_or_insert_default().push(alarm);
        } else {
            let alarm: MetricAlarm = serde_json::from_value(shown).map_err(Error::internal)?;
            output.metric_alarms.get_or_insert_default().push(alarm);
        }
    }
    Ok(output)
}

/// What is shown of parents, and of children with their states.
fn short(shown: &Value, with_states: bool) -> Value {
    let mut members = vec!["AlarmName", "AlarmArn"];
    if with_states {
        members.extend(["StateValue", "StateUpdatedTimestamp"]);
    }
    Value::Object(members.into_iter().map(|name| (name.to_owned(), shown[name].clone())).collect())
}

fn check(input: &DescribeAlarmsInput) -> Result<()> {
    let has_names = input.alarm_names.as_ref().is_some_and(|names| !names.is_empty());
    if has_names && input.alarm_name_prefix.is_some() {
        return Err(Refusal::Combination("AlarmNames and AlarmNamePrefix exclude each other.".into()));
    }
    let families = [
        ("ChildrenOfAlarmName", input.children_of_alarm_name.is_some()),
        ("ParentsOfAlarmName", input.parents_of_alarm_name.is_some()),
    ];
    let others = has_names
        || input.alarm_name_prefix.is_some()
        || input.alarm_types.is_some()
        || input.state_value.is_some()
        || input.action_prefix.is_some();
    match families.iter().filter(|(_, given)| *given).collect::<Vec<_>>()[..] {
        [] => Ok(()),
        [_] if !others => Ok(()),
        [(name, _), ..] => {
            Err(Refusal::Combination(format!("{name} goes with MaxRecords and NextToken only.")))
        }
    }
}

fn decode(token: &str) -> Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Refusal::Token)?;
    String::from_utf8(bytes).map_err(|_| Refusal::Token)
}

/// Alarms by name: one more than fits on the page, where there are more.
fn list(
    session: &Session<'_>,
    (account, region): (&str, &str),
    input: &DescribeAlarmsInput,
    after: Option<&str>,
    limit: usize,
) -> store::Result<Vec<Resource>> {
    let types = input.alarm_types.clone().unwrap_or_default();
    // Without a word about types, metric alarms are meant.
    let types = if types.is_empty() { vec![AlarmType::MetricAlarm] } else { types };
    let is_wanted = |alarm: &Resource| {
        let own = if is_composite(alarm) { AlarmType::CompositeAlarm } else { AlarmType::MetricAlarm };
        types.contains(&own)
            && input.state_value.as_ref().is_none_or(|state| state.as_str() == alarm.status)
            && input.action_prefix.as_ref().is_none_or(|prefix| actions::any_begins(&alarm.spec, prefix))
            && after.is_none_or(|after| &*alarm.key.name > after)
    };
    let mut found = Vec::new();
    if let Some(names) = input.alarm_names.as_ref().filter(|names| !names.is_empty()) {
        let mut names = names.clone();
        names.sort();
        names.dedup();
        for name in names {
            let alarm = session.find_resource(&ResourceKey::new(account, region, ALARM, name))?;
            found.extend(alarm.filter(&is_wanted));
        }
        found.truncate(limit + 1);
        return Ok(found);
    }
    let mut query = ListQuery {
        name_prefix: input.alarm_name_prefix.clone(),
        status: input.state_value.as_ref().map(|state| state.as_str().to_owned()),
        sort_by: SortBy::Name,
        limit: READ_ROWS,
        ..ListQuery::default()
    };
    loop {
        let page = session.list_resources(account, region, ALARM, &query)?;
        found.extend(page.resources.into_iter().filter(&is_wanted));
        if found.len() > limit || page.next_token.is_none() {
            found.truncate(limit + 1);
            return Ok(found);
        }
        query.next_token = page.next_token;
    }
}

/// The alarms that a composite alarm is over, or the composite alarms that are over an alarm.
fn family(
    session: &Session<'_>,
    (account, region): (&str, &str),
    input: &DescribeAlarmsInput,
    after: Option<&str>,
    limit: usize,
) -> store::Result<Vec<Resource>> {
    let key = |name: &str| ResourceKey::new(account, region, ALARM, name);
    let mut found = Vec::new();
    if let Some(name) = &input.children_of_alarm_name {
        let parent = session.resource(&key(name))?;
        for child in children(&parent) {
            found.extend(session.find_resource(&key(&child))?);
        }
    } else if let Some(name) = &input.parents_of_alarm_name {
        session.resource(&key(name))?;
        let parents = composites(session, account, region)?.into_iter();
        found.extend(parents.filter(|(_, children)| children.contains(name)).map(|(alarm, _)| alarm));
    }
    found.sort_by(|left, right| left.key.name.cmp(&right.key.name));
    found.retain(|alarm| after.is_none_or(|after| &*alarm.key.name > after));
    found.truncate(limit + 1);
    Ok(found)
}

async fn describe_alarms_for_metric(
    cx: Cx,
    input: DescribeAlarmsForMetricInput,
) -> Result<DescribeAlarmsForMetricOutput> {
    let dimensions = dimension_pairs(input.dimensions, "Dimensions")?;
    let mut wanted = vec![("MetricName", json!(input.metric_name)), ("Namespace", json!(input.namespace))];
    wanted.extend(input.statistic.map(|statistic| ("Statistic", json!(statistic.as_str()))));
    wanted.extend(input.extended_statistic.map(|statistic| ("ExtendedStatistic", json!(statistic))));
    wanted.extend(input.period.map(|period| ("Period", json!(period))));
    wanted.extend(input.unit.map(|unit| ("Unit", json!(unit.as_str()))));
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let read = cx.state.database.read(move |session| {
        let mut found = super::all(session, &account, &region)?;
        found.retain(|alarm| {
            wanted.iter().all(|(name, value)| alarm.spec[*name] == *value) && pairs(&alarm.spec) == dimensions
        });
        found.iter().map(described).collect::<store::Result<Vec<_>>>()
    });
    let shown = read.await?;
    let alarms: Result<Vec<MetricAlarm>, _> = shown.into_iter().map(serde_json::from_value).collect();
    Ok(DescribeAlarmsForMetricOutput { metric_alarms: Some(alarms.map_err(Error::internal)?) })
}

fn pairs(spec: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let dimensions = spec["Dimensions"].as_array().into_iter().flatten();
    let mut pairs: Vec<_> = dimensions.map(|one| (text(&one["Name"]), text(&one["Value"]))).collect();
    pairs.sort();
    pairs
}
