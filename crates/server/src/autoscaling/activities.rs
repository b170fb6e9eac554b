//! What was done and what was not: activities in the database, and how they are listed.

use api::application_autoscaling::{
    DescribeScalingActivities, DescribeScalingActivitiesInput, DescribeScalingActivitiesOutput,
    ScalingActivity,
};
use serde_json::{Value, json};
use store::Session;
use store::resources::ResourceKey;
use store::scaling::{self, ScalingActivityList};

use super::{Target, check_namespace};
use crate::endpoints::scaled::Scaled;
use crate::{Cx, Error, Registry, Result};

/// What the envelope of a change that has come to its end says it is.
pub const SCALING_ACTIVITY_STATE: &str = "Application Auto Scaling Scaling Activity State Change";

/// How long activities are kept: six weeks, as in the service.
const KEPT_MS: i64 = 42 * 24 * 3_600_000;

/// Registers the operations.
pub fn routes(registry: &mut Registry) {
    registry.on::<DescribeScalingActivities, _, _, _>(describe_scaling_activities);
}

/// What is said of an activity.
pub struct Told {
    /// What was to be done.
    pub description: String,
    /// Why.
    pub cause: String,
    /// More about why.
    pub details: Option<String>,
}

/// A new activity of a target.
fn new(key: &ResourceKey, target: &Target<'_>, told: Told, now_ms: i64) -> scaling::ScalingActivity {
    scaling::ScalingActivity {
        sequence: 0,
        id: uuid::Uuid::new_v4().to_string(),
        account: key.account.clone(),
        region: key.region.clone(),
        resource: target.resource_id.to_owned(),
        dimension: target.dimension.to_owned(),
        description: told.description,
        cause: told.cause,
        status: "InProgress".into(),
        message: None,
        details: told.details,
        refusals: None,
        capacity_before: None,
        capacity_after: None,
        started_at: now_ms,
        ended_at: None,
    }
}

/// Begins a change of the capacity; one that is still going on is overridden by it.
///
/// # Errors
/// When the database fails.
pub fn begin(
    session: &Session<'_>,
    key: &ResourceKey,
    target: &Target<'_>,
    told: Told,
    (from, to): (u32, u32),
    now_ms: i64,
) -> store::Result<()> {
    if let Some(open) =
        session.open_scaling_activity(&key.account, &key.region, target.resource_id, target.dimension)?
    {
        let words = Scaled::of_dimension(target.dimension).unwrap_or(Scaled::Instances).words();
        let message = format!("The {words} was set to {to} before {} was reached.", capacity(&open));
        session.end_scaling_activity(&open.id, "Overridden", &message, now_ms)?;
    }
    let activity = scaling::ScalingActivity {
        capacity_before: Some(from.into()),
        capacity_after: Some(to.into()),
        ..new(key, target, told, now_ms)
    };
    session.insert_scaling_activity(&activity, now_ms - KEPT_MS)
}

fn capacity(activity: &scaling::ScalingActivity) -> String {
    activity.capacity_after.map_or_else(|| "its capacity".into(), |capacity| capacity.to_string())
}

/// Takes down something that was done, or failed, at once.
///
/// # Errors
/// When the database fails.
pub fn note(
    session: &Session<'_>,
    key: &ResourceKey,
    target: &Target<'_>,
    told: Told,
    outcome: Result<String, String>,
    now_ms: i64,
) -> store::Result<()> {
    let (status, message) = match outcome {
        Ok(message) => ("Successful", message),
        Err(message) => ("Failed", message),
    };
    let activity = scaling::ScalingActivity {
        status: status.into(),
        message: Some(message),
        ended_at: Some(now_ms),
        ..new(key, target, told, now_ms)
    };
    session.insert_scaling_activity(&activity, now_ms - KEPT_MS)
}

/// Takes down that nothing was done, and why: `reasons` as the service has them.
///
/// # Errors
/// When the database fails.
pub fn not_scaled(
    session: &Session<'_>,
    key: &ResourceKey,
    target: &Target<'_>,
    cause: String,
    reasons: Value,
    now_ms: i64,
) -> store::Result<()> {
    let told = Told { description: "Attempting to scale due to a policy".into(), cause, details: None };
    let activity = scaling::ScalingActivity {
        status: "Failed".into(),
        refusals: Some(reasons),
        ended_at: Some(now_ms),
        ..new(key, target, told, now_ms)
    };
    session.insert_scaling_activity(&activity, now_ms - KEPT_MS)
}

async fn describe_scaling_activities(
    cx: Cx,
    input: DescribeScalingActivitiesInput,
) -> Result<DescribeScalingActivitiesOutput> {
    check_namespace(&cx.input)?;
    if input.resource_id.is_none() && input.scalable_dimension.is_some() {
        return Err(Error::Validation(
            "ScalableDimension goes with ResourceId; give both or neither.".into(),
        ));
    }
    let before = match input.next_token.as_deref().map(str::parse::<i64>) {
        None => None,
        Some(Ok(place)) => Some(place),
        Some(Err(_)) => return Err(Error::Validation("The pagination token NextToken is not valid.".into())),
    };
    let limit = input.max_results.map_or(50, |rows| rows.clamp(1, 50) as usize);
    let list = ScalingActivityList {
        resource: input.resource_id,
        dimension: input.scalable_dimension.map(|dimension| dimension.to_string()),
        with_refusals: input.include_not_scaled_activities == Some(true),
        before,
        limit: limit + 1,
    };
    let (account, region) = (cx.caller.account.clone(), cx.caller.region.clone());
    let found = cx.state.database.read(move |session| session.scaling_activities(&account, &region, &list));
    let mut found = found.await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next_token = found.last().filter(|_| has_more).map(|last| last.sequence.to_string());
    let activities = found.iter().map(described).collect::<Result<Vec<_>>>()?;
    Ok(DescribeScalingActivitiesOutput { scaling_activities: Some(activities), next_token })
}

fn described(activity: &scaling::ScalingActivity) -> Result<ScalingActivity> {
    let seconds = |at: i64| at as f64 / 1000.0;
    let shown = json!({
        "ActivityId": activity.id,
        "ServiceNamespace": "sagemaker",
        "ResourceId": activity.resource,
        "ScalableDimension": activity.dimension,
        "Description": activity.description,
        "Cause": activity.cause,
        "StartTime": seconds(activity.started_at),
        "EndTime": activity.ended_at.map(seconds),
        "StatusCode": activity.status,
        "StatusMessage": activity.message,
        "Details": activity.details,
        "NotScaledReasons": activity.refusals,
    });
    serde_json::from_value(shown).map_err(Error::internal)
}
