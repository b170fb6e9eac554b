//! Who runs, who waits and why: the decisions of admission, without clock, tasks or input and output.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use runner::inventory::Inventory;
use serde::{Deserialize, Serialize};
use store::resources::ResourceKey;

use super::instance_types::Profile;
use super::lines::Lines;
use super::settings::{CapacitySettings, Mode, Share};

/// After this long a job that does not fit is not overtaken any more.
const OVERTAKING_ENDS_AFTER_MS: i64 = 10 * 60 * 1000;

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
        Ledger { machine, settings, most_jobs, running: BTreeMap::new(), waiting: Lines::default() }
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

    /// Takes a job out of the line.
    pub fn give_up(&mut self, key: &ResourceKey) {
        self.waiting.remove(key);
    }

    /// Enters a job that runs already, as after a restart of the server, whatever there is room for.
    pub fn enter(&mut self, claim: Claim, grant: Grant) {
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
mod tests {
    use super::*;

    fn machine(gpus: u32) -> Machine {
        let gpus = (0..gpus).map(|index| (index, "NVIDIA L4".to_owned())).collect();
        Machine { cpus: 8.0, memory_bytes: 32 << 30, gpus }
    }

    fn reserved() -> CapacitySettings {
        CapacitySettings { mode: Mode::Reserved, ..CapacitySettings::default() }
    }

    fn claim(name: &str, vcpus: f64, gpus: u32, at: i64) -> Claim {
        Claim {
            key: ResourceKey::new("111111111111", "r", "training-job", name),
            hosts: vec![("ml.x.y".into(), Profile { vcpus, memory_gib: 1.0, gpus, gpu: None })],
            queue: "default".into(),
            priority: 0,
            spot: false,
            enqueued_at: at,
        }
    }

    fn of(account: &str, mut claim: Claim) -> Claim {
        claim.key.account = account.into();
        claim
    }

    fn started(ledger: &mut Ledger, now_ms: i64) -> Vec<String> {
        ledger.decide(now_ms).start.into_iter().map(|(key, _)| key.name).collect()
    }

    #[test]
    fn a_reservation_is_kept_and_the_rest_waits_with_a_reason() {
        let mut ledger = Ledger::new(machine(0), reserved(), 2);
        for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
            ledger.wait(claim(name, 4.0, 0, index as i64));
        }
        assert_eq!(started(&mut ledger, 5), ["a", "b"]);
        let key = claim("c", 4.0, 0, 2).key;
        assert_eq!(
            ledger.waits_for(&key).as_deref(),
            Some("Waiting for 4 CPUs (0 free); in use by a, b (place 1 of 1 in line)")
        );
        ledger.release(&claim("a", 4.0, 0, 0).key);
        assert_eq!(started(&mut ledger, 6), ["c"]);
        assert_eq!(ledger.waits_for(&key), None);
    }

    #[test]
    fn what_can_never_fit_is_said_at_once() {
        let ledger = Ledger::new(machine(0), reserved(), 2);
        let text = ledger.never_fits(&claim("a", 4.0, 1, 0)).unwrap();
        assert_eq!(
            text,
            "the job needs ml.x.y (4 vCPUs, 1 GiB, 1 GPUs), and this machine has 8 CPUs, 32.0 GiB memory and no GPU"
        );
        assert_eq!(ledger.never_fits(&claim("a", 8.0, 0, 0)), None);
        let shared = Ledger::new(machine(0), CapacitySettings::default(), 2);
        assert_eq!(shared.never_fits(&claim("a", 400.0, 9, 0)), None);
    }

    #[test]
    fn sharing_cuts_down_to_the_machine_and_says_so() {
        let mut ledger = Ledger::new(machine(1), CapacitySettings::default(), 2);
        ledger.wait(claim("big", 64.0, 4, 0));
        let decisions = ledger.decide(1);
        let [(_, grant)] = decisions.start.as_slice() else { panic!("{decisions:?}") };
        assert_eq!((grant[0].cpus, grant[0].gpus.as_slice()), (8.0, [0].as_slice()));
        assert!(grant[0].missing.as_ref().unwrap().contains("1 GPU (NVIDIA L4)"));
        // The GPU is taken: who wants one waits, who does not goes on.
        ledger.wait(claim("gpu", 1.0, 1, 2));
        ledger.wait(claim("cpu", 1.0, 0, 3));
        assert_eq!(started(&mut ledger, 4), ["cpu"]);
    }

    #[test]
    fn hosts_start_together_or_not_at_all() {
        let mut ledger = Ledger::new(machine(2), reserved(), 9);
        let mut pair = claim("pair", 4.0, 1, 0);
        pair.hosts.push(pair.hosts[0].clone());
        ledger.wait(claim("one", 1.0, 1, -1));
        assert_eq!(started(&mut ledger, 0), ["one"]);
        ledger.wait(pair.clone());
        assert!(started(&mut ledger, 1).is_empty());
        ledger.release(&claim("one", 1.0, 1, 0).key);
        let decisions = ledger.decide(2);
        let gpus: Vec<_> = decisions.start[0].1.iter().map(|host| host.gpus.clone()).collect();
        assert_eq!(gpus, [vec![0], vec![1]]);
    }

    #[test]
    fn accounts_take_turns_and_priority_goes_first() {
        let mut ledger = Ledger::new(machine(0), CapacitySettings::default(), 2);
        for index in 0..4 {
            ledger.wait(claim(&format!("a{index}"), 1.0, 0, index));
        }
        ledger.wait(of("222222222222", claim("b", 1.0, 0, 10)));
        assert_eq!(started(&mut ledger, 11), ["a0", "b"]);
        let mut urgent = claim("urgent", 1.0, 0, 20);
        urgent.priority = 5;
        ledger.wait(urgent);
        ledger.release(&claim("a0", 1.0, 0, 0).key);
        assert_eq!(started(&mut ledger, 21), ["urgent"]);
    }

    #[test]
    fn weights_decide_how_much_a_queue_gets() {
        let mut settings = CapacitySettings::default();
        settings.queues.insert("heavy".into(), Share { weight: 3.0, max_running_jobs: None });
        settings.queues.insert("single".into(), Share { weight: 100.0, max_running_jobs: Some(1) });
        let mut ledger = Ledger::new(machine(0), settings, 5);
        for index in 0..6 {
            for queue in ["heavy", "light", "single"] {
                let mut one = claim(&format!("{queue}{index}"), 1.0, 0, index);
                one.queue = queue.into();
                ledger.wait(one);
            }
        }
        let started = started(&mut ledger, 10);
        let count = |queue: &str| started.iter().filter(|name| name.starts_with(queue)).count();
        assert_eq!((count("heavy"), count("light"), count("single")), (3, 1, 1), "{started:?}");
    }

    #[test]
    fn spot_jobs_make_room_newest_first_and_only_if_that_helps() {
        let mut ledger = Ledger::new(machine(0), reserved(), 9);
        for (index, name) in ["old", "new"].into_iter().enumerate() {
            let mut spot = claim(name, 4.0, 0, index as i64);
            spot.spot = true;
            ledger.wait(spot);
        }
        assert_eq!(started(&mut ledger, 5), ["old", "new"]);
        ledger.wait(claim("steady", 4.0, 0, 6));
        let key = |name: &str| claim(name, 0.0, 0, 0).key;
        assert_eq!(ledger.decide(7), Decisions { start: vec![], interrupt: vec![key("new")] });
        // Asked once, not at every look.
        assert_eq!(ledger.decide(8), Decisions::default());
        ledger.release(&key("new"));
        assert_eq!(started(&mut ledger, 9), ["steady"]);
        ledger.wait(claim("huge", 40.0, 0, 10));
        assert_eq!(ledger.decide(11).interrupt, []);
    }

    #[test]
    fn spot_jobs_that_would_go_first_again_are_not_interrupted() {
        let mut urgent = claim("urgent", 8.0, 0, 0);
        (urgent.spot, urgent.priority) = (true, 5);
        let mut ledger = Ledger::new(machine(0), reserved(), 9);
        ledger.wait(urgent.clone());
        assert_eq!(started(&mut ledger, 1), ["urgent"]);
        ledger.wait(claim("steady", 8.0, 0, 2));
        assert_eq!(ledger.decide(3), Decisions::default());

        // Nor for a job whose queue may run no more of them.
        let mut settings = CapacitySettings::default();
        settings.queues.insert("single".into(), Share { weight: 1.0, max_running_jobs: Some(1) });
        let mut ledger = Ledger::new(machine(0), settings, 2);
        let single = |name: &str| Claim { queue: "single".into(), ..claim(name, 1.0, 0, 0) };
        ledger.wait(single("one"));
        urgent.priority = 0;
        ledger.wait(urgent);
        assert_eq!(started(&mut ledger, 1), ["one", "urgent"]);
        ledger.wait(single("two"));
        assert_eq!(ledger.decide(2), Decisions::default());
        ledger.wait(claim("other", 1.0, 0, 3));
        assert_eq!(ledger.decide(4).interrupt.len(), 1, "there is one that it helps");
    }

    #[test]
    fn a_job_that_waited_long_is_not_overtaken() {
        let mut ledger = Ledger::new(machine(0), reserved(), 9);
        ledger.wait(claim("running", 4.0, 0, 0));
        assert_eq!(started(&mut ledger, 0), ["running"]);
        ledger.wait(claim("wide", 8.0, 0, 1));
        ledger.wait(claim("small", 1.0, 0, 2));
        assert_eq!(started(&mut ledger, 3), ["small"]);
        ledger.wait(claim("late", 1.0, 0, 4));
        assert!(started(&mut ledger, 2 + OVERTAKING_ENDS_AFTER_MS).is_empty());
    }
}
