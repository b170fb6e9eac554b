//! Timestamps between their wire formats and seconds since 1970.

use api::model::TimestampFormat;
use serde_json::{Number, Value};
use time::format_description::well_known::{Rfc2822, Rfc3339};
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

/// Seconds of the years 0001 to 9999, the range that every format can show.
const RANGE_SECONDS: std::ops::RangeInclusive<f64> = -62_135_596_800.0..=253_402_300_799.999;

/// Checks a number of seconds and keeps it as it was written.
pub(crate) fn from_number(number: Number) -> Option<Value> {
    RANGE_SECONDS.contains(&number.as_f64()?).then_some(Value::Number(number))
}

/// Reads any of the three formats. Clients do not always keep to the one that the model asks for.
pub(crate) fn from_text(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds_value(seconds);
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822))
        .or_else(|error| date_or_local(text).ok_or(error))
        .ok()?;
    seconds_value(moment.unix_timestamp_nanos() as f64 / 1e9)
}

/// `2026-01-31` and `2026-01-31T12:00:00` without an offset mean UTC.
fn date_or_local(text: &str) -> Option<OffsetDateTime> {
    let with_time = if text.contains('T') { format!("{text}Z") } else { format!("{text}T00:00:00Z") };
    OffsetDateTime::parse(&with_time, &Rfc3339).ok()
}

fn seconds_value(seconds: f64) -> Option<Value> {
    if !RANGE_SECONDS.contains(&seconds) {
        return None;
    }
    let milliseconds = (seconds * 1000.0).round();
    if milliseconds % 1000.0 == 0.0 {
        return Some(Value::from((milliseconds / 1000.0) as i64));
    }
    Number::from_f64(milliseconds / 1000.0).map(Value::Number)
}

/// Writes seconds in a wire format; values that are no timestamps pass as they are.
pub(crate) fn to_wire(value: Value, format: TimestampFormat) -> Value {
    match value.as_f64() {
        Some(seconds) if format != TimestampFormat::UnixTimestamp => Value::String(to_text(seconds, format)),
        _ => value,
    }
}

/// Writes seconds as text.
pub(crate) fn to_text(seconds: f64, format: TimestampFormat) -> String {
    let milliseconds = (seconds.clamp(*RANGE_SECONDS.start(), *RANGE_SECONDS.end()) * 1000.0).round() as i128;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(milliseconds * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .to_offset(UtcOffset::UTC);
    let whole = milliseconds % 1000 == 0;
    let text = match format {
        TimestampFormat::UnixTimestamp if whole => Ok((milliseconds / 1000).to_string()),
        TimestampFormat::UnixTimestamp => Ok((milliseconds as f64 / 1000.0).to_string()),
        TimestampFormat::Iso8601 if whole => {
            moment.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z"))
        }
        TimestampFormat::Iso8601 => moment.format(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        )),
        TimestampFormat::Rfc822 => moment.format(format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        )),
    };
    text.expect("a date within the years 1 to 9999 has every part of the format")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_formats_are_read() {
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T13:00:00+01:00",
            "Sat, 31 Jan 2026 12:00:00 GMT",
            "1769860800",
        ] {
            assert_eq!(from_text(text), Some(Value::from(1_769_860_800)), "{text}");
        }
        assert_eq!(from_text("2026-01-31T12:00:00"), Some(Value::from(1_769_860_800)));
        assert_eq!(from_text("2026-01-31"), Some(Value::from(1_769_817_600)));
        assert_eq!(from_text("1769860800.25"), Some(Value::from(1_769_860_800.25)));
        for text in ["", "yesterday", "1e300", "NaN", "inf", "2026-13-01"] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }

    #[test]
    fn each_format_is_written() {
        let seconds = 1_769_860_800.0;
        assert_eq!(to_text(seconds, TimestampFormat::Iso8601), "2026-01-31T12:00:00Z");
        assert_eq!(to_text(seconds + 0.5, TimestampFormat::Iso8601), "2026-01-31T12:00:00.500Z");
        assert_eq!(to_text(seconds, TimestampFormat::Rfc822), "Sat, 31 Jan 2026 12:00:00 GMT");
        assert_eq!(to_text(seconds, TimestampFormat::UnixTimestamp), "1769860800");
        assert_eq!(to_text(f64::MAX, TimestampFormat::Iso8601), "9999-12-31T23:59:59.999Z");
        assert_eq!(to_wire(Value::from(1.5), TimestampFormat::UnixTimestamp), Value::from(1.5));
    }
}
