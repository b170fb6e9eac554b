//! Admission: which job may run now, with how much of the machine, and what the others wait for.

mod instance_types;
mod ledger;
mod lines;
mod next;
pub mod settings;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use store::Clock;
use store::resources::ResourceKey;
use tokio::sync::{Notify, oneshot};

pub use instance_types::{InstanceTypes, Profile};
pub use ledger::{Claim, Grant, HostGrant, Machine};
use ledger::{Decisions, Ledger};
use next::NextJobs;
pub use next::Outlook;
use settings::CapacitySettings;

/// Decides which jobs run. Kept in memory: a restarted server enters the jobs that run and lines the others up again.
pub struct Capacity {
    clock: Clock,
    instance_types: InstanceTypes,
    machine_cpus: f64,
    machine_memory_bytes: u64,
    state: Arc<Mutex<State>>,
}

struct State {
    ledger: Ledger,
    waiting: HashMap<ResourceKey, oneshot::Sender<Grant>>,
    next: NextJobs,
    interruptions: HashMap<ResourceKey, Arc<Notify>>,
}

/// A job's part of the machine; dropping it gives it back.
pub struct Allocation {
    key: ResourceKey,
    is_given_back: AtomicBool,
    /// What each host may use.
    pub grant: Grant,
    interruption: Arc<Notify>,
    state: Arc<Mutex<State>>,
    clock: Clock,
}

impl Allocation {
    /// Returns once the job has to make room for another.
    pub async fn interrupted(&self) {
        self.interruption.notified().await;
    }

    /// Gives it back now, once for good.
    pub fn give_back(&self) {
        if self.is_given_back.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut state = lock(&self.state);
        state.ledger.release(&self.key);
        state.interruptions.remove(&self.key);
        settle(&mut state, self.clock.now_ms());
    }

    /// Says that the job has ended and keeps its part for another one.
    pub fn rest(&self) {
        lock(&self.state).ledger.rest(&self.key);
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A place in line; dropping it gives the place up, and what was granted to it meanwhile.
struct Place<'a> {
    key: &'a ResourceKey,
    capacity: &'a Capacity,
    granted: oneshot::Receiver<Grant>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.capacity.state);
        state.ledger.give_up(self.key);
        state.waiting.remove(self.key);
        if self.granted.try_recv().is_ok() {
            state.ledger.release(self.key);
            state.interruptions.remove(self.key);
        }
        settle(&mut state, self.capacity.clock.now_ms());
    }
}

impl Capacity {
    /// Shares out `machine`, cut down to what the settings allow; at most `most_jobs` run at once.
    pub fn new(mut machine: Machine, settings: CapacitySettings, most_jobs: usize, clock: Clock) -> Capacity {
        if let Some(cpus) = settings.cpus {
            machine.cpus = cpus;
        }
        if let Some(gib) = settings.memory_gib {
            machine.memory_bytes = (gib * f64::from(1u32 << 30)) as u64;
        }
        let instance_types = InstanceTypes::with(settings.instance_types.clone());
        let (machine_cpus, machine_memory_bytes) = (machine.cpus, machine.memory_bytes);
        let ledger = Ledger::new(machine, settings, most_jobs);
        let state = State {
            ledger,
            waiting: HashMap::new(),
            next: NextJobs::default(),
            interruptions: HashMap::new(),
        };
        let state = Arc::new(Mutex::new(state));
        Capacity { clock, instance_types, machine_cpus, machine_memory_bytes, state }
    }

    /// CPUs that are shared out.
    pub fn machine_cpus(&self) -> f64 {
        self.machine_cpus
    }

    /// Memory that is shared out, in bytes.
    pub fn machine_memory_bytes(&self) -> u64 {
        self.machine_memory_bytes
    }

    /// What instance types mean here.
    pub fn instance_types(&self) -> &InstanceTypes {
        &self.instance_types
    }

    /// Why the job can never run here, with what would fit; `None` when it can.
    pub fn never_fits(&self, claim: &Claim) -> Option<String> {
        let state = lock(&self.state);
        let reason = state.ledger.never_fits(claim)?;
        let fitting = self.instance_types.suggest(|profile| state.ledger.could_host(profile));
        Some(match fitting.as_slice() {
            [] => format!("{reason}. No listed instance type fits."),
            names => format!("{reason}. What fits: {}.", names.join(", ")),
        })
    }

    /// Waits until the job may run. `waits` is called once when it cannot run at once.
    pub async fn admit(&self, claim: Claim, waits: impl Future<Output = ()>) -> Allocation {
        let key = claim.key.clone();
        let (sender, granted) = oneshot::channel();
        let mut place = Place { key: &key, capacity: self, granted };
        {
            let mut state = lock(&self.state);
            state.waiting.insert(key.clone(), sender);
            state.ledger.wait(claim);
            settle(&mut state, self.clock.now_ms());
        }
        let grant = match place.granted.try_recv() {
            Ok(grant) => grant,
            Err(_) => {
                waits.await;
                (&mut place.granted).await.expect("the sender stays in the line until it has sent")
            }
        };
        drop(place);
        self.allocation(key, grant)
    }

    /// Whether the job, which waits or is about to, will be one of the next, and what it will be granted then.
    pub fn outlook(&self, key: &ResourceKey) -> Outlook {
        Outlook::new(key, &self.state)
    }

    /// Admits nobody before it is known whether this job of an earlier server runs: before it is entered, or
    /// [`Capacity::does_not_run`] says that it does not.
    pub fn expect(&self, key: ResourceKey) {
        lock(&self.state).ledger.expect(key);
    }

    /// Says that a job that may have been expected does not run.
    pub fn does_not_run(&self, key: &ResourceKey) {
        let mut state = lock(&self.state);
        if state.ledger.does_not_run(key) {
            settle(&mut state, self.clock.now_ms());
        }
    }

    /// Enters a job that runs already with what it holds.
    pub fn enter(&self, claim: Claim, grant: Grant) -> Allocation {
        let key = claim.key.clone();
        {
            let mut state = lock(&self.state);
            state.ledger.enter(claim, grant.clone());
            // It may be the last that the others waited to hear of.
            settle(&mut state, self.clock.now_ms());
        }
        self.allocation(key, grant)
    }

    /// Gives the part of a job that has ended to the job of `claim`, which needs as much, without a moment in which it is free.
    pub fn hand_over(&self, mut allocation: Allocation, claim: Claim) -> Allocation {
        let mut state = lock(&self.state);
        state.ledger.release(&allocation.key);
        state.interruptions.remove(&allocation.key);
        allocation.key = claim.key.clone();
        allocation.interruption = state.interruptions.entry(claim.key.clone()).or_default().clone();
        state.ledger.enter(claim, allocation.grant.clone());
        drop(state);
        allocation
    }

    fn allocation(&self, key: ResourceKey, grant: Grant) -> Allocation {
        let interruption = {
            let mut state = lock(&self.state);
            state.interruptions.entry(key.clone()).or_default().clone()
        };
        Allocation {
            key,
            is_given_back: AtomicBool::new(false),
            grant,
            interruption,
            state: self.state.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Interrupts a job that runs, as the cloud does with spot capacity; `false` when it does not run.
    pub fn interrupt(&self, key: &ResourceKey) -> bool {
        let state = lock(&self.state);
        let running = state.interruptions.get(key);
        running.inspect(|interruption| interruption.notify_one()).is_some()
    }

    /// Whether a job waits for its turn.
    pub fn is_waiting(&self, key: &ResourceKey) -> bool {
        lock(&self.state).waiting.contains_key(key)
    }

    /// What a waiting job waits for, for people; `None` when it does not wait.
    pub fn waits_for(&self, key: &ResourceKey) -> Option<String> {
        lock(&self.state).ledger.waits_for(key)
    }

    /// The machine in words.
    pub fn machine_text(&self) -> String {
        lock(&self.state).ledger.machine_text()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A poisoned lock only says that another thread panicked; the ledger changes in whole steps.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settle(state: &mut State, now_ms: i64) {
    let Decisions { start, interrupt } = state.ledger.decide(now_ms);
    for (key, grant) in start {
        state.interruptions.insert(key.clone(), Arc::default());
        let taken = state.waiting.remove(&key).is_some_and(|waiting| waiting.send(grant).is_ok());
        if !taken {
            state.ledger.release(&key);
            state.interruptions.remove(&key);
        }
    }
    for key in interrupt {
        if let Some(interruption) = state.interruptions.get(&key) {
            interruption.notify_one();
        }
    }
    let State { ledger, next, .. } = state;
    next.look(ledger);
}
