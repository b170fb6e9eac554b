//! Requests of a session: only one replica, or one worker of it, may have them.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use tokio::sync::oneshot;

use super::{Acquire, Lease, Pool};
use crate::connection::Connection;
use crate::session::SessionPlace;

/// One who waits for a certain worker.
#[derive(Debug)]
pub(super) struct Pinned {
    place: SessionPlace,
    sender: oneshot::Sender<Lease>,
}

enum Taken {
    Free(Connection),
    Busy,
    /// The worker, or its replica, is no more.
    Gone,
}

impl Pool {
    /// Takes the connection to the place of a session, or a place in the line for it.
    pub(crate) fn acquire_at(self: &Arc<Self>, place: &SessionPlace) -> Acquire {
        // As in `acquire`: counted before the look.
        let mut lease = Lease::empty(self);
        if self.draining.load(Ordering::SeqCst) {
            return Acquire::Draining;
        }
        match self.take_at(place) {
            Taken::Free(connection) => {
                lease.hold(connection);
                return Acquire::Ready(lease);
            }
            Taken::Gone => return Acquire::Gone,
            Taken::Busy => drop(lease),
        }
        let mut pinned = self.pinned();
        if self.draining.load(Ordering::SeqCst) {
            return Acquire::Draining;
        }
        if pinned.len() >= self.queue_limit {
            return Acquire::Full;
        }
        let (sender, receiver) = oneshot::channel();
        pinned.push_back(Pinned { place: place.clone(), sender });
        self.pinned_waiting.store(pinned.len(), Ordering::SeqCst);
        // It may have come free since the first look.
        self.serve_these(pinned);
        Acquire::Wait(receiver)
    }

    pub(super) fn pinned(&self) -> MutexGuard<'_, VecDeque<Pinned>> {
        self.pinned.lock().expect("no code that holds this lock can panic")
    }

    /// Gives connections to those who wait for certain ones, and sends away those who wait in vain.
    pub(super) fn serve_pinned(self: &Arc<Self>) {
        if self.pinned_waiting.load(Ordering::SeqCst) > 0 {
            self.serve_these(self.pinned());
        }
    }

    fn serve_these(self: &Arc<Self>, mut pinned: MutexGuard<'_, VecDeque<Pinned>>) {
        for waiter in std::mem::take(&mut *pinned) {
            if waiter.sender.is_closed() {
                continue;
            }
            match self.take_at(&waiter.place) {
                Taken::Busy => pinned.push_back(waiter),
                // Its channel closes.
                Taken::Gone => {}
                Taken::Free(connection) => {
                    let mut lease = Lease::empty(self);
                    lease.hold(connection);
                    // One who went away this very moment leaves it to those who wait for any.
                    if let Err(mut returned) = waiter.sender.send(lease)
                        && let Some(connection) = returned.end()
                    {
                        self.shelve(connection);
                    }
                }
            }
        }
        self.pinned_waiting.store(pinned.len(), Ordering::SeqCst);
    }

    fn take_at(&self, place: &SessionPlace) -> Taken {
        let shelves = self.shelves.load();
        let Some(shelf) = shelves.iter().find(|shelf| shelf.link.id == place.replica) else {
            return Taken::Gone;
        };
        if shelf.link.is_retired() || place.worker.is_some_and(|worker| !shelf.link.has_worker(worker)) {
            return Taken::Gone;
        }
        let taken = match place.worker {
            None => shelf.take(),
            Some(worker) => shelf.take_worker(worker),
        };
        taken.map_or(Taken::Busy, Taken::Free)
    }
}
