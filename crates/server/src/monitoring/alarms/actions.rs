//! What alarms bring about: functions are invoked, scaling policies told. Events go to rules without being asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use store::Session;
use store::resources::Resource;

use super::super::refusal::{Refusal, Result};
use super::record::{Past, Record};
use super::transition::note;
use super::{State, is_composite, reason, state_of};
use crate::{autoscaling, deliveries, lambda, sns};

/// The lists of actions, each with the state that they are run for.
pub(super) const LISTS: [(&str, State); 3] = [
    ("OKActions", State::Ok),
    ("AlarmActions", State::Alarm),
    ("InsufficientDataActions", State::InsufficientData),
];

/// What the ARN of an action names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Function,
    ScalingPolicy,
    Topic,
}

/// What an ARN of an account and region names; the error is a sentence.
///
/// This is the one place that says which actions there are.
fn kind(arn: &str, (account, region): (&str, &str)) -> Result<Kind, String> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", _, service, own_region, owner, resource] = parts.as_slice() else {
        return Err(format!("Invalid arn syntax: {arn}"));
    };
    match *service {
        "lambda" | "autoscaling" | "sns" if *owner != account || *own_region != region => {
            Err(format!("The action {arn} belongs to another account or region."))
        }
        "lambda" if lambda::key_of_arn(arn).is_some() => Ok(Kind::Function),
        "lambda" => Err(format!("{arn} is no function; versions and aliases are not done.")),
        "autoscaling" if resource.starts_with("scalingPolicy:") => Ok(Kind::ScalingPolicy),
        "sns" => Ok(Kind::Topic),
        _ => Err(format!(
            "Modelyard does not do the action {arn}; alarms tell topics, invoke Lambda functions, run scaling policies, and are \
             events for rules of EventBridge."
        )),
    }
}

/// Checks the actions of a request, as far as they can be checked without the database; gives the scaling policies among them.
pub(super) fn check(input: &Value, place: (&str, &str)) -> Result<Vec<String>> {
    let mut policies = Vec::new();
    for (list, _) in LISTS {
        for arn in listed(input, list) {
            if kind(arn, place).map_err(Refusal::Validation)? == Kind::ScalingPolicy {
                policies.push(arn.to_owned());
            }
        }
    }
    Ok(policies)
}

fn listed<'a>(settings: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    settings[list].as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str)
}

/// The scaling policies that are actions of the state that the alarm is in.
pub(super) fn policies_of_state(alarm: &Resource) -> Vec<String> {
    let place = (&*alarm.key.account, &*alarm.key.region);
    let state = state_of(alarm);
    let lists = LISTS.iter().filter(|(_, of)| *of == state);
    let actions = lists.flat_map(|(list, _)| listed(&alarm.spec, list));
    actions.filter(|arn| kind(arn, place) == Ok(Kind::ScalingPolicy)).map(str::to_owned).collect()
}

/// The scaling policies among the actions of an alarm, each once.
pub(super) fn policies(alarm: &Resource) -> BTreeSet<&str> {
    let place = (&*alarm.key.account, &*alarm.key.region);
    let actions = LISTS.iter().flat_map(|(list, _)| listed(&alarm.spec, list));
    actions.filter(|arn| kind(arn, place) == Ok(Kind::ScalingPolicy)).collect()
}

/// Whether an action of the alarm begins with this text.
pub(super) fn any_begins(settings: &Value, prefix: &str) -> bool {
    LISTS.iter().any(|(list, _)| listed(settings, list).any(|arn| arn.starts_with(prefix)))
}

/// Runs the actions of the state that the alarm is in.
pub(super) fn run(
    session: &Session<'_>,
    alarm: &Resource,
    record: &Record,
    now_ms: i64,
) -> store::Result<()> {
    let state = state_of(alarm);
    let Some((list, _)) = LISTS.iter().find(|(_, of)| *of == state) else { return Ok(()) };
    for arn in listed(&alarm.spec, list) {
        let problem = notify(session, alarm, record, arn, now_ms)?;
        let mut data = json!({
            "version": "1.0",
            "notificationResource": arn,
            "stateUpdateTimestamp": record.transitioned_at,
            "actionState": if problem.is_none() { "Succeeded" } else { "Failed" },
        });
        let summary = match problem {
            None => format!("Successfully executed action {arn}"),
            Some(problem) => {
                tracing::warn!(alarm = alarm.arn, arn, problem, "an action of an alarm was not done");
                data["error"] = problem.into();
                format!("Failed to execute action {arn}")
            }
        };
        let summary = summary.chars().take(255).collect();
        note(session, alarm, "Action", summary, data, now_ms)?;
    }
    Ok(())
}

/// Brings what an alarm says to one resource; gives why it cannot be brought, or nothing.
fn notify(
    session: &Session<'_>,
    alarm: &Resource,
    record: &Record,
    arn: &str,
    now_ms: i64,
) -> store::Result<Option<String>> {
    let (account, region) = (&*alarm.key.account, &*alarm.key.region);
    match kind(arn, (account, region)) {
        Ok(Kind::Function) => {
            let target = deliveries::Target::Function { arn: arn.to_owned() };
            let payload = invocation(alarm, record).to_string();
            let id =
                deliveries::id_of(&[&alarm.arn, arn, &alarm.generation.to_string(), &now_ms.to_string()]);
            let delivery = deliveries::new(id, account, region, &alarm.arn, &target, payload, now_ms);
            session.insert_delivery(&delivery)?;
            Ok(None)
        }
        Ok(Kind::ScalingPolicy) => {
            let detail = event_detail(alarm, record);
            let is_told = autoscaling::on_alarm(session, arn, &alarm.arn, &detail, now_ms)?;
            Ok((!is_told).then(|| "The scaling policy does not exist.".to_owned()))
        }
        Ok(Kind::Topic) => {
            let notice = sns::Notice {
                message_id: deliveries::id_of(&[
                    &alarm.arn,
                    arn,
                    &alarm.generation.to_string(),
                    &now_ms.to_string(),
                ]),
                topic_arn: arn.to_owned(),
                subject: Some(subject(alarm)),
                message: message(alarm, record).to_string(),
                attributes: BTreeMap::new(),
            };
            let is_told = sns::publish(session, account, &notice, now_ms)?;
            Ok((!is_told).then(|| "The topic does not exist.".to_owned()))
        }
        Err(problem) => Ok(Some(problem)),
    }
}

/// The headline of what a topic is told; the service has no more than 100 characters.
fn subject(alarm: &Resource) -> String {
    let whole = format!("{}: \"{}\" in {}", alarm.status, alarm.key.name, alarm.key.region);
    whole.chars().take(100).collect()
}

/// What a topic is told.
fn message(alarm: &Resource, record: &Record) -> Value {
    let spec = &alarm.spec;
    let mut told = json!({
        "AlarmName": alarm.key.name,
        "AlarmDescription": spec["AlarmDescription"],
        "AWSAccountId": alarm.key.account,
        "AlarmConfigurationUpdatedTimestamp": reason::moment(record.configured_at),
        "NewStateValue": alarm.status,
        "NewStateReason": record.reason,
        "StateChangeTime": reason::moment(record.transitioned_at),
        "Region": alarm.key.region,
        "AlarmArn": alarm.arn,
        "OldStateValue": record.previous.as_ref().map(|past| &past.state),
    });
    for (list, _) in LISTS {
        told[list] = listed(spec, list).collect();
    }
    if is_composite(alarm) {
        told["AlarmRule"] = spec["AlarmRule"].clone();
    } else {
        let members = [
            "MetricName",
            "Namespace",
            "Statistic",
            "ExtendedStatistic",
            "Unit",
            "Dimensions",
            "Period",
            "EvaluationPeriods",
            "DatapointsToAlarm",
            "ComparisonOperator",
            "Threshold",
            "TreatMissingData",
            "Metrics",
        ];
        let given = members.iter().filter(|name| !spec[**name].is_null());
        told["Trigger"] =
            given.map(|name| ((*name).to_owned(), spec[*name].clone())).collect::<Map<_, _>>().into();
    }
    told
}

/// What a function that is an action gets.
fn invocation(alarm: &Resource, record: &Record) -> Value {
    json!({
        "source": "aws.cloudwatch",
        "alarmArn": alarm.arn,
        "accountId": alarm.key.account,
        "time": reason::moment(record.transitioned_at),
        "region": alarm.key.region,
        "alarmData": event_detail(alarm, record),
    })
}

/// What the event of an alarm's new state says of it.
pub(super) fn event_detail(alarm: &Resource, record: &Record) -> Value {
    let mut state = json!({
        "value": alarm.status,
        "reason": record.reason,
        "timestamp": reason::moment(record.transitioned_at),
    });
    if let Some(data) = &record.reason_data {
        state["reasonData"] = json!(data);
    }
    if let Some((by, why)) = &record.suppressed {
        state["actionsSuppressedBy"] = json!(by);
        state["actionsSuppressedReason"] = json!(why);
    }
    let mut detail = json!({
        "alarmName": alarm.key.name,
        "configuration": configuration(alarm),
        "state": state,
    });
    if let Some(Past { state, reason: why, reason_data, at }) = &record.previous {
        detail["previousState"] = json!({"value": state, "reason": why, "timestamp": reason::moment(*at)});
        if let Some(data) = reason_data {
            detail["previousState"]["reasonData"] = json!(data);
        }
    }
    detail
}

fn configuration(alarm: &Resource) -> Value {
    let spec = &alarm.spec;
    let mut shown = Map::new();
    let mut put = |name: &str, value: &Value| {
        if !value.is_null() {
            shown.insert(name.to_owned(), value.clone());
        }
    };
    put("description", &spec["AlarmDescription"]);
    if is_composite(alarm) {
        put("alarmRule", &spec["AlarmRule"]);
        put("actionsSuppressor", &spec["ActionsSuppressor"]);
        put("actionsSuppressorWaitPeriod", &spec["ActionsSuppressorWaitPeriod"]);
        put("actionsSuppressorExtensionPeriod", &spec["ActionsSuppressorExtensionPeriod"]);
        return Value::Object(shown);
    }
    let metrics = match spec["Metrics"].as_array() {
        Some(queries) => queries.iter().map(query).collect(),
        None => {
            let statistic =
                if spec["Statistic"].is_null() { &spec["ExtendedStatistic"] } else { &spec["Statistic"] };
            vec![json!({
                "id": deliveries::id_of(&[&alarm.arn]),
                "metricStat": metric_stat(spec, statistic, &spec["Period"], &spec["Unit"]),
                "returnData": true,
            })]
        }
    };
    put("metrics", &Value::Array(metrics));
    Value::Object(shown)
}

fn query(query: &Value) -> Value {
    let mut shown = json!({"id": query["Id"], "returnData": query["ReturnData"] != json!(false)});
    for (name, member) in [("expression", "Expression"), ("label", "Label"), ("period", "Period")] {
        if !query[member].is_null() {
            shown[name] = query[member].clone();
        }
    }
    let stat = &query["MetricStat"];
    if !stat.is_null() {
        shown["metricStat"] = metric_stat(&stat["Metric"], &stat["Stat"], &stat["Period"], &stat["Unit"]);
    }
    shown
}

fn metric_stat(metric: &Value, stat: &Value, period: &Value, unit: &Value) -> Value {
    let dimensions: Map<String, Value> = metric["Dimensions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (one["Name"].as_str().unwrap_or_default().to_owned(), one["Value"].clone()))
        .collect();
    let mut shown = json!({
        "metric": {"namespace": metric["Namespace"], "name": metric["MetricName"], "dimensions": dimensions},
        "period": period,
        "stat": stat,
    });
    if !unit.is_null() {
        shown["unit"] = unit.clone();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_told_apart_by_their_arns() {
        let place = ("123456789012", "us-east-1");
        let own = |arn: &str| kind(arn, place);
        assert_eq!(own("arn:aws:lambda:us-east-1:123456789012:function:f"), Ok(Kind::Function));
        let policy =
            "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:1:resource/sagemaker/x:policyName/p";
        assert_eq!(own(policy), Ok(Kind::ScalingPolicy));
        assert_eq!(own("arn:aws:sns:us-east-1:123456789012:t"), Ok(Kind::Topic));
        for wrong in [
            "nothing",
            "arn:aws:lambda:us-east-1:210987654321:function:f",
            "arn:aws:lambda:eu-west-1:123456789012:function:f",
            "arn:aws:lambda:us-east-1:123456789012:function:f:7",
            "arn:aws:automate:us-east-1:ec2:stop",
        ] {
            assert!(own(wrong).is_err(), "{wrong}");
        }
    }
}
