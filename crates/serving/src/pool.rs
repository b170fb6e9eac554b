//! The connections of one variant: which replica gets a request, and the line of those that wait for one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};

use crate::affinity;
use crate::batch::{BatchRequest, BatchSettings};
use crate::connection::{Connection, ReplicaLink};
use crate::metrics::Counters;
use crate::plan::RoutingStrategy;
use crate::shelf::Shelf;

mod batches;
mod pinned;

use batches::{Batches, Waiter};
pub(crate) use batches::{Grant, Outcome, Seat};

/// The workers of one variant of one fleet.
///
/// Requests meet no common lock while a connection is free: each replica has a shelf with a lock of its own. Only those that find none
/// form a line, and whoever puts a connection back looks whether there is one.
#[derive(Debug)]
pub(crate) struct Pool {
    strategy: RoutingStrategy,
    /// Replaced whole when a replica comes or goes.
    shelves: ArcSwap<Vec<Arc<Shelf>>>,
    line: Mutex<VecDeque<Waiter>>,
    /// Length of the line.
    waiting: AtomicUsize,
    /// Those who wait for a certain worker.
    pinned: Mutex<VecDeque<pinned::Pinned>>,
    pinned_waiting: AtomicUsize,
    queue_limit: usize,
    /// How many connections are in use, or just being taken.
    leased: AtomicUsize,
    draining: AtomicBool,
    /// Told when a lease ends while somebody drains.
    lease_ended: Notify,
    /// Where those in the line may be answered together.
    batches: Option<Batches>,
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
    /// The same for a request that may be answered together with others.
    Join(oneshot::Receiver<Grant>),
    /// The line is full.
    Full,
    /// Who had to be asked is no more.
    Gone,
    /// This fleet is being replaced: ask the route again.
    Draining,
}

impl Pool {
    pub(crate) fn new(queue_limit: usize, strategy: RoutingStrategy) -> Arc<Self> {
        Self::of(queue_limit, strategy, None)
    }

    /// One whose workers may answer several requests of the line at once.
    pub(crate) fn with_batches(
        queue_limit: usize,
        strategy: RoutingStrategy,
        settings: BatchSettings,
        counters: &Arc<Counters>,
    ) -> Arc<Self> {
        Self::of(queue_limit, strategy, Batches::new(settings, Arc::clone(counters)))
    }

    fn of(queue_limit: usize, strategy: RoutingStrategy, batches: Option<Batches>) -> Arc<Self> {
        Arc::new(Self {
            strategy,
            shelves: ArcSwap::default(),
            line: Mutex::default(),
            waiting: AtomicUsize::new(0),
            pinned: Mutex::default(),
            pinned_waiting: AtomicUsize::new(0),
            queue_limit,
            leased: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            lease_ended: Notify::new(),
            batches,
        })
    }

    fn line(&self) -> MutexGuard<'_, VecDeque<Waiter>> {
        self.line.lock().expect("no code that holds this lock can panic")
    }

    fn note_length(&self, line: &VecDeque<Waiter>) {
        self.waiting.store(line.len(), Ordering::SeqCst);
    }

    /// Takes a free connection, or a place in the line.
    pub(crate) fn acquire(self: &Arc<Self>) -> Acquire {
        self.acquire_for(None)
    }

    /// The same for a request that names a model: of several replicas it goes to the one that had requests for it before, unless that
    /// has far more to do than the others.
    pub(crate) fn acquire_for(self: &Arc<Self>, model: Option<&str>) -> Acquire {
        self.acquire_now(model).unwrap_or_else(|| self.wait_in_line(None))
    }

    /// What needs no place in the line.
    fn acquire_now(self: &Arc<Self>, model: Option<&str>) -> Option<Acquire> {
        // The lease is counted before the look at `draining`, and a drain looks at the count after it has set that: one sees the other.
        let mut lease = Lease::empty(self);
        if self.draining.load(Ordering::SeqCst) {
            return Some(Acquire::Draining);
        }
        // Those in the line come first.
        if self.waiting.load(Ordering::SeqCst) == 0
            && let Some(connection) = self.take_free(model)
        {
            lease.hold(connection);
            return Some(Acquire::Ready(lease));
        }
        None
    }

    fn wait_in_line(self: &Arc<Self>, request: Option<BatchRequest>) -> Acquire {
        let mut line = self.line();
        if self.draining.load(Ordering::SeqCst) {
            return Acquire::Draining;
        }
        if line.len() >= self.queue_limit {
            line.retain(|waiter| !waiter.is_closed());
            if line.len() >= self.queue_limit {
                self.note_length(&line);
                return Acquire::Full;
            }
        }
        let (waiter, acquire) = Waiter::new(request);
        line.push_back(waiter);
        self.note_length(&line);
        // One may have come free since the first look.
        self.serve(line);
        acquire
    }

    /// How many wait in line.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Sends away those who wait: their channels close.
    pub(crate) fn dismiss(&self) {
        let mut line = self.line();
        let dismissed = std::mem::take(&mut *line);
        self.note_length(&line);
        drop(line);
        drop(dismissed);
    }

    /// Gives free connections to those who wait.
    fn serve(self: &Arc<Self>, mut line: MutexGuard<'_, VecDeque<Waiter>>) {
        while let Some(waiter) = line.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            let Some(connection) = self.take_free(None) else {
                line.push_front(waiter);
                break;
            };
            let mut lease = Lease::empty(self);
            lease.hold(connection);
            if let Some(mut returned) = self.grant(waiter, lease, &mut line) {
                // It went away this very moment. The line's lock is held, so that the connection goes back without a look at it.
                if let Some(connection) = returned.end() {
                    self.shelve(connection);
                }
            }
        }
        self.note_length(&line);
    }

    /// Puts a connection into service, be it new or free again.
    pub(crate) fn offer(self: &Arc<Self>, connection: Connection) {
        if connection.link.is_retired() {
            return; // dropping the connection closes it
        }
        let is_new_replica = self.shelve(connection);
        self.serve_pinned();
        // Who waits has noted it before the look at the shelves, and the shelf's count was noted before this look: one sees the other.
        if is_new_replica || self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve(self.line());
        }
    }

    /// Says whether a shelf was made for it.
    fn shelve(&self, connection: Connection) -> bool {
        if let Some(batches) = &self.batches {
            batches.note(&connection);
        }
        let shelves = self.shelves.load();
        if let Some(shelf) = find(&shelves, &connection.link) {
            shelf.put(connection);
            return false;
        }
        let link = Arc::clone(&connection.link);
        self.shelves.rcu(|shelves| {
            let mut grown = kept(shelves);
            if find(&grown, &link).is_none() {
                grown.push(Shelf::new(Arc::clone(&link)));
            }
            grown
        });
        if let Some(shelf) = find(&self.shelves.load(), &link) {
            shelf.put(connection);
        }
        true
    }

    fn take_free(&self, model: Option<&str>) -> Option<Connection> {
        let shelves = self.shelves.load();
        loop {
            let chosen = match model {
                Some(model) if shelves.len() > 1 => affinity::choose(&shelves, model),
                _ => self.choose(&shelves),
            };
            // Somebody else may have taken the last one meanwhile.
            if let Some(connection) = chosen?.take() {
                return Some(connection);
            }
        }
    }

    /// A replica with a free connection, by the variant's strategy.
    fn choose<'a>(&self, shelves: &'a [Arc<Shelf>]) -> Option<&'a Arc<Shelf>> {
        let free = || shelves.iter().filter(|shelf| shelf.count() > 0);
        match (self.strategy, free().count()) {
            (_, 0) => None,
            (_, 1) => free().next(),
            (RoutingStrategy::Random, count) => {
                free().nth(rand::random_range(0..count)).or_else(|| free().next())
            }
            // Equals take turns by chance, so that the first is not always first.
            (RoutingStrategy::LeastOutstandingRequests, _) => {
                free().min_by_key(|shelf| (shelf.link.outstanding(), rand::random::<u32>()))
            }
        }
    }

    /// Takes out those idle connections that `choose` picks; a later [`Pool::offer`] may bring them back.
    pub(crate) fn take_idle(&self, choose: impl Fn(&Connection) -> bool) -> Vec<Connection> {
        self.shelves.load().iter().flat_map(|shelf| shelf.take_those(&choose)).collect()
    }

    /// Forgets a replica that gets no more requests, and closes its idle connections.
    pub(crate) fn forget(self: &Arc<Self>, link: &Arc<ReplicaLink>) {
        drop(self.take_idle(|connection| Arc::ptr_eq(&connection.link, link)));
        self.shelves.rcu(|shelves| kept(shelves));
        self.serve_pinned();
    }

    /// Takes no new requests and waits until those accepted have been answered, but no longer than `limit`.
    pub(crate) async fn drain(&self, limit: Duration) {
        {
            // Under the lock, so that nobody enters the line after it was looked at.
            let (_line, _pinned) = (self.line(), self.pinned());
            self.draining.store(true, Ordering::SeqCst);
        }
        let drained = async {
            while !self.is_quiet() {
                // A waiter that gives up tells nobody, hence the short look-again time.
                let _ = tokio::time::timeout(Duration::from_millis(20), self.lease_ended.notified()).await;
            }
        };
        let _ = tokio::time::timeout(limit, drained).await;
        // Those who still wait see their channel close and report an overload.
        let leftovers = std::mem::take(&mut *self.line());
        drop(leftovers);
        let leftovers = std::mem::take(&mut *self.pinned());
        drop(leftovers);
    }

    fn is_quiet(&self) -> bool {
        let mut line = self.line();
        line.retain(|waiter| !waiter.is_closed());
        self.note_length(&line);
        line.is_empty()
            && self.pinned_waiting.load(Ordering::SeqCst) == 0
            && self.leased.load(Ordering::SeqCst) == 0
    }
}

fn find<'a>(shelves: &'a [Arc<Shelf>], link: &Arc<ReplicaLink>) -> Option<&'a Arc<Shelf>> {
    shelves.iter().find(|shelf| Arc::ptr_eq(&shelf.link, link))
}

/// The shelves of replicas that are in service.
fn kept(shelves: &[Arc<Shelf>]) -> Vec<Arc<Shelf>> {
    shelves.iter().filter(|shelf| !shelf.link.is_retired()).map(Arc::clone).collect()
}

impl Lease {
    fn empty(pool: &Arc<Pool>) -> Self {
        pool.leased.fetch_add(1, Ordering::SeqCst);
        Self { connection: None, pool: Arc::clone(pool) }
    }

    fn hold(&mut self, connection: Connection) {
        connection.link.begin_request();
        self.connection = Some(connection);
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
        connection.link.end_request();
        Some(connection)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Whoever asked has gone away; the place in a container is as good as before.
        if let Some(rest) = self.end().and_then(|mut connection| connection.after_interruption()) {
            self.pool.offer(rest);
        }
        self.pool.leased.fetch_sub(1, Ordering::SeqCst);
        if self.pool.draining.load(Ordering::SeqCst) {
            self.pool.lease_ended.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
