//! What was asked of each variant in the last two minutes, second by second, in memory: what decisions about capacity look at.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serving::VariantActivity;

/// How far back it goes.
const KEPT_SECONDS: i64 = 120;

/// What is known of all variants, by key of the endpoint in the data plane and name of the variant.
#[derive(Debug, Default)]
pub struct Demands {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The second from which on everything is known.
    since: Option<i64>,
    /// The last second that is known whole.
    until: i64,
    variants: HashMap<(String, String), Demand>,
}

/// What was asked of a variant. Seconds in which nothing happened are not there.
#[derive(Debug, Default)]
struct Demand {
    /// Invocations at the last look.
    invocations: u64,
    /// Sum and number of the looks at the concurrent requests in the second that goes on.
    looks: (f64, u32),
    seconds: VecDeque<Second>,
    now: VariantActivity,
}

#[derive(Debug, Clone, Copy)]
struct Second {
    at: i64,
    invocations: u64,
    concurrency: f64,
}

/// What was asked of a variant in some time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Asked {
    /// Invocations that arrived.
    pub invocations: u64,
    /// Requests under way at once, on average.
    pub concurrency: f64,
}

impl Demands {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look within a second at what is under way; `true` while anything is.
    pub(super) fn look(&self, activity: &[VariantActivity]) -> bool {
        let mut state = self.state();
        let mut is_busy = false;
        for one in activity {
            let name = (one.endpoint.to_string(), one.variant.to_string());
            let known = state.variants.get_mut(&name);
            let is_new =
                known.as_ref().map_or(one.invocations > 0, |known| one.invocations != known.invocations);
            if one.in_flight == 0 && !is_new && known.is_none() {
                continue;
            }
            is_busy |= one.in_flight > 0 || is_new;
            let demand = state.variants.entry(name).or_default();
            demand.looks.0 += one.in_flight as f64;
            demand.looks.1 += 1;
            demand.now = one.clone();
        }
        is_busy
    }

    /// Ends a second: what came since the second before is what happened in it. Gives each variant's mean of concurrent requests.
    /// What belongs to no variant of `activity` is forgotten.
    pub(super) fn end_second(
        &self,
        second: i64,
        activity: &[VariantActivity],
    ) -> HashMap<(String, String), f64> {
        let mut state = self.state();
        if state.since.is_none_or(|since| second < since) {
            // A clock that was set back says nothing about what was.
            *state = State { since: Some(second), ..State::default() };
        }
        state.until = second;
        let mut means = HashMap::new();
        state.variants.retain(|(endpoint, variant), _| {
            activity.iter().any(|one| *one.endpoint == **endpoint && *one.variant == **variant)
        });
        for (name, demand) in &mut state.variants {
            let (sum, looks) = std::mem::take(&mut demand.looks);
            let concurrency = sum / f64::from(looks.max(1));
            // A variant of another fleet, or another server, counts from 0.
            let invocations =
                demand.now.invocations.checked_sub(demand.invocations).unwrap_or(demand.now.invocations);
            demand.invocations = demand.now.invocations;
            if invocations > 0 || concurrency > 0.0 {
                demand.seconds.push_back(Second { at: second, invocations, concurrency });
                means.insert(name.clone(), concurrency);
            }
            demand.seconds.retain(|one| one.at > second - KEPT_SECONDS);
        }
        means
    }

    /// For how many seconds everything is known.
    pub fn watched_seconds(&self) -> i64 {
        let state = self.state();
        state.since.map_or(0, |since| state.until - since + 1)
    }

    /// What was asked of a variant in the last seconds, or since the server watches where that is less.
    pub fn of(&self, endpoint: &str, variant: &str, seconds: i64) -> Asked {
        let state = self.state();
        let watched = state.since.map_or(1, |since| (state.until - since + 1).clamp(1, seconds));
        let name = (endpoint.to_owned(), variant.to_owned());
        let Some(demand) = state.variants.get(&name) else { return Asked::default() };
        let lately = || demand.seconds.iter().filter(|one| one.at > state.until - seconds);
        Asked {
            invocations: lately().map(|one| one.invocations).sum(),
            concurrency: lately().map(|one| one.concurrency).sum::<f64>() / watched as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity(invocations: u64, in_flight: u64) -> Vec<VariantActivity> {
        vec![VariantActivity {
            endpoint: "a/b/c".into(),
            variant: "v".into(),
            invocations,
            in_flight,
            ..VariantActivity::default()
        }]
    }

    #[test]
    fn seconds_add_up_and_go() {
        let demands = Demands::default();
        assert!(!demands.look(&activity(0, 0)));
        demands.end_second(100, &activity(0, 0));
        assert!(demands.look(&activity(5, 1)));
        assert!(demands.look(&activity(9, 3)));
        demands.end_second(101, &activity(0, 0));
        assert_eq!(demands.of("a/b/c", "v", 1), Asked { invocations: 9, concurrency: 2.0 });
        assert_eq!(
            demands.of("a/b/c", "v", 60),
            Asked { invocations: 9, concurrency: 1.0 },
            "two seconds are known"
        );
        assert!(!demands.look(&activity(9, 0)));
        demands.end_second(102, &activity(0, 0));
        assert_eq!(demands.of("a/b/c", "v", 1), Asked::default());
        assert_eq!(demands.of("a/b/c", "v", 2).invocations, 9);
        assert_eq!(demands.of("a/b/c", "other", 2), Asked::default());
        demands.end_second(300, &activity(0, 0));
        assert_eq!(demands.of("a/b/c", "v", 60), Asked::default());
        // What was counted stays known: only what is new counts.
        demands.look(&activity(10, 0));
        demands.end_second(301, &activity(0, 0));
        assert_eq!(demands.of("a/b/c", "v", 1).invocations, 1);
    }
}
