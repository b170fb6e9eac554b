//! What an execution does next: a pure function of the definition and of what is recorded of its steps.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::definition::{Definition, StepKind};
use super::graph;

/// Where a step that has begun is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It has begun; its effect may exist already.
    Starting,
    /// Its effect exists and goes on.
    Executing,
    /// An attempt failed; the next one begins at this time, in milliseconds since 1970.
    Retrying(i64),
    /// It was asked to stop.
    Stopping,
    /// It ended well.
    Succeeded,
    /// It failed for good.
    Failed,
    /// It was stopped.
    Stopped,
}

impl Phase {
    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed | Phase::Stopped)
    }

    /// The service's word for it.
    pub fn status(self) -> &'static str {
        match self {
            Phase::Starting => "Starting",
            Phase::Executing | Phase::Retrying(_) => "Executing",
            Phase::Stopping => "Stopping",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::Stopped => "Stopped",
        }
    }
}

/// What is recorded of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Where it is.
    pub phase: Phase,
    /// What a Condition came to.
    pub outcome: Option<bool>,
}

/// All that the next actions follow from.
pub struct View<'a> {
    /// The pipeline.
    pub definition: &'a Definition,
    /// What is recorded, by position of the step; `None` where a step has not begun.
    pub progress: &'a [Option<Progress>],
    /// Steps that a selective execution leaves out.
    pub left_out: &'a BTreeSet<usize>,
    /// Whether somebody asked to stop the execution.
    pub stop_wanted: bool,
    /// Most steps that are under way at once.
    pub most_parallel: Option<usize>,
    /// Milliseconds since 1970.
    pub now_ms: i64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Begin a step, or its next attempt.
    Begin(usize),
    /// Stop a step.
    Stop(usize),
    /// Ask again at this time.
    WakeAt(i64),
    /// The execution has come to its end.
    End(End),
}

/// How an execution ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every step that was to run ended well.
    Succeeded,
    /// A step failed.
    Failed,
    /// Somebody stopped it.
    Stopped,
}

impl End {
    /// The service's word for it.
    pub fn status(self) -> &'static str {
        match self {
            End::Succeeded => "Succeeded",
            End::Failed => "Failed",
            End::Stopped => "Stopped",
        }
    }
}

/// How things stand with a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It has begun.
    Begun(Phase),
    /// A selective execution leaves it out.
    LeftOut,
    /// A Condition chose the other branch, of it or of a step that it waits for.
    Skipped(usize),
    /// A step that it waits for did not end well.
    Blocked(usize),
    /// All that it waits for has ended well.
    Ready,
    /// It waits for these steps.
    Waits(Vec<usize>),
}

/// How things stand with every step, by position.
pub fn fates(view: &View<'_>) -> Vec<Fate> {
    let steps = &view.definition.steps;
    let mut fates = vec![Fate::Ready; steps.len()];
    // A definition that was accepted has no cycle.
    for at in graph::order(view.definition).unwrap_or_default() {
        fates[at] = fate(view, at, &fates);
    }
    fates
}

fn fate(view: &View<'_>, at: usize, fates: &[Fate]) -> Fate {
    if let Some(progress) = view.progress[at] {
        return Fate::Begun(progress.phase);
    }
    if view.left_out.contains(&at) {
        return Fate::LeftOut;
    }
    let step = &view.definition.steps[at];
    let mut blocked = None;
    let mut waits = Vec::new();
    for dependency in step.dependencies.iter().copied() {
        match &fates[dependency] {
            Fate::Begun(Phase::Succeeded) => {
                let outcome = view.progress[dependency].and_then(|progress| progress.outcome);
                if let Some((condition, branch)) = step.branch
                    && condition == dependency
                    && outcome.is_some_and(|outcome| outcome != branch)
                {
                    return Fate::Skipped(dependency);
                }
            }
            Fate::Begun(Phase::Failed | Phase::Stopped) => blocked = blocked.or(Some(dependency)),
            Fate::Blocked(cause) => blocked = blocked.or(Some(*cause)),
            Fate::Skipped(condition) => return Fate::Skipped(*condition),
            Fate::LeftOut => {}
            Fate::Begun(_) | Fate::Ready | Fate::Waits(_) => waits.push(dependency),
        }
    }
    match blocked {
        Some(cause) => Fate::Blocked(cause),
        None if waits.is_empty() => Fate::Ready,
        None => Fate::Waits(waits),
    }
}

/// What is to be done now. Nothing, when steps are under way and the rest waits for them.
pub fn next(view: &View<'_>) -> Vec<Action> {
    let fates = fates(view);
    let is_fail = |at: usize| view.definition.steps[at].kind == StepKind::Fail;
    let begun = |at: usize| match fates[at] {
        Fate::Begun(phase) => Some(phase),
        _ => None,
    };
    let all = 0..fates.len();
    let under_way: Vec<usize> = all
        .clone()
        .filter(|at| matches!(begun(*at), Some(Phase::Starting | Phase::Executing | Phase::Stopping)))
        .collect();
    let retrying: Vec<(usize, i64)> = all
        .clone()
        .filter_map(|at| match begun(at) {
            Some(Phase::Retrying(until)) => Some((at, until)),
            _ => None,
        })
        .collect();
    let failed = all.clone().any(|at| matches!(begun(at), Some(Phase::Failed | Phase::Stopped)));
    let terminated = all.clone().any(|at| is_fail(at) && begun(at) == Some(Phase::Failed));
    if view.stop_wanted || terminated {
        let to_stop = under_way.iter().copied().filter(|at| begun(*at) != Some(Phase::Stopping));
        let actions: Vec<Action> =
            to_stop.chain(retrying.iter().map(|(at, _)| *at)).map(Action::Stop).collect();
        if actions.is_empty() && under_way.is_empty() {
            return vec![Action::End(if view.stop_wanted { End::Stopped } else { End::Failed })];
        }
        return actions;
    }
    let due = retrying.iter().filter(|(_, until)| *until <= view.now_ms).map(|(at, _)| *at);
    let ready = all.filter(|at| fates[*at] == Fate::Ready);
    let room = view.most_parallel.unwrap_or(usize::MAX).saturating_sub(under_way.len());
    let mut actions: Vec<Action> = due.chain(ready).take(room).map(Action::Begin).collect();
    let later = retrying.iter().map(|(_, until)| *until).filter(|until| *until > view.now_ms).min();
    actions.extend(later.map(Action::WakeAt));
    if actions.is_empty() && under_way.is_empty() {
        actions.push(Action::End(if failed { End::Failed } else { End::Succeeded }));
    }
    actions
}

#[cfg(test)]
mod tests;
