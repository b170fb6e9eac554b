//! The workers of a model host that loads many models: each has one connection for requests and one for what is loaded and unloaded.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::host::LoadProblem;
use crate::connection::Connection;

/// What a model counts when it is decided which worker gets the next one, whatever it takes.
const LEAST_MODEL_BYTES: u64 = 1024 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Requests.
    Invoke,
    /// What is loaded and unloaded.
    Load,
}

/// All workers of a model host.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    slots: Mutex<Vec<Arc<WorkerSlot>>>,
    arrived: Notify,
}

/// One worker.
#[derive(Debug)]
pub(crate) struct WorkerSlot {
    /// Its number in the host.
    worker: u64,
    invoke: Place,
    load: Place,
    models: AtomicUsize,
    bytes: AtomicU64,
    /// Whether nothing was loaded over these connections yet: an earlier server may have left models there.
    is_fresh: AtomicBool,
    is_gone: AtomicBool,
}

/// A connection and those who want it.
#[derive(Debug)]
struct Place {
    line: Arc<Semaphore>,
    connection: Mutex<Option<Connection>>,
    changed: Notify,
}

impl Default for Place {
    fn default() -> Place {
        Place { line: Arc::new(Semaphore::new(1)), connection: Mutex::default(), changed: Notify::new() }
    }
}

impl Place {
    fn stock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, connection: Option<Connection>) {
        *self.stock() = connection;
        self.changed.notify_waiters();
    }
}

/// The right to use a connection. If it is dropped and not given back, the connection is closed and replaced.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<Connection>,
    slot: Arc<WorkerSlot>,
    role: Role,
    _turn: OwnedSemaphorePermit,
}

impl Lease {
    pub(crate) fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is only taken when the lease ends")
    }

    /// Returns a connection whose last answer was read to its end.
    pub(crate) fn give_back(mut self) {
        if let Some(connection) = self.connection.take().filter(|_| !self.slot.is_gone()) {
            self.slot.place(self.role).put(Some(connection));
        }
    }
}

impl WorkerSlot {
    fn place(&self, role: Role) -> &Place {
        match role {
            Role::Invoke => &self.invoke,
            Role::Load => &self.load,
        }
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Waits for a connection of the worker; `None` when it has ended.
    pub(super) async fn lease(self: &Arc<Self>, role: Role) -> Option<Lease> {
        let place = self.place(role);
        // The semaphore is never closed.
        let turn = Arc::clone(&place.line).acquire_owned().await.ok()?;
        loop {
            let mut changed = std::pin::pin!(place.changed.notified());
            changed.as_mut().enable();
            if self.is_gone() {
                return None;
            }
            if let Some(connection) = place.stock().take() {
                return Some(Lease {
                    connection: Some(connection),
                    slot: Arc::clone(self),
                    role,
                    _turn: turn,
                });
            }
            changed.await;
        }
    }

    /// Closes what leads to the worker; its models have to be loaded again.
    pub(super) fn give_up(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.invoke.put(None);
        self.load.put(None);
    }

    pub(super) async fn unload(self: &Arc<Self>, model: &str) {
        let Some(mut lease) = self.lease(Role::Load).await else { return };
        match lease.connection().ask_models("unload", model, None, false).await {
            Ok(header) => {
                self.models.fetch_sub(1, Relaxed);
                self.bytes.fetch_sub(header.memory_bytes.unwrap_or(0).min(self.bytes.load(Relaxed)), Relaxed);
                lease.give_back();
            }
            Err(_) => self.give_up(),
        }
    }
}

impl Workers {
    fn slots(&self) -> MutexGuard<'_, Vec<Arc<WorkerSlot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a connection into service whose worker has said who it is; `false` when it has not.
    pub(crate) fn put(&self, connection: Connection) -> bool {
        let Some((worker, role)) = connection.told_worker else { return false };
        let slot = {
            let mut slots = self.slots();
            slots.retain(|slot| !slot.is_gone());
            let known = slots.iter().find(|slot| slot.worker == worker).cloned();
            known.unwrap_or_else(|| {
                let slot = Arc::new(WorkerSlot {
                    worker,
                    invoke: Place::default(),
                    load: Place::default(),
                    models: AtomicUsize::new(0),
                    bytes: AtomicU64::new(0),
                    is_fresh: AtomicBool::new(true),
                    is_gone: AtomicBool::new(false),
                });
                slots.push(Arc::clone(&slot));
                slot
            })
        };
        slot.place(role).put(Some(connection));
        self.arrived.notify_waiters();
        true
    }

    /// Gives up the workers whose idle connections are closed.
    pub(crate) fn look(&self) {
        self.slots().retain(|slot| {
            let is_broken = |place: &Place| place.stock().as_ref().is_some_and(Connection::is_broken);
            if is_broken(&slot.invoke) || is_broken(&slot.load) {
                slot.give_up();
            }
            !slot.is_gone()
        });
    }

    /// Loads a model into the worker that has the least, and gives the worker and the memory that the model takes.
    pub(super) async fn load(
        &self,
        model: &str,
        folder: &str,
    ) -> Result<(Arc<WorkerSlot>, u64), LoadProblem> {
        loop {
            let slot = self.emptiest().await;
            let Some(mut lease) = slot.lease(Role::Load).await else { continue };
            let forgets = slot.is_fresh.swap(false, Relaxed);
            match lease.connection().ask_models("load", model, Some(folder), forgets).await {
                Ok(header) if header.status == 200 => {
                    let bytes = header.memory_bytes.unwrap_or(0);
                    slot.models.fetch_add(1, Relaxed);
                    slot.bytes.fetch_add(bytes, Relaxed);
                    lease.give_back();
                    return Ok((slot, bytes));
                }
                Ok(header) => {
                    lease.give_back();
                    let unsaid = || format!("The worker answered with status {}.", header.status);
                    return Err(LoadProblem::Failed(header.error.unwrap_or_else(unsaid)));
                }
                Err(error) => {
                    slot.give_up();
                    return Err(LoadProblem::Failed(format!(
                        "The worker ended while it loaded the model ({error:?}); the endpoint's log may say why."
                    )));
                }
            }
        }
    }

    async fn emptiest(&self) -> Arc<WorkerSlot> {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            let weight = |slot: &&Arc<WorkerSlot>| {
                slot.bytes.load(Relaxed) + slot.models.load(Relaxed) as u64 * LEAST_MODEL_BYTES
            };
            let found = self.slots().iter().filter(|slot| !slot.is_gone()).min_by_key(weight).cloned();
            if let Some(slot) = found {
                return slot;
            }
            arrived.await;
        }
    }
}
