//! Timetables: cron, rate and one-time expressions, in a time zone, between two moments.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::cron::Cron;

/// Occasions of a cron expression that a change of the clocks may skip before it is given up.
const MOST_SKIPPED: usize = 400;

/// When something happens.
#[derive(Debug, Clone)]
pub struct Timetable {
    expression: Expression,
    zone: TimeZone,
    /// What a rate counts from, milliseconds since 1970.
    anchor: i64,
    /// Whether the anchor itself is an occasion of a rate.
    begins_at_anchor: bool,
    not_before: Option<i64>,
    not_after: Option<i64>,
}

#[derive(Debug, Clone)]
enum Expression {
    Cron(Box<Cron>),
    RateMs(i64),
    At(DateTime),
}

/// What bounds a timetable.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Name of a time zone; UTC unless given.
    pub zone: Option<String>,
    /// First moment, milliseconds since 1970.
    pub start: Option<i64>,
    /// Last moment, milliseconds since 1970.
    pub end: Option<i64>,
}

impl Timetable {
    /// Reads an expression. A rate counts from the start, or from `made_at` (milliseconds since 1970).
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn parse(expression: &str, bounds: &Bounds, made_at: i64) -> Result<Timetable, String> {
        let inner = |word: &str| {
            expression
                .strip_prefix(word)?
                .trim_start()
                .strip_prefix('(')?
                .trim_end()
                .strip_suffix(')')
                .map(str::trim)
        };
        let read = if let Some(text) = inner("cron") {
            Expression::Cron(Box::new(Cron::parse(text)?))
        } else if let Some(text) = inner("rate") {
            Expression::RateMs(rate_ms(text)?)
        } else if let Some(text) = inner("at") {
            let moment =
                text.parse().map_err(|_| format!("{text:?} is no moment such as 2030-01-31T12:00:00"))?;
            Expression::At(moment)
        } else {
            return Err("it must be cron(...), rate(...) or at(...)".into());
        };
        let zone = match bounds.zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| format!("{name:?} is no time zone"))?,
        };
        Ok(Timetable {
            expression: read,
            zone,
            anchor: bounds.start.unwrap_or(made_at),
            begins_at_anchor: bounds.start.is_some(),
            not_before: bounds.start,
            not_after: bounds.end,
        })
    }

    /// Whether it names a single moment.
    pub fn is_one_time(&self) -> bool {
        matches!(self.expression, Expression::At(_))
    }

    /// The first occasion after a moment; both in milliseconds since 1970.
    pub fn next_after(&self, after: i64) -> Option<i64> {
        let after = self.not_before.map_or(after, |start| after.max(start - 1));
        let next = match &self.expression {
            Expression::RateMs(period) => {
                let first = if self.begins_at_anchor { 0 } else { 1 };
                let passed = (after - self.anchor).div_euclid(*period) + 1;
                Some(self.anchor + passed.max(first) * period)
            }
            Expression::At(moment) => self.moment(*moment).filter(|moment| *moment > after),
            Expression::Cron(cron) => self.next_of_cron(cron, after),
        };
        next.filter(|next| self.not_after.is_none_or(|end| *next <= end))
    }

    /// Times that the clocks skip in spring are skipped; of two in autumn the first counts.
    fn next_of_cron(&self, cron: &Cron, after: i64) -> Option<i64> {
        let mut wall = Timestamp::from_millisecond(after).ok()?.to_zoned(self.zone.clone()).datetime();
        for _ in 0..MOST_SKIPPED {
            wall = cron.next_after(wall)?;
            if let Some(moment) = self.moment(wall).filter(|moment| *moment > after) {
                return Some(moment);
            }
        }
        None
    }

    fn moment(&self, wall: DateTime) -> Option<i64> {
        let ambiguous = self.zone.to_ambiguous_zoned(wall);
        if let AmbiguousOffset::Gap { .. } = ambiguous.offset() {
            return match self.expression {
                // A single moment is not lost: it is when the clocks have been put forward.
                Expression::At(_) => ambiguous.later().ok().map(|zoned| zoned.timestamp().as_millisecond()),
                _ => None,
            };
        }
        ambiguous.earlier().ok().map(|zoned| zoned.timestamp().as_millisecond())
    }
}

fn rate_ms(text: &str) -> Result<i64, String> {
    let wrong = || format!("rate({text}) is no number with minutes, hours or days");
    let (number, unit) = text.split_once(' ').ok_or_else(wrong)?;
    let number: i64 =
        number.parse().ok().filter(|number| (1..=1_000_000).contains(number)).ok_or_else(wrong)?;
    let minutes = match unit.trim() {
        "minute" | "minutes" => 1,
        "hour" | "hours" => 60,
        "day" | "days" => 24 * 60,
        _ => return Err(wrong()),
    };
    Ok(number * minutes * 60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests make their bounds in place")]
    fn next(expression: &str, bounds: Bounds, after: &str) -> String {
        let table = Timetable::parse(expression, &bounds, ms("2026-01-01T00:00:30Z")).unwrap();
        let next =
            table.next_after(ms(after)).map(|next| Timestamp::from_millisecond(next).unwrap().to_string());
        next.unwrap_or_else(|| "never".to_owned())
    }

    fn zone(name: &str) -> Bounds {
        Bounds { zone: Some(name.into()), ..Bounds::default() }
    }

    #[test]
    fn rates_count_from_their_beginning() {
        let none = Bounds::default;
        assert_eq!(next("rate(5 minutes)", none(), "2026-01-01T00:00:30Z"), "2026-01-01T00:05:30Z");
        assert_eq!(next("rate(5 minutes)", none(), "2026-01-01T00:05:29Z"), "2026-01-01T00:05:30Z");
        assert_eq!(next("rate(1 day)", none(), "2026-03-01T12:00:00Z"), "2026-03-02T00:00:30Z");
        let start = Bounds { start: Some(ms("2026-02-01T00:00:00Z")), ..none() };
        assert_eq!(next("rate(1 hour)", start.clone(), "2026-01-01T00:00:00Z"), "2026-02-01T00:00:00Z");
        assert_eq!(next("rate(1 hour)", start, "2026-02-01T00:00:00Z"), "2026-02-01T01:00:00Z");
        let end = Bounds { end: Some(ms("2026-01-01T00:10:00Z")), ..none() };
        assert_eq!(next("rate(5 minutes)", end, "2026-01-01T00:05:30Z"), "never");
    }

    #[test]
    fn clocks_that_change_skip_and_repeat_nothing() {
        let at_two = "cron(30 2 * * ? *)";
        // On 2026-03-29 the clocks in Berlin go from 02:00 to 03:00, on 2026-10-25 from 03:00 to 02:00.
        assert_eq!(next(at_two, zone("Europe/Berlin"), "2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
        assert_eq!(next(at_two, zone("Europe/Berlin"), "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
        assert_eq!(next(at_two, zone("Europe/Berlin"), "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
        assert_eq!(
            next("cron(0 9 * * ? *)", zone("Asia/Tokyo"), "2026-01-01T00:00:00Z"),
            "2026-01-02T00:00:00Z"
        );
        assert_eq!(
            next("at(2026-07-01T12:00:00)", zone("America/New_York"), "2026-01-01T00:00:00Z"),
            "2026-07-01T16:00:00Z"
        );
        assert_eq!(
            next("at(2026-03-29T02:30:00)", zone("Europe/Berlin"), "2026-01-01T00:00:00Z"),
            "2026-03-29T01:30:00Z"
        );
        assert_eq!(next("at(2025-07-01T12:00:00)", Bounds::default(), "2026-01-01T00:00:00Z"), "never");
    }

    #[test]
    fn what_is_no_timetable_says_why() {
        let refused =
            |expression: &str, bounds: Bounds| Timetable::parse(expression, &bounds, 0).unwrap_err();
        assert!(refused("every day", Bounds::default()).contains("cron(...)"));
        assert!(refused("rate(0 minutes)", Bounds::default()).contains("rate"));
        assert!(refused("rate(5 weeks)", Bounds::default()).contains("minutes, hours or days"));
        assert!(refused("at(tomorrow)", Bounds::default()).contains("no moment"));
        assert!(refused("rate(1 day)", zone("Mars/Olympus")).contains("time zone"));
    }
}
