//! Whether the actions of a composite alarm wait for its suppressor: a pure function of states and times.

use super::State;

/// What keeps actions from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suppressor {
    /// The suppressor is in ALARM.
    Alarm,
    /// The suppressor may still go to ALARM, until this time in milliseconds since 1970.
    WaitPeriod(i64),
    /// The suppressor was in ALARM a moment ago; until this time.
    ExtensionPeriod(i64),
}

impl Suppressor {
    /// In the words of the service.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Suppressor::Alarm => "Alarm",
            Suppressor::WaitPeriod(_) => "WaitPeriod",
            Suppressor::ExtensionPeriod(_) => "ExtensionPeriod",
        }
    }
}

/// What is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    /// State of the composite alarm.
    pub(super) state: State,
    /// When it came into this state, milliseconds since 1970.
    pub(super) since_ms: i64,
    /// State of the suppressor.
    pub(super) suppressor: State,
    /// When the suppressor left ALARM last.
    pub(super) left_alarm_at: Option<i64>,
    /// How long the actions wait for the suppressor.
    pub(super) wait_seconds: i64,
    /// How long they wait after it.
    pub(super) extension_seconds: i64,
}

/// What keeps the actions from running now; `None` lets them run.
pub(super) fn suppressor(situation: &Situation, now_ms: i64) -> Option<Suppressor> {
    if situation.suppressor == State::Alarm {
        return Some(Suppressor::Alarm);
    }
    let extended_to = situation.left_alarm_at.map(|left| left + situation.extension_seconds * 1000);
    if let Some(until) = extended_to.filter(|until| now_ms < *until) {
        return Some(Suppressor::ExtensionPeriod(until));
    }
    // One that was in ALARM since the composite alarm was need not be waited for again.
    let has_been = situation.left_alarm_at.is_some_and(|left| left >= situation.since_ms);
    let until = situation.since_ms + situation.wait_seconds * 1000;
    (situation.state == State::Alarm && !has_been && now_ms < until).then_some(Suppressor::WaitPeriod(until))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITUATION: Situation = Situation {
        state: State::Alarm,
        since_ms: 100_000,
        suppressor: State::Ok,
        left_alarm_at: None,
        wait_seconds: 60,
        extension_seconds: 120,
    };

    #[test]
    fn actions_wait_for_the_suppressor_then_run() {
        assert_eq!(suppressor(&SITUATION, 100_000), Some(Suppressor::WaitPeriod(160_000)));
        assert_eq!(suppressor(&SITUATION, 159_999), Some(Suppressor::WaitPeriod(160_000)));
        assert_eq!(suppressor(&SITUATION, 160_000), None);
        let calm = Situation { state: State::Ok, ..SITUATION };
        assert_eq!(suppressor(&calm, 100_000), None);
    }

    #[test]
    fn a_suppressor_in_alarm_holds_them_and_a_while_longer() {
        let held = Situation { suppressor: State::Alarm, ..SITUATION };
        assert_eq!(suppressor(&held, 1_000_000), Some(Suppressor::Alarm));
        let left = Situation { left_alarm_at: Some(110_000), ..SITUATION };
        assert_eq!(suppressor(&left, 110_000), Some(Suppressor::ExtensionPeriod(230_000)));
        assert_eq!(suppressor(&left, 230_000), None);
        let without = Situation { extension_seconds: 0, ..left };
        assert_eq!(suppressor(&without, 110_000), None);
    }
}
