//! Wakes whoever waits for a change of a resource, after the commit that holds the change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::resources::ResourceKey;

/// Who waits for one resource, each with the number of its watch.
type Wakers = Vec<(u64, Arc<Notify>)>;

/// Who waits for what.
pub(crate) struct Changes {
    waiting: Mutex<HashMap<ResourceKey, Wakers>>,
    next_id: Mutex<u64>,
    any: watch::Sender<u64>,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { waiting: Mutex::default(), next_id: Mutex::default(), any: watch::Sender::new(0) }
    }
}

impl Changes {
    /// Tells of committed events.
    pub(crate) fn committed(&self, keys: &[ResourceKey]) {
        if keys.is_empty() {
            return;
        }
        self.any.send_modify(|count| *count += 1);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return;
        }
        for (_, waker) in keys.iter().filter_map(|key| waiting.get(key)).flatten() {
            waker.notify_one();
        }
    }

    pub(crate) fn any(&self) -> watch::Receiver<u64> {
        self.any.subscribe()
    }

    pub(crate) fn watch(self: &Arc<Changes>, key: ResourceKey, waker: Arc<Notify>) -> ChangeWatch {
        let id = {
            let mut next = self.next_id.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(key.clone()).or_default().push((id, waker));
        ChangeWatch { changes: self.clone(), key, id }
    }
}

/// Keeps a waker registered until it is dropped.
pub struct ChangeWatch {
    changes: Arc<Changes>,
    key: ResourceKey,
    id: u64,
}

impl Drop for ChangeWatch {
    fn drop(&mut self) {
        let mut waiting = self.changes.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wakers) = waiting.get_mut(&self.key) {
            wakers.retain(|(id, _)| *id != self.id);
            if wakers.is_empty() {
                waiting.remove(&self.key);
            }
        }
    }
}
