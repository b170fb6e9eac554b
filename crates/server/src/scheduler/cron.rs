//! Cron expressions with the six fields of the service: minutes, hours, day of month, month, day of week, year.

use jiff::civil::{Date, DateTime, Weekday};

/// Years that an expression can name.
const YEARS: std::ops::RangeInclusive<i16> = 1970..=2199;

/// A cron expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Cron {
    minutes: Vec<bool>,
    hours: Vec<bool>,
    days: Days,
    months: Vec<bool>,
    years: Vec<bool>,
}

/// Which days of a month.
#[derive(Debug, Clone, PartialEq)]
enum Days {
    OfMonth(Vec<MonthDay>),
    OfWeek(Vec<WeekDay>),
}

#[derive(Debug, Clone, PartialEq)]
enum MonthDay {
    Plain(Vec<bool>),
    /// The last one, or so many before it.
    Last(i8),
    /// The last one from Monday to Friday.
    LastWorkday,
    /// The one from Monday to Friday that is nearest to this day, in the same month.
    Workday(i8),
}

#[derive(Debug, Clone, PartialEq)]
enum WeekDay {
    /// From Sunday, which is 1.
    Plain(Vec<bool>),
    /// The last one of this kind.
    Last(i8),
    /// The n-th one of this kind.
    Nth(i8, i8),
}

/// The values that a field can have, and their names.
struct Field {
    name: &'static str,
    least: i16,
    most: i16,
    names: &'static [&'static str],
}

const MINUTES: Field = Field { name: "minutes", least: 0, most: 59, names: &[] };
const HOURS: Field = Field { name: "hours", least: 0, most: 23, names: &[] };
const MONTH_DAYS: Field = Field { name: "day of month", least: 1, most: 31, names: &[] };
const MONTHS: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
const WEEK_DAYS: Field = Field {
    name: "day of week",
    least: 1,
    most: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
};
const YEAR: Field = Field { name: "year", least: *YEARS.start(), most: *YEARS.end(), names: &[] };

impl Field {
    fn number(&self, text: &str) -> Result<i16, String> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let number = match named {
            Some(at) => Some(at as i16 + self.least),
            None => text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())),
        };
        number
            .filter(|number| (self.least..=self.most).contains(number))
            .ok_or_else(|| format!("{text:?} is no {} from {} to {}", self.name, self.least, self.most))
    }

    /// The numbers that a list of values, ranges and steps names.
    fn set(&self, text: &str) -> Result<Vec<bool>, String> {
        let mut set = vec![false; self.most as usize + 1];
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                None => (part, None),
                Some((range, step)) => {
                    let step: Option<i16> = step.parse().ok().filter(|step| *step > 0);
                    (
                        range,
                        Some(step.ok_or_else(|| format!("{part:?} has no step in the {} field", self.name))?),
                    )
                }
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((from, to)) => (self.number(from)?, self.number(to)?),
                // With a step, a single number begins a range.
                None if step.is_some() => (self.number(range)?, self.most),
                None => (self.number(range)?, self.number(range)?),
            };
            let step = step.unwrap_or(1) as usize;
            // A range of weekdays or months may go over the end.
            let spans = if from <= to { vec![(from, to)] } else { vec![(from, self.most), (self.least, to)] };
            if from > to && self.names.is_empty() {
                return Err(format!("{range:?} goes backwards in the {} field", self.name));
            }
            let numbers = spans.into_iter().flat_map(|(from, to)| from..=to);
            numbers.step_by(step).for_each(|number| set[number as usize] = true);
        }
        Ok(set)
    }
}

impl Cron {
    /// Reads the text between the parentheses.
    ///
    /// # Errors
    /// A text that names the field and what is wrong with it.
    pub fn parse(text: &str) -> Result<Cron, String> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minutes, hours, month_day, month, week_day, year] = fields.as_slice() else {
            return Err(format!("a cron expression has six fields, not {}", fields.len()));
        };
        let days = match (*month_day, *week_day) {
            ("?", "?") => return Err("day of month and day of week cannot both be '?'".into()),
            (_, "?") => Days::OfMonth(month_day.split(',').map(MonthDay::parse).collect::<Result<_, _>>()?),
            ("?", _) => Days::OfWeek(week_day.split(',').map(WeekDay::parse).collect::<Result<_, _>>()?),
            _ => return Err("one of day of month and day of week must be '?'".into()),
        };
        Ok(Cron {
            minutes: MINUTES.set(minutes)?,
            hours: HOURS.set(hours)?,
            days,
            months: MONTHS.set(month)?,
            years: YEAR.set(year)?,
        })
    }

    /// The first minute after `after` that the expression names, in the time of some clock on a wall.
    pub fn next_after(&self, after: DateTime) -> Option<DateTime> {
        let mut date = after.date();
        let mut from_minute = i16::from(after.hour()) * 60 + i16::from(after.minute()) + 1;
        while YEARS.contains(&date.year()) {
            if !self.years.get(date.year() as usize).is_some_and(|wanted| *wanted) {
                date = Date::new(date.year().checked_add(1)?, 1, 1).ok()?;
            } else if !self.months[date.month() as usize] {
                date = date.last_of_month().tomorrow().ok()?;
            } else if let Some(minute) = self.minute_of(date, from_minute) {
                return Some(date.at((minute / 60) as i8, (minute % 60) as i8, 0, 0));
            } else {
                date = date.tomorrow().ok()?;
            }
            from_minute = 0;
        }
        None
    }

    fn minute_of(&self, date: Date, from_minute: i16) -> Option<i16> {
        if !self.days.include(date) {
            return None;
        }
        let wanted =
            |minute: &i16| self.hours[(minute / 60) as usize] && self.minutes[(minute % 60) as usize];
        (from_minute..24 * 60).find(wanted)
    }
}

impl MonthDay {
    fn parse(text: &str) -> Result<MonthDay, String> {
        let upper = text.to_ascii_uppercase();
        if upper == "L" {
            return Ok(MonthDay::Last(0));
        }
        if upper == "LW" {
            return Ok(MonthDay::LastWorkday);
        }
        if let Some(before) = upper.strip_prefix("L-") {
            return Ok(MonthDay::Last(MONTH_DAYS.number(before)?.min(30) as i8));
        }
        if let Some(day) = upper.strip_suffix('W') {
            return Ok(MonthDay::Workday(MONTH_DAYS.number(day)? as i8));
        }
        MONTH_DAYS.set(text).map(MonthDay::Plain)
    }
}

impl WeekDay {
    fn parse(text: &str) -> Result<WeekDay, String> {
        let upper = text.to_ascii_uppercase();
        if upper == "L" {
            return WEEK_DAYS.set("7").map(WeekDay::Plain);
        }
        if let Some((day, nth)) = upper.split_once('#') {
            let nth = nth.parse().ok().filter(|nth| (1..=5).contains(nth));
            let nth = nth.ok_or_else(|| format!("{text:?} has no number from 1 to 5 after '#'"))?;
            return Ok(WeekDay::Nth(WEEK_DAYS.number(day)? as i8, nth));
        }
        match upper.strip_suffix('L') {
            Some(day) => Ok(WeekDay::Last(WEEK_DAYS.number(day)? as i8)),
            None => WEEK_DAYS.set(text).map(WeekDay::Plain),
        }
    }
}

/// 1 for Sunday.
fn week_day(date: Date) -> i8 {
    date.weekday().to_sunday_one_offset()
}

fn is_workday(date: Date) -> bool {
    !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday)
}

impl Days {
    fn include(&self, date: Date) -> bool {
        let last = date.days_in_month();
        match self {
            Days::OfMonth(days) => days.iter().any(|day| match day {
                MonthDay::Plain(set) => set[date.day() as usize],
                MonthDay::Last(before) => date.day() == last - before,
                MonthDay::LastWorkday => nearest_workday(date, last) == Some(date),
                MonthDay::Workday(day) => *day <= last && nearest_workday(date, *day) == Some(date),
            }),
            Days::OfWeek(days) => days.iter().any(|day| match day {
                WeekDay::Plain(set) => set[week_day(date) as usize],
                WeekDay::Last(day) => week_day(date) == *day && date.day() + 7 > last,
                WeekDay::Nth(day, nth) => week_day(date) == *day && (date.day() - 1) / 7 + 1 == *nth,
            }),
        }
    }
}

/// The day from Monday to Friday that is nearest to a day of the month of `date`.
fn nearest_workday(date: Date, day: i8) -> Option<Date> {
    let last = date.days_in_month();
    let nearest = [0, -1, 1, -2, 2].into_iter().map(|off| day + off).filter(|day| (1..=last).contains(day));
    nearest.filter_map(|day| Date::new(date.year(), date.month(), day).ok()).find(|date| is_workday(*date))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(expression: &str, after: &str) -> String {
        let next = Cron::parse(expression).unwrap().next_after(after.parse().unwrap());
        next.map_or_else(|| "never".to_owned(), |next| next.strftime("%Y-%m-%dT%H:%M %a").to_string())
    }

    #[test]
    fn the_next_minute_is_found() {
        for (expression, after, wanted) in [
            ("0/15 * * * ? *", "2026-01-31T12:07:00", "2026-01-31T12:15 Sat"),
            ("0 10 * * ? *", "2026-01-31T10:00:00", "2026-02-01T10:00 Sun"),
            ("0 18 ? * MON-FRI *", "2026-01-30T18:00:00", "2026-02-02T18:00 Mon"),
            ("0 8 1 * ? *", "2026-12-15T00:00:00", "2027-01-01T08:00 Fri"),
            ("0/5 8-17 ? * MON-FRI *", "2026-02-02T17:55:30", "2026-02-03T08:00 Tue"),
            ("30 0 L * ? *", "2026-02-01T00:00:00", "2026-02-28T00:30 Sat"),
            ("0 0 L-2 2 ? *", "2028-01-01T00:00:00", "2028-02-27T00:00 Sun"),
            ("0 9 1W * ? *", "2026-08-01T00:00:00", "2026-08-03T09:00 Mon"),
            ("0 9 LW * ? *", "2026-01-01T00:00:00", "2026-01-30T09:00 Fri"),
            ("0 9 ? * 2#1 *", "2026-02-03T00:00:00", "2026-03-02T09:00 Mon"),
            ("0 9 ? * 6L *", "2026-02-01T00:00:00", "2026-02-27T09:00 Fri"),
            ("0 0 29 2 ? *", "2026-01-01T00:00:00", "2028-02-29T00:00 Tue"),
            ("0 0 ? * SAT-MON *", "2026-02-02T00:00:00", "2026-02-07T00:00 Sat"),
            ("0 0 1 1 ? 2020", "2026-01-01T00:00:00", "never"),
            ("0 0 30 2 ? *", "2026-01-01T00:00:00", "never"),
            ("15,45 3 ? JAN,jul SUN 2026-2030", "2026-01-26T00:00:00", "2026-07-05T03:15 Sun"),
        ] {
            assert_eq!(next(expression, after), wanted, "{expression} after {after}");
        }
    }

    #[test]
    fn what_is_no_expression_says_where() {
        for (expression, why) in [
            ("* * * * *", "six fields"),
            ("* * * * * *", "must be '?'"),
            ("* * ? * ? *", "cannot both"),
            ("60 * * * ? *", "minutes"),
            ("0 24 * * ? *", "hours"),
            ("0 0 0 * ? *", "day of month"),
            ("0 0 ? * 8 *", "day of week"),
            ("0 0 ? * 2#6 *", "'#'"),
            ("0 0 1 13 ? *", "month"),
            ("0 0 1 1 ? 1969", "year"),
            ("5-1 * * * ? *", "backwards"),
            ("*/0 * * * ? *", "step"),
            ("+1 * * * ? *", "minutes"),
        ] {
            let text = Cron::parse(expression).unwrap_err();
            assert!(text.contains(why), "{expression}: {text}");
        }
    }
}
