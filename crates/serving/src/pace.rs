//! How quickly a worker answers, and with that how many requests may wait at it rather than in the line.
//!
//! A worker that answers in microseconds spends more time on being woken for each request than on the request. It is handed several at once.
//! Those wait for it even when another worker comes free, so that what is handed over is little work, and nothing where an answer took long
//! of late.

use std::time::Duration;

/// An answer that took so many times what may be handed over was slow: as long as it is remembered nothing is handed over, as others would
/// have waited behind it.
const SLOW: u32 = 25;
/// The usual time of a worker of which nothing is known.
const UNKNOWN: Duration = Duration::from_millis(50);
/// The usual time follows the last 16 answers or so, the longest is forgotten over a thousand.
const USUAL_OVER: u64 = 16;
const LONGEST_OVER: u64 = 1024;

/// The pace of one worker.
#[derive(Debug)]
pub(crate) struct Pace {
    usual_nanoseconds: u64,
    longest_nanoseconds: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { usual_nanoseconds: UNKNOWN.as_nanos() as u64, longest_nanoseconds: 0 }
    }
}

impl Pace {
    /// Takes down how long an answer took.
    pub(crate) fn note(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let usual = self.usual_nanoseconds - self.usual_nanoseconds / USUAL_OVER;
        self.usual_nanoseconds = usual.saturating_add(took / USUAL_OVER);
        let longest = self.longest_nanoseconds - self.longest_nanoseconds / LONGEST_OVER;
        self.longest_nanoseconds = longest.max(took);
    }

    /// How many requests it is handed at once when that is to be so much work by the usual time of an answer; at least 1.
    pub(crate) fn most_at_once(&self, work: Duration) -> u32 {
        if u128::from(self.longest_nanoseconds) >= (work * SLOW).as_nanos() {
            return 1;
        }
        let most = work.as_nanos() / u128::from(self.usual_nanoseconds.max(1));
        u32::try_from(most).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &mut Pace, times: usize, took: Duration) -> u32 {
        (0..times).for_each(|_| pace.note(took));
        pace.most_at_once(Duration::from_millis(2))
    }

    #[test]
    fn more_is_handed_over_the_quicker_the_answers_are() {
        let mut pace = Pace::default();
        assert_eq!(after(&mut pace, 0, Duration::ZERO), 1, "nothing is known");
        let quick = after(&mut pace, 300, Duration::from_micros(50));
        assert!((35..=41).contains(&quick), "{quick}");
        assert_eq!(after(&mut pace, 100, Duration::from_micros(900)), 2);
        assert_eq!(pace.most_at_once(Duration::ZERO), 1);
        assert_eq!(after(&mut pace, 100, Duration::from_millis(3)), 1);
    }

    #[test]
    fn one_slow_answer_is_remembered() {
        let mut pace = Pace::default();
        assert!(after(&mut pace, 300, Duration::from_micros(50)) > 30);
        assert_eq!(after(&mut pace, 1, Duration::from_secs(1)), 1);
        assert_eq!(after(&mut pace, 2_000, Duration::from_micros(50)), 1, "after two thousand quick ones");
        assert!(after(&mut pace, 2_000, Duration::from_micros(50)) > 30, "after two thousand more");
    }
}
