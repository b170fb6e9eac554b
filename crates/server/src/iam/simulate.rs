//! SimulatePrincipalPolicy: what the SDK asks before it starts a job.

use api::iam::{
    EvaluationResult, PolicyEvaluationDecisionType, SimulatePrincipalPolicy, SimulatePrincipalPolicyInput,
    SimulatePrincipalPolicyOutput,
};

use super::roles::split_role_arn;
use crate::{Cx, Error, Registry, Result};

/// Registers the operation.
pub fn routes(registry: &mut Registry) {
    registry.on::<SimulatePrincipalPolicy, _, _, _>(simulate_principal_policy);
}

/// Answers with the rule that holds today: a role of the account may do everything within the account.
async fn simulate_principal_policy(
    cx: Cx,
    input: SimulatePrincipalPolicyInput,
) -> Result<SimulatePrincipalPolicyOutput> {
    for (name, given) in [
        ("PolicyInputList", input.policy_input_list.is_some()),
        ("PermissionsBoundaryPolicyInputList", input.permissions_boundary_policy_input_list.is_some()),
        ("ResourcePolicy", input.resource_policy.is_some()),
        ("ResourceHandlingOption", input.resource_handling_option.is_some()),
        ("Marker", input.marker.is_some()),
    ] {
        if given {
            return Err(Error::field(name));
        }
    }
    let missing = || Error::not_found("role", input.policy_source_arn.as_str());
    let (account, name) = split_role_arn(&input.policy_source_arn).ok_or_else(missing)?;
    let own_account = account == cx.caller.account;
    let (account, name) = (cx.caller.account.clone(), name.to_owned());
    let found = cx.state.database.read(move |session| session.role(&account, &name)).await?;
    if !own_account || found.is_none() {
        return Err(missing());
    }
    let resources = input.resource_arns.unwrap_or_else(|| vec!["*".into()]);
    let mut results = Vec::new();
    for action in &input.action_names {
        for resource in &resources {
            let allowed = within_account(resource, &cx.caller.account);
            results.push(EvaluationResult {
                eval_action_name: Some(action.clone()),
                eval_resource_name: Some(resource.clone()),
                eval_decision: Some(if allowed {
                    PolicyEvaluationDecisionType::Allowed
                } else {
                    PolicyEvaluationDecisionType::ImplicitDeny
                }),
                ..Default::default()
            });
        }
    }
    Ok(SimulatePrincipalPolicyOutput {
        evaluation_results: Some(results),
        is_truncated: Some(false),
        ..Default::default()
    })
}

/// `true` for `*`, for ARNs without an account (buckets) and for ARNs of this account.
fn within_account(resource: &str, account: &str) -> bool {
    match resource.split(':').nth(4) {
        None | Some("" | "*") => true,
        Some(owner) => owner == account,
    }
}
