//! Puts from within the server: they cost a channel send and never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::MetricStore;
use super::sample::NewSamples;

/// Puts that may wait to be written; more are dropped, and counted.
const MOST_WAITING: usize = 4_096;

/// Puts that are written at once.
const MOST_AT_ONCE: usize = 512;

/// A way into the metric store for the server's own measurements. Clones share it.
///
/// What is put is on the disk a moment later, not when `put` returns; measurements that a crash takes are no loss to anybody.
#[derive(Clone)]
pub struct MetricSink {
    sender: mpsc::Sender<Vec<NewSamples>>,
    dropped: Arc<AtomicU64>,
}

impl MetricSink {
    /// Starts the task that writes; it ends when all clones are gone. Call it within a Tokio runtime.
    pub fn start(store: Arc<MetricStore>) -> MetricSink {
        let (sender, mut receiver) = mpsc::channel::<Vec<NewSamples>>(MOST_WAITING);
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while receiver.recv_many(&mut waiting, MOST_AT_ONCE).await > 0 {
                let samples: Vec<NewSamples> = waiting.drain(..).flatten().collect();
                if let Err(error) = store.put(samples).await {
                    tracing::error!(%error, "measurements of the server were lost");
                }
            }
        });
        MetricSink { sender, dropped: Arc::default() }
    }

    /// Puts samples. When the disk cannot keep up they are dropped, and the log says so once in a while.
    pub fn put(&self, samples: Vec<NewSamples>) {
        if self.sender.try_send(samples).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "measurements come faster than they can be written and are dropped");
            }
        }
    }
}
