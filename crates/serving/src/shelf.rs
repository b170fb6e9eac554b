//! The free connections of one replica.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::connection::{Connection, ReplicaLink};

/// A lock of its own for each replica, and a count beside it, so that whoever looks for a free connection locks only where there is one.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) link: Arc<ReplicaLink>,
    free: Mutex<Vec<Connection>>,
    count: AtomicUsize,
}

impl Shelf {
    pub(crate) fn new(link: Arc<ReplicaLink>) -> Arc<Self> {
        Arc::new(Self { link, free: Mutex::default(), count: AtomicUsize::new(0) })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.free.lock().expect("no code that holds this lock can panic")
    }

    fn note_count(&self, free: &[Connection]) {
        // In one order with the count of those who wait: see `Pool::offer`.
        self.count.store(free.len(), Ordering::SeqCst);
    }

    /// How many connections are free now.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub(crate) fn put(&self, connection: Connection) {
        let mut free = self.free();
        free.push(connection);
        self.note_count(&free);
    }

    /// Takes a connection: the one that was used last, whose worker's memory is still in the caches.
    pub(crate) fn take(&self) -> Option<Connection> {
        if self.link.is_retired() {
            self.clear();
            return None;
        }
        let mut free = self.free();
        let taken = free.pop();
        self.note_count(&free);
        taken
    }

    /// Takes the connection of one certain worker.
    pub(crate) fn take_worker(&self, worker: u64) -> Option<Connection> {
        let mut free = self.free();
        let position = free.iter().position(|connection| connection.worker == Some(worker))?;
        let taken = free.swap_remove(position);
        self.note_count(&free);
        Some(taken)
    }

    /// Takes out those connections that `choose` picks.
    pub(crate) fn take_those(&self, choose: &impl Fn(&Connection) -> bool) -> Vec<Connection> {
        if self.count() == 0 {
            return Vec::new();
        }
        let mut free = self.free();
        let (taken, kept) = std::mem::take(&mut *free).into_iter().partition(|connection| choose(connection));
        *free = kept;
        self.note_count(&free);
        taken
    }

    fn clear(&self) {
        // Closed without the lock.
        drop(self.take_those(&|_| true));
    }
}
