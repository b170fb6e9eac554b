//! Step scaling: which step a breach falls into, and what it makes of a capacity.

use serde::Deserialize;

/// One step of a policy; its bounds count from the alarm's threshold.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Step {
    /// Where it begins; without, it has no beginning.
    pub metric_interval_lower_bound: Option<f64>,
    /// Where it ends; without, it has no end.
    pub metric_interval_upper_bound: Option<f64>,
    /// What it does.
    pub scaling_adjustment: i64,
}

/// What an adjustment means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(clippy::enum_variant_names, reason = "they have the names of the service")]
pub enum AdjustmentType {
    /// It is added.
    ChangeInCapacity,
    /// It is the new capacity.
    ExactCapacity,
    /// This part of the capacity is added.
    PercentChangeInCapacity,
}

/// A step scaling policy, as its configuration says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Steps {
    /// What the adjustments mean.
    pub adjustment_type: AdjustmentType,
    /// The steps.
    pub step_adjustments: Vec<Step>,
    /// The least change in instances, of percentages.
    pub min_adjustment_magnitude: Option<i64>,
    /// Seconds after a change in which there is no other.
    pub cooldown: Option<i64>,
}

/// Seconds of a cool-down where the policy says none, as in the service.
pub const DEFAULT_COOLDOWN_SECONDS: i64 = 300;

impl Steps {
    /// Checks what the model of the service cannot say.
    ///
    /// # Errors
    /// A sentence that names the member.
    pub fn check(&self) -> Result<(), String> {
        if self.step_adjustments.is_empty() {
            return Err("StepAdjustments must have at least one step.".into());
        }
        if self.step_adjustments.len() > 20 {
            return Err("StepAdjustments must have at most 20 steps.".into());
        }
        if self.cooldown.is_some_and(|seconds| seconds < 0) {
            return Err("Cooldown must not be below 0.".into());
        }
        match (self.min_adjustment_magnitude, self.adjustment_type) {
            (Some(_), AdjustmentType::ChangeInCapacity | AdjustmentType::ExactCapacity) => {
                return Err(
                    "MinAdjustmentMagnitude goes with AdjustmentType PercentChangeInCapacity only.".into()
                );
            }
            (Some(magnitude), _) if magnitude < 1 => {
                return Err("MinAdjustmentMagnitude must be at least 1.".into());
            }
            _ => {}
        }
        let negative = |step: &Step| step.scaling_adjustment < 0;
        if self.adjustment_type == AdjustmentType::ExactCapacity && self.step_adjustments.iter().any(negative)
        {
            return Err("ScalingAdjustment must not be below 0 with AdjustmentType ExactCapacity.".into());
        }
        self.check_intervals()
    }

    fn check_intervals(&self) -> Result<(), String> {
        let bounds = |step: &Step| {
            let low = step.metric_interval_lower_bound.unwrap_or(f64::NEG_INFINITY);
            (low, step.metric_interval_upper_bound.unwrap_or(f64::INFINITY))
        };
        let mut intervals: Vec<(f64, f64)> = self.step_adjustments.iter().map(bounds).collect();
        if self.step_adjustments.iter().any(|step| {
            step.metric_interval_lower_bound.is_none() && step.metric_interval_upper_bound.is_none()
        }) {
            return Err(
                "At least one of MetricIntervalLowerBound and MetricIntervalUpperBound must be given in each step.".into(),
            );
        }
        if intervals.iter().any(|(low, high)| low >= high) {
            return Err("MetricIntervalLowerBound must be less than MetricIntervalUpperBound.".into());
        }
        intervals.sort_by(|left, right| left.0.total_cmp(&right.0));
        for pair in intervals.windows(2) {
            if pair[0].1 > pair[1].0 {
                return Err("StepAdjustments must not overlap.".into());
            }
            if pair[0].1 < pair[1].0 {
                return Err("StepAdjustments must have no gap between them.".into());
            }
        }
        let (first, last) = (intervals[0].0, intervals[intervals.len() - 1].1);
        if first < 0.0 && first.is_finite() {
            return Err(
                "One step must have no MetricIntervalLowerBound when another has a negative one.".into()
            );
        }
        if last > 0.0 && last.is_finite() {
            return Err(
                "One step must have no MetricIntervalUpperBound when another has a positive one.".into()
            );
        }
        Ok(())
    }

    /// The step of a breach, the metric's distance from the threshold. At and above the threshold a step has its lower bound and not its
    /// upper one; below, it is the other way round.
    fn step(&self, breach: f64) -> Option<&Step> {
        self.step_adjustments.iter().find(|step| {
            let low = step.metric_interval_lower_bound.unwrap_or(f64::NEG_INFINITY);
            let high = step.metric_interval_upper_bound.unwrap_or(f64::INFINITY);
            if breach >= 0.0 { low <= breach && breach < high } else { low < breach && breach <= high }
        })
    }

    /// The capacity that a breach asks for; `None` when no step has it.
    pub fn capacity(&self, breach: f64, current: u32) -> Option<u32> {
        let adjustment = self.step(breach)?.scaling_adjustment;
        let now = i64::from(current);
        let wanted = match self.adjustment_type {
            AdjustmentType::ExactCapacity => adjustment,
            AdjustmentType::ChangeInCapacity => now + adjustment,
            AdjustmentType::PercentChangeInCapacity => {
                let change = rounded(now as f64 * adjustment as f64 / 100.0);
                let least = self.min_adjustment_magnitude.unwrap_or(0);
                now + if adjustment == 0 { 0 } else { change.abs().max(least) * adjustment.signum() }
            }
        };
        Some(u32::try_from(wanted.max(0)).unwrap_or(u32::MAX))
    }
}

/// As the service rounds: towards zero, but never to it.
fn rounded(change: f64) -> i64 {
    if change == 0.0 {
        0
    } else if change.abs() < 1.0 {
        change.signum() as i64
    } else {
        change.trunc() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(low: Option<f64>, high: Option<f64>, adjustment: i64) -> Step {
        Step {
            metric_interval_lower_bound: low,
            metric_interval_upper_bound: high,
            scaling_adjustment: adjustment,
        }
    }

    fn steps(adjustment_type: AdjustmentType, step_adjustments: Vec<Step>) -> Steps {
        Steps { adjustment_type, step_adjustments, min_adjustment_magnitude: None, cooldown: None }
    }

    #[test]
    fn bounds_belong_to_the_side_of_the_threshold() {
        let policy = steps(
            AdjustmentType::ChangeInCapacity,
            vec![
                step(Some(0.0), Some(10.0), 1),
                step(Some(10.0), None, 3),
                step(Some(-10.0), Some(0.0), -1),
                step(None, Some(-10.0), -2),
            ],
        );
        assert_eq!(policy.check(), Ok(()));
        for (breach, capacity) in
            [(0.0, 6), (9.99, 6), (10.0, 8), (1e9, 8), (-0.01, 4), (-9.99, 4), (-10.0, 3), (-99.0, 3)]
        {
            assert_eq!(policy.capacity(breach, 5), Some(capacity), "{breach}");
        }
        let above = steps(AdjustmentType::ExactCapacity, vec![step(Some(0.0), None, 4)]);
        assert_eq!((above.capacity(1.0, 9), above.capacity(-1.0, 9)), (Some(4), None));
        assert_eq!(
            steps(AdjustmentType::ChangeInCapacity, vec![step(None, Some(0.0), -9)]).capacity(-1.0, 2),
            Some(0)
        );
    }

    #[test]
    fn percentages_round_towards_zero_but_never_to_it() {
        let of = |percent, current, least| {
            let policy = Steps {
                min_adjustment_magnitude: least,
                ..steps(AdjustmentType::PercentChangeInCapacity, vec![step(Some(0.0), None, percent)])
            };
            policy.capacity(1.0, current)
        };
        // 12.7 is 12, 0.67 is 1, -0.58 is -1, -6.67 is -6.
        assert_eq!(of(127, 10, None), Some(22));
        assert_eq!(of(67, 1, None), Some(2));
        assert_eq!(of(-58, 1, None), Some(0));
        assert_eq!(of(-667, 100, None), Some(0));
        assert_eq!(of(-29, 23, None), Some(17));
        assert_eq!(of(10, 4, Some(2)), Some(6));
        assert_eq!(of(-10, 4, Some(2)), Some(2));
        assert_eq!(of(50, 0, None), Some(0));
    }

    #[test]
    fn what_is_no_policy_says_why() {
        let change = |list: Vec<Step>| steps(AdjustmentType::ChangeInCapacity, list).check().unwrap_err();
        assert!(change(vec![]).contains("at least one step"));
        assert!(change(vec![step(None, None, 1)]).contains("At least one of"));
        assert!(change(vec![step(Some(5.0), Some(5.0), 1)]).contains("less than"));
        assert!(change(vec![step(Some(0.0), Some(9.0), 1), step(Some(5.0), None, 1)]).contains("overlap"));
        assert!(change(vec![step(Some(0.0), Some(5.0), 1), step(Some(9.0), None, 1)]).contains("gap"));
        assert!(change(vec![step(Some(-5.0), Some(0.0), 1)]).contains("no MetricIntervalLowerBound"));
        assert!(change(vec![step(Some(0.0), Some(5.0), 1)]).contains("no MetricIntervalUpperBound"));
        let with = |kind, adjustment, least| {
            let policy = Steps {
                min_adjustment_magnitude: least,
                ..steps(kind, vec![step(Some(0.0), None, adjustment)])
            };
            policy.check()
        };
        assert!(with(AdjustmentType::ChangeInCapacity, 1, Some(2)).unwrap_err().contains("PercentChange"));
        assert!(
            with(AdjustmentType::PercentChangeInCapacity, 1, Some(0)).unwrap_err().contains("at least 1")
        );
        assert!(with(AdjustmentType::ExactCapacity, -1, None).unwrap_err().contains("ExactCapacity"));
        assert_eq!(with(AdjustmentType::PercentChangeInCapacity, 10, Some(2)), Ok(()));
    }
}
