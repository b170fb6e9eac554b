//! Walks through every kind of deployment, good and bad.

use super::*;

const READY: Seen<'static> =
    Seen { now_ms: 0, new_ready: true, new_failure: None, old_ready: true, breach: None };

fn policy(kind: Kind) -> Policy {
    Policy { kind, wait_ms: 10, keep_ms: 100, limit_ms: None }
}

/// Goes on until the end; what is ready is ready at once. Gives the steps as (stage, share, new part, old part) and the end.
fn walk(policy: &Policy, breach_at: Option<(Stage, u32)>) -> (Vec<(Stage, f64, f64, f64)>, Action) {
    let mut progress = Progress::first(policy, 0);
    let mut steps = Vec::new();
    let mut now_ms = 0;
    loop {
        let round = |part: f64| (part * 1000.0).round() / 1000.0;
        steps.push((
            progress.stage,
            round(progress.share),
            round(progress.new_part),
            round(progress.old_part),
        ));
        assert!(steps.len() < 100, "it does not end: {steps:?}");
        now_ms += policy.wait_ms.max(policy.keep_ms);
        let breach = (breach_at == Some((progress.stage, progress.step))).then_some("bad");
        progress = match next(policy, &progress, 0, &Seen { now_ms, breach, ..READY }) {
            Action::Go(next) => next,
            Action::RollBack(next, reason) => {
                assert_eq!(reason, "bad");
                next
            }
            end => return (steps, end),
        };
    }
}

#[test]
fn each_kind_goes_its_steps() {
    use Stage::{Baking, Keeping, Starting};
    let table = [
        (Kind::AllAtOnce, vec![(Starting, 0.0, 1.0, 1.0), (Baking, 1.0, 1.0, 1.0), (Keeping, 1.0, 1.0, 1.0)]),
        (
            Kind::Canary(0.1),
            vec![
                (Starting, 0.0, 1.0, 1.0),
                (Baking, 0.1, 1.0, 1.0),
                (Baking, 1.0, 1.0, 1.0),
                (Keeping, 1.0, 1.0, 1.0),
            ],
        ),
        (
            Kind::Linear(0.4),
            vec![
                (Starting, 0.0, 1.0, 1.0),
                (Baking, 0.4, 1.0, 1.0),
                (Baking, 0.8, 1.0, 1.0),
                (Baking, 1.0, 1.0, 1.0),
                (Keeping, 1.0, 1.0, 1.0),
            ],
        ),
        (
            Kind::Rolling { batch: 0.5, rollback_batch: 1.0 },
            vec![
                (Starting, 0.0, 0.5, 1.0),
                (Baking, 0.5, 0.5, 1.0),
                (Starting, 0.5, 1.0, 0.5),
                (Baking, 1.0, 1.0, 0.5),
                (Keeping, 1.0, 1.0, 0.5),
            ],
        ),
    ];
    for (kind, steps) in table {
        assert_eq!(walk(&policy(kind), None), (steps, Action::Done), "{kind:?}");
    }
}

#[test]
fn a_breach_takes_the_traffic_back_in_every_stage() {
    for kind in [Kind::AllAtOnce, Kind::Canary(0.1), Kind::Linear(0.25)] {
        for stage in [(Stage::Starting, 1), (Stage::Baking, 1), (Stage::Keeping, kind.steps())] {
            let (steps, end) = walk(&policy(kind), Some(stage));
            assert_eq!(end, Action::RolledBack, "{kind:?} {stage:?}");
            // Fleets before that are kept whole take all of it at once.
            assert_eq!(steps.last(), Some(&(Stage::RollingBack, 0.0, 1.0, 1.0)), "{kind:?} {stage:?}");
        }
    }
}

#[test]
fn a_rolling_deployment_brings_instances_back_in_batches() {
    let kind = Kind::Rolling { batch: 0.25, rollback_batch: 0.25 };
    let (steps, end) = walk(&policy(kind), Some((Stage::Baking, 3)));
    assert_eq!(end, Action::RolledBack);
    let at = steps.iter().position(|(stage, ..)| *stage == Stage::RollingBack).expect("it goes back");
    assert_eq!(steps[at - 1], (Stage::Baking, 0.75, 0.75, 0.5));
    assert_eq!(
        steps[at..],
        [
            // Half of it is still there and takes half of the traffic at once.
            (Stage::RollingBack, 0.5, 0.75, 0.75),
            (Stage::RollingBack, 0.25, 0.25, 1.0),
        ]
    );
    let third = 1.0 / 3.0;
    let thirds = Kind::Rolling { batch: third, rollback_batch: third };
    let (steps, _) = walk(&policy(thirds), Some((Stage::Starting, 3)));
    let back = steps.iter().filter(|step| step.0 == Stage::RollingBack).map(|(_, _, _, old)| *old);
    assert_eq!(back.collect::<Vec<f64>>(), [0.667, 1.0]);
    let whole = Kind::Rolling { batch: 0.25, rollback_batch: 1.0 };
    let (steps, _) = walk(&policy(whole), Some((Stage::Baking, 3)));
    assert_eq!(steps.last(), Some(&(Stage::RollingBack, 0.5, 0.75, 1.0)));
}

#[test]
fn never_more_instances_than_one_batch_too_many_and_always_enough_for_the_traffic() {
    for batch in [0.05, 0.1, 0.3, 0.34, 0.5] {
        let kind = Kind::Rolling { batch, rollback_batch: 0.2 };
        for bad_step in 1..=kind.steps() {
            for (stage, share, new, old) in walk(&policy(kind), Some((Stage::Baking, bad_step))).0 {
                assert!(new + old <= 1.0 + batch + 0.2 + 1e-9, "{stage:?} {new} {old}");
                assert!(share <= new + 1e-9, "{stage:?}: {share} of the traffic on {new} of the fleet");
                assert!((0.0..=1.0).contains(&share));
            }
            for (stage, share, new, old) in walk(&policy(kind), None).0 {
                assert!(new + old <= 1.0 + batch + 0.001, "{stage:?} {new} {old}");
                assert!(share <= new && 1.0 - share <= old + 0.001, "{stage:?} {share} {new} {old}");
            }
        }
    }
}

#[test]
fn what_is_not_ready_and_not_over_is_waited_for() {
    let canary = policy(Kind::Canary(0.1));
    let first = Progress::first(&canary, 0);
    let starting = Seen { new_ready: false, now_ms: 1_000_000, ..READY };
    assert_eq!(next(&canary, &first, 0, &starting), Action::Stay);
    let Action::Go(baking) = next(&canary, &first, 0, &READY) else { panic!("it is ready") };
    assert_eq!(next(&canary, &baking, 0, &Seen { now_ms: 9, ..READY }), Action::Stay);
    // A replica that is being replaced does not stop the clock.
    let replaced = Seen { now_ms: 10, new_ready: false, ..READY };
    assert!(matches!(next(&canary, &baking, 0, &replaced), Action::Go(_)));
    let failed = Seen { new_failure: Some("no luck"), ..starting };
    assert!(matches!(next(&canary, &first, 0, &failed), Action::RollBack(_, reason) if reason == "no luck"));
    let limited = Policy { limit_ms: Some(600_000), ..canary.clone() };
    let Action::RollBack(back, reason) = next(&limited, &first, 0, &starting) else { panic!("it is late") };
    assert!(reason.contains("MaximumExecutionTimeoutInSeconds = 600"), "{reason}");
    let gone = Seen { old_ready: false, now_ms: 1_000_001, ..READY };
    assert_eq!(next(&limited, &back, 0, &gone), Action::Stay);
    assert_eq!(next(&limited, &back, 0, &Seen { now_ms: 2_000_000, ..gone }), Action::Stuck);
    assert_eq!(next(&limited, &back, 0, &Seen { now_ms: 2_000_000, ..READY }), Action::RolledBack);
}

#[test]
fn a_plain_update_moves_at_once() {
    let plain = Policy { kind: Kind::AllAtOnce, wait_ms: 0, keep_ms: 30, limit_ms: None };
    let first = Progress::first(&plain, 0);
    let Action::Go(kept) = next(&plain, &first, 0, &READY) else { panic!("it is ready") };
    assert_eq!((kept.stage, kept.share), (Stage::Keeping, 1.0));
    assert_eq!(next(&plain, &kept, 0, &Seen { now_ms: 29, ..READY }), Action::Stay);
    assert_eq!(next(&plain, &kept, 0, &Seen { now_ms: 30, ..READY }), Action::Done);
}
