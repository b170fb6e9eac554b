//! Receivers that wait for a message: one bell per queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

/// The bells of the queues that somebody waits at.
#[derive(Debug, Default)]
pub struct Waiters {
    bells: Mutex<HashMap<i64, Weak<Notify>>>,
}

impl Waiters {
    /// The bell of a queue; it is there for as long as somebody holds it.
    pub fn bell(&self, queue: i64) -> Arc<Notify> {
        let mut bells = self.lock();
        if let Some(bell) = bells.get(&queue).and_then(Weak::upgrade) {
            return bell;
        }
        bells.retain(|_, bell| bell.strong_count() > 0);
        let bell = Arc::new(Notify::new());
        bells.insert(queue, Arc::downgrade(&bell));
        bell
    }

    /// Wakes whoever waits at a queue. Call it after the commit that changed what can be received.
    pub fn ring(&self, queue: i64) {
        if let Some(bell) = self.lock().get(&queue).and_then(Weak::upgrade) {
            bell.notify_waiters();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Weak<Notify>>> {
        // A poisoned lock only says that another thread panicked; the map is whole between any two calls.
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
