//! Which fleet and which variant an invocation goes to.

use std::sync::Arc;
use std::time::Duration;

use crate::composition::Targets;
use crate::gate::Gate;
use crate::metrics::Counters;
use crate::pool::Pool;
use crate::tally::Tally;

/// The fleet in service, or two that share the requests, as invocations see it. It is replaced whole, never changed.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) variants: Vec<RouteVariant>,
    /// How many of them are of the first fleet; the rest is of the one beside it.
    first: usize,
    /// The sum of the weights of each fleet.
    weights: [f64; 2],
    /// The part of the requests that goes to the fleet beside.
    share: f64,
}

/// One variant of the fleet in service.
#[derive(Debug)]
pub(crate) struct RouteVariant {
    pub(crate) name: Arc<str>,
    pub(crate) weight: f64,
    pub(crate) model_timeout: Duration,
    pub(crate) targets: Targets,
    pub(crate) pool: Arc<Pool>,
    pub(crate) counters: Arc<Counters>,
    /// Where only so many are let in at once.
    pub(crate) gate: Option<Arc<Gate>>,
    /// What its fleet does, while it is compared with another.
    pub(crate) tally: Option<Arc<Tally>>,
}

impl Route {
    pub(crate) fn new(variants: Vec<RouteVariant>) -> Self {
        let total_weight = variants.iter().map(|variant| variant.weight).sum();
        Self { first: variants.len(), variants, weights: [total_weight, 0.0], share: 0.0 }
    }

    /// Of two fleets, the second of which gets that part of the requests.
    pub(crate) fn shared(first: Route, beside: Route, share: f64) -> Self {
        let weights = [first.weights[0], beside.weights[0]];
        let count = first.variants.len();
        let variants = first.variants.into_iter().chain(beside.variants).collect();
        Self { first: count, variants, weights, share }
    }

    /// The variant of that name; where both fleets have it, one of them by their shares.
    pub(crate) fn by_name(&self, name: &str) -> Option<&RouteVariant> {
        let (first, beside) = self.variants.split_at(self.first);
        let find = |variants: &'_ [RouteVariant]| variants.iter().position(|variant| &*variant.name == name);
        let first = find(first);
        let beside = find(beside).map(|at| self.first + at);
        let at = match (first, beside) {
            (Some(first), Some(beside)) => {
                if rand::random::<f64>() < self.share {
                    beside
                } else {
                    first
                }
            }
            (first, beside) => first.or(beside)?,
        };
        self.variants.get(at)
    }

    /// Picks a variant by weight; `position` is a random number from 0 up to, but without, 1. `None` if every weight is 0.
    pub(crate) fn by_weight(&self, position: f64) -> Option<&RouteVariant> {
        let (first, beside) = self.variants.split_at(self.first);
        let (fleet, position, weight) = match position < self.share {
            true => (beside, position / self.share, self.weights[1]),
            false => (first, (position - self.share) / (1.0 - self.share), self.weights[0]),
        };
        let mut rest = position * weight;
        let mut last = None;
        for variant in fleet.iter().filter(|variant| variant.weight > 0.0) {
            if rest < variant.weight {
                return Some(variant);
            }
            rest -= variant.weight;
            last = Some(variant);
        }
        // Rounding can leave a crumb after the last one.
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::RoutingStrategy;

    fn route(weights: &[(&str, f64)]) -> Route {
        let variant = |(name, weight): &(&str, f64)| RouteVariant {
            name: Arc::from(*name),
            weight: *weight,
            model_timeout: Duration::from_secs(1),
            targets: Targets::Nothing,
            pool: Pool::new(1, RoutingStrategy::default()),
            counters: Arc::default(),
            gate: None,
            tally: None,
        };
        Route::new(weights.iter().map(variant).collect())
    }

    #[test]
    fn shares_follow_the_weights_and_zero_gets_none() {
        let route = route(&[("none", 0.0), ("one", 1.0), ("three", 3.0), ("nothing", 0.0)]);
        let mut counts = std::collections::BTreeMap::new();
        for step in 0..1000 {
            let picked = route.by_weight(f64::from(step) / 1000.0).expect("some weight is above 0");
            *counts.entry(picked.name.to_string()).or_insert(0) += 1;
        }
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("one".into(), 250), ("three".into(), 750)]);
        assert_eq!(route.by_weight(1.0).map(|variant| &*variant.name), Some("three"));
        assert_eq!(route.by_name("none").map(|variant| variant.weight), Some(0.0));
        assert!(route.by_name("other").is_none());
    }

    #[test]
    fn two_fleets_share_the_requests_and_then_the_weights_count() {
        let route =
            Route::shared(route(&[("one", 1.0), ("three", 3.0)]), route(&[("one", 5.0), ("new", 5.0)]), 0.2);
        let mut counts = [0; 4];
        for step in 0..1000 {
            let picked = route.by_weight(f64::from(step) / 1000.0).expect("some weight is above 0");
            let at = route.variants.iter().position(|variant| std::ptr::eq(variant, picked));
            counts[at.expect("it is one of them")] += 1;
        }
        assert_eq!(counts, [200, 600, 100, 100]);
        assert_eq!(route.by_name("new").map(|variant| variant.weight), Some(5.0));
        assert_eq!(route.by_name("three").map(|variant| variant.weight), Some(3.0));
        let of_beside =
            (0..1000).filter(|_| route.by_name("one").is_some_and(|one| one.weight == 5.0)).count();
        assert!((100..=300).contains(&of_beside), "{of_beside} of 1000 is not about a fifth");
        assert!(route.by_name("other").is_none());
    }

    #[test]
    fn without_any_weight_nothing_is_picked() {
        assert!(route(&[("a", 0.0)]).by_weight(0.5).is_none());
    }
}
