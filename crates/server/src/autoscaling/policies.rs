//! Scaling policies of scalable targets.

use std::collections::BTreeMap;

use api::application_autoscaling::{
    Alarm, DeleteScalingPolicy, DeleteScalingPolicyInput, DeleteScalingPolicyOutput, DescribeScalingPolicies,
    DescribeScalingPoliciesInput, DescribeScalingPoliciesOutput, PutScalingPolicy, PutScalingPolicyInput,
    PutScalingPolicyOutput, ScalingPolicy,
};
use serde_json::{Value, json};
use store::resources::{ListQuery, Resource, SortBy};

use super::policy::{self, Tracking};
use super::targets::TARGET;
use super::{Target, check_namespace, paged};
use crate::endpoints::scaled::Scaled;
use crate::monitoring::alarms_by_policy;
use crate::{Cx, Error, Registry, Result};

/// Kind of the record of a policy.
pub const POLICY: &str = "scaling-policy";

/// Most of a target, as in the service.
const MOST_OF_A_TARGET: usize = 50;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<PutScalingPolicy, _, _, _>(put_scaling_policy);
    registry.on::<DescribeScalingPolicies, _, _, _>(describe_scaling_policies);
    registry.on::<DeleteScalingPolicy, _, _, _>(delete_scaling_policy);
}

async fn put_scaling_policy(cx: Cx, input: PutScalingPolicyInput) -> Result<PutScalingPolicyOutput> {
    check_namespace(&cx.input)?;
    let kind = cx.input["PolicyType"].as_str().unwrap_or("StepScaling").to_owned();
    let needed = match kind.as_str() {
        "TargetTrackingScaling" => "TargetTrackingScalingPolicyConfiguration",
        "StepScaling" => "StepScalingPolicyConfiguration",
        other => return Err(Error::field(&format!("PolicyType {other}"))),
    };
    for configuration in [
        "TargetTrackingScalingPolicyConfiguration",
        "StepScalingPolicyConfiguration",
        "PredictiveScalingPolicyConfiguration",
    ] {
        let given = !cx.input[configuration].is_null();
        if given != (configuration == needed) {
            let what = if given { "does not go with" } else { "is required for" };
            return Err(Error::Validation(format!("{configuration} {what} PolicyType {kind}.")));
        }
    }
    let configuration = &cx.input[needed];
    match kind.as_str() {
        "StepScaling" => policy::read_steps(configuration).map(drop),
        _ => Tracking::read(configuration, &cx.caller.account).and_then(|tracking| {
            let scaled = cx.input["ScalableDimension"].as_str().and_then(Scaled::of_dimension);
            // A dimension that is none is refused as a target that there is not.
            scaled.map_or(Ok(()), |scaled| tracking.check(scaled))
        }),
    }
    .map_err(Error::Validation)?;
    let dimension = input.scalable_dimension.to_string();
    let target = Target { resource_id: &input.resource_id, dimension: &dimension };
    let target_name = target.name();
    let target_key = crate::sagemaker::record_key(&cx, TARGET, &target.name());
    let key = crate::sagemaker::record_key(&cx, POLICY, &format!("{}|{}", target.name(), input.policy_name));
    let now_ms = cx.state.clock.now_ms();
    let mut spec = (*cx.input).clone();
    spec["PolicyType"] = kind.into();
    let arn = format!(
        "arn:aws:autoscaling:{}:{}:scalingPolicy:{}:resource/sagemaker/{}:policyName/{}",
        cx.caller.region,
        cx.caller.account,
        uuid::Uuid::new_v4(),
        input.resource_id,
        input.policy_name
    );
    let stored = cx.state.database.write(move |session| {
        session.resource(&target_key)?;
        let has = session.find_resource(&key)?.is_some();
        if !has && of_target(session, &key.account, &key.region, &target_name)?.len() >= MOST_OF_A_TARGET {
            return Err(store::Error::Invalid(format!(
                "A scalable target can have at most {MOST_OF_A_TARGET} scaling policies; delete some first."
            )));
        }
        if session.find_resource(&key)?.is_some() {
            let changed = session.update_resource(&key, now_ms, |resource| {
                resource.spec = spec;
                Ok(())
            })?;
            session.append_event(&key, "Stored", &changed.spec, now_ms)?;
            return Ok(changed);
        }
        let resource = Resource {
            key: key.clone(),
            arn,
            status: "Stored".into(),
            spec,
            document: json!({}),
            generation: 1,
            created_at: now_ms,
            modified_at: now_ms,
        };
        session.insert_resource(&resource)?;
        session.append_event(&key, "Stored", &resource.spec, now_ms)?;
        Ok(resource)
    });
    let stored = stored.await.map_err(|error| match error {
        store::Error::Missing { .. } => Error::not_found("scalable target", input.resource_id.as_str()),
        other => other.into(),
    })?;
    cx.state.scaling.changed();
    let alarms = alarms(&cx).await?.remove(&stored.arn).unwrap_or_default();
    Ok(PutScalingPolicyOutput { policy_arn: Some(stored.arn), alarms: Some(alarms) })
}

async fn describe_scaling_policies(
    cx: Cx,
    input: DescribeScalingPoliciesInput,
) -> Result<DescribeScalingPoliciesOutput> {
    check_namespace(&cx.input)?;
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let query = ListQuery { sort_by: SortBy::Name, limit: usize::MAX, ..Default::default() };
    let page = cx
        .state
        .database
        .read(move |session| session.list_resources(&account, &region, POLICY, &query))
        .await?;
    let dimension = input.scalable_dimension.map(|dimension| dimension.to_string());
    let wanted = |resource: &Resource| {
        let spec = &resource.spec;
        let names = input.policy_names.as_deref().unwrap_or_default();
        (names.is_empty() || names.iter().any(|name| spec["PolicyName"] == name.as_str()))
            && input.resource_id.as_deref().is_none_or(|id| spec["ResourceId"] == id)
            && dimension.as_deref().is_none_or(|wanted| spec["ScalableDimension"] == wanted)
    };
    let rows: Vec<Resource> = page.resources.into_iter().filter(wanted).collect();
    let (rows, next_token) = paged(rows, input.max_results, input.next_token.as_deref())?;
    let alarms = alarms(&cx).await?;
    let shown = |row: &Resource| described(row, alarms.get(&row.arn).map_or(&[], Vec::as_slice));
    let policies = rows.iter().map(shown).collect::<Result<Vec<_>>>()?;
    Ok(DescribeScalingPoliciesOutput { scaling_policies: Some(policies), next_token })
}

/// The alarms that run scaling policies of the caller's account and region, by the policies' ARNs. Nothing stands between a policy that
/// tracks a target and its metric, so that such a policy has none.
async fn alarms(cx: &Cx) -> Result<BTreeMap<String, Vec<Alarm>>> {
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let read = cx.state.database.read(move |session| alarms_by_policy(session, &account, &region));
    let shown = |(name, arn)| Alarm { alarm_name: Some(name), alarm_arn: Some(arn) };
    let by_policy = read.await?.into_iter();
    Ok(by_policy.map(|(policy, alarms)| (policy, alarms.into_iter().map(shown).collect())).collect())
}

fn described(resource: &Resource, alarms: &[Alarm]) -> Result<ScalingPolicy> {
    let mut shown = resource.spec.clone();
    shown["PolicyARN"] = resource.arn.clone().into();
    shown["CreationTime"] = json!(resource.created_at as f64 / 1000.0);
    shown["Alarms"] = json!(alarms);
    serde_json::from_value(shown).map_err(Error::internal)
}

async fn delete_scaling_policy(cx: Cx, input: DeleteScalingPolicyInput) -> Result<DeleteScalingPolicyOutput> {
    check_namespace(&cx.input)?;
    let dimension = input.scalable_dimension.to_string();
    let target = Target { resource_id: &input.resource_id, dimension: &dimension };
    let key = crate::sagemaker::record_key(&cx, POLICY, &format!("{}|{}", target.name(), input.policy_name));
    let now_ms = cx.state.clock.now_ms();
    let removed = cx.state.database.write(move |session| {
        session.delete_resource(&key)?;
        session.append_event(&key, "Deleted", &Value::Null, now_ms)
    });
    removed.await.map_err(|error| match error {
        store::Error::Missing { .. } => Error::not_found("scaling policy", input.policy_name.as_str()),
        other => other.into(),
    })?;
    cx.state.scaling.changed();
    Ok(DeleteScalingPolicyOutput::default())
}

/// The policies of a target, by name.
///
/// # Errors
/// When the database fails.
pub fn of_target(
    session: &store::Session<'_>,
    account: &str,
    region: &str,
    target: &str,
) -> store::Result<Vec<Resource>> {
    let query = ListQuery {
        name_prefix: Some(format!("{target}|")),
        sort_by: SortBy::Name,
        limit: usize::MAX,
        ..Default::default()
    };
    Ok(session.list_resources(account, region, POLICY, &query)?.resources)
}

/// Deletes the policies of a target.
///
/// # Errors
/// When the database fails.
pub fn delete_all(
    session: &store::Session<'_>,
    account: &str,
    region: &str,
    target: &str,
) -> store::Result<()> {
    for policy in of_target(session, account, region, target)? {
        session.delete_resource(&policy.key)?;
    }
    Ok(())
}
