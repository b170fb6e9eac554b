//! Target tracking: from what was measured to the capacity that would meet the target, and whether to move there now.

use std::collections::VecDeque;

/// A metric below this part of its target is low enough to scale in, as in the service; in between nothing happens.
const LOW_PART: f64 = 0.9;

/// What a metric says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// The whole demand, which all instances share.
    Total(f64),
    /// A value that halves when the capacity is doubled.
    PerInstance(f64),
}

/// Where a metric is, seen from its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Above the target.
    High,
    /// Near enough.
    Right,
    /// So far below that less would do.
    Low,
}

/// What one policy wants at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wish {
    /// Where its metric is.
    pub level: Level,
    /// The capacity that would meet the target.
    pub capacity: u32,
    /// The metric's value for each instance.
    pub value: f64,
}

/// The capacity at which a metric would meet its target: `ceil(capacity × value / target)`, which for a demand that is shared is
/// `ceil(demand / target)`. `measured_with` is the capacity that `Reading::PerInstance` was measured with.
pub fn wish(reading: Reading, target: f64, current: u32, measured_with: u32) -> Wish {
    let (value, wanted) = match reading {
        Reading::Total(total) => (total / f64::from(current.max(1)), total / target),
        Reading::PerInstance(value) => (value, f64::from(measured_with) * value / target),
    };
    // A hair below, so that the rounding of a division asks for no instance.
    let capacity = (wanted * (1.0 - 1e-9)).ceil().clamp(0.0, f64::from(u32::MAX)) as u32;
    let level = if current == 0 {
        if capacity > 0 { Level::High } else { Level::Right }
    } else if value > target {
        Level::High
    } else if value < target * LOW_PART {
        Level::Low
    } else {
        Level::Right
    };
    Wish { level, capacity, value }
}

/// The capacities that a policy wanted in the last seconds: less is done only when less would have done all the while.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    since: Option<i64>,
    recent: VecDeque<(i64, u32)>,
}

impl Wishes {
    /// Takes down what is wanted at a second.
    pub fn add(&mut self, second: i64, capacity: u32, window_seconds: i64) {
        // A clock that was set back, or a server that stood still, begins anew.
        if self
            .recent
            .back()
            .is_some_and(|(last, _)| second < *last || second - *last > window_seconds.max(10))
        {
            *self = Wishes::default();
        }
        self.since.get_or_insert(second);
        self.recent.retain(|(at, _)| *at > second - window_seconds);
        self.recent.push_back((second, capacity));
    }

    /// The most that was wanted in the window; `None` while it has not been watched for so long.
    pub fn most(&self, window_seconds: i64) -> Option<u32> {
        let (last, _) = self.recent.back()?;
        let watched = last - self.since?;
        (watched >= window_seconds).then(|| self.recent.iter().map(|(_, capacity)| *capacity).max())?
    }
}

/// The capacity of a target and what it was lately, as it is kept with the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Recent {
    /// When it last grew, milliseconds since 1970.
    pub out_at: Option<i64>,
    /// What it grew from.
    pub out_from: u32,
    /// When it last shrank.
    pub in_at: Option<i64>,
}

impl Recent {
    /// Whether the last growth is so recent that only a larger one may follow.
    pub fn grows(&self, cooldown_seconds: i64, now_ms: i64) -> bool {
        self.out_at.is_some_and(|at| now_ms - at < cooldown_seconds * 1000)
    }

    /// Whether the last shrinking is so recent that none may follow.
    pub fn shrinks(&self, cooldown_seconds: i64, now_ms: i64) -> bool {
        self.in_at.is_some_and(|at| now_ms - at < cooldown_seconds * 1000)
    }

    /// What is remembered after a change.
    #[must_use]
    pub fn changed(self, from: u32, to: u32, cooldown_seconds: i64, now_ms: i64) -> Recent {
        if to > from {
            // A larger growth within the cool-down of a first one counts from where that began.
            let out_from = if self.grows(cooldown_seconds, now_ms) { self.out_from.min(from) } else { from };
            // Growth ends the cool-down of a shrinking.
            Recent { out_at: Some(now_ms), out_from, in_at: None }
        } else {
            Recent { in_at: Some(now_ms), ..self }
        }
    }
}

/// What one policy has to say to a decision.
#[derive(Debug, Clone, Copy)]
pub struct Voice {
    /// What it wants now.
    pub wish: Wish,
    /// The most it wanted for as long as a low metric must last, once it was watched for so long.
    pub most_lately: Option<u32>,
    /// Whether it never asks for less.
    pub only_out: bool,
    /// Seconds after growth in which it asks for larger growth only.
    pub out_cooldown_seconds: i64,
    /// Seconds after a shrinking in which it asks for none.
    pub in_cooldown_seconds: i64,
}

/// Bounds and state of a target.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// Capacity now.
    pub current: u32,
    /// Least capacity.
    pub min: u32,
    /// Most capacity.
    pub max: u32,
    /// Whether growth is suspended.
    pub out_suspended: bool,
    /// Whether shrinking is suspended.
    pub in_suspended: bool,
    /// Whether a change is still under way.
    pub is_changing: bool,
    /// Whether requests are there now, so that one instance must stay.
    pub is_busy: bool,
    /// What happened lately.
    pub recent: Recent,
}

/// What comes of all policies together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is to be done.
    Stay,
    /// The capacity is to be another; `voice` is the policy that says so.
    Move {
        /// The capacity.
        to: u32,
        /// Number of the policy.
        voice: usize,
    },
    /// A policy wants more than the most.
    AtMost {
        /// Number of the policy.
        voice: usize,
    },
    /// All policies want less than the least.
    AtLeast {
        /// Number of a policy.
        voice: usize,
    },
}

/// Decides: the policy that wants most decides growth; less is done when all that may ask for less do.
pub fn decide(voices: &[Voice], state: State, now_ms: i64) -> Decision {
    let growing = voices.iter().enumerate().filter(|(_, voice)| voice.wish.level == Level::High);
    if let Some((number, voice)) = growing.max_by_key(|(_, voice)| voice.wish.capacity) {
        let to = voice.wish.capacity.min(state.max);
        if state.out_suspended || voice.wish.capacity <= state.current {
            return Decision::Stay;
        }
        if state.current >= state.max {
            return Decision::AtMost { voice: number };
        }
        return Decision::Move { to: to.max(state.min), voice: number };
    }
    let shrinking = || voices.iter().enumerate().filter(|(_, voice)| !voice.only_out);
    let all_low = shrinking().all(|(_, voice)| voice.wish.level == Level::Low);
    let most = shrinking().map(|(number, voice)| voice.most_lately.map(|most| (most, number)));
    let most: Option<Vec<(u32, usize)>> = most.collect();
    let Some((most, number)) = most.and_then(|most| most.into_iter().max()) else { return Decision::Stay };
    if !all_low || state.in_suspended || state.is_changing {
        return Decision::Stay;
    }
    let least = state.min.max(u32::from(state.is_busy));
    if state.current <= state.min {
        return if most < state.min { Decision::AtLeast { voice: number } } else { Decision::Stay };
    }
    let to = most.max(least);
    let cools = shrinking().any(|(_, voice)| state.recent.shrinks(voice.in_cooldown_seconds, now_ms));
    if to >= state.current || cools { Decision::Stay } else { Decision::Move { to, voice: number } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(demand: f64, target: f64, current: u32) -> (Level, u32) {
        let wish = wish(Reading::Total(demand), target, current, current);
        (wish.level, wish.capacity)
    }

    #[test]
    fn capacity_follows_the_demand() {
        for (demand, target, current, level, capacity) in [
            (0.0, 70.0, 2, Level::Low, 0),
            (1.0, 70.0, 2, Level::Low, 1),
            (125.0, 70.0, 2, Level::Low, 2),
            (126.5, 70.0, 2, Level::Right, 2),
            (140.0, 70.0, 2, Level::Right, 2),
            (141.0, 70.0, 2, Level::High, 3),
            (700.0, 70.0, 2, Level::High, 10),
            (0.3, 0.1, 3, Level::Right, 3),
            (0.0, 70.0, 0, Level::Right, 0),
            (1.0, 70.0, 0, Level::High, 1),
        ] {
            assert_eq!(
                total(demand, target, current),
                (level, capacity),
                "{demand} for {target} at {current}"
            );
        }
        let ratio =
            |value, current, measured| wish(Reading::PerInstance(value), 50.0, current, measured).capacity;
        assert_eq!(
            (ratio(75.0, 4, 4), ratio(50.0, 4, 4), ratio(10.0, 4, 4), ratio(75.0, 6, 4)),
            (6, 4, 1, 6)
        );
    }

    fn voice(level: Level, capacity: u32, most_lately: Option<u32>) -> Voice {
        Voice {
            wish: Wish { level, capacity, value: 0.0 },
            most_lately,
            only_out: false,
            out_cooldown_seconds: 60,
            in_cooldown_seconds: 300,
        }
    }

    fn state(current: u32) -> State {
        State {
            current,
            min: 1,
            max: 10,
            out_suspended: false,
            in_suspended: false,
            is_changing: false,
            is_busy: false,
            recent: Recent::default(),
        }
    }

    #[test]
    fn the_policy_that_wants_most_decides_growth() {
        let voices =
            [voice(Level::High, 4, None), voice(Level::High, 6, None), voice(Level::Low, 1, Some(1))];
        assert_eq!(decide(&voices, state(2), 0), Decision::Move { to: 6, voice: 1 });
        assert_eq!(decide(&voices, state(6), 0), Decision::Stay);
        assert_eq!(decide(&voices, State { max: 5, ..state(2) }, 0), Decision::Move { to: 5, voice: 1 });
        assert_eq!(decide(&voices, State { max: 5, ..state(5) }, 0), Decision::AtMost { voice: 1 });
        assert_eq!(decide(&voices, State { out_suspended: true, ..state(2) }, 0), Decision::Stay);
        assert_eq!(
            decide(&voices, State { is_changing: true, ..state(2) }, 0),
            Decision::Move { to: 6, voice: 1 }
        );
        assert_eq!(decide(&voices, State { min: 7, ..state(2) }, 0), Decision::Move { to: 7, voice: 1 });
    }

    #[test]
    fn less_is_done_when_all_policies_agree_for_long_enough() {
        let low = voice(Level::Low, 1, Some(3));
        assert_eq!(decide(&[low], state(5), 0), Decision::Move { to: 3, voice: 0 });
        assert_eq!(decide(&[low], state(3), 0), Decision::Stay);
        assert_eq!(decide(&[voice(Level::Low, 1, None)], state(5), 0), Decision::Stay);
        assert_eq!(decide(&[low, voice(Level::Right, 4, Some(4))], state(5), 0), Decision::Stay);
        let other = voice(Level::Low, 2, Some(4));
        assert_eq!(decide(&[low, other], state(5), 0), Decision::Move { to: 4, voice: 1 });
        let only_out = Voice { only_out: true, ..voice(Level::Right, 5, None) };
        assert_eq!(decide(&[low, only_out], state(5), 0), Decision::Move { to: 3, voice: 0 });
        assert_eq!(decide(&[only_out], state(5), 0), Decision::Stay);
        assert_eq!(decide(&[low], State { in_suspended: true, ..state(5) }, 0), Decision::Stay);
        assert_eq!(decide(&[low], State { is_changing: true, ..state(5) }, 0), Decision::Stay);
        assert_eq!(decide(&[voice(Level::Low, 0, Some(0))], state(1), 0), Decision::AtLeast { voice: 0 });
        assert_eq!(decide(&[], state(5), 0), Decision::Stay);
    }

    #[test]
    fn zero_is_reached_only_when_nobody_asks() {
        let none = [voice(Level::Low, 0, Some(0))];
        let idle = State { min: 0, ..state(2) };
        assert_eq!(decide(&none, idle, 0), Decision::Move { to: 0, voice: 0 });
        assert_eq!(decide(&none, State { is_busy: true, ..idle }, 0), Decision::Move { to: 1, voice: 0 });
        assert_eq!(decide(&none, State { is_busy: true, current: 1, ..idle }, 0), Decision::Stay);
        assert_eq!(decide(&none, State { current: 0, ..idle }, 0), Decision::Stay);
    }

    #[test]
    fn cool_downs_hold_shrinking_and_all_but_larger_growth() {
        let low = [voice(Level::Low, 1, Some(2))];
        let shrunk = State { recent: Recent::default().changed(8, 5, 60, 1_000), ..state(5) };
        assert_eq!(decide(&low, shrunk, 300_999), Decision::Stay);
        assert_eq!(decide(&low, shrunk, 301_000), Decision::Move { to: 2, voice: 0 });
        // Growth ends the cool-down of a shrinking.
        let grown = shrunk.recent.changed(5, 7, 60, 2_000);
        assert!(!grown.shrinks(300, 3_000) && grown.grows(60, 61_999) && !grown.grows(60, 62_000));
        // A metric that lags is judged by the capacity before the growth: it asks for no more than it did.
        assert_eq!(grown.out_from, 5);
        assert_eq!(wish(Reading::PerInstance(70.0), 50.0, 7, grown.out_from).capacity, 7);
        assert_eq!(wish(Reading::PerInstance(90.0), 50.0, 7, grown.out_from).capacity, 9);
        let larger = grown.changed(7, 9, 60, 3_000);
        assert_eq!((larger.out_from, larger.out_at), (5, Some(3_000)));
        assert_eq!(grown.changed(7, 9, 60, 90_000).out_from, 7);
    }

    #[test]
    fn wishes_are_kept_for_a_window() {
        let mut wishes = Wishes::default();
        for second in 100..110 {
            wishes.add(second, if second == 103 { 8 } else { 2 }, 10);
        }
        assert_eq!(wishes.most(10), None);
        wishes.add(110, 1, 10);
        assert_eq!(wishes.most(10), Some(8));
        wishes.add(113, 1, 10);
        assert_eq!(wishes.most(10), Some(2));
        // A gap is no watching.
        wishes.add(200, 1, 10);
        assert_eq!(wishes.most(10), None);
    }
}
