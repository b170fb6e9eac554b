//! From start, end and period of a request to the periods that are summed up.

use api::Timestamp;
use store::metrics::Window;

use super::refusal::{Refusal, Result};

const DAY_SECONDS: i64 = 86_400;

/// Checks a period: 1, 5, 10, 20, 30 seconds or whole minutes.
pub(super) fn check_period(period_seconds: i32) -> Result<i64> {
    match period_seconds {
        1 | 5 | 10 | 20 | 30 => Ok(i64::from(period_seconds)),
        minutes if minutes >= 60 && minutes % 60 == 0 => Ok(i64::from(minutes)),
        other => Err(Refusal::Value(format!(
            "The value {other} for parameter Period is invalid; it must be 1, 5, 10, 20, 30 or a multiple of 60."
        ))),
    }
}

/// The periods from `start` to `end`. As in the service, the start is rounded down: to the period where that is below a minute,
/// else to a minute, five minutes or an hour, by its age.
pub(super) fn window(
    start: Timestamp,
    end: Timestamp,
    period_seconds: i64,
    now_seconds: i64,
) -> Result<Window> {
    if start >= end {
        return Err(Refusal::Combination(
            "The parameter StartTime must be less than the parameter EndTime.".into(),
        ));
    }
    let start_seconds = start.as_millis().div_euclid(1000);
    let age_seconds = now_seconds - start_seconds;
    let step_seconds = match period_seconds {
        short if short < 60 => short,
        _ if age_seconds < 15 * DAY_SECONDS => 60,
        _ if age_seconds < 63 * DAY_SECONDS => 300,
        _ => 3_600,
    };
    // The end is exclusive; a part of a second at the end belongs to the window.
    let end_seconds = (end.as_millis() + 999).div_euclid(1000);
    Ok(Window {
        start_seconds: start_seconds - start_seconds.rem_euclid(step_seconds),
        end_seconds,
        period_seconds,
    })
}

/// How many periods a window has.
pub(super) fn periods(window: &Window) -> i64 {
    (window.end_seconds - window.start_seconds + window.period_seconds - 1) / window.period_seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_SECONDS: i64 = 1_770_000_000;

    fn started(age_seconds: i64, period_seconds: i64) -> i64 {
        let start = Timestamp::from_millis((NOW_SECONDS - age_seconds) * 1000);
        let end = Timestamp::from_millis(NOW_SECONDS * 1000);
        window(start, end, period_seconds, NOW_SECONDS).unwrap().start_seconds
    }

    #[test]
    fn starts_are_rounded_down_by_their_age() {
        assert_eq!(NOW_SECONDS % 3_600, 2_400);
        assert_eq!(started(7, 5), NOW_SECONDS - 10);
        assert_eq!(started(7, 60), NOW_SECONDS - 60);
        assert_eq!(started(20 * DAY_SECONDS + 1, 60), NOW_SECONDS - 20 * DAY_SECONDS - 300);
        assert_eq!(started(100 * DAY_SECONDS, 60), NOW_SECONDS - 100 * DAY_SECONDS - 2_400);
    }

    #[test]
    fn periods_are_counted_and_checked() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert_eq!(periods(&window(at(0), at(61), 60, 100).unwrap()), 2);
        assert_eq!(periods(&window(at(0), at(60), 60, 100).unwrap()), 1);
        assert!(window(at(60), at(60), 60, 100).is_err());
        for good in [1, 5, 30, 60, 86_400] {
            assert!(check_period(good).is_ok());
        }
        for bad in [0, -60, 2, 45, 61, 90] {
            assert!(check_period(bad).is_err());
        }
    }
}
