//! The free connections of one variant, and the invocations that wait for one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::connection::Connection;

/// The workers of one variant of one fleet.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    queue_limit: usize,
    /// How many connections are in use.
    leased: AtomicUsize,
    draining: AtomicBool,
    /// Told when a lease ends while somebody drains.
    lease_ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    // First in, first out: all replicas get their share, and no connection stays unproven for long.
    idle: VecDeque<Connection>,
    waiters: VecDeque<oneshot::Sender<Lease>>,
}

/// The right to use one connection. If it is dropped and not given back, the connection is closed and replaced.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

/// What a request for a connection comes to at once.
#[derive(Debug)]
pub(crate) enum Acquire {
    Ready(Lease),
    /// All are busy; one will come here.
    Wait(oneshot::Receiver<Lease>),
    /// The queue is full.
    Full,
    /// This fleet is being replaced: ask the route again.
    Draining,
}

impl Pool {
    pub(crate) fn new(queue_limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            queue_limit,
            leased: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            lease_ended: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds this lock can panic")
    }

    /// Takes a free connection, or a place in the queue.
    pub(crate) fn acquire(self: &Arc<Self>) -> Acquire {
        let mut state = self.state();
        if self.draining.load(Ordering::Acquire) {
            return Acquire::Draining;
        }
        if let Some(connection) = state.idle.pop_front() {
            return Acquire::Ready(Lease::new(connection, self));
        }
        if state.waiters.len() >= self.queue_limit {
            state.waiters.retain(|waiter| !waiter.is_closed());
            if state.waiters.len() >= self.queue_limit {
                return Acquire::Full;
            }
        }
        let (sender, receiver) = oneshot::channel();
        state.waiters.push_back(sender);
        Acquire::Wait(receiver)
    }

    /// Puts a connection into service, be it new or free again.
    pub(crate) fn offer(self: &Arc<Self>, connection: Connection) {
        if connection.link.is_retired() {
            return; // dropping the connection closes it
        }
        let mut lease = Lease::new(connection, self);
        let mut state = self.state();
        while let Some(waiter) = state.waiters.pop_front() {
            match waiter.send(lease) {
                Ok(()) => return,
                Err(returned) => lease = returned,
            }
        }
        state.idle.extend(lease.end());
    }

    /// Takes out those idle connections that `choose` picks; a later [`Pool::offer`] may bring them back.
    pub(crate) fn take_idle(&self, choose: impl Fn(&Connection) -> bool) -> Vec<Connection> {
        let mut state = self.state();
        let (taken, kept): (VecDeque<_>, _) =
            std::mem::take(&mut state.idle).into_iter().partition(|c| choose(c));
        state.idle = kept;
        taken.into()
    }

    /// Takes no new requests and waits until those accepted have been answered, but no longer than `limit`.
    pub(crate) async fn drain(&self, limit: Duration) {
        {
            // Under the lock, so that no request can slip in between its own check and its lease.
            let _state = self.state();
            self.draining.store(true, Ordering::Release);
        }
        let drained = async {
            while !self.is_quiet() {
                // A waiter that gives up tells nobody, hence the short look-again time.
                let _ = tokio::time::timeout(Duration::from_millis(20), self.lease_ended.notified()).await;
            }
        };
        let _ = tokio::time::timeout(limit, drained).await;
        // Those who still wait see their channel close and report an overload.
        let leftovers = std::mem::take(&mut self.state().waiters);
        drop(leftovers);
    }

    fn is_quiet(&self) -> bool {
        let mut state = self.state();
        state.waiters.retain(|waiter| !waiter.is_closed());
        state.waiters.is_empty() && self.leased.load(Ordering::Acquire) == 0
    }
}

impl Lease {
    fn new(connection: Connection, pool: &Arc<Pool>) -> Self {
        pool.leased.fetch_add(1, Ordering::AcqRel);
        connection.link.in_use.fetch_add(1, Ordering::AcqRel);
        Self { connection: Some(connection), pool: Arc::clone(pool) }
    }

    pub(crate) fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is only taken when the lease ends")
    }

    /// Returns a connection whose last answer was read to its end.
    pub(crate) fn give_back(mut self) {
        if let Some(connection) = self.end() {
            self.pool.offer(connection);
        }
    }

    fn end(&mut self) -> Option<Connection> {
        let connection = self.connection.take()?;
        connection.link.in_use.fetch_sub(1, Ordering::AcqRel);
        Some(connection)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.end());
        self.pool.leased.fetch_sub(1, Ordering::AcqRel);
        if self.pool.draining.load(Ordering::Acquire) {
            self.pool.lease_ended.notify_one();
        }
    }
}
