//! Random pipelines against a slow interpreter that knows no order, with kills between the actions.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What becomes of each attempt of each step.
#[derive(Debug, Clone)]
struct World {
    definition: Value,
    attempts: Attempts,
    outcomes: BTreeMap<String, bool>,
    most_parallel: Option<usize>,
    /// Which of the things under way ends next, and whether a kill comes before.
    choices: Vec<(usize, bool)>,
}

/// One step as the generator makes it: kind, dependencies, branch, luck.
type Draft = (u8, Vec<usize>, Option<(usize, bool)>, u32, u32, bool);

fn worlds() -> impl Strategy<Value = World> {
    let draft = (
        0..10_u8,
        prop::collection::vec(0..40_usize, 0..4),
        prop::option::weighted(0.4, (0..40_usize, any::<bool>())),
        0..4_u32,
        1..4_u32,
        any::<bool>(),
    );
    let drafts = prop::collection::vec(draft, 1..14);
    let choices = prop::collection::vec((0..100_usize, prop::bool::weighted(0.3)), 400);
    (drafts, prop::option::of(1..4_usize), choices).prop_map(|(drafts, most_parallel, choices)| {
        let (definition, attempts, outcomes) = assemble(&drafts);
        World { definition, attempts, outcomes, most_parallel, choices }
    })
}

/// By step: attempts that fail before one ends well, and attempts that the step has.
type Attempts = BTreeMap<String, (u32, u32)>;

fn assemble(drafts: &[Draft]) -> (Value, Attempts, BTreeMap<String, bool>) {
    let mut attempts = BTreeMap::new();
    let mut outcomes = BTreeMap::new();
    let mut nodes: Vec<Value> = Vec::new();
    let mut parents = Vec::new();
    for (at, (kind, dependencies, branch, failures, most, outcome)) in drafts.iter().enumerate() {
        let name = format!("s{at}");
        let is_condition = *kind < 3;
        let depends: BTreeSet<String> =
            dependencies.iter().filter(|_| at > 0).map(|other| format!("s{}", other % at)).collect();
        let mut node = json!({"Name": name, "DependsOn": depends});
        if is_condition {
            node["Type"] = "Condition".into();
            let same = json!([{"Type": "Equals", "LeftValue": 1, "RightValue": i32::from(*outcome)}]);
            node["Arguments"] = json!({"Conditions": same, "IfSteps": [], "ElseSteps": []});
            outcomes.insert(name, *outcome);
        } else {
            node["Type"] = "Lambda".into();
            node["FunctionArn"] = "arn:aws:lambda:us-east-1:123456789012:function:f".into();
            attempts.insert(name, (*failures, *most));
        }
        nodes.push(node);
        let parent = branch.filter(|_| at > 0).map(|(other, side)| (other % at, side));
        parents.push(parent.filter(|(other, _)| drafts[*other].0 < 3));
    }
    // From the last to the first, so that a branch is whole before it moves into its own parent.
    for at in (0..nodes.len()).rev() {
        if let Some((parent, side)) = parents[at] {
            let node = std::mem::take(&mut nodes[at]);
            let member = if side { "IfSteps" } else { "ElseSteps" };
            nodes[parent]["Arguments"][member].as_array_mut().unwrap().push(node);
        }
    }
    nodes.retain(|node| !node.is_null());
    (json!({"Version": "2020-12-01", "Steps": nodes}), attempts, outcomes)
}

/// What the slow interpreter says of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Succeeded,
    Failed,
    NotRun,
}

/// Asks for each step by itself, over and over, with no memory and no order.
fn interpret(world: &World, definition: &Definition, at: usize) -> Said {
    let step = &definition.steps[at];
    let waited = step.dependencies.iter().map(|other| (*other, interpret(world, definition, *other)));
    for (other, said) in waited.collect::<Vec<_>>() {
        let chosen = step.branch.filter(|(condition, _)| *condition == other).map(|(_, side)| side);
        if said != Said::Succeeded
            || chosen.is_some_and(|side| side != world.outcomes[&definition.steps[other].name])
        {
            return Said::NotRun;
        }
    }
    match world.attempts.get(&step.name) {
        Some((failures, most)) if failures >= most => Said::Failed,
        _ => Said::Succeeded,
    }
}

/// The durable part of an execution, as a restarted server finds it.
#[derive(Clone)]
struct Recorded {
    progress: Vec<Option<Progress>>,
    attempts: Vec<u32>,
}

fn run(world: &World, definition: &Definition) -> (End, Recorded, BTreeMap<(String, u32), u32>) {
    let left_out = BTreeSet::new();
    let steps = &definition.steps;
    let mut recorded = Recorded { progress: vec![None; steps.len()], attempts: vec![0; steps.len()] };
    let mut effects: BTreeMap<(String, u32), u32> = BTreeMap::new();
    let mut flying: BTreeSet<usize> = BTreeSet::new();
    let mut choices = world.choices.iter().cycle();
    for now_ms in 0.. {
        assert!(now_ms < 5_000, "the execution does not end");
        let view = View {
            definition,
            progress: &recorded.progress,
            left_out: &left_out,
            stop_wanted: false,
            most_parallel: world.most_parallel,
            now_ms,
        };
        let actions = next(&view);
        if let Some(Action::End(end)) = actions.iter().find(|action| matches!(action, Action::End(_))) {
            return (*end, recorded, effects);
        }
        let &(choice, kill) = choices.next().unwrap();
        for (done, action) in actions.iter().enumerate() {
            if kill && done == choice % 3 {
                break;
            }
            if let Action::Begin(at) = action {
                recorded.attempts[*at] += 1;
                recorded.progress[*at] = Some(Progress { phase: Phase::Starting, outcome: None });
                flying.insert(*at);
            }
        }
        if let Some(most) = world.most_parallel {
            assert!(flying.len() <= most, "more than {most} steps are under way");
        }
        if kill {
            // A new server knows only what is recorded, and takes up what had begun.
            flying = (0..steps.len())
                .filter(|at| {
                    recorded.progress[*at]
                        .is_some_and(|one| matches!(one.phase, Phase::Starting | Phase::Executing))
                })
                .collect();
        }
        let Some(at) = flying.iter().copied().nth(choice % flying.len().max(1)) else { continue };
        let name = steps[at].name.clone();
        if recorded.progress[at].unwrap().phase == Phase::Starting {
            // The effect has a name of its own; making it again finds it.
            effects.entry((name, recorded.attempts[at])).or_insert(1);
            recorded.progress[at] = Some(Progress { phase: Phase::Executing, outcome: None });
            continue;
        }
        let outcome = world.outcomes.get(&name).copied();
        let phase = match world.attempts.get(&name) {
            Some((failures, most)) if recorded.attempts[at] <= *failures => {
                if recorded.attempts[at] >= *most { Phase::Failed } else { Phase::Retrying(now_ms + 3) }
            }
            _ => Phase::Succeeded,
        };
        recorded.progress[at] = Some(Progress { phase, outcome });
        flying.remove(&at);
    }
    unreachable!("the loop ends by itself")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_pipelines_end_as_the_slow_interpreter_says(world in worlds()) {
        let definition = Definition::parse(&world.definition.to_string()).unwrap();
        let (end, recorded, effects) = run(&world, &definition);
        let mut any_failed = false;
        for (at, step) in definition.steps.iter().enumerate() {
            let said = interpret(&world, &definition, at);
            let ran = match recorded.progress[at].map(|progress| progress.phase) {
                Some(Phase::Succeeded) => Said::Succeeded,
                Some(Phase::Failed) => Said::Failed,
                None => Said::NotRun,
                other => panic!("{} ended as {other:?}", step.name),
            };
            prop_assert_eq!(ran, said, "{}", step.name);
            any_failed |= said == Said::Failed;
            if let Some((failures, most)) = world.attempts.get(&step.name) {
                let expected = if said == Said::NotRun { 0 } else { (failures + 1).min(*most) };
                let made = effects.keys().filter(|(name, _)| *name == step.name).count();
                prop_assert_eq!(made, expected as usize, "effects of {}", step.name);
            }
        }
        prop_assert!(effects.values().all(|count| *count == 1));
        prop_assert_eq!(end, if any_failed { End::Failed } else { End::Succeeded });
    }
}

fn lambda(name: &str, depends_on: &[&str]) -> Value {
    json!({"Name": name, "Type": "Lambda", "FunctionArn": "f", "DependsOn": depends_on})
}

fn parse(steps: &Value) -> Definition {
    Definition::parse(&json!({"Version": "2020-12-01", "Steps": steps}).to_string()).unwrap()
}

fn actions(
    definition: &Definition,
    phases: &[Option<Phase>],
    stop_wanted: bool,
    most: Option<usize>,
) -> Vec<Action> {
    let progress: Vec<Option<Progress>> =
        phases.iter().map(|phase| phase.map(|phase| Progress { phase, outcome: None })).collect();
    next(&View {
        definition,
        progress: &progress,
        left_out: &BTreeSet::new(),
        stop_wanted,
        most_parallel: most,
        now_ms: 100,
    })
}

#[test]
fn a_failed_step_holds_up_only_what_waits_for_it() {
    let definition =
        parse(&json!([lambda("a", &[]), lambda("b", &["a"]), lambda("c", &["b"]), lambda("d", &[])]));
    let failed = [Some(Phase::Failed), None, None, None];
    assert_eq!(actions(&definition, &failed, false, None), [Action::Begin(3)]);
    let rest = [Some(Phase::Failed), None, None, Some(Phase::Succeeded)];
    assert_eq!(actions(&definition, &rest, false, None), [Action::End(End::Failed)]);
}

#[test]
fn a_stop_and_a_fail_step_stop_what_is_under_way() {
    let fail = json!({"Name": "f", "Type": "Fail", "Arguments": {"ErrorMessage": "no"}});
    let definition = parse(&json!([lambda("a", &[]), fail, lambda("c", &["a"]), lambda("d", &[])]));
    let phases = [Some(Phase::Executing), Some(Phase::Failed), None, Some(Phase::Retrying(900))];
    assert_eq!(actions(&definition, &phases, false, None), [Action::Stop(0), Action::Stop(3)]);
    let phases = [Some(Phase::Stopping), None, None, None];
    assert_eq!(actions(&definition, &phases, true, None), []);
    let phases = [Some(Phase::Stopped), None, None, None];
    assert_eq!(actions(&definition, &phases, true, None), [Action::End(End::Stopped)]);
}

#[test]
fn retries_wait_for_their_time_and_parallelism_for_room() {
    let definition = parse(&json!([lambda("a", &[]), lambda("b", &[]), lambda("c", &[])]));
    let phases = [Some(Phase::Retrying(101)), None, None];
    assert_eq!(actions(&definition, &phases, false, Some(1)), [Action::Begin(1), Action::WakeAt(101)]);
    let phases = [Some(Phase::Retrying(100)), Some(Phase::Executing), None];
    assert_eq!(actions(&definition, &phases, false, Some(2)), [Action::Begin(0)]);
}
