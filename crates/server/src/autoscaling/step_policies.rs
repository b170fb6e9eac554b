//! What an alarm that triggers a step scaling policy brings about.

use serde_json::Value;

use super::acting::{self, Reason, TargetFacts};
use super::policies::POLICY;
use super::policy;
use super::steps::DEFAULT_COOLDOWN_SECONDS;
use super::targets::TARGET;
use crate::app::App;
use crate::endpoints::capacity;
use crate::{Error, Result};

/// An alarm that has gone off.
#[derive(Debug, Clone)]
pub struct Breach {
    /// Name of the alarm.
    pub alarm: String,
    /// The metric's value less the alarm's threshold.
    pub distance: f64,
}

/// Tries of a policy while others change the capacity.
const MOST_TRIES: u32 = 5;

/// Does what a step scaling policy says to a breach; `true` when the capacity changes. An alarm that stays in its state calls this again
/// for each of its periods, as in the service.
///
/// # Errors
/// [`Error::NotFound`] for an ARN of no policy, [`Error::Validation`] for one that no alarm triggers; when the database fails.
pub async fn execute_step_policy(app: &App, policy_arn: &str, breach: &Breach) -> Result<bool> {
    for _ in 0..MOST_TRIES {
        if let Some(has_changed) = attempt(app, policy_arn, breach).await? {
            return Ok(has_changed);
        }
    }
    Ok(false)
}

/// `None` when the capacity was changed by another one meanwhile.
async fn attempt(app: &App, policy_arn: &str, breach: &Breach) -> Result<Option<bool>> {
    let arn = policy_arn.to_owned();
    let found = app.database.read(move |session| {
        let policy = session.find_resource_by_arn(&arn)?.filter(|found| found.key.kind == POLICY);
        let Some(policy) = policy else { return Ok(None) };
        let target = policy.key.name.rsplit_once('|').map_or("", |(target, _)| target).to_owned();
        let key = store::resources::ResourceKey { kind: TARGET.into(), name: target, ..policy.key.clone() };
        let facts = session.find_resource(&key)?.as_ref().and_then(TargetFacts::read);
        let Some(facts) = facts else { return Ok(None) };
        let current = capacity::wanted(session, &facts.endpoint, (&facts.variant, facts.scaled))?;
        Ok(Some((policy.spec, facts, current)))
    });
    let Some((spec, facts, current)) = found.await? else {
        return Err(Error::not_found("scaling policy", policy_arn));
    };
    let configuration = &spec["StepScalingPolicyConfiguration"];
    if configuration.is_null() {
        return Err(Error::Validation(format!(
            "{policy_arn} is a target tracking policy, which watches its metric itself; an alarm triggers step scaling policies."
        )));
    }
    // The endpoint may be gone while its target is still registered.
    let Some(current) = current else { return Ok(Some(false)) };
    let steps = policy::read_steps(configuration).map_err(Error::Validation)?;
    let cooldown_seconds = steps.cooldown.unwrap_or(DEFAULT_COOLDOWN_SECONDS);
    let now_ms = app.clock.now_ms();
    let grows = facts.recent.grows(cooldown_seconds, now_ms);
    // Within the cool-down of a growth the same breach asks for no more than it got.
    let base = if grows { facts.recent.out_from.min(current) } else { current };
    let Some(wanted) = steps.capacity(breach.distance, base) else { return Ok(Some(false)) };
    let cause = cause(&spec, breach);
    // What shrinks is judged by what there is.
    let wanted =
        if wanted < base { steps.capacity(breach.distance, current).unwrap_or(wanted) } else { wanted };
    let shrinks = wanted < current && !(grows && wanted >= base);
    if wanted > current {
        if facts.out_suspended {
            return Ok(Some(false));
        }
        if current >= facts.max {
            acting::refuse(app, &facts, cause, true, current).await?;
            return Ok(Some(false));
        }
    } else if shrinks {
        if facts.in_suspended || facts.recent.shrinks(cooldown_seconds, now_ms) {
            return Ok(Some(false));
        }
        if current <= facts.min {
            acting::refuse(app, &facts, cause, false, current).await?;
            return Ok(Some(false));
        }
    } else {
        return Ok(Some(false));
    }
    let to = wanted.clamp(facts.min, facts.max);
    let details = format!("{current} to {to} {}; the step asks for {wanted}", facts.scaled.unit());
    let reason = Reason { cause, details: Some(details), out_cooldown_seconds: cooldown_seconds };
    Ok(acting::scale(app, &facts, (current, to), reason).await?.then_some(true))
}

fn cause(spec: &Value, breach: &Breach) -> String {
    let policy = spec["PolicyName"].as_str().unwrap_or_default();
    format!("monitor alarm {} in state ALARM triggered policy {policy}", breach.alarm)
}
