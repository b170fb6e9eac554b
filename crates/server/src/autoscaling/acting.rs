//! A change of a target's capacity: endpoint, target and activity in one transaction, then the fleet.

use serde::Deserialize;
use serde_json::{Value, json};
use store::resources::{Resource, ResourceKey};
use store::scaling::ScalingActivity;

use super::Target;
use super::activities::{self, SCALING_ACTIVITY_STATE, Told};
use super::targets::BOUNDS_CHANGED;
use super::tracking::Recent;
use crate::app::App;
use crate::endpoints::components::{self, Changed, Instances};
use crate::endpoints::scaled::Scaled;
use crate::endpoints::{EndpointRecord, capacity};
use crate::events;
use crate::sagemaker::kinds::{ENDPOINT, INFERENCE_COMPONENT};

/// Member of a target's document: what happened to its capacity lately.
const RECENT: &str = "Recent";

/// A scalable target, as it is acted upon.
#[derive(Debug, Clone)]
pub struct TargetFacts {
    /// Its record.
    pub key: ResourceKey,
    /// Its ARN.
    pub arn: String,
    /// What scales, as the service names it.
    pub resource_id: String,
    /// The endpoint.
    pub endpoint: ResourceKey,
    /// The variant.
    pub variant: String,
    /// What of it scales.
    pub scaled: Scaled,
    /// Least capacity.
    pub min: u32,
    /// Most capacity.
    pub max: u32,
    /// Whether growth by policies is suspended.
    pub out_suspended: bool,
    /// Whether shrinking by policies is suspended.
    pub in_suspended: bool,
    /// What happened lately.
    pub recent: Recent,
    /// Whether the capacity has still to follow bounds that were set.
    pub bounds_changed: bool,
}

impl TargetFacts {
    /// Reads a stored target; `None` for one whose resource is none that is scaled here.
    pub fn read(resource: &Resource) -> Option<TargetFacts> {
        let (spec, key) = (&resource.spec, &resource.key);
        let resource_id = spec["ResourceId"].as_str()?;
        let parts: Vec<&str> = resource_id.split('/').collect();
        let scaled = Scaled::of_dimension(spec["ScalableDimension"].as_str()?)?;
        // A component is an endpoint of its own there, with a variant of its name.
        let (kind, endpoint, variant) = match (scaled, &parts[..]) {
            (Scaled::Copies, ["inference-component", name]) => (INFERENCE_COMPONENT, *name, *name),
            (_, ["endpoint", endpoint, "variant", variant]) => (ENDPOINT, *endpoint, *variant),
            _ => return None,
        };
        let bound = |name: &str| spec[name].as_i64().and_then(|bound| u32::try_from(bound).ok());
        let suspended = |name: &str| spec["SuspendedState"][name] == true;
        Some(TargetFacts {
            arn: resource.arn.clone(),
            resource_id: resource_id.to_owned(),
            endpoint: ResourceKey { kind: kind.into(), name: endpoint.to_owned(), ..key.clone() },
            variant: variant.to_owned(),
            scaled,
            min: bound("MinCapacity")?,
            max: bound("MaxCapacity")?,
            out_suspended: suspended("DynamicScalingOutSuspended"),
            in_suspended: suspended("DynamicScalingInSuspended"),
            recent: Recent::deserialize(&resource.document[RECENT]).unwrap_or_default(),
            bounds_changed: resource.document[BOUNDS_CHANGED] == true,
            key: key.clone(),
        })
    }

    fn target(&self) -> Target<'_> {
        Target { resource_id: &self.resource_id, dimension: self.scaled.dimension() }
    }
}

/// Why the capacity changes.
pub struct Reason {
    /// The cause, as activities show it.
    pub cause: String,
    /// How the capacity was found.
    pub details: Option<String>,
    /// Seconds in which only larger growth follows.
    pub out_cooldown_seconds: i64,
}

/// What a change of the capacity has made of the endpoint, or of the components on one.
enum Change {
    Endpoint(Box<EndpointRecord>),
    Components(Changed),
}

/// Sets the capacity; `false` when it was changed by somebody else meanwhile, or cannot be changed now.
///
/// # Errors
/// When the database fails, or the data plane refuses.
pub async fn scale(
    app: &App,
    facts: &TargetFacts,
    (from, to): (u32, u32),
    reason: Reason,
) -> crate::Result<bool> {
    let now_ms = app.clock.now_ms();
    let moved = facts.clone();
    let instances = Instances::of(&app.capacity);
    let changed = app.database.write(move |session| {
        let Some(stored) = session.find_resource(&moved.key)? else { return Ok(None) };
        let change = match moved.scaled {
            Scaled::Copies => {
                components::scaling::set(session, &moved.endpoint, (from, to), &instances, now_ms)?
                    .map(Change::Components)
            }
            scaled => capacity::set(session, &moved.endpoint, (&*moved.variant, scaled), (from, to), now_ms)?
                .map(|record| Change::Endpoint(Box::new(record))),
        };
        let Some(change) = change else { return Ok(None) };
        let recent = Recent::deserialize(&stored.document[RECENT]).unwrap_or_default();
        session.update_resource(&moved.key, now_ms, |stored| {
            stored.document[RECENT] = json!(recent.changed(from, to, reason.out_cooldown_seconds, now_ms));
            stored.document[BOUNDS_CHANGED] = false.into();
            Ok(())
        })?;
        let told = Told {
            description: format!("Setting {} to {to}.", moved.scaled.words()),
            cause: reason.cause,
            details: reason.details,
        };
        activities::begin(session, &moved.key, &moved.target(), told, (from, to), now_ms)?;
        let detail = json!({moved.scaled.member(): to, "Before": from});
        session.append_event(&moved.key, "Scaling", &detail, now_ms)?;
        Ok(Some(change))
    });
    match changed.await? {
        None => return Ok(false),
        Some(Change::Endpoint(record)) => app.endpoints.apply(&facts.endpoint, &record)?,
        Some(Change::Components(changed)) => app.endpoints.apply_components(&changed)?,
    }
    app.scaling.changed();
    tracing::info!(endpoint = facts.endpoint.name, variant = facts.variant, from, to, "the capacity changes");
    Ok(true)
}

/// Takes down that the capacity is within the bounds that were set.
///
/// # Errors
/// When the database fails.
pub async fn bounds_followed(app: &App, facts: &TargetFacts) -> store::Result<()> {
    let (key, now_ms) = (facts.key.clone(), app.clock.now_ms());
    let noted = app.database.write(move |session| {
        session.update_resource(&key, now_ms, |stored| {
            stored.document[BOUNDS_CHANGED] = false.into();
            Ok(())
        })
    });
    noted.await.map(drop)
}

/// Takes down that a policy wanted what the bounds do not allow.
///
/// # Errors
/// When the database fails.
pub async fn refuse(
    app: &App,
    facts: &TargetFacts,
    cause: String,
    at_most: bool,
    current: u32,
) -> store::Result<()> {
    let reason = match at_most {
        true => json!({"Code": "AlreadyAtMaxCapacity", "MaxCapacity": facts.max, "CurrentCapacity": current}),
        false => {
            json!({"Code": "AlreadyAtMinCapacity", "MinCapacity": facts.min, "CurrentCapacity": current})
        }
    };
    let (facts, now_ms) = (facts.clone(), app.clock.now_ms());
    let noted = app.database.write(move |session| {
        activities::not_scaled(session, &facts.key, &facts.target(), cause, json!([reason]), now_ms)
    });
    noted.await
}

/// Ends an activity, with its event.
///
/// # Errors
/// When the database fails.
pub async fn end(
    app: &App,
    facts: &TargetFacts,
    activity: ScalingActivity,
    (status, message): (&'static str, String),
) -> store::Result<()> {
    let (facts, now_ms) = (facts.clone(), app.clock.now_ms());
    let ended = app.database.write(move |session| {
        if !session.end_scaling_activity(&activity.id, status, &message, now_ms)? {
            return Ok(());
        }
        let detail = state_detail(&facts, &activity, status, now_ms);
        let event = events::envelope(
            SCALING_ACTIVITY_STATE,
            "aws.application-autoscaling",
            &facts.key,
            &facts.arn,
            &detail,
            now_ms,
        );
        session.append_event(&facts.key, SCALING_ACTIVITY_STATE, &event, now_ms)
    });
    ended.await
}

fn state_detail(facts: &TargetFacts, activity: &ScalingActivity, status: &str, now_ms: i64) -> Value {
    let grows = activity.capacity_after > activity.capacity_before;
    json!({
        "startTime": events::moment(activity.started_at),
        "endTime": events::moment(now_ms),
        "oldDesiredCapacity": activity.capacity_before,
        "newDesiredCapacity": activity.capacity_after,
        "minCapacity": facts.min,
        "maxCapacity": facts.max,
        "resourceId": facts.resource_id,
        "scalableDimension": facts.scaled.dimension(),
        "serviceNamespace": "sagemaker",
        "statusCode": status,
        "scaledToMax": activity.capacity_after == Some(facts.max.into()),
        "direction": if grows { "scale-out" } else { "scale-in" },
    })
}
