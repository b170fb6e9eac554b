//! ISO-8601 durations, as `CacheConfig.ExpireAfter` has them.

/// A duration in calendar units; a month counts 30 days and a year 365.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its length.
    pub milliseconds: i64,
}

impl Period {
    /// Reads a duration such as `P30d`, `PT1H30M` or `P1Y2M3DT4H`; letters of either case are taken, as the service does.
    pub fn parse(text: &str) -> Option<Period> {
        let text = text.to_ascii_uppercase();
        let rest = text.strip_prefix('P')?;
        let (date, time) = match rest.split_once('T') {
            Some((_, "")) => return None,
            Some((date, time)) => (date, time),
            None => (rest, ""),
        };
        if date.is_empty() && time.is_empty() {
            return None;
        }
        let days = units(date, &[('Y', 365 * 86_400), ('M', 30 * 86_400), ('W', 7 * 86_400), ('D', 86_400)])?;
        let seconds = units(time, &[('H', 3_600), ('M', 60), ('S', 1)])?;
        let milliseconds = days.checked_add(seconds)?.checked_mul(1_000)?;
        Some(Period { milliseconds })
    }
}

/// Sum of `NUMBER UNIT` pairs in seconds, units in their order.
fn units(mut text: &str, units: &[(char, i64)]) -> Option<i64> {
    let mut total = 0_i64;
    let mut left = units;
    while !text.is_empty() {
        let end = text.find(|character: char| !character.is_ascii_digit())?;
        let number: i64 = text[..end].parse().ok()?;
        let unit = text[end..].chars().next()?;
        let at = left.iter().position(|(known, _)| *known == unit)?;
        total = total.checked_add(number.checked_mul(left[at].1)?)?;
        left = &left[at + 1..];
        text = &text[end + unit.len_utf8()..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::Period;

    #[test]
    fn durations_are_read_with_their_units_in_order() {
        let days = |text: &str| Period::parse(text).map(|period| period.milliseconds as f64 / 86_400_000.0);
        assert_eq!(days("P30d"), Some(30.0));
        assert_eq!(days("PT12H"), Some(0.5));
        assert_eq!(days("P1Y2M1W1DT24H"), Some(365.0 + 60.0 + 7.0 + 1.0 + 1.0));
        for wrong in ["", "P", "30d", "P1", "PT", "P1DT", "P1D2Y", "P-1D", "P1.5D", "P99999999999999999999D"]
        {
            assert_eq!(Period::parse(wrong), None, "{wrong}");
        }
    }
}
