//! Scalable targets: between how many replicas a variant may move.

use api::application_autoscaling::{
    DeregisterScalableTarget, DeregisterScalableTargetInput, DeregisterScalableTargetOutput,
    DescribeScalableTargets, DescribeScalableTargetsInput, DescribeScalableTargetsOutput,
    RegisterScalableTarget, RegisterScalableTargetInput, RegisterScalableTargetOutput, ScalableTarget,
};
use serde_json::{Value, json};
use store::Session;
use store::resources::{ListQuery, Resource, ResourceKey, SortBy};

use super::{Target, check_namespace, paged};
use crate::endpoints::scaled::Scaled;
use crate::{Cx, Error, Registry, Result};

/// Kind of the record of a target.
pub const TARGET: &str = "scalable-target";

/// Member of its document: whether the capacity has still to follow bounds that were set.
pub const BOUNDS_CHANGED: &str = "BoundsChanged";

/// Whether policies may scale an inference component.
///
/// # Errors
/// When the database fails.
pub fn is_scaled(session: &Session<'_>, component: &ResourceKey) -> store::Result<bool> {
    let resource_id = format!("inference-component/{}", component.name);
    let target = Target { resource_id: &resource_id, dimension: Scaled::Copies.dimension() };
    let key = ResourceKey { kind: TARGET.into(), name: target.name(), ..component.clone() };
    let stored = session.find_resource(&key)?;
    Ok(stored.is_some_and(|stored| stored.spec["MaxCapacity"].as_u64().is_some_and(|most| most > 0)))
}

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
    let tags: Vec<(String, String)> = input.tags.unwrap_or_default().into_iter().collect();
    crate::tags::check(&tags)?;
    let key = crate::sagemaker::record_key(&cx, TARGET, &target.name());
    let (mut spec, now_ms) = ((*cx.input).clone(), cx.state.clock.now_ms());
    if let Some(members) = spec.as_object_mut() {
        members.shift_remove("Tags");
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    let arn = format!(
        "arn:aws:application-autoscaling:{}:{}:scalable-target/{id}",
        cx.caller.region, cx.caller.account
    );
    let stored = cx.state.database.write(move |session| {
        if session.find_resource(&key)?.is_some() {
            if !tags.is_empty() {
                return Err(store::Error::Invalid(
                    "Tags can be given only when a scalable target is registered for the first time; use TagResource.".into(),
                ));
            }
            let changed = session.update_resource(&key, now_ms, |resource| {
                // What the request leaves out keeps its value.
                merge(&mut resource.spec, &spec);
                resource.document[BOUNDS_CHANGED] = true.into();
                check_range(&resource.spec)
            })?;
            session.append_event(&key, "Registered", &changed.spec, now_ms)?;
            return Ok(changed);
        }
        check_range(&spec)?;
        let resource = Resource {
            key: key.clone(),
            arn,
            status: "Registered".into(),
            spec,
            document: json!({BOUNDS_CHANGED: true}),
            generation: 1,
            created_at: now_ms,
            modified_at: now_ms,
        };
        session.insert_resource(&resource)?;
        session.put_tags(&resource.arn, &tags)?;
        session.append_event(&key, "Registered", &resource.spec, now_ms)?;
        Ok(resource)
    });
    let stored = stored.await?;
    cx.state.scaling.changed();
    Ok(RegisterScalableTargetOutput { scalable_target_arn: Some(stored.arn) })
}

/// Lays what is given over what is stored, member by member.
pub fn merge(stored: &mut Value, given: &Value) {
    if let (Value::Object(stored), Value::Object(given)) = (stored, given) {
        for (name, value) in given {
            match stored.get_mut(name) {
                Some(inner) if inner.is_object() && value.is_object() => merge(inner, value),
                _ => {
                    stored.insert(name.clone(), value.clone());
                }
            }
        }
    }
}

/// Refuses bounds that are none.
///
/// # Errors
/// [`store::Error::Invalid`].
pub fn check_range(spec: &Value) -> store::Result<()> {
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
    let (resource_id, of_dimension) = (input.resource_id.clone(), dimension.clone());
    let now_ms = cx.state.clock.now_ms();
    let removed = cx.state.database.write(move |session| {
        session.delete_resource(&key)?;
        session.append_event(&key, "Deregistered", &Value::Null, now_ms)?;
        // What belongs to a target goes with it; what was done stays.
        if let Some(open) = session.open_scaling_activity(&account, &region, &resource_id, &of_dimension)? {
            session.end_scaling_activity(
                &open.id,
                "Unfulfilled",
                "The scalable target was deregistered before.",
                now_ms,
            )?;
        }
        super::scheduled_actions::delete_all(session, &key)?;
        super::policies::delete_all(session, &account, &region, &name)
    });
    removed.await.map_err(|error| match error {
        store::Error::Missing { .. } => Error::not_found("scalable target", input.resource_id.as_str()),
        other => other.into(),
    })?;
    cx.state.scaling.changed();
    Ok(DeregisterScalableTargetOutput::default())
}
