//! Brings ended segments to the store, one after the other, until each is there.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use failpoint::Point;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::counts::Counts;
use super::plan::CaptureStore;
use super::queue::Tally;
use super::segment::Segment;

/// First and longest pause before a delivery is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What nobody took for so long is given up: seven days.
const GIVEN_UP_AFTER_MS: i64 = 7 * 24 * 3_600_000;

/// What the deliverer is asked to do.
pub(super) enum Order {
    /// Deliver this.
    Segment(Segment),
    /// Try everything now, and say when that is done.
    Flush(oneshot::Sender<()>),
}

/// Delivers the segments of one spool.
pub(super) struct Delivery {
    pub(super) store: Arc<dyn CaptureStore>,
    pub(super) target: serde_json::Value,
    pub(super) counts: Arc<Counts>,
    pub(super) clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub(super) tally: Arc<Tally>,
    /// Lines that were delivered so far.
    pub(super) delivered_lines: u64,
}

impl Delivery {
    /// Runs until no orders come any more and everything is delivered.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut waiting = VecDeque::new();
        let mut pause = PAUSES.0;
        let mut try_at = Instant::now();
        let mut is_open = true;
        while is_open || !waiting.is_empty() {
            let mut asked: Vec<oneshot::Sender<()>> = Vec::new();
            tokio::select! {
                order = orders.recv(), if is_open => match order {
                    Some(Order::Segment(segment)) => {
                        waiting.push_back(segment);
                        if Instant::now() < try_at {
                            continue;
                        }
                    }
                    Some(Order::Flush(answer)) => asked.push(answer),
                    // Once nothing more comes, what is there is tried at once.
                    None => is_open = false,
                },
                () = tokio::time::sleep_until(try_at), if !waiting.is_empty() => {}
            }
            match self.deliver_all(&mut waiting).await {
                Ok(()) => pause = PAUSES.0,
                Err(text) => {
                    tracing::error!(
                        error = text,
                        segments = waiting.len(),
                        "captured data cannot be stored; it is kept and tried again"
                    );
                    try_at = Instant::now() + pause;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
            for answer in asked {
                // Whoever asked may be gone.
                let _ = answer.send(());
            }
        }
    }

    /// Delivers in order, up to the first that cannot be.
    async fn deliver_all(&mut self, waiting: &mut VecDeque<Segment>) -> Result<(), String> {
        while let Some(segment) = waiting.front() {
            match self.store.deliver(&self.target, segment).await {
                Ok(()) => {
                    self.tally.delivered.fetch_add(segment.lines, Ordering::Relaxed);
                }
                Err(_) if (self.clock)() - segment.started_at_ms > GIVEN_UP_AFTER_MS => {
                    self.tally.lost.fetch_add(segment.lines, Ordering::Relaxed);
                    self.store.lost(&self.target, segment.lines).await;
                }
                Err(text) => return Err(text),
            }
            failpoint::pass(Point::CaptureStored);
            self.delivered_lines += segment.lines;
            if let Err(error) = self.counts.delivered(segment.number, self.delivered_lines) {
                tracing::warn!(%error, "what a crash would lose of captured data may be counted wrong");
            }
            remove(&segment.path);
            self.tally.waiting_bytes.fetch_sub(segment.bytes, Ordering::Relaxed);
            waiting.pop_front();
        }
        Ok(())
    }
}

/// Removes a file that is not needed any more.
pub(super) fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a file of captured data stays");
    }
}
