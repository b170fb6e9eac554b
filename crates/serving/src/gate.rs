//! The gate of a variant that answers only so many invocations at once, and what is known of those who came through.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::on_demand::OnDemandPlan;

/// Lets in so many invocations at once. Who has to wait for a worker inside rings the bell of the endpoint, which brings up replicas.
#[derive(Debug)]
pub(crate) struct Gate {
    limit: AtomicUsize,
    inside: AtomicUsize,
    /// Most that were inside since somebody looked.
    peak: AtomicUsize,
    /// How long one who finds it full waits.
    wait: Duration,
    /// Longest body that comes in or goes out.
    pub(crate) max_body_bytes: u64,
    left: Notify,
    bell: Arc<Notify>,
    /// Whether the last replica that was started did not come up, and why.
    problem: Mutex<Option<String>>,
    has_problem: AtomicBool,
}

/// The right to be inside.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
}

impl Gate {
    pub(crate) fn new(plan: &OnDemandPlan, bell: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(plan.max_concurrency as usize),
            inside: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            wait: Duration::from_secs_f64(plan.refusal_wait_seconds),
            max_body_bytes: plan.max_body_bytes,
            left: Notify::new(),
            bell,
            problem: Mutex::default(),
            has_problem: AtomicBool::new(false),
        })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.load(SeqCst)
    }

    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit as usize, SeqCst);
        self.left.notify_one();
    }

    /// Lets one in; `None` when it stays full for too long.
    pub(crate) async fn enter(self: &Arc<Self>) -> Option<Pass> {
        if let Some(pass) = self.try_enter() {
            return Some(pass);
        }
        let waiting = async {
            loop {
                // A word that somebody left which nobody hears is kept for the next who listens.
                self.left.notified().await;
                if let Some(pass) = self.try_enter() {
                    // There may be room for another, and one word for both.
                    self.left.notify_one();
                    return pass;
                }
            }
        };
        tokio::time::timeout(self.wait, waiting).await.ok()
    }

    fn try_enter(self: &Arc<Self>) -> Option<Pass> {
        let limit = self.limit();
        let one_more = |inside: usize| (inside < limit).then_some(inside + 1);
        let before = self.inside.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        self.peak.fetch_max(before + 1, SeqCst);
        Some(Pass { gate: Arc::clone(self) })
    }

    /// The most invocations that were inside at once since the last look.
    pub(crate) fn take_peak(&self) -> usize {
        let inside = self.inside.load(SeqCst);
        self.peak.swap(inside, SeqCst).max(inside)
    }

    /// Says that somebody inside waits for a worker.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    fn problem(&self) -> MutexGuard<'_, Option<String>> {
        self.problem.lock().expect("no code that holds this lock can panic")
    }

    /// Takes down why no replica comes up, or that one did.
    pub(crate) fn set_problem(&self, problem: Option<String>) {
        self.has_problem.store(problem.is_some(), SeqCst);
        *self.problem() = problem;
    }

    /// Why no replica comes up.
    pub(crate) fn why_none(&self) -> Option<String> {
        if self.has_problem.load(SeqCst) { self.problem().clone() } else { None }
    }
}

impl Pass {
    /// Whether it is one of this gate.
    pub(crate) fn is_of(&self, gate: &Arc<Gate>) -> bool {
        Arc::ptr_eq(&self.gate, gate)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.inside.fetch_sub(1, SeqCst);
        self.gate.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(max_concurrency: u32, refusal_wait_seconds: f64) -> Arc<Gate> {
        let plan = OnDemandPlan {
            max_concurrency,
            provisioned_concurrency: 0,
            max_replicas: 1,
            idle_seconds: 1.0,
            refusal_wait_seconds,
            max_body_bytes: 1024,
        };
        Gate::new(&plan, Arc::default())
    }

    #[tokio::test]
    async fn one_too_many_is_refused_and_the_next_is_not() {
        let gate = gate(2, 0.0);
        let first = gate.enter().await.unwrap();
        let second = gate.enter().await.unwrap();
        assert!(gate.enter().await.is_none());
        drop(first);
        let third = gate.enter().await.unwrap();
        assert!(third.is_of(&gate));
        drop((second, third));
        assert_eq!((gate.take_peak(), gate.take_peak()), (2, 0));
    }

    #[tokio::test]
    async fn who_waits_comes_in_when_another_leaves_or_the_limit_grows() {
        let gate = gate(1, 60.0);
        let first = gate.enter().await.unwrap();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { (gate.enter().await, gate.enter().await) }
        });
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        gate.set_limit(2);
        let (one, other) = waiting.await.unwrap();
        assert!(one.is_some() && other.is_some());
        assert_eq!(gate.take_peak(), 2);
    }
}
