//! The bounded way from invocations to the spool. Nobody waits here: what does not fit is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::counts::Counts;
use super::plan::{CapturePlan, CapturedInvocation};

/// What a captured invocation takes beside its bodies, about.
pub(super) const RECORD_BYTES: usize = 512;
/// Bodies up to this size are copied: a part of a larger buffer would keep all of it.
const COPIED_BYTES: usize = 4096;

/// The capture of one endpoint, as invocations see it.
pub struct Capture {
    pub(super) endpoint: String,
    pub(super) plan: CapturePlan,
    pub(super) room: Arc<Room>,
    pub(super) tally: Arc<Tally>,
    pub(super) counts: Arc<Counts>,
    pub(super) clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    pub(super) streamed_limit_bytes: usize,
    pub(super) spool_limit_bytes: u64,
    pub(super) sender: mpsc::UnboundedSender<Queued>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Capture").field("percentage", &self.plan.percentage).finish_non_exhaustive()
    }
}

/// A captured invocation on its way, with the room that it takes.
pub(super) struct Queued {
    pub(super) captured: CapturedInvocation,
    pub(super) share: Share,
}

/// How much memory captured invocations may take until they are in the spool, and how full it is.
#[derive(Debug)]
pub(super) struct Room {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    /// Told when half of the room is used.
    pub(super) filling: Notify,
}

/// What is counted of an endpoint's captures, for reports.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) lost: AtomicU64,
    /// Bytes of segments that have ended and are not delivered.
    pub(super) waiting_bytes: AtomicU64,
}

/// A part of the room; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    pub(super) fn new(limit_bytes: usize) -> Room {
        Room { limit_bytes, used_bytes: AtomicUsize::new(0), filling: Notify::new() }
    }
}

impl Share {
    pub(super) fn none(room: &Arc<Room>) -> Share {
        Share { room: Arc::clone(room), bytes: 0 }
    }

    /// Takes more of the room; `false`, and nothing taken, when it is not there.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let before = self.room.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.room.limit_bytes {
            self.room.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        let half = self.room.limit_bytes / 2;
        if before < half && before + bytes >= half {
            self.room.filling.notify_one();
        }
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Capture {
    /// Whether this invocation is one of those that are captured.
    pub(super) fn takes_this_one(&self) -> bool {
        match self.plan.percentage {
            0 => false,
            1..100 => rand::random::<f64>() * 100.0 < f64::from(self.plan.percentage),
            _ => true,
        }
    }

    /// Counts an invocation that is not captured for want of room.
    pub(super) fn drop_one(&self) {
        let dropped = self.tally.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        if dropped.is_power_of_two() {
            tracing::warn!(
                endpoint = self.endpoint,
                dropped,
                "invocations come faster than they can be captured, or captured data cannot be stored; some are not captured"
            );
        }
    }

    /// Hands an invocation over to the writer.
    pub(super) fn push(&self, queued: Queued) {
        if self.tally.waiting_bytes.load(Ordering::Relaxed) > self.spool_limit_bytes {
            return self.drop_one();
        }
        self.counts.accept();
        self.tally.accepted.fetch_add(1, Ordering::Relaxed);
        if self.sender.send(queued).is_err() {
            self.drop_one();
        }
    }
}

/// The bytes of a body that may be kept.
pub(crate) fn kept(body: &Bytes) -> Bytes {
    if body.len() <= COPIED_BYTES { Bytes::copy_from_slice(body) } else { body.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_never_overdrawn_and_comes_back() {
        let room = Arc::new(Room::new(100));
        let (mut one, mut two) = (Share::none(&room), Share::none(&room));
        assert!(one.grow(60) && !two.grow(60) && two.grow(40));
        assert!(!one.grow(1), "it is full");
        drop(one);
        assert!(two.grow(60));
        drop(two);
        assert_eq!(room.used_bytes.load(Ordering::Relaxed), 0);
    }
}
