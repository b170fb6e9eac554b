//! The stages of a deployment, pure: what is seen of the two fleets goes in, what is to be done comes out.

use serde::{Deserialize, Serialize};

/// How a deployment moves the traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// In which steps.
    pub kind: Kind,
    /// How long each step is watched.
    pub wait_ms: i64,
    /// How long the fleet before is kept when all has moved.
    pub keep_ms: i64,
    /// How long all may take until it is rolled back.
    pub limit_ms: Option<i64>,
}

/// The steps of a deployment, as parts of the whole, above 0 and at most 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// All traffic at once.
    AllAtOnce,
    /// That part first, then the rest.
    Canary(f64),
    /// Part by part.
    Linear(f64),
    /// Instances are replaced part by part, and come back in other parts.
    Rolling {
        /// Part that is replaced at once.
        batch: f64,
        /// Part that comes back at once.
        rollback_batch: f64,
    },
}

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Instances of the new fleet start.
    Starting,
    /// Part of the traffic has moved, and is watched.
    Baking,
    /// All of it has moved, and the fleet before is kept warm.
    Keeping,
    /// The fleet before takes the traffic back.
    RollingBack,
}

/// How far a deployment has come; stored with each step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// The step of the stage, from 1.
    pub step: u32,
    /// Since when, in milliseconds since 1970.
    pub since: i64,
    /// The part of the traffic that goes to the new fleet.
    pub share: f64,
    /// The part of the new fleet that is wanted.
    pub new_part: f64,
    /// The part of the fleet before that is wanted.
    pub old_part: f64,
}

/// What is seen of a deployment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'a> {
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// Whether all wanted instances of the new fleet answer.
    pub new_ready: bool,
    /// Why the new fleet will not come up.
    pub new_failure: Option<&'a str>,
    /// Whether all wanted instances of the fleet before answer.
    pub old_ready: bool,
    /// What a guard or an alarm says against the new fleet.
    pub breach: Option<&'a str>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Nothing yet.
    Stay,
    /// Go on to this.
    Go(Progress),
    /// Go back, from this on, for that reason.
    RollBack(Progress, String),
    /// The new fleet stays, alone.
    Done,
    /// The fleet before is back, alone.
    RolledBack,
    /// The fleet before does not come back; it is still tried.
    Stuck,
}

/// How long the fleet before may take to come back before somebody is told.
const ROLLBACK_LIMIT_MS: i64 = 3_600_000;

impl Policy {
    /// All traffic at once, and the fleet before is kept for that long.
    pub fn plain(keep_ms: i64) -> Policy {
        Policy { kind: Kind::AllAtOnce, wait_ms: 0, keep_ms, limit_ms: None }
    }
}

impl Kind {
    /// How many steps it has.
    pub fn steps(&self) -> u32 {
        let of = |part: f64| (1.0 / part - 1e-9).ceil().max(1.0) as u32;
        match self {
            Kind::AllAtOnce => 1,
            Kind::Canary(_) => 2,
            Kind::Linear(part) | Kind::Rolling { batch: part, .. } => of(*part),
        }
    }

    /// The part of the traffic that has moved after a step.
    pub fn share(&self, step: u32) -> f64 {
        if step >= self.steps() {
            return 1.0;
        }
        match self {
            Kind::AllAtOnce => 0.0,
            Kind::Canary(part) | Kind::Linear(part) | Kind::Rolling { batch: part, .. } => {
                // Three steps of a tenth are three tenths.
                let share = (*part * f64::from(step) * 1e9).round() / 1e9;
                share.min(1.0)
            }
        }
    }

    fn is_rolling(&self) -> bool {
        matches!(self, Kind::Rolling { .. })
    }
}

impl Progress {
    /// The beginning of a deployment.
    pub fn first(policy: &Policy, now_ms: i64) -> Progress {
        Progress {
            stage: Stage::Starting,
            step: 1,
            since: now_ms,
            share: 0.0,
            new_part: if policy.kind.is_rolling() { policy.kind.share(1) } else { 1.0 },
            old_part: 1.0,
        }
    }

    /// What tells a step from all others of a deployment.
    pub fn place(&self) -> (Stage, u32, i64) {
        (self.stage, self.step, self.since)
    }
}

/// What is to be done next in a deployment that was begun at `started_at`.
pub fn next(policy: &Policy, progress: &Progress, started_at: i64, seen: &Seen<'_>) -> Action {
    if progress.stage == Stage::RollingBack {
        return go_on_back(policy, progress, seen);
    }
    // When all has moved it only remains to end the fleet before.
    let is_moving = progress.stage != Stage::Keeping;
    let is_late = is_moving && policy.limit_ms.is_some_and(|limit| seen.now_ms - started_at > limit);
    let reason = match (seen.new_failure, seen.breach) {
        (Some(failure), _) => Some(failure.to_owned()),
        (None, Some(breach)) => Some(breach.to_owned()),
        (None, None) if is_late => Some(format!(
            "The deployment was not complete within MaximumExecutionTimeoutInSeconds = {}.",
            policy.limit_ms.unwrap_or_default() / 1000
        )),
        (None, None) => None,
    };
    if let Some(reason) = reason {
        return Action::RollBack(back(policy, progress, seen.now_ms), reason);
    }
    let last = policy.kind.steps();
    let waited_ms = seen.now_ms - progress.since;
    match progress.stage {
        Stage::Starting if seen.new_ready => {
            let moved = Progress {
                stage: Stage::Baking,
                since: seen.now_ms,
                share: policy.kind.share(progress.step),
                ..*progress
            };
            // Nothing is gained by a step that nobody waits for.
            if progress.step == last && policy.wait_ms == 0 {
                Action::Go(Progress { stage: Stage::Keeping, ..moved })
            } else {
                Action::Go(moved)
            }
        }
        Stage::Baking if waited_ms >= policy.wait_ms => {
            if progress.step == last {
                return Action::Go(Progress { stage: Stage::Keeping, since: seen.now_ms, ..*progress });
            }
            let step = progress.step + 1;
            if policy.kind.is_rolling() {
                return Action::Go(Progress {
                    stage: Stage::Starting,
                    step,
                    since: seen.now_ms,
                    share: progress.share,
                    new_part: policy.kind.share(step),
                    old_part: 1.0 - policy.kind.share(progress.step),
                });
            }
            // The whole fleet is up.
            Action::Go(Progress { step, since: seen.now_ms, share: policy.kind.share(step), ..*progress })
        }
        Stage::Keeping if waited_ms >= policy.keep_ms => Action::Done,
        _ => Action::Stay,
    }
}

/// The first step back: what is still up takes its part at once.
fn back(policy: &Policy, progress: &Progress, now_ms: i64) -> Progress {
    let share = progress.share.min(1.0 - progress.old_part);
    let first = Progress { stage: Stage::RollingBack, step: 1, since: now_ms, share, ..*progress };
    Progress { old_part: grown(policy, progress.old_part), ..first }
}

fn grown(policy: &Policy, old_part: f64) -> f64 {
    match policy.kind {
        // Two thirds and one third are all.
        Kind::Rolling { rollback_batch, .. } if old_part + rollback_batch < 1.0 - 1e-6 => {
            old_part + rollback_batch
        }
        _ => 1.0,
    }
}

fn go_on_back(policy: &Policy, progress: &Progress, seen: &Seen<'_>) -> Action {
    if !seen.old_ready {
        let is_stuck = seen.now_ms - progress.since > policy.limit_ms.unwrap_or(ROLLBACK_LIMIT_MS);
        return if is_stuck { Action::Stuck } else { Action::Stay };
    }
    if progress.old_part >= 1.0 {
        return Action::RolledBack;
    }
    Action::Go(Progress {
        step: progress.step + 1,
        since: seen.now_ms,
        share: progress.share.min(1.0 - progress.old_part),
        new_part: progress.new_part.min(1.0 - progress.old_part).max(0.0),
        old_part: grown(policy, progress.old_part),
        ..*progress
    })
}

#[cfg(test)]
mod tests;
