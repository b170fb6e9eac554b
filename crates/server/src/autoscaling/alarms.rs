//! Alarms whose action is a scaling policy.

use serde_json::{Value, json};
use store::Session;

use super::policies::POLICY;

/// What happened to a policy whose alarm came into a state that it is an action of.
pub const ALARMED: &str = "Alarmed";

/// Tells a scaling policy of an alarm's new state, in the transaction that brought the alarm into it: the policy's event log says what
/// is to be acted on. `false` when there is no such policy.
///
/// # Errors
/// When the database fails.
pub fn on_alarm(
    session: &Session<'_>,
    policy_arn: &str,
    alarm_arn: &str,
    detail: &Value,
    now_ms: i64,
) -> store::Result<bool> {
    let Some(policy) = session.find_resource_by_arn(policy_arn)?.filter(|found| found.key.kind == POLICY)
    else {
        return Ok(false);
    };
    let event = json!({"AlarmArn": alarm_arn, "Detail": detail});
    session.append_event(&policy.key, ALARMED, &event, now_ms)?;
    Ok(true)
}

/// The first of these ARNs that is no scaling policy of the account and region.
///
/// # Errors
/// When the database fails.
pub fn missing_policy(
    session: &Session<'_>,
    (account, region): (&str, &str),
    arns: &[String],
) -> store::Result<Option<String>> {
    for arn in arns {
        let found = session.find_resource_by_arn(arn)?;
        let is_own = found.is_some_and(|found| {
            found.key.kind == POLICY && found.key.account == account && found.key.region == region
        });
        if !is_own {
            return Ok(Some(arn.clone()));
        }
    }
    Ok(None)
}
