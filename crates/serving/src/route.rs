//! Which variant an invocation goes to.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Counters;
use crate::pool::Pool;

/// The fleet in service, as invocations see it. It is replaced whole, never changed.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) variants: Vec<RouteVariant>,
    total_weight: f64,
}

/// One variant of the fleet in service.
#[derive(Debug)]
pub(crate) struct RouteVariant {
    pub(crate) name: Arc<str>,
    pub(crate) weight: f64,
    pub(crate) model_timeout: Duration,
    pub(crate) pool: Arc<Pool>,
    pub(crate) counters: Arc<Counters>,
}

impl Route {
    pub(crate) fn new(variants: Vec<RouteVariant>) -> Self {
        let total_weight = variants.iter().map(|variant| variant.weight).sum();
        Self { variants, total_weight }
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&RouteVariant> {
        self.variants.iter().find(|variant| &*variant.name == name)
    }

    /// Picks a variant by weight; `position` is a random number from 0 up to, but without, 1. `None` if every weight is 0.
    pub(crate) fn by_weight(&self, position: f64) -> Option<&RouteVariant> {
        let mut rest = position * self.total_weight;
        let mut last = None;
        for variant in self.variants.iter().filter(|variant| variant.weight > 0.0) {
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

    fn route(weights: &[(&str, f64)]) -> Route {
        let variant = |(name, weight): &(&str, f64)| RouteVariant {
            name: Arc::from(*name),
            weight: *weight,
            model_timeout: Duration::from_secs(1),
            pool: Pool::new(1),
            counters: Arc::default(),
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
    fn without_any_weight_nothing_is_picked() {
        assert!(route(&[("a", 0.0)]).by_weight(0.5).is_none());
    }
}
