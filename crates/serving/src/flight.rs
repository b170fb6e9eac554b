//! An invocation under way: it counts among its variant's concurrent requests from its arrival to the end of its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::gate::{Gate, Pass};
use crate::metrics::Counters;

/// Counts one invocation for as long as it lives, however it ends.
#[derive(Debug)]
pub(crate) struct Flight {
    counters: Arc<Counters>,
    arrived_at: Instant,
    /// Where only so many are let in at once.
    pass: Option<Pass>,
}

impl Flight {
    pub(crate) fn begin(counters: &Arc<Counters>, arrived_at: Instant) -> Flight {
        counters.invocations.fetch_add(1, Relaxed);
        counters.in_flight.fetch_add(1, Relaxed);
        Flight { counters: Arc::clone(counters), arrived_at, pass: None }
    }

    /// Goes through the gate of a variant, or has done so; `false` when that stays full.
    pub(crate) async fn enter(&mut self, gate: &Arc<Gate>) -> bool {
        if !self.pass.as_ref().is_some_and(|pass| pass.is_of(gate)) {
            self.pass = gate.enter().await;
        }
        self.pass.is_some()
    }

    /// Takes down what a whole answer took beside the model's own time since `sent_at`.
    pub(crate) fn answered(&self, sent_at: Instant) {
        let overhead = sent_at.saturating_duration_since(self.arrived_at);
        self.counters.overhead_latencies.record(overhead);
        self.counters.model_latencies.record(sent_at.elapsed());
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.counters.in_flight.fetch_sub(1, Relaxed);
        self.counters.ended.fetch_add(1, Relaxed);
    }
}
