//! The decisions of admission on small machines.

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
fn nobody_starts_before_it_is_known_who_runs() {
    let mut ledger = Ledger::new(machine(0), CapacitySettings::default(), 2);
    let [runs, has_ended, waits, last] =
        ["runs", "has_ended", "waits", "last"].map(|name| claim(name, 1.0, 0, 1));
    for expected in [&runs, &has_ended] {
        ledger.expect(expected.key.clone());
    }
    ledger.wait(waits);
    ledger.wait(last);
    assert!(started(&mut ledger, 1).is_empty());
    assert!(ledger.does_not_run(&has_ended.key));
    assert!(!ledger.does_not_run(&has_ended.key), "it is known already");
    assert!(started(&mut ledger, 1).is_empty());
    ledger.enter(runs, Grant::new());
    assert_eq!(started(&mut ledger, 1), ["last"], "by age and name, in the one place that is left");
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

fn next(ledger: &Ledger, count: usize) -> Vec<String> {
    ledger.next(count).into_iter().map(|(key, _)| key.name).collect()
}

#[test]
fn the_next_jobs_are_the_first_of_each_line_in_turns() {
    let mut ledger = Ledger::new(machine(0), CapacitySettings::default(), 1);
    ledger.wait(claim("runs", 4.0, 0, 0));
    assert_eq!(started(&mut ledger, 1), ["runs"]);
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        ledger.wait(claim(name, 4.0, 0, 1 + index as i64));
    }
    ledger.wait(of("222222222222", claim("other", 4.0, 0, 9)));
    assert_eq!(next(&ledger, 3), ["other", "a", "b"], "who holds nothing comes first");
    ledger.wait(Claim { priority: 1, ..claim("urgent", 4.0, 0, 10) });
    assert_eq!(next(&ledger, 2), ["urgent", "other"]);
    assert_eq!((ledger.most_prepared(), ledger.is_waiting(&claim("a", 4.0, 0, 1).key)), (1, true));
    // What is foreseen is what is granted.
    let foreseen = ledger.next(1);
    ledger.release(&claim("runs", 4.0, 0, 0).key);
    assert_eq!(ledger.decide(20).start, foreseen);
}

#[test]
fn a_grant_that_is_not_known_before_is_not_foreseen() {
    let mut ledger = Ledger::new(machine(2), reserved(), 4);
    ledger.wait(claim("gpu", 1.0, 1, 0));
    let mut pair = claim("pair", 1.0, 0, 1);
    pair.hosts.push(pair.hosts[0].clone());
    ledger.wait(pair);
    ledger.wait(claim("plain", 1.0, 0, 2));
    assert_eq!(next(&ledger, 9), ["plain"]);
    assert_eq!(next(&ledger, 2), Vec::<String>::new(), "the others come before it");
    let mut without = Ledger::new(machine(0), CapacitySettings::default(), 4);
    without.wait(claim("gpu", 1.0, 1, 0));
    assert_eq!(without.next(1)[0].1[0].gpus, Vec::<u32>::new(), "there is none to be given");
}
