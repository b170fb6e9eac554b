//! The line of one endpoint in memory: how much each variant may have at once, what it has, and the bell.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serving::VariantStatus;
use store::resources::ResourceKey;
use tokio::sync::Notify;

/// The line of an endpoint. The requests themselves are in the database.
#[derive(Debug)]
pub struct Line {
    /// The endpoint.
    pub key: ResourceKey,
    bell: Notify,
    state: Mutex<State>,
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that an instance has at once, by variant.
    slots: BTreeMap<String, u32>,
    /// Requests under way, by variant; without a variant those that only have to be ended.
    running: BTreeMap<String, u32>,
    /// Whether requests are being taken out of the line.
    is_looked_at: bool,
    /// Whether no more requests are taken out.
    is_closed: bool,
}

/// A look at the line in the database; requests are taken out of it only during one.
#[derive(Debug)]
pub struct Look<'a> {
    line: &'a Line,
}

/// A place of a request that is under way; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    line: Arc<Line>,
    /// The variant that answers; empty when none does.
    pub variant: String,
}

impl Line {
    /// The line of an endpoint whose instances have so many requests at once.
    pub fn new(key: ResourceKey, slots: BTreeMap<String, u32>) -> Line {
        Line {
            key,
            bell: Notify::new(),
            state: Mutex::new(State { slots, ..State::default() }),
            left: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock only says that another thread panicked; both maps are whole between any two calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how many requests an instance has at once.
    pub fn set_slots(&self, slots: BTreeMap<String, u32>) {
        self.state().slots = slots;
        self.ring();
    }

    /// Says that there is something new.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits for the bell.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Takes no more requests.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.ring();
    }

    /// Begins a look; `None` once the line is closed.
    pub fn look(&self) -> Option<Look<'_>> {
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        state.is_looked_at = true;
        Some(Look { line: self })
    }

    /// Returns when no request of a closed line is under way.
    pub async fn quiet(&self) {
        loop {
            let left = self.left.notified();
            if self.state().is_quiet() {
                return;
            }
            left.await;
        }
    }

    /// Requests that an instance has at once, by variant.
    pub fn slots(&self) -> BTreeMap<String, u32> {
        self.state().slots.clone()
    }

    /// How many more requests each variant can have now, with its weight.
    pub fn free(&self, variants: &[VariantStatus]) -> Vec<(String, f64, u32)> {
        let state = self.state();
        let free = |variant: &VariantStatus| {
            let slots = state.slots.get(&variant.name).copied().unwrap_or(1);
            let running = state.running.get(&variant.name).copied().unwrap_or(0);
            let free = slots.saturating_mul(variant.healthy_replicas).saturating_sub(running);
            (variant.weight > 0.0 && free > 0).then(|| (variant.name.clone(), variant.weight, free))
        };
        variants.iter().filter_map(free).collect()
    }

    /// Takes a place at a variant.
    pub fn place(self: &Arc<Line>, variant: &str) -> Place {
        *self.state().running.entry(variant.to_owned()).or_default() += 1;
        Place { line: self.clone(), variant: variant.to_owned() }
    }
}

impl State {
    fn is_quiet(&self) -> bool {
        !self.is_looked_at && self.running.values().sum::<u32>() == 0
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.line.state().is_looked_at = false;
        self.line.left.notify_waiters();
    }
}

impl Place {
    /// The line that it is of.
    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(running) = self.line.state().running.get_mut(&self.variant) {
            *running = running.saturating_sub(1);
        }
        self.line.left.notify_waiters();
        self.line.ring();
    }
}

/// Picks a variant by weight among those that have a place; `position` is a random number from 0 up to, but without, 1.
pub fn pick(free: &mut [(String, f64, u32)], position: f64) -> Option<String> {
    let total: f64 = free.iter().filter(|(_, _, places)| *places > 0).map(|(_, weight, _)| weight).sum();
    let mut rest = position * total;
    let mut last = None;
    for (at, (_, weight, places)) in free.iter().enumerate() {
        if *places == 0 {
            continue;
        }
        last = Some(at);
        if rest < *weight {
            break;
        }
        rest -= weight;
    }
    let (name, _, places) = &mut free[last?];
    *places -= 1;
    Some(name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(name: &str, weight: f64, healthy_replicas: u32) -> VariantStatus {
        VariantStatus { name: name.into(), weight, desired_replicas: 9, healthy_replicas }
    }

    #[tokio::test]
    async fn each_healthy_instance_has_its_share() {
        let key = ResourceKey::new("1", "r", "endpoint", "e");
        let line = Arc::new(Line::new(key, BTreeMap::from([("a".into(), 2), ("b".into(), 3)])));
        let variants = [variant("a", 1.0, 2), variant("b", 1.0, 0), variant("c", 0.0, 5)];
        assert_eq!(line.free(&variants), [("a".into(), 1.0, 4)]);
        let place = line.place("a");
        assert_eq!(line.free(&variants), [("a".into(), 1.0, 3)]);
        drop(place);
        assert_eq!(line.free(&variants), [("a".into(), 1.0, 4)]);
        drop(line.look().unwrap());
        line.close();
        assert!(line.look().is_none());
        line.quiet().await;
    }

    #[test]
    fn places_go_by_weight_and_never_to_who_has_none() {
        let mut free = vec![("a".to_owned(), 3.0, 2), ("b".to_owned(), 1.0, 1), ("c".to_owned(), 9.0, 0)];
        assert_eq!(pick(&mut free, 0.0).as_deref(), Some("a"));
        assert_eq!(pick(&mut free, 0.99).as_deref(), Some("b"));
        assert_eq!(pick(&mut free, 0.99).as_deref(), Some("a"));
        assert_eq!(pick(&mut free, 0.5), None);
    }
}
