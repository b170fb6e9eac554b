//! Scalable targets: between how many replicas a variant may move.

use api::application_autoscaling::{
    DeregisterScalableTarget, DeregisterScalableTargetInput, DeregisterScalableTargetOutput,
    DescribeScalableTargets, DescribeScalableTargetsInput, DescribeScalableTargetsOutput,
    RegisterScalableTarget, RegisterScalableTargetInput, RegisterScalableTargetOutput, ScalableTarget,
};
use serde_json::{Value, json};
use store::resources::{ListQuery, Resource, SortBy};

use super::{Target, check_namespace, paged};
use crate::{Cx, Error, Registry, Result};

/// Kind of the record of a target.
pub const TARGET: &str = "scalable-target";

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<RegisterScalableTarget, _, _, _>(register_scalable_target);
    registry.on::<DescribeScalableTargets, _, _, _>(describe_scalable_targets);
    registry.on::<DeregisterScalableTarget, _, _, _>(deregister_scalable_target);
}

async fn register_scalable_target(
    cx: Cx,
    input: RegisterScalableTargetInput,
) -> Result<RegisterScalableTargetOutput> {
    let dimension = input.scalable_dimension.to_string();
    let target = Target { resource_id: &input.resource_id, dimension: &dimension };
    target.check(&cx, &cx.input).await?;
    if input.tags.is_some() {
        return Err(Error::field("Tags"));
    }
    let key = crate::sagemaker::record_key(&cx, TARGET, &target.name());
    let (spec, now_ms) = ((*cx.input).clone(), cx.state.clock.now_ms());
    let id = uuid::Uuid::new_v4().simple().to_string();
    let arn = format!(
        "arn:aws:application-autoscaling:{}:{}:scalable-target/{id}",
        cx.caller.region, cx.caller.account
    );
    let stored = cx.state.database.write(move |session| {
        if session.find_resource(&key)?.is_some() {
            return session.update_resource(&key, now_ms, |resource| {
                // What the request leaves out keeps its value.
                merge(&mut resource.spec, &spec);
                check_range(&resource.spec)
            });
        }
        check_range(&spec)?;
        let resource = Resource {
            key: key.clone(),
            arn,
            status: "Registered".into(),
            spec,
            document: json!({}),
            generation: 1,
            created_at: now_ms,
            modified_at: now_ms,
        };
        session.insert_resource(&resource)?;
        session.append_event(&key, "Registered", &resource.spec, now_ms)?;
        Ok(resource)
    });
    Ok(RegisterScalableTargetOutput { scalable_target_arn: Some(stored.await?.arn) })
}

fn merge(stored: &mut Value, given: &Value) {
    if let (Value::Object(stored), Value::Object(given)) = (stored, given) {
        stored.extend(given.clone());
    }
}

fn check_range(spec: &Value) -> store::Result<()> {
    match (spec["MinCapacity"].as_i64(), spec["MaxCapacity"].as_i64()) {
        (Some(min), Some(max)) if min > max => Err(store::Error::Invalid(
            "Maximum capacity cannot be less than minimum capacity: MinCapacity, MaxCapacity.".into(),
        )),
        (Some(min), Some(_)) if min < 0 => {
            Err(store::Error::Invalid("MinCapacity cannot be less than 0.".into()))
        }
        (Some(_), Some(_)) => Ok(()),
        _ => Err(store::Error::Invalid(
            "MinCapacity and MaxCapacity are required when a scalable target is registered for the first time.".into(),
        )),
    }
}

async fn describe_scalable_targets(
    cx: Cx,
    input: DescribeScalableTargetsInput,
) -> Result<DescribeScalableTargetsOutput> {
    check_namespace(&cx.input)?;
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let query = ListQuery { sort_by: SortBy::Name, limit: usize::MAX, ..Default::default() };
    let page = cx
        .state
        .database
        .read(move |session| session.list_resources(&account, &region, TARGET, &query))
        .await?;
    let dimension = input.scalable_dimension.map(|dimension| dimension.to_string());
    let wanted = |resource: &Resource| {
        let id = resource.spec["ResourceId"].as_str().unwrap_or_default();
        input.resource_ids.as_ref().is_none_or(|ids| ids.is_empty() || ids.iter().any(|wanted| wanted == id))
            && dimension.as_deref().is_none_or(|wanted| resource.spec["ScalableDimension"] == wanted)
    };
    let rows: Vec<Resource> = page.resources.into_iter().filter(wanted).collect();
    let (rows, next_token) = paged(rows, input.max_results, input.next_token.as_deref())?;
    let targets = rows.iter().map(|resource| described(&cx, resource)).collect::<Result<Vec<_>>>()?;
    Ok(DescribeScalableTargetsOutput { scalable_targets: Some(targets), next_token })
}

fn described(cx: &Cx, resource: &Resource) -> Result<ScalableTarget> {
    let linked = "aws-service-role/sagemaker.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint";
    let role = format!("arn:aws:iam::{}:role/{linked}", cx.caller.account);
    let mut more = json!({
        "ScalableTargetARN": resource.arn,
        "CreationTime": resource.created_at as f64 / 1000.0,
        "SuspendedState": {
            "DynamicScalingInSuspended": false, "DynamicScalingOutSuspended": false, "ScheduledScalingSuspended": false,
        },
        "RoleARN": role,
    });
    merge(&mut more, &resource.spec);
    serde_json::from_value(more).map_err(Error::internal)
}

async fn deregister_scalable_target(
    cx: Cx,
    input: DeregisterScalableTargetInput,
) -> Result<DeregisterScalableTargetOutput> {
    check_namespace(&cx.input)?;
    let dimension = input.scalable_dimension.to_string();
    let target = Target { resource_id: &input.resource_id, dimension: &dimension };
    let key = crate::sagemaker::record_key(&cx, TARGET, &target.name());
    let (account, region, name) = (cx.caller.account.clone(), cx.caller.region.clone(), target.name());
    let now_ms = cx.state.clock.now_ms();
    let removed = cx.state.database.write(move |session| {
        session.delete_resource(&key)?;
        session.append_event(&key, "Deregistered", &Value::Null, now_ms)?;
        // The policies of a target go with it.
        super::policies::delete_all(session, &account, &region, &name)
    });
    removed.await.map_err(|error| match error {
        store::Error::Missing { .. } => Error::not_found("scalable target", input.resource_id.as_str()),
        other => other.into(),
    })?;
    Ok(DeregisterScalableTargetOutput::default())
}
