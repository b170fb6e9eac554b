//! What the connections of a replica have in common.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// What a connection knows of the replica it leads to.
#[derive(Debug)]
pub(crate) struct ReplicaLink {
    pub(crate) id: String,
    /// Set once the replica must get no more requests.
    pub(crate) retired: AtomicBool,
    /// How many of its connections carry a request now.
    in_use: AtomicUsize,
    /// Told of each connection that was closed, so that it is replaced.
    pub(crate) lost: mpsc::UnboundedSender<()>,
    /// The workers that its connections lead to, by a number that each gets.
    workers: Mutex<Workers>,
    /// How its process has ended, once it has.
    pub(crate) ending: watch::Sender<Option<String>>,
    /// Why the worker was lost that was lost last, if that is known.
    pub(crate) loss: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
pub(super) struct Workers {
    count: u64,
    pub(super) reached: BTreeSet<u64>,
}

impl ReplicaLink {
    pub(crate) fn new(id: String, lost: mpsc::UnboundedSender<()>) -> Arc<Self> {
        Arc::new(Self {
            id,
            retired: AtomicBool::new(false),
            in_use: AtomicUsize::new(0),
            lost,
            workers: Mutex::default(),
            ending: watch::Sender::default(),
            loss: watch::Sender::default(),
        })
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(super) fn workers(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().expect("no code that holds this lock can panic")
    }

    /// A number for a worker that is reached from now on.
    pub(crate) fn number_worker(&self) -> u64 {
        let mut workers = self.workers();
        workers.count += 1;
        let number = workers.count;
        workers.reached.insert(number);
        number
    }

    /// Whether that worker is still reached.
    pub(crate) fn has_worker(&self, number: u64) -> bool {
        self.workers().reached.contains(&number)
    }

    /// What befalls it from now on, or has ended it, if that is known within the limit.
    pub(crate) fn how_it_ended(&self, limit: Duration) -> impl Future<Output = Option<String>> + use<> {
        let (mut ending, mut loss) = (self.ending.subscribe(), self.loss.subscribe());
        let heard = async move {
            loop {
                tokio::select! {
                    biased;
                    ended = ending.wait_for(Option::is_some) => return ended.ok().and_then(|text| text.clone()),
                    told = loss.changed() => {
                        told.ok()?;
                        let told = loss.borrow_and_update().clone();
                        if told.is_some() {
                            return told;
                        }
                    }
                }
            }
        };
        async move { tokio::time::timeout(limit, heard).await.ok().flatten() }
    }

    /// How many requests it has now.
    pub(crate) fn outstanding(&self) -> usize {
        self.in_use.load(Ordering::Acquire)
    }

    pub(crate) fn begin_request(&self) {
        self.in_use.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn end_request(&self) {
        self.in_use.fetch_sub(1, Ordering::AcqRel);
    }
}
