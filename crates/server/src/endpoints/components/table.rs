//! Which endpoints have inference components and where each of those is, in memory: what invocations look at.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use store::resources::ResourceKey;

use super::record::ComponentRecord;
use super::scene::endpoint_key;
use crate::endpoints::record::EndpointRecord;

/// The components of all endpoints.
#[derive(Debug, Default)]
pub struct Components {
    table: RwLock<Table>,
    /// Held while what is stored of a component goes to the data plane.
    turn: Mutex<()>,
    /// Whether there has been an endpoint for components: most servers have none, and then an invocation need not look.
    is_used: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    hosts: HashSet<ResourceKey>,
    places: HashMap<ResourceKey, Arc<Place>>,
    /// Components of which a request that finds no copy brings up the first.
    woken: HashSet<ResourceKey>,
}

/// Where a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its endpoint.
    pub endpoint: ResourceKey,
    /// The variant that it is put on.
    pub variant: String,
    /// Copies that are wanted.
    pub wanted: u32,
    /// Copies that have room.
    pub placed: u32,
    /// Whether it has failed, so that nothing of it runs.
    pub has_failed: bool,
}

impl Components {
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of whoever brings what is stored to the data plane.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down whether an endpoint is for components.
    pub fn note_host(&self, key: &ResourceKey, record: &EndpointRecord) {
        if record.hosts_components() {
            self.write().hosts.insert(key.clone());
            self.is_used.store(true, Ordering::Release);
        }
    }

    /// Forgets an endpoint.
    pub fn forget_host(&self, key: &ResourceKey) {
        self.write().hosts.remove(key);
    }

    /// Whether an endpoint is for components.
    pub fn is_host(&self, key: &ResourceKey) -> bool {
        self.is_used.load(Ordering::Acquire) && self.read().hosts.contains(key)
    }

    /// Takes down where a component is.
    pub fn note(&self, key: &ResourceKey, record: &ComponentRecord, has_failed: bool) {
        let place = Place {
            endpoint: endpoint_key(key, &record.endpoint),
            variant: record.variant.clone(),
            wanted: record.copies,
            placed: record.placed(),
            has_failed,
        };
        self.write().places.insert(key.clone(), Arc::new(place));
    }

    /// Forgets a component.
    pub fn forget(&self, key: &ResourceKey) {
        let mut table = self.write();
        table.places.remove(key);
        table.woken.remove(key);
    }

    /// Says whether a copy of a component is brought up for a request that finds none.
    pub fn set_woken(&self, key: &ResourceKey, is_woken: bool) {
        if self.is_woken(key) == is_woken {
            return;
        }
        let mut table = self.write();
        let is_known = table.places.contains_key(key);
        match is_woken && is_known {
            true => table.woken.insert(key.clone()),
            false => table.woken.remove(key),
        };
    }

    /// Whether a copy of a component is brought up for a request that finds none.
    pub fn is_woken(&self, key: &ResourceKey) -> bool {
        self.read().woken.contains(key)
    }

    /// Where a component is; `None` when there is none of this name.
    pub fn place(&self, key: &ResourceKey) -> Option<Arc<Place>> {
        if !self.is_used.load(Ordering::Acquire) {
            return None;
        }
        self.read().places.get(key).cloned()
    }

    /// The components of an endpoint, by name.
    pub fn of(&self, endpoint: &ResourceKey) -> Vec<ResourceKey> {
        let table = self.read();
        let own = table.places.iter().filter(|(_, place)| place.endpoint == *endpoint);
        let mut keys: Vec<ResourceKey> = own.map(|(key, _)| key.clone()).collect();
        keys.sort();
        keys
    }
}
