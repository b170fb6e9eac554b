//! What the data points of the last periods make of an alarm: a pure function, as the service documents it.

use super::State;

/// Periods before the evaluation periods that are looked at, too, when data points are missing.
pub(super) const EXTRA_PERIODS: usize = 2;

/// How a data point is compared with the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    GreaterOrEqual,
    Greater,
    Less,
    LessOrEqual,
}

impl Comparison {
    /// The operator of this name, unless it compares with a band.
    pub(super) fn named(name: &str) -> Option<Comparison> {
        Some(match name {
            "GreaterThanOrEqualToThreshold" => Comparison::GreaterOrEqual,
            "GreaterThanThreshold" => Comparison::Greater,
            "LessThanThreshold" => Comparison::Less,
            "LessThanOrEqualToThreshold" => Comparison::LessOrEqual,
            _ => return None,
        })
    }

    /// As sentences have it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Comparison::GreaterOrEqual => "greater than or equal to",
            Comparison::Greater => "greater than",
            Comparison::Less => "less than",
            Comparison::LessOrEqual => "less than or equal to",
        }
    }

    fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Comparison::GreaterOrEqual => value >= threshold,
            Comparison::Greater => value > threshold,
            Comparison::Less => value < threshold,
            Comparison::LessOrEqual => value <= threshold,
        }
    }
}

/// What a missing data point counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Unknown,
    Ignore,
    Breaching,
    NotBreaching,
}

impl Missing {
    /// The treatment of this name.
    pub(super) fn named(name: &str) -> Option<Missing> {
        Some(match name {
            "missing" => Missing::Unknown,
            "ignore" => Missing::Ignore,
            "breaching" => Missing::Breaching,
            "notBreaching" => Missing::NotBreaching,
            _ => return None,
        })
    }
}

/// When an alarm is raised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Condition {
    pub(super) comparison: Comparison,
    pub(super) threshold: f64,
    /// Data points that are judged together.
    pub(super) evaluation_periods: usize,
    /// How many of them must breach the threshold.
    pub(super) datapoints_to_alarm: usize,
    pub(super) missing: Missing,
}

impl Condition {
    /// Periods that are looked at.
    pub(super) fn range_periods(&self) -> usize {
        self.evaluation_periods + EXTRA_PERIODS
    }

    /// Whether a value breaches the threshold.
    pub(super) fn breaches(&self, value: f64) -> bool {
        self.comparison.holds(value, self.threshold)
    }
}

/// What is known of a period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Slot {
    /// It has a data point.
    Value(f64),
    /// Nothing was measured.
    Missing,
    /// Nobody could measure: the server was down.
    Blind,
}

/// The outcome of a look at an alarm's periods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The state that follows; `None` keeps the one there is.
    pub(super) state: Option<State>,
    /// Positions of the data points that were judged, oldest first.
    pub(super) judged: Vec<usize>,
    /// Missing data points that were counted as something.
    pub(super) filled: usize,
}

/// Judges the periods of the evaluation range, oldest first.
///
/// Where there are enough data points, the newest of them count and nothing else. Else all of them count, and the treatment of missing
/// data says what the rest is. Periods in which the server was down are never taken for missing data.
pub(super) fn judge(condition: &Condition, slots: &[Slot]) -> Verdict {
    let points: Vec<(usize, bool)> = slots
        .iter()
        .enumerate()
        .filter_map(|(position, slot)| match slot {
            Slot::Value(value) => Some((position, condition.breaches(*value))),
            Slot::Missing | Slot::Blind => None,
        })
        .collect();
    let wanted = condition.evaluation_periods;
    let judged = &points[points.len().saturating_sub(wanted)..];
    let breaching = judged.iter().filter(|(_, breaches)| *breaches).count();
    let filled = wanted - judged.len();
    let least = condition.datapoints_to_alarm;
    let state = if breaching >= least {
        Some(State::Alarm)
    } else if filled == 0 {
        Some(State::Ok)
    } else if slots.contains(&Slot::Blind) {
        None
    } else {
        let is_mixed = judged.len() > breaching;
        match condition.missing {
            Missing::NotBreaching => Some(State::Ok),
            Missing::Breaching if breaching + filled >= least => Some(State::Alarm),
            Missing::Breaching => Some(State::Ok),
            _ if is_mixed => Some(State::Ok),
            Missing::Ignore => None,
            Missing::Unknown => match judged.first() {
                None => Some(State::InsufficientData),
                // Only breaching data points, the oldest of which was not followed by a better one for long enough.
                Some((oldest, _)) if slots.len() - oldest >= least => Some(State::Alarm),
                Some(_) => None,
            },
        }
    };
    Verdict { state, judged: judged.iter().map(|(position, _)| *position).collect(), filled }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREATMENTS: [Missing; 4] =
        [Missing::Unknown, Missing::Ignore, Missing::Breaching, Missing::NotBreaching];

    fn condition(evaluation_periods: usize, datapoints_to_alarm: usize, missing: Missing) -> Condition {
        let comparison = Comparison::Greater;
        Condition { comparison, threshold: 0.5, evaluation_periods, datapoints_to_alarm, missing }
    }

    /// `0` is a good data point, `X` a breaching one, `-` none, `?` one that nobody could measure.
    fn slots(picture: &str) -> Vec<Slot> {
        let slot = |mark| match mark {
            '0' => Slot::Value(0.0),
            'X' => Slot::Value(1.0),
            '-' => Slot::Missing,
            _ => Slot::Blind,
        };
        picture.chars().filter(|mark| *mark != ' ').map(slot).collect()
    }

    fn states(picture: &str, evaluation_periods: usize, datapoints_to_alarm: usize) -> [Option<State>; 4] {
        TREATMENTS.map(|missing| {
            judge(&condition(evaluation_periods, datapoints_to_alarm, missing), &slots(picture)).state
        })
    }

    const OK: Option<State> = Some(State::Ok);
    const ALARM: Option<State> = Some(State::Alarm);
    const INSUFFICIENT: Option<State> = Some(State::InsufficientData);

    /// The two tables of the service's guide: data points, and what each treatment makes of them.
    #[test]
    fn missing_data_counts_as_the_guide_says() {
        for (picture, filled, expected) in [
            ("0 - X - X", 0, [OK, OK, OK, OK]),
            ("- - - - 0", 2, [OK, OK, OK, OK]),
            ("- - - - -", 3, [INSUFFICIENT, None, ALARM, OK]),
            ("0 X X - X", 0, [ALARM, ALARM, ALARM, ALARM]),
            ("- - X - -", 2, [ALARM, None, ALARM, OK]),
        ] {
            assert_eq!(states(picture, 3, 3), expected, "3 of 3: {picture}");
            let verdict = judge(&condition(3, 3, Missing::Unknown), &slots(picture));
            assert_eq!(verdict.filled, filled, "3 of 3: {picture}");
        }
        for (picture, expected) in [
            ("0 - X - X", [ALARM, ALARM, ALARM, ALARM]),
            ("0 0 X 0 X", [ALARM, ALARM, ALARM, ALARM]),
            ("0 - X - -", [OK, OK, ALARM, OK]),
            ("- - - - 0", [OK, OK, ALARM, OK]),
            ("- - - X -", [ALARM, None, ALARM, OK]),
        ] {
            assert_eq!(states(picture, 3, 2), expected, "2 of 3: {picture}");
        }
    }

    #[test]
    fn a_breaching_data_point_that_is_too_young_raises_no_alarm() {
        for picture in ["- - - - X", "- - - X -"] {
            assert_eq!(states(picture, 3, 3)[0], None, "{picture}");
        }
        assert_eq!(states("- - X 0 -", 3, 3)[0], OK);
        assert_eq!(states("- - - - X", 3, 2)[0], None);
    }

    #[test]
    fn the_newest_data_points_count_and_no_others() {
        assert_eq!(states("X X 0 0 0", 3, 3), [OK; 4]);
        assert_eq!(states("X X X X 0", 3, 3), [OK; 4]);
        assert_eq!(states("0 0 X", 1, 1), [ALARM; 4]);
        assert_eq!(states("X X 0", 1, 1), [OK; 4]);
        let verdict = judge(&condition(2, 1, Missing::Unknown), &slots("X 0 - X"));
        assert_eq!((verdict.judged, verdict.filled), (vec![1, 3], 0));
    }

    #[test]
    fn periods_in_which_the_server_was_down_are_not_missing_data() {
        assert_eq!(states("? ? ? ? ?", 3, 3), [None; 4]);
        assert_eq!(states("- - - - ?", 3, 3), [None; 4]);
        // What there is still counts.
        assert_eq!(states("0 0 0 ? ?", 3, 3), [OK; 4]);
        assert_eq!(states("? X ? X -", 3, 2), [ALARM; 4]);
    }

    #[test]
    fn each_operator_compares_as_its_name_says() {
        for (name, expected) in [
            ("GreaterThanOrEqualToThreshold", [false, true, true]),
            ("GreaterThanThreshold", [false, false, true]),
            ("LessThanThreshold", [true, false, false]),
            ("LessThanOrEqualToThreshold", [true, true, false]),
        ] {
            let comparison = Comparison::named(name).unwrap();
            assert_eq!([1.0, 2.0, 3.0].map(|value| comparison.holds(value, 2.0)), expected, "{name}");
        }
        assert_eq!(Comparison::named("GreaterThanUpperThreshold"), None);
    }
}
