//! Requests that a worker gets together: how many may be, what one of them is, and what was counted of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;

use crate::frame;
use crate::invocation::InvokeRequest;

/// How many requests that wait for a worker it may answer together. Only workers that say that they can are asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// Most requests at once; with 1, each is answered alone.
    pub requests: u32,
    /// Most bytes of them together; a longer one goes alone.
    pub bytes: usize,
    /// How long a worker that comes free waits for more requests, where some wait and there is room for others.
    pub delay: Duration,
    /// How much work a worker that answers requests one by one is handed at once, by the usual time of its answers; zero for one request at
    /// a time.
    pub backlog: Duration,
}

impl Default for BatchSettings {
    fn default() -> BatchSettings {
        BatchSettings {
            requests: 64,
            bytes: 1024 * 1024,
            delay: Duration::ZERO,
            backlog: Duration::from_millis(2),
        }
    }
}

/// A request that others may be answered with.
#[derive(Debug)]
pub(crate) struct BatchRequest {
    pub(crate) header: Vec<u8>,
    pub(crate) body: Bytes,
    /// What a worker may take for its answer.
    pub(crate) time_limit: Duration,
    pub(crate) most_answer_bytes: u64,
}

impl BatchRequest {
    pub(crate) fn of(request: &InvokeRequest, time_limit: Duration, most_answer_bytes: u64) -> BatchRequest {
        let header = frame::header_of(request);
        BatchRequest { header, body: request.body.clone(), time_limit, most_answer_bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.header.len() + self.body.len()
    }
}

impl InvokeRequest {
    /// Whether another one beside it makes no difference: it means no session, model or container, and has the usual time.
    pub(crate) fn may_join(&self) -> bool {
        self.session_id.is_none()
            && self.session_place.is_none()
            && self.target_model.is_none()
            && self.target_container.is_none()
            && self.time_limit.is_none()
            && self.spoken.as_deref().is_none_or(|spoken| !spoken.is_required)
    }
}

/// The sizes of batches are counted up to each power of two.
const CLASSES: usize = 10;

/// Batches of a variant since the data plane knows it.
#[derive(Debug, Default)]
pub(crate) struct BatchCounters {
    limit: AtomicU64,
    sizes: [AtomicU64; CLASSES],
    requests: AtomicU64,
    in_backlogs: AtomicU64,
}

/// What was counted of the requests that were answered together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchSnapshot {
    /// Most requests that a worker answers together now; 0 where each is answered alone.
    pub limit: u64,
    /// How many batches had how many requests: up to 2, 4, 8 and so on to 1024.
    pub sizes: Vec<(u64, u64)>,
    /// Requests in all of them.
    pub requests: u64,
    /// Requests that waited at a quick worker, which had several at once and answered them one by one.
    pub in_backlogs: u64,
}

impl BatchCounters {
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(u64::from(limit), Relaxed);
    }

    pub(crate) fn count(&self, requests: usize) {
        let class = (requests.max(2) - 1).ilog2() as usize;
        self.sizes[class.min(CLASSES - 1)].fetch_add(1, Relaxed);
        self.requests.fetch_add(requests as u64, Relaxed);
    }

    pub(crate) fn count_backlog(&self, requests: usize) {
        self.in_backlogs.fetch_add(requests as u64, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> BatchSnapshot {
        let sized = |(class, count): (usize, &AtomicU64)| (2_u64 << class, count.load(Relaxed));
        BatchSnapshot {
            limit: self.limit.load(Relaxed),
            sizes: self.sizes.iter().enumerate().map(sized).collect(),
            requests: self.requests.load(Relaxed),
            in_backlogs: self.in_backlogs.load(Relaxed),
        }
    }
}

impl BatchSnapshot {
    /// How many batches there were.
    pub fn batches(&self) -> u64 {
        self.sizes.iter().map(|(_, count)| count).sum()
    }

    /// How many requests they had on average, if there were any.
    pub fn mean_size(&self) -> Option<f64> {
        (self.batches() > 0).then(|| self.requests as f64 / self.batches() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_up_to_powers_of_two() {
        let counters = BatchCounters::default();
        for size in [2, 3, 4, 5, 8, 9, 1024] {
            counters.count(size);
        }
        let snapshot = counters.snapshot();
        let found: Vec<_> = snapshot.sizes.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(found, [(2, 1), (4, 2), (8, 2), (16, 1), (1024, 1)]);
        assert_eq!((snapshot.batches(), snapshot.requests, snapshot.limit), (7, 1055, 0));
    }
}
