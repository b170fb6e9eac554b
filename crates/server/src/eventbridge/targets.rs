//! Targets of rules.

use api::events::{
    ListRuleNamesByTarget, ListRuleNamesByTargetInput, ListRuleNamesByTargetOutput, ListTargetsByRule,
    ListTargetsByRuleInput, ListTargetsByRuleOutput, PutTargets, PutTargetsInput, PutTargetsOutput,
    RemoveTargets, RemoveTargetsInput, RemoveTargetsOutput, Target,
};
use serde::Deserialize;
use serde_json::Value;

use super::input::Shaping;
use super::{Destination, RULE, check_bus, destination, find, rules};
use crate::deliveries::{self, RetryPolicy};
use crate::problem::{Problem, Result};
use crate::sagemaker::fields;
use crate::{Cx, Error, Registry};

/// Most targets of one rule.
const MOST_TARGETS: usize = 5;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<PutTargets, _, _, _>(put_targets);
    registry.on::<RemoveTargets, _, _, _>(remove_targets);
    registry.on::<ListTargetsByRule, _, _, _>(list_targets_by_rule);
    registry.on::<ListRuleNamesByTarget, _, _, _>(list_rule_names_by_target);
}

/// A target of a rule, as it is stored.
pub struct RuleTarget {
    /// Its id within the rule.
    pub id: String,
    /// Where it brings events.
    pub target: deliveries::Target,
    /// What it brings.
    pub shaping: Shaping,
    /// How often it tries, where the rule says so.
    pub policy: Option<RetryPolicy>,
    /// Queue for what could not be brought.
    pub dead_letter: Option<String>,
}

impl RuleTarget {
    /// Reads a target in the form of the request.
    ///
    /// # Errors
    /// A text for people.
    pub fn read(value: &Value, account: &str) -> Result<RuleTarget, String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let parameters = value["SageMakerPipelineParameters"]["PipelineParameterList"].as_array();
        let parameters = parameters.into_iter().flatten();
        let more = Destination {
            role_arn: text(&value["RoleArn"]),
            group: text(&value["SqsParameters"]["MessageGroupId"]),
            parameters: parameters
                .filter_map(|one| Some((text(&one["Name"])?, text(&one["Value"])?)))
                .collect(),
        };
        let target = destination(value["Arn"].as_str().unwrap_or_default(), account, more)?;
        let shaping = Shaping::deserialize(value).map_err(|error| error.to_string())?;
        shaping.check()?;
        let dead_letter = text(&value["DeadLetterConfig"]["Arn"]);
        if let Some(queue) = &dead_letter {
            match destination(
                queue,
                account,
                Destination { group: Some("-".into()), ..Destination::default() },
            )? {
                deliveries::Target::Queue { .. } => {}
                _ => return Err(format!("DeadLetterConfig.Arn: {queue} is no queue")),
            }
        }
        Ok(RuleTarget {
            id: text(&value["Id"]).unwrap_or_default(),
            target,
            shaping,
            policy: retry_policy(&value["RetryPolicy"]),
            dead_letter,
        })
    }
}

/// The retry policy of a target, where it has one.
pub fn retry_policy(value: &Value) -> Option<RetryPolicy> {
    let default = RetryPolicy::default();
    let value = value.as_object()?;
    let number = |name: &str, default: i64| value.get(name).and_then(Value::as_i64).unwrap_or(default);
    Some(RetryPolicy {
        most_retries: number("MaximumRetryAttempts", default.most_retries),
        most_age_seconds: number("MaximumEventAgeInSeconds", default.most_age_seconds),
    })
}

async fn put_targets(cx: Cx, input: PutTargetsInput) -> Result<PutTargetsOutput> {
    check_bus(&cx, input.event_bus_name.as_deref())?;
    let honoured = [
        "Rule",
        "EventBusName",
        "Targets.Id",
        "Targets.Arn",
        "Targets.RoleArn",
        "Targets.Input",
        "Targets.InputPath",
        "Targets.InputTransformer.**",
        "Targets.SqsParameters.MessageGroupId",
        "Targets.SageMakerPipelineParameters.**",
        "Targets.DeadLetterConfig.Arn",
        "Targets.RetryPolicy.MaximumRetryAttempts",
        "Targets.RetryPolicy.MaximumEventAgeInSeconds",
    ];
    fields::check(&cx.input, &honoured)?;
    let given = cx.input["Targets"].as_array().cloned().unwrap_or_default();
    for target in &given {
        let id = target["Id"].as_str().unwrap_or_default();
        RuleTarget::read(target, &cx.caller.account).map_err(|why| {
            Problem::validation(format!("Parameter Targets is not valid for target {id}: {why}."))
        })?;
        rules::check_role(&cx, target["RoleArn"].as_str())?;
    }
    rules::change_targets(&cx, &input.rule, move |targets| {
        for target in given {
            targets.retain(|known| known["Id"] != target["Id"]);
            targets.push(target);
        }
        if targets.len() > MOST_TARGETS {
            let text = format!(
                "The requested resource exceeds the maximum number allowed: {MOST_TARGETS} targets of a rule."
            );
            return Err(Problem::Code("LimitExceededException", text));
        }
        Ok(())
    })
    .await?;
    Ok(PutTargetsOutput { failed_entry_count: Some(0), failed_entries: Some(Vec::new()) })
}

async fn remove_targets(cx: Cx, input: RemoveTargetsInput) -> Result<RemoveTargetsOutput> {
    check_bus(&cx, input.event_bus_name.as_deref())?;
    rules::change_targets(&cx, &input.rule, move |targets| {
        targets.retain(|known| !input.ids.iter().any(|id| known["Id"] == id.as_str()));
        Ok(())
    })
    .await?;
    Ok(RemoveTargetsOutput { failed_entry_count: Some(0), failed_entries: Some(Vec::new()) })
}

async fn list_targets_by_rule(cx: Cx, input: ListTargetsByRuleInput) -> Result<ListTargetsByRuleOutput> {
    // A rule has fewer targets than the smallest page.
    if input.next_token.is_some() {
        return Err(Problem::validation("The pagination token NextToken is not valid."));
    }
    let rule = find(&cx, &input.rule, input.event_bus_name.as_deref()).await?;
    let targets = Vec::<Target>::deserialize(&rule.document["Targets"]).map_err(Error::internal)?;
    Ok(ListTargetsByRuleOutput { targets: Some(targets), next_token: None })
}

async fn list_rule_names_by_target(
    cx: Cx,
    input: ListRuleNamesByTargetInput,
) -> Result<ListRuleNamesByTargetOutput> {
    check_bus(&cx, input.event_bus_name.as_deref())?;
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let limit = input.limit.unwrap_or(100).unsigned_abs() as usize;
    let after = input.next_token.unwrap_or_default();
    let rules = cx.state.database.read(|session| session.all_resources(RULE)).await?;
    let named = rules.into_iter().filter(|rule| rule.key.account == account && rule.key.region == region);
    let named = named.filter(|rule| {
        let mut targets = rule.document["Targets"].as_array().into_iter().flatten();
        targets.any(|target| target["Arn"] == input.target_arn.as_str())
    });
    let mut names: Vec<String> = named.map(|rule| rule.key.name).filter(|name| *name > after).collect();
    let more = names.len() > limit;
    names.truncate(limit);
    let next_token = names.last().cloned().filter(|_| more);
    Ok(ListRuleNamesByTargetOutput { rule_names: Some(names), next_token })
}
