//! Who runs, who waits and why: the decisions of admission, without clock, tasks or input and output.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use runner::inventory::Inventory;
use serde::{Deserialize, Serialize};
use store::resources::ResourceKey;

use super::instance_types::Profile;
use super::lines::Lines;
use super::settings::{CapacitySettings, Mode, Share};

/// After this long a job that does not fit is not overtaken any more.
const OVERTAKING_ENDS_AFTER_MS: i64 = 10 * 60 * 1000;

/// The sandbox of a job that waits takes some memory, and each core starts a job in some tens of milliseconds.
const MOST_PREPARED: usize = 16;

/// What this machine offers to jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// CPUs.
    pub cpus: f64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// NVIDIA GPUs: index and model name.
    pub gpus: Vec<(u32, String)>,
}

impl From<Inventory> for Machine {
    fn from(inventory: Inventory) -> Machine {
        Machine {
            cpus: inventory.cpus as f64,
            memory_bytes: inventory.memory_bytes,
            gpus: inventory.gpus.into_iter().map(|gpu| (gpu.index, gpu.model)).collect(),
        }
    }
}

/// A job that wants to run.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Which job.
    pub key: ResourceKey,
    /// Instance type and its meaning, one for each host.
    pub hosts: Vec<(String, Profile)>,
    /// Queue it is in.
    pub queue: String,
    /// Higher goes first.
    pub priority: i32,
    /// Whether it may be interrupted for others.
    pub spot: bool,
    /// Milliseconds since 1970.
    pub enqueued_at: i64,
}

/// What one host of a job may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostGrant {
    /// CPUs.
    pub cpus: f64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Indexes of its GPUs.
    pub gpus: Vec<u32>,
    /// What the instance type promises and the machine does not have; for the job's log.
    pub missing: Option<String>,
}

/// What a job may use, host by host.
pub type Grant = Vec<HostGrant>;

struct Running {
    claim: Claim,
    grant: Grant,
    interrupted: bool,
    /// Ended, and kept for another one.
    rests: bool,
}

/// The state of admission.
pub struct Ledger {
    machine: Machine,
    settings: CapacitySettings,
    most_jobs: usize,
    running: BTreeMap<ResourceKey, Running>,
    waiting: Lines,
    /// Jobs of an earlier server of which it is not known yet whether they run.
    expected: BTreeSet<ResourceKey>,
}

/// What follows from a change.
#[derive(Debug, Default, PartialEq)]
pub struct Decisions {
    /// Jobs that start now.
    pub start: Vec<(ResourceKey, Grant)>,
    /// Spot jobs that have to make room.
    pub interrupt: Vec<ResourceKey>,
}

/// Sums of resources.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Amount {
    cpus: f64,
    memory_bytes: u64,
    gpus: usize,
    jobs: usize,
}

/// What the accounts and queues that wait hold already, for their weight.
#[derive(Debug, Default)]
struct Ranks {
    accounts: BTreeMap<String, f64>,
    queues: BTreeMap<String, f64>,
}

impl Ranks {
    /// Who goes first whatever their age: by priority, spot jobs after the others, who holds least for its weight.
    fn compare(&self, one: &Claim, other: &Claim) -> Ordering {
        let share =
            |shares: &BTreeMap<String, f64>, name: &str| shares.get(name).copied().unwrap_or_default();
        let shares =
            |claim: &Claim| (share(&self.accounts, &claim.key.account), share(&self.queues, &claim.queue));
        let ((account, queue), (other_account, other_queue)) = (shares(one), shares(other));
        (other.priority, one.spot)
            .cmp(&(one.priority, other.spot))
            .then(account.total_cmp(&other_account))
            .then(queue.total_cmp(&other_queue))
    }
}

impl Amount {
    fn add(&mut self, other: Amount) {
        self.cpus += other.cpus;
        self.memory_bytes += other.memory_bytes;
        self.gpus += other.gpus;
        self.jobs += other.jobs;
    }
}

impl Ledger {
    /// An empty ledger. `most_jobs` bounds the jobs that run at once.
    pub fn new(machine: Machine, settings: CapacitySettings, most_jobs: usize) -> Ledger {
        let (running, waiting, expected) = Default::default();
        Ledger { machine, settings, most_jobs, running, waiting, expected }
    }

    /// Why the claim can never run here; `None` when it can.
    pub fn never_fits(&self, claim: &Claim) -> Option<String> {
        if self.settings.mode == Mode::Shared {
            return None;
        }
        let needed = Self::asked(claim);
        let machine = &self.machine;
        let fits = needed.cpus <= machine.cpus
            && needed.memory_bytes <= machine.memory_bytes
            && needed.gpus <= machine.gpus.len();
        (!fits).then(|| {
            let types: Vec<String> =
                claim.hosts.iter().map(|(name, profile)| format!("{name} ({profile})")).collect();
            format!("the job needs {}, and this machine has {}", types.join(" and "), self.machine_text())
        })
    }

    /// Whether one host with `profile` fits on the empty machine.
    pub fn could_host(&self, profile: &Profile) -> bool {
        profile.vcpus <= self.machine.cpus
            && profile.memory_bytes() <= self.machine.memory_bytes
            && profile.gpus as usize <= self.machine.gpus.len()
    }

    /// The machine in words.
    pub fn machine_text(&self) -> String {
        let gib = self.machine.memory_bytes as f64 / f64::from(1u32 << 30);
        let gpus = match self.machine.gpus.as_slice() {
            [] => "no GPU".to_owned(),
            [(_, kind)] => format!("1 GPU ({kind})"),
            [(_, kind), ..] => format!("{} GPUs ({kind})", self.machine.gpus.len()),
        };
        format!("{} CPUs, {gib:.1} GiB memory and {gpus}", self.machine.cpus)
    }

    /// Puts a job in line.
    pub fn wait(&mut self, claim: Claim) {
        self.waiting.insert(claim);
    }

    /// Whether a job is in line.
    pub fn is_waiting(&self, key: &ResourceKey) -> bool {
        self.waiting.get(key).is_some()
    }

    /// Takes a job out of the line.
    pub fn give_up(&mut self, key: &ResourceKey) {
        self.waiting.remove(key);
    }

    /// Lets nobody start before it is known whether this job of an earlier server runs.
    pub fn expect(&mut self, key: ResourceKey) {
        self.expected.insert(key);
    }

    /// Notes that a job does not run; `false` when it was not expected.
    pub fn does_not_run(&mut self, key: &ResourceKey) -> bool {
        self.expected.remove(key)
    }

    /// Enters a job that runs already, as after a restart of the server, whatever there is room for.
    pub fn enter(&mut self, claim: Claim, grant: Grant) {
        self.expected.remove(&claim.key);
        self.running.insert(claim.key.clone(), Running { claim, grant, interrupted: false, rests: false });
    }

    /// Notes that a job has ended and keeps what it held.
    pub fn rest(&mut self, key: &ResourceKey) {
        if let Some(running) = self.running.get_mut(key) {
            running.rests = true;
        }
    }

    /// Ends what a job held.
    pub fn release(&mut self, key: &ResourceKey) {
        self.running.remove(key);
    }

    /// Decides who starts and who makes room, at a time in milliseconds since 1970.
    pub fn decide(&mut self, now_ms: i64) -> Decisions {
        let mut decisions = Decisions::default();
        if !self.expected.is_empty() {
            return decisions;
        }
        // Each start changes the shares, and with them the order.
        while let Some((key, grant)) = self.first_that_fits(now_ms, &mut decisions.interrupt) {
            if let Some(claim) = self.waiting.remove(&key) {
                decisions.start.push((key, grant.clone()));
                self.enter(claim, grant);
            }
        }
        decisions
    }

    fn first_that_fits(
        &mut self,
        now_ms: i64,
        interrupt: &mut Vec<ResourceKey>,
    ) -> Option<(ResourceKey, Grant)> {
        let order: Vec<Claim> = self.order().into_iter().cloned().collect();
        if self.settings.mode == Mode::Shared && self.running.len() >= self.most_jobs {
            // Nobody fits; only room for the first in line could be made.
            let first = order.iter().find(|claim| self.within_limits(claim))?;
            interrupt.extend(self.make_room(first));
            return None;
        }
        for claim in &order {
            if !self.within_limits(claim) {
                continue;
            }
            if let Some(grant) = self.try_grant(claim) {
                return Some((claim.key.clone(), grant));
            }
            interrupt.extend(self.make_room(claim));
            if now_ms - claim.enqueued_at > OVERTAKING_ENDS_AFTER_MS {
                return None;
            }
        }
        None
    }

    /// The first job of each line in the order in which they would be served now: as [`Ranks`] say, then the oldest.
    fn order(&self) -> Vec<&Claim> {
        let ranks = self.ranks();
        let mut heads: Vec<&Claim> = self.waiting.heads().collect();
        heads.sort_by(|one, other| {
            let age = |claim: &Claim| (claim.enqueued_at, claim.key.name.clone());
            ranks.compare(one, other).then_with(|| age(one).cmp(&age(other)))
        });
        heads
    }

    /// The jobs that are likely to be served next, at most `count`, and what each of them will be granted. Only those of one host
    /// and without GPUs: which ones those get is not known before.
    pub fn next(&self, count: usize) -> Vec<(ResourceKey, Grant)> {
        let heads = self.order();
        let mut lines: Vec<_> = heads.iter().map(|head| self.waiting.line_of(head)).collect();
        let mut next = Vec::new();
        // In turns: who has got a slot gives way to the others.
        while next.len() < count && !lines.is_empty() {
            lines.retain_mut(|line| match line.next() {
                Some(claim) => {
                    next.push(claim);
                    true
                }
                None => false,
            });
        }
        next.truncate(count);
        let is_foreseen = |claim: &&Claim| {
            claim.hosts.len() == 1 && Self::asked(claim).gpus.min(self.machine.gpus.len()) == 0
        };
        let grant =
            |claim: &Claim| Some((claim.key.clone(), self.grant(claim, Amount::default(), Vec::new())?));
        next.into_iter().filter(is_foreseen).filter_map(grant).collect()
    }

    /// How many of the next jobs are worth preparing: as many as may start at once when others end.
    pub fn most_prepared(&self) -> usize {
        (self.machine.cpus.ceil() as usize).clamp(1, MOST_PREPARED).min(self.most_jobs.max(1))
    }

    fn ranks(&self) -> Ranks {
        let mut ranks = Ranks::default();
        for claim in self.waiting.heads() {
            let account = &claim.key.account;
            ranks.accounts.entry(account.clone()).or_insert_with(|| {
                let share = Self::share(&self.settings.accounts, account);
                self.share_in_use(|running| running.key.account == *account, &share)
            });
            ranks.queues.entry(claim.queue.clone()).or_insert_with_key(|queue| {
                let share = Self::share(&self.settings.queues, queue);
                self.share_in_use(|running| running.queue == *queue, &share)
            });
        }
        ranks
    }

    fn share(shares: &BTreeMap<String, Share>, name: &str) -> Share {
        shares.get(name).cloned().unwrap_or_default()
    }

    /// The largest part of any resource that some jobs hold, over their weight (dominant resource fairness).
    fn share_in_use(&self, belongs: impl Fn(&Claim) -> bool, share: &Share) -> f64 {
        let held = self.held(belongs);
        let part = |held: f64, all: f64| if all > 0.0 { held / all } else { 0.0 };
        let parts = [
            part(held.cpus, self.machine.cpus),
            part(held.memory_bytes as f64, self.machine.memory_bytes as f64),
            part(held.gpus as f64, self.machine.gpus.len() as f64),
            part(held.jobs as f64, self.most_jobs as f64),
        ];
        parts.into_iter().fold(0.0, f64::max) / share.weight
    }

    fn held(&self, belongs: impl Fn(&Claim) -> bool) -> Amount {
        let mut sum = Amount::default();
        for running in self.running.values().filter(|running| belongs(&running.claim)) {
            sum.add(Self::granted(&running.grant));
        }
        sum
    }

    fn granted(grant: &Grant) -> Amount {
        Amount {
            cpus: grant.iter().map(|host| host.cpus).sum(),
            memory_bytes: grant.iter().map(|host| host.memory_bytes).sum(),
            gpus: grant.iter().map(|host| host.gpus.len()).sum(),
            jobs: 1,
        }
    }

    fn asked(claim: &Claim) -> Amount {
        Amount {
            cpus: claim.hosts.iter().map(|(_, profile)| profile.vcpus).sum(),
            memory_bytes: claim.hosts.iter().map(|(_, profile)| profile.memory_bytes()).sum(),
            gpus: claim.hosts.iter().map(|(_, profile)| profile.gpus as usize).sum(),
            jobs: 1,
        }
    }

    fn within_limits(&self, claim: &Claim) -> bool {
        let below = |share: Share, count: usize| share.max_running_jobs.is_none_or(|most| count < most);
        let count = |belongs: &dyn Fn(&Claim) -> bool| {
            self.running.values().filter(|running| belongs(&running.claim)).count()
        };
        below(
            Self::share(&self.settings.accounts, &claim.key.account),
            count(&|running| running.key.account == claim.key.account),
        ) && below(
            Self::share(&self.settings.queues, &claim.queue),
            count(&|running| running.queue == claim.queue),
        )
    }

    fn try_grant(&self, claim: &Claim) -> Option<Grant> {
        self.grant(claim, self.held(|_| true), self.free_gpus(|_| true))
    }

    /// GPUs that none of the running jobs which `stays` accepts holds.
    fn free_gpus(&self, stays: impl Fn(&Claim) -> bool) -> Vec<u32> {
        let staying = self.running.values().filter(|running| stays(&running.claim));
        let taken: Vec<u32> =
            staying.flat_map(|running| running.grant.iter().flat_map(|host| &host.gpus)).copied().collect();
        self.machine.gpus.iter().map(|(index, _)| *index).filter(|index| !taken.contains(index)).collect()
    }

    fn grant(&self, claim: &Claim, held: Amount, mut free_gpus: Vec<u32>) -> Option<Grant> {
        let machine = &self.machine;
        match self.settings.mode {
            Mode::Reserved => {
                let asked = Self::asked(claim);
                let fits = held.cpus + asked.cpus <= machine.cpus + f64::EPSILON
                    && held.memory_bytes + asked.memory_bytes <= machine.memory_bytes
                    && asked.gpus <= free_gpus.len();
                fits.then(|| {
                    let host = |(_, profile): &(String, Profile)| HostGrant {
                        cpus: profile.vcpus,
                        memory_bytes: profile.memory_bytes(),
                        gpus: free_gpus.drain(..profile.gpus as usize).collect(),
                        missing: None,
                    };
                    claim.hosts.iter().map(host).collect()
                })
            }
            Mode::Shared => {
                let hosts = claim.hosts.len().max(1);
                // A machine without enough GPUs gives what it has; those that others hold are waited for.
                let asked: usize = Self::asked(claim).gpus;
                let wanted = asked.min(machine.gpus.len());
                if held.jobs >= self.most_jobs || wanted > free_gpus.len() {
                    return None;
                }
                let mut left = wanted;
                let mut grant = Grant::new();
                for (index, (name, profile)) in claim.hosts.iter().enumerate() {
                    let fair = left.div_ceil(hosts - index);
                    let gpus: Vec<u32> = free_gpus.drain(..fair.min(profile.gpus as usize)).collect();
                    left -= gpus.len();
                    let cpus = profile.vcpus.min(machine.cpus);
                    let memory_bytes = profile.memory_bytes().min(machine.memory_bytes);
                    let short = gpus.len() < profile.gpus as usize
                        || cpus < profile.vcpus
                        || memory_bytes < profile.memory_bytes();
                    let missing = short.then(|| {
                        format!("{name} promises {profile}; this machine has {}", self.machine_text())
                    });
                    grant.push(HostGrant { cpus, memory_bytes, gpus, missing });
                }
                Some(grant)
            }
        }
    }

    /// The spot jobs, newest first, without which the waiting job would fit; none when even that does not help, or when
    /// it is a spot job itself. Those of a higher priority stay: back in line, they would go first.
    fn make_room(&mut self, claim: &Claim) -> Vec<ResourceKey> {
        if claim.spot {
            return Vec::new();
        }
        let mut spot: Vec<&Running> = self
            .running
            .values()
            .filter(|running| running.claim.spot && running.claim.priority <= claim.priority)
            .collect();
        spot.sort_by_key(|running| std::cmp::Reverse(running.claim.enqueued_at));
        // What has been asked to go already counts as gone.
        let (gone, candidates): (Vec<&Running>, Vec<&Running>) =
            spot.into_iter().partition(|running| running.interrupted);
        let keys = |some: &[&Running]| -> Vec<ResourceKey> {
            some.iter().map(|running| running.claim.key.clone()).collect()
        };
        let (gone, mut candidates) = (keys(&gone), keys(&candidates).into_iter());
        let mut leaving: Vec<ResourceKey> = Vec::new();
        loop {
            let stays = |running: &Claim| !gone.contains(&running.key) && !leaving.contains(&running.key);
            if self.grant(claim, self.held(stays), self.free_gpus(stays)).is_some() {
                break;
            }
            let Some(next) = candidates.next() else { return Vec::new() };
            leaving.push(next);
        }
        for key in &leaving {
            if let Some(running) = self.running.get_mut(key) {
                running.interrupted = true;
            }
        }
        leaving
    }

    /// What a waiting job waits for, for people; `None` when it does not wait.
    pub fn waits_for(&self, key: &ResourceKey) -> Option<String> {
        let claim = self.waiting.get(key)?;
        let ranks = self.ranks();
        let before = self.waiting.before(claim, |one, other| ranks.compare(one, other));
        let place = format!("place {} of {} in line", before + 1, self.waiting.len());
        if !self.within_limits(claim) {
            return Some(format!(
                "Waiting for a job of the queue {:?} or of the account to end: its limit of jobs that run at once is reached ({place})",
                claim.queue
            ));
        }
        let holder = |(key, running): (&ResourceKey, &Running)| match running.rests {
            true => format!("the warm pool of {}", key.name),
            false => key.name.clone(),
        };
        let holders: Vec<String> = self.running.iter().map(holder).take(3).collect();
        let more = self.running.len().saturating_sub(holders.len());
        let holders = match more {
            0 => holders.join(", "),
            more => format!("{} and {more} more", holders.join(", ")),
        };
        let asked = Self::asked(claim);
        let held = self.held(|_| true);
        let free_gpus = self.machine.gpus.len().saturating_sub(held.gpus);
        let mut lacks = Vec::new();
        if asked.gpus.min(self.machine.gpus.len()) > free_gpus {
            lacks.push(format!("{} GPUs ({free_gpus} free)", asked.gpus));
        }
        if self.settings.mode == Mode::Reserved {
            if held.cpus + asked.cpus > self.machine.cpus {
                lacks.push(format!(
                    "{} CPUs ({} free)",
                    asked.cpus,
                    (self.machine.cpus - held.cpus).max(0.0)
                ));
            }
            if held.memory_bytes + asked.memory_bytes > self.machine.memory_bytes {
                let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
                let free = self.machine.memory_bytes.saturating_sub(held.memory_bytes);
                lacks.push(format!("{:.1} GiB memory ({:.1} free)", gib(asked.memory_bytes), gib(free)));
            }
        } else if held.jobs >= self.most_jobs {
            lacks.push(format!("one of the {} places for jobs", self.most_jobs));
        }
        let lacks = if lacks.is_empty() { "its turn".to_owned() } else { lacks.join(", ") };
        Some(format!("Waiting for {lacks}; in use by {holders} ({place})"))
    }
}

#[cfg(test)]
mod tests;
