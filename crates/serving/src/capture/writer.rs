//! The task that brings captured invocations from the queue to the spool, and ended segments on to their delivery.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::delivery::Order;
use super::queue::{Queued, Room, Tally};
use super::segment::Segment;
use super::spool::Spool;

/// How long an invocation waits at most until it is written: what was written survives the process.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);
/// How often the disk is forced at most: what it has then survives the machine.
const SYNC_INTERVAL: Duration = Duration::from_millis(750);
/// How long after a failure of the disk it is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Writes the spool of one endpoint.
pub(super) struct Writer {
    pub(super) queue: mpsc::UnboundedReceiver<Queued>,
    pub(super) flushes: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    pub(super) spool: Spool,
    pub(super) room: Arc<Room>,
    pub(super) tally: Arc<Tally>,
    pub(super) clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub(super) orders: mpsc::UnboundedSender<Order>,
}

/// What one look at the disk brought.
struct Stepped {
    spool: Spool,
    ended: Vec<Segment>,
    result: io::Result<()>,
}

impl Writer {
    /// Runs until nobody can capture any more and everything is in ended segments.
    pub(super) async fn run(mut self) {
        let mut is_open = true;
        let mut synced_at = Instant::now();
        let mut retry_at = None;
        let mut failures: u64 = 0;
        loop {
            let mut gathered = Vec::new();
            let mut asked = None;
            let due = [
                retry_at,
                self.spool.next_end(),
                self.spool.is_unsynced().then(|| synced_at + SYNC_INTERVAL),
            ];
            let due = due.into_iter().flatten().min();
            // While the disk fails, nothing is due before the next try.
            let due = retry_at.or(due);
            tokio::select! {
                first = self.queue.recv(), if is_open => match first {
                    Some(first) => {
                        gathered.push(first);
                        // The queue is left alone meanwhile: who puts something into it need not wake anybody.
                        tokio::select! {
                            () = tokio::time::sleep(WRITE_INTERVAL) => {}
                            () = self.room.filling.notified() => {}
                            Some(flush) = self.flushes.recv() => asked = Some(flush),
                        }
                    }
                    None => is_open = false,
                },
                Some(flush) = self.flushes.recv() => asked = Some(flush),
                () = sleep_until(due), if due.is_some() => {}
            }
            while let Ok(next) = self.queue.try_recv() {
                gathered.push(next);
            }
            let is_last = !is_open || asked.is_some();
            let is_sync_due = synced_at.elapsed() >= SYNC_INTERVAL;
            let hour = Spool::hour((self.clock)());
            let spool = self.spool;
            let step = move || step(spool, gathered, is_sync_due, is_last, hour);
            let Ok(stepped) = tokio::task::spawn_blocking(step).await else {
                // The process ends, or the form of a line panicked: what is on the disk is taken up by the next start.
                tracing::error!("the capture of an endpoint has ended before its time");
                return;
            };
            self.spool = stepped.spool;
            if is_sync_due {
                synced_at = Instant::now();
            }
            for segment in stepped.ended {
                self.tally.waiting_bytes.fetch_add(segment.bytes, Ordering::Relaxed);
                // The deliverer ends after this task.
                let _ = self.orders.send(Order::Segment(segment));
            }
            match stepped.result {
                Ok(()) => (retry_at, failures) = (None, 0),
                Err(error) => {
                    failures += 1;
                    if failures.is_power_of_two() {
                        tracing::error!(%error, failures, "captured data cannot be written; it is kept in memory and tried again");
                    }
                    retry_at = Some(Instant::now() + RETRY_PAUSE);
                }
            }
            if let Some(answer) = asked {
                let _ = self.orders.send(Order::Flush(answer));
            }
            if !is_open && self.spool.next_end().is_none() {
                return;
            }
        }
    }
}

fn step(
    mut spool: Spool,
    gathered: Vec<Queued>,
    is_sync_due: bool,
    are_all_to_end: bool,
    hour: i64,
) -> Stepped {
    let mut result = spool.append(gathered);
    if is_sync_due {
        result = result.and(spool.sync());
    }
    let (ended, taken) = spool.take_ended(are_all_to_end, hour);
    Stepped { spool, ended, result: result.and(taken) }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
