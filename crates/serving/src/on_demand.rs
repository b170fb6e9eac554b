//! Variants whose replicas come with the requests and go when there are none: how many it takes.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::plan::PlanError;

/// What is different for a variant whose replicas come and go with its invocations.
#[derive(Clone, Debug, PartialEq)]
pub struct OnDemandPlan {
    /// Most invocations at once; one more is refused.
    pub max_concurrency: u32,
    /// For how many invocations at once there are replicas even while nobody asks.
    pub provisioned_concurrency: u32,
    /// Most replicas, whatever is asked; invocations beyond wait for a worker.
    pub max_replicas: u32,
    /// How long a replica that nobody needs is kept.
    pub idle_seconds: f64,
    /// How long the invocation that is one too many waits for another to end before it is refused.
    pub refusal_wait_seconds: f64,
    /// The largest body of a request, and of an answer that is not streamed, in bytes; the data plane's own limits hold as well.
    pub max_body_bytes: u64,
}

impl OnDemandPlan {
    pub(crate) fn check(&self, variant: &str) -> Result<(), PlanError> {
        let refused = |rule: &'static str| Err(PlanError::BadOnDemand { variant: variant.to_owned(), rule });
        if self.max_concurrency == 0 || self.max_replicas == 0 {
            return refused("at least one invocation and one replica at once");
        }
        if self.provisioned_concurrency > self.max_concurrency {
            return refused("no more provisioned than most concurrency");
        }
        let is_time = |seconds: f64| (0.0..=1e9).contains(&seconds);
        if !is_time(self.idle_seconds) || self.idle_seconds == 0.0 || !is_time(self.refusal_wait_seconds) {
            return refused("times of more than 0 seconds");
        }
        Ok(())
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs_f64(self.idle_seconds)
    }

    /// Replicas that run even while nobody asks; each of them answers `places` invocations at once.
    pub(crate) fn least_replicas(&self, places: u32) -> u32 {
        self.replicas_for(self.provisioned_concurrency, places)
    }

    /// Replicas for that many invocations at once.
    pub(crate) fn replicas_for(&self, invocations: u32, places: u32) -> u32 {
        invocations.min(self.max_concurrency).div_ceil(places.max(1)).min(self.max_replicas)
    }
}

/// How many replicas were needed lately: as many are kept.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// When so many were needed last, the most first. Later entries are always smaller.
    recent: VecDeque<(Instant, u32)>,
}

impl Needs {
    /// Takes down that so many are needed now.
    pub(crate) fn note(&mut self, now: Instant, needed: u32) {
        while self.recent.back().is_some_and(|(_, less)| *less <= needed) {
            self.recent.pop_back();
        }
        self.recent.push_back((now, needed));
    }

    /// The most that were needed in the last time of that length.
    pub(crate) fn most(&mut self, now: Instant, length: Duration) -> u32 {
        while self.recent.len() > 1 && self.recent.front().is_some_and(|(at, _)| *at + length <= now) {
            self.recent.pop_front();
        }
        self.recent.front().map_or(0, |(_, most)| *most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(max_concurrency: u32, provisioned_concurrency: u32, max_replicas: u32) -> OnDemandPlan {
        OnDemandPlan {
            max_concurrency,
            provisioned_concurrency,
            max_replicas,
            idle_seconds: 10.0,
            refusal_wait_seconds: 0.0,
            max_body_bytes: 1024,
        }
    }

    #[test]
    fn replicas_follow_the_invocations_up_to_both_limits() {
        let on_demand = plan(10, 3, 4);
        for (invocations, places, replicas) in
            [(0, 2, 0), (1, 2, 1), (2, 2, 1), (3, 2, 2), (10, 2, 4), (99, 5, 2), (99, 1, 4), (5, 0, 4)]
        {
            assert_eq!(on_demand.replicas_for(invocations, places), replicas, "{invocations} by {places}");
        }
        assert_eq!((on_demand.least_replicas(2), on_demand.least_replicas(128)), (2, 1));
        assert_eq!(plan(10, 0, 4).least_replicas(1), 0);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(plan(1, 1, 1).check("a"), Ok(()));
        for wrong in [
            plan(0, 0, 1),
            plan(1, 0, 0),
            plan(1, 2, 1),
            OnDemandPlan { idle_seconds: 0.0, ..plan(1, 0, 1) },
            OnDemandPlan { refusal_wait_seconds: f64::NAN, ..plan(1, 0, 1) },
        ] {
            assert!(matches!(wrong.check("a"), Err(PlanError::BadOnDemand { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn the_most_of_a_time_is_kept_and_goes_with_it() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut needs = Needs::default();
        let mut most_at = |at: u32, needed| {
            let now = start + second * at;
            needs.note(now, needed);
            needs.most(now, second * 10)
        };
        assert_eq!((most_at(0, 0), most_at(1, 3), most_at(2, 1), most_at(3, 2)), (0, 3, 3, 3));
        assert_eq!(most_at(10, 0), 3);
        assert_eq!(most_at(11, 0), 2, "three were needed until a second ago");
        assert_eq!((most_at(12, 0), most_at(13, 0), most_at(14, 5)), (2, 0, 5));
    }
}
