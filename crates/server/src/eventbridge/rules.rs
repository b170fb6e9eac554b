//! Rules: make, show, list, switch, delete.

use api::events::{
    DeleteRule, DeleteRuleInput, DeleteRuleOutput, DescribeRule, DescribeRuleInput, DescribeRuleOutput,
    DisableRule, DisableRuleInput, DisableRuleOutput, EnableRule, EnableRuleInput, EnableRuleOutput,
    ListRules, ListRulesInput, ListRulesOutput, PutRule, PutRuleInput, PutRuleOutput, Rule, RuleState,
};
use serde_json::{Value, json};
use store::Session;
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};

use super::pattern::Pattern;
use super::{BUS, RULE, arn, check_bus, find, key, no_rule};
use crate::problem::{Problem, Result};
use crate::scheduler::timers;
use crate::scheduler::timetable::{Bounds, Timetable};
use crate::{Cx, Error, Registry};

/// Rules on a page.
const PAGE_RULES: i32 = 100;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<PutRule, _, _, _>(put_rule);
    registry.on::<DescribeRule, _, _, _>(describe_rule);
    registry.on::<ListRules, _, _, _>(list_rules);
    registry.on::<DeleteRule, _, _, _>(delete_rule);
    registry.on::<EnableRule, _, _, _>(enable_rule);
    registry.on::<DisableRule, _, _, _>(disable_rule);
}

/// The timetable of a rule that has one.
pub fn timetable(rule: &Resource) -> Result<Option<Timetable>, String> {
    let Some(expression) = rule.spec["ScheduleExpression"].as_str() else { return Ok(None) };
    let table = Timetable::parse(
        expression,
        &Bounds::default(),
        rule.document["ScheduledFrom"].as_i64().unwrap_or(rule.created_at),
    )?;
    if table.is_one_time() { Err("at(...) is for schedules only".into()) } else { Ok(Some(table)) }
}

/// Sets the timer of a rule as its state and expression ask.
fn set_timer(session: &Session<'_>, rule: &Resource, now_ms: i64) -> store::Result<()> {
    match timetable(rule).map_err(store::Error::Invalid)? {
        Some(table) if rule.status == "ENABLED" => {
            timers::set(session, &rule.key, &table, 0, now_ms).map(drop)
        }
        _ => session.delete_timer(&rule.key),
    }
}

/// Refuses a role that is not there or of another account.
///
/// # Errors
/// `ValidationException` naming it.
pub fn check_role(cx: &Cx, role_arn: Option<&str>) -> Result<()> {
    match role_arn {
        Some(role) if !crate::iam::is_assumable(cx, role)? => Err(Problem::validation(format!(
            "Provided role '{role}' cannot be assumed by principal 'events.amazonaws.com'."
        ))),
        _ => Ok(()),
    }
}

async fn put_rule(cx: Cx, input: PutRuleInput) -> Result<PutRuleOutput> {
    check_bus(&cx, input.event_bus_name.as_deref())?;
    if input.event_pattern.is_none() && input.schedule_expression.is_none() {
        return Err(Problem::validation(
            "Parameter(s) EventPattern or ScheduleExpression must be specified.",
        ));
    }
    if let Some(pattern) = &input.event_pattern {
        Pattern::parse(pattern).map_err(|why| {
            Problem::Code(
                "InvalidEventPatternException",
                format!("Event pattern is not valid. Reason: {why}"),
            )
        })?;
    }
    let state = input.state.as_ref().map_or("ENABLED", RuleState::as_str).to_owned();
    if !matches!(state.as_str(), "ENABLED" | "DISABLED") {
        return Err(Error::field(&format!("State {state}")).into());
    }
    check_role(&cx, input.role_arn.as_deref())?;
    let tags: Vec<(String, String)> =
        input.tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)).collect();
    crate::tags::check(&tags)?;
    let key = key(&cx, &input.name);
    let now_ms = cx.state.clock.now_ms();
    let spec = json!({
        "ScheduleExpression": input.schedule_expression,
        "EventPattern": input.event_pattern,
        "Description": input.description,
        "RoleArn": input.role_arn,
    });
    let resource = Resource {
        arn: arn(&key),
        key,
        status: state,
        spec,
        document: json!({"Targets": [], "ScheduledFrom": now_ms}),
        generation: 1,
        created_at: now_ms,
        modified_at: now_ms,
    };
    timetable(&resource)
        .map_err(|why| Problem::validation(format!("Parameter ScheduleExpression is not valid: {why}.")))?;
    let rule_arn = resource.arn.clone();
    let put = cx.state.database.write(move |session| {
        let stored = match session.find_resource(&resource.key)? {
            None => {
                session.insert_resource(&resource)?;
                session.put_tags(&resource.arn, &tags)?;
                resource
            }
            // Tags of a rule that is there are left alone, as in the service.
            Some(_) => session.update_resource(&resource.key, now_ms, |stored| {
                if stored.spec["ScheduleExpression"] != resource.spec["ScheduleExpression"] {
                    stored.document["ScheduledFrom"] = now_ms.into();
                }
                stored.spec = resource.spec.clone();
                stored.status = resource.status.clone();
                Ok(())
            })?,
        };
        set_timer(session, &stored, now_ms)
    });
    put.await?;
    cx.state.timers.ring();
    Ok(PutRuleOutput { rule_arn: Some(rule_arn) })
}

fn text(rule: &Resource, name: &str) -> Option<String> {
    rule.spec[name].as_str().map(str::to_owned)
}

async fn describe_rule(cx: Cx, input: DescribeRuleInput) -> Result<DescribeRuleOutput> {
    let rule = find(&cx, &input.name, input.event_bus_name.as_deref()).await?;
    Ok(DescribeRuleOutput {
        event_pattern: text(&rule, "EventPattern"),
        schedule_expression: text(&rule, "ScheduleExpression"),
        state: Some(state(&rule)),
        description: text(&rule, "Description"),
        role_arn: text(&rule, "RoleArn"),
        event_bus_name: Some(BUS.into()),
        created_by: Some(rule.key.account),
        arn: Some(rule.arn),
        name: Some(rule.key.name),
        managed_by: None,
    })
}

fn state(rule: &Resource) -> RuleState {
    if rule.status == "ENABLED" { RuleState::ENABLED } else { RuleState::DISABLED }
}

async fn list_rules(cx: Cx, input: ListRulesInput) -> Result<ListRulesOutput> {
    check_bus(&cx, input.event_bus_name.as_deref())?;
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let prefix = input.name_prefix.unwrap_or_default();
    let query = ListQuery {
        name_contains: Some(prefix.clone()).filter(|prefix| !prefix.is_empty()),
        sort_by: SortBy::Name,
        limit: input.limit.unwrap_or(PAGE_RULES).unsigned_abs() as usize,
        next_token: input.next_token,
        ..ListQuery::default()
    };
    let page = cx
        .state
        .database
        .read(move |session| session.list_resources(&account, &region, RULE, &query))
        .await?;
    let rules =
        page.resources.into_iter().filter(|rule| rule.key.name.starts_with(&prefix)).map(|rule| Rule {
            event_pattern: text(&rule, "EventPattern"),
            schedule_expression: text(&rule, "ScheduleExpression"),
            state: Some(state(&rule)),
            description: text(&rule, "Description"),
            role_arn: text(&rule, "RoleArn"),
            event_bus_name: Some(BUS.into()),
            arn: Some(rule.arn),
            name: Some(rule.key.name),
            managed_by: None,
        });
    Ok(ListRulesOutput { rules: Some(rules.collect()), next_token: page.next_token })
}

async fn delete_rule(cx: Cx, input: DeleteRuleInput) -> Result<DeleteRuleOutput> {
    check_bus(&cx, input.event_bus_name.as_deref())?;
    let key = key(&cx, &input.name);
    let deleted = cx.state.database.write(move |session| {
        let Some(rule) = session.find_resource(&key)? else { return Ok(Ok(())) };
        if rule.document["Targets"].as_array().is_some_and(|targets| !targets.is_empty()) {
            return Ok(Err(Problem::validation("Rule can't be deleted since it has targets.")));
        }
        session.delete_timer(&key)?;
        session.delete_resource(&key)?;
        Ok(Ok(()))
    });
    deleted.await??;
    Ok(DeleteRuleOutput::default())
}

async fn enable_rule(cx: Cx, input: EnableRuleInput) -> Result<EnableRuleOutput> {
    switch(&cx, &input.name, input.event_bus_name.as_deref(), "ENABLED").await?;
    Ok(EnableRuleOutput::default())
}

async fn disable_rule(cx: Cx, input: DisableRuleInput) -> Result<DisableRuleOutput> {
    switch(&cx, &input.name, input.event_bus_name.as_deref(), "DISABLED").await?;
    Ok(DisableRuleOutput::default())
}

async fn switch(cx: &Cx, name: &str, bus: Option<&str>, state: &'static str) -> Result<()> {
    check_bus(cx, bus)?;
    let (key, now_ms) = (key(cx, name), cx.state.clock.now_ms());
    let switched = cx.state.database.write(move |session| {
        let rule = session.update_resource(&key, now_ms, |rule| {
            rule.status = state.into();
            Ok(())
        })?;
        set_timer(session, &rule, now_ms)
    });
    missing(switched.await, name)?;
    cx.state.timers.ring();
    Ok(())
}

/// Changes the list of targets of a rule.
pub async fn change_targets(
    cx: &Cx,
    name: &str,
    change: impl FnOnce(&mut Vec<Value>) -> Result<()> + Send + 'static,
) -> Result<()> {
    let (key, now_ms): (ResourceKey, i64) = (key(cx, name), cx.state.clock.now_ms());
    let changed = cx.state.database.write(move |session| {
        let mut targets = session.resource(&key)?.document["Targets"].as_array().cloned().unwrap_or_default();
        if let Err(problem) = change(&mut targets) {
            return Ok(Err(problem));
        }
        session.update_resource(&key, now_ms, |rule| {
            rule.document["Targets"] = Value::Array(targets);
            Ok(())
        })?;
        Ok(Ok(()))
    });
    missing(changed.await, name)?
}

fn missing<T>(result: store::Result<T>, name: &str) -> Result<T> {
    result.map_err(|error| match error {
        store::Error::Missing { .. } => no_rule(name),
        other => other.into(),
    })
}
