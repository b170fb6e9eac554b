//! Whether and when a failed step is tried again.

use serde::{Deserialize, Serialize};

use super::definition::RetryPolicy;

/// Retries that a policy allows when it names no number, as in the service.
const DEFAULT_ATTEMPTS: u32 = 5;
/// A fault of a service that a step calls.
pub const SERVICE_FAULT: &str = "Step.SERVICE_FAULT";
/// Longest wait, as in the service.
const LONGEST_WAIT_SECONDS: f64 = 43_200.0;

/// What has been used up of a step's policies, by position of the policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Retries begun under each policy.
    pub retries: Vec<u32>,
    /// When each policy first applied, in milliseconds since 1970.
    pub first_failed_at: Vec<Option<i64>>,
}

/// When the next attempt begins after a failure of this kind; `None` when there is none. `used` is brought up to date.
pub fn next_attempt_at(
    policies: &[RetryPolicy],
    exception: Option<&str>,
    used: &mut Used,
    now_ms: i64,
) -> Option<i64> {
    let exception = exception?;
    let at = policies.iter().position(|policy| policy.exceptions.iter().any(|known| known == exception))?;
    let policy = &policies[at];
    used.retries.resize(policies.len(), 0);
    used.first_failed_at.resize(policies.len(), None);
    let first = *used.first_failed_at[at].get_or_insert(now_ms);
    let count = used.retries[at];
    let wait_seconds =
        policy.interval_seconds * policy.backoff_rate.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let begin_at = now_ms + (wait_seconds.clamp(0.0, LONGEST_WAIT_SECONDS) * 1000.0) as i64;
    let allowed = match (policy.expire_after_minutes, policy.max_attempts) {
        (Some(minutes), _) => begin_at <= first + i64::from(minutes) * 60_000,
        (None, most) => count < most.unwrap_or(DEFAULT_ATTEMPTS),
    };
    if !allowed {
        return None;
    }
    used.retries[at] += 1;
    Some(begin_at)
}

/// The name by which retry policies know a failure, from the code of a refused call or the reason of a failed job.
pub fn exception(code: Option<&str>, status: u16, reason: &str) -> Option<&'static str> {
    let throttled = ["ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"];
    match code {
        Some(code) if throttled.contains(&code) => return Some("Step.THROTTLING"),
        Some("ResourceLimitExceeded" | "LimitExceededException") => return Some("SageMaker.RESOURCE_LIMIT"),
        Some(_) if status >= 500 => return Some(SERVICE_FAULT),
        Some(_) => {}
        None if reason.starts_with("CapacityError") || reason.contains("InsufficientCapacity") => {
            return Some("SageMaker.CAPACITY_ERROR");
        }
        None if reason.starts_with("InternalServerError") => return Some("SageMaker.JOB_INTERNAL_ERROR"),
        None if reason.starts_with("ResourceLimitExceeded") => return Some("SageMaker.RESOURCE_LIMIT"),
        None => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(
        exceptions: &[&str],
        max_attempts: Option<u32>,
        expire_after_minutes: Option<u32>,
    ) -> RetryPolicy {
        RetryPolicy {
            exceptions: exceptions.iter().map(|name| (*name).to_owned()).collect(),
            interval_seconds: 10.0,
            backoff_rate: 3.0,
            max_attempts,
            expire_after_minutes,
        }
    }

    #[test]
    fn waits_grow_until_the_attempts_are_used_up() {
        let policies = [
            policy(&["Step.THROTTLING"], Some(2), None),
            policy(&["SageMaker.CAPACITY_ERROR"], Some(1), None),
        ];
        let mut used = Used::default();
        let mut next = |exception| next_attempt_at(&policies, exception, &mut used, 1_000);
        assert_eq!(next(Some("Step.THROTTLING")), Some(11_000));
        assert_eq!(next(Some("SageMaker.CAPACITY_ERROR")), Some(11_000));
        assert_eq!(next(Some("Step.THROTTLING")), Some(31_000));
        assert_eq!(next(Some("Step.THROTTLING")), None);
        assert_eq!(next(Some("Step.SERVICE_FAULT")), None);
        assert_eq!(next(None), None);
    }

    #[test]
    fn a_policy_with_a_time_ends_by_time() {
        let policies = [policy(&["Step.SERVICE_FAULT"], None, Some(1))];
        let mut used = Used::default();
        assert_eq!(next_attempt_at(&policies, Some("Step.SERVICE_FAULT"), &mut used, 0), Some(10_000));
        assert_eq!(next_attempt_at(&policies, Some("Step.SERVICE_FAULT"), &mut used, 20_000), Some(50_000));
        assert_eq!(next_attempt_at(&policies, Some("Step.SERVICE_FAULT"), &mut used, 55_000), None);
    }

    #[test]
    fn failures_are_told_apart() {
        assert_eq!(exception(Some("ThrottlingException"), 400, ""), Some("Step.THROTTLING"));
        assert_eq!(exception(Some("InternalFailure"), 500, ""), Some("Step.SERVICE_FAULT"));
        assert_eq!(exception(Some("ResourceLimitExceeded"), 400, ""), Some("SageMaker.RESOURCE_LIMIT"));
        assert_eq!(exception(None, 0, "CapacityError: no room"), Some("SageMaker.CAPACITY_ERROR"));
        assert_eq!(exception(None, 0, "AlgorithmError: exit code 1"), None);
        assert_eq!(exception(Some("ValidationException"), 400, ""), None);
    }
}
