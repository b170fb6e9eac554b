//! Which of the jobs that wait are told that they are about to be served, so that they can be prepared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use store::resources::ResourceKey;
use tokio::sync::watch;

use super::ledger::{Grant, Ledger};
use super::{State, lock};

/// Those that want to know.
#[derive(Default)]
pub struct NextJobs {
    asking: HashMap<ResourceKey, watch::Sender<Option<Grant>>>,
    /// Those of them that were told that they are among the next.
    chosen: Vec<ResourceKey>,
}

impl NextJobs {
    /// Tells the jobs whose outlook has changed. Who is chosen stays so until twice as many go before: lines that overtake each
    /// other by turns must not make sandboxes come and go.
    pub fn look(&mut self, ledger: &Ledger) {
        if self.asking.is_empty() {
            return;
        }
        let most = ledger.most_prepared();
        let next = ledger.next(2 * most);
        let NextJobs { asking, chosen } = self;
        chosen.retain(|key| {
            let stays = next.iter().any(|(one, _)| one == key);
            // One that has its turn is in no line any more, and goes on with what it has prepared.
            if !stays
                && ledger.is_waiting(key)
                && let Some(outlook) = asking.get(key)
            {
                outlook.send_replace(None);
            }
            stays && asking.contains_key(key)
        });
        for (key, grant) in next.into_iter().take(most) {
            if chosen.len() < 2 * most
                && !chosen.contains(&key)
                && let Some(outlook) = asking.get(&key)
            {
                outlook.send_replace(Some(grant));
                chosen.push(key);
            }
        }
    }
}

/// What a job is told of its turn, for as long as it wants to know.
pub struct Outlook {
    key: ResourceKey,
    state: Arc<Mutex<State>>,
    receiver: watch::Receiver<Option<Grant>>,
}

impl Outlook {
    pub(super) fn new(key: &ResourceKey, state: &Arc<Mutex<State>>) -> Outlook {
        let (sender, receiver) = watch::channel(None);
        lock(state).next.asking.insert(key.clone(), sender);
        Outlook { key: key.clone(), state: state.clone(), receiver }
    }

    /// Returns once the job is one of the next, with what it will be granted.
    pub async fn is_next(&mut self) -> Grant {
        loop {
            if let Some(grant) = self.receiver.borrow_and_update().clone() {
                return grant;
            }
            if self.receiver.changed().await.is_err() {
                // The job has another outlook by now.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns once the job is not one of the next any more.
    pub async fn is_overtaken(&mut self) {
        while self.receiver.borrow_and_update().is_some() {
            if self.receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Outlook {
    fn drop(&mut self) {
        lock(&self.state).next.asking.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::CapacitySettings;
    use super::super::{Claim, Machine, Profile};
    use super::*;

    fn claim(name: &str, priority: i32) -> Claim {
        Claim {
            key: ResourceKey::new("111111111111", "r", "training-job", name),
            hosts: vec![("ml.x.y".into(), Profile { vcpus: 1.0, memory_gib: 1.0, gpus: 0, gpu: None })],
            queue: "default".into(),
            priority,
            spot: false,
            enqueued_at: 0,
        }
    }

    #[test]
    fn the_chosen_stay_until_twice_as_many_go_before_and_keep_what_they_have_on_their_turn() {
        let machine = Machine { cpus: 1.0, memory_bytes: 8 << 30, gpus: Vec::new() };
        let mut ledger = Ledger::new(machine, CapacitySettings::default(), 2);
        let mut jobs = NextJobs::default();
        let ask = |jobs: &mut NextJobs, ledger: &mut Ledger, claim: Claim| {
            let (sender, receiver) = watch::channel(None);
            jobs.asking.insert(claim.key.clone(), sender);
            ledger.wait(claim);
            jobs.look(ledger);
            receiver
        };
        let first = ask(&mut jobs, &mut ledger, claim("first", 0));
        assert!(first.borrow().is_some());
        let second = ask(&mut jobs, &mut ledger, claim("second", 1));
        assert!(first.borrow().is_some() && second.borrow().is_some(), "one more goes before it");
        let third = ask(&mut jobs, &mut ledger, claim("third", 2));
        assert!(first.borrow().is_none() && second.borrow().is_some() && third.borrow().is_some());
        assert_eq!(ledger.decide(0).start.len(), 2);
        jobs.look(&ledger);
        assert!(third.borrow().is_some() && second.borrow().is_some(), "they have their turn");
        assert!(first.borrow().is_some(), "it is the next again");
        jobs.asking.clear();
        jobs.look(&ledger);
    }
}
