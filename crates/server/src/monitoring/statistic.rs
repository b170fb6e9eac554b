//! Statistics of a period: the five plain ones, percentiles, and trimmed ones.

use store::metrics::Aggregate;

/// A statistic by its name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Statistic {
    SampleCount,
    Average,
    Sum,
    Minimum,
    Maximum,
    /// The least value that this part (0 to 1) of the values does not exceed.
    Percentile(f64),
    /// Something of the values between two bounds.
    Trimmed(Trim, Bound, Bound),
}

/// What is told of the values that are not trimmed away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trim {
    Mean,
    /// As the mean, with the values beyond the bounds moved to the bounds.
    WinsorizedMean,
    Count,
    Sum,
    /// The part of the values that is not trimmed away, in percent.
    PercentRank,
}

/// A bound of a range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    Open,
    /// A part of the values, 0 to 1.
    Part(f64),
    /// A value.
    Value(f64),
}

impl Statistic {
    /// Reads a name: `Average`, `p99.9`, `tm90`, `TM(10%:90%)`, `PR(:300)`, `IQM`.
    pub(super) fn parse(name: &str) -> Option<Statistic> {
        match name {
            "SampleCount" => return Some(Statistic::SampleCount),
            "Average" => return Some(Statistic::Average),
            "Sum" => return Some(Statistic::Sum),
            "Minimum" => return Some(Statistic::Minimum),
            "Maximum" => return Some(Statistic::Maximum),
            "IQM" => return Some(Statistic::Trimmed(Trim::Mean, Bound::Part(0.25), Bound::Part(0.75))),
            _ => {}
        }
        if let Some(percent) = name.strip_prefix('p') {
            return part(percent).map(Statistic::Percentile);
        }
        let (kind, rest) = name.split_at_checked(2)?;
        let trim = match kind {
            "tm" | "TM" => Trim::Mean,
            "wm" | "WM" => Trim::WinsorizedMean,
            "tc" | "TC" => Trim::Count,
            "ts" | "TS" => Trim::Sum,
            "PR" => Trim::PercentRank,
            _ => return None,
        };
        if kind.starts_with(char::is_lowercase) {
            return Some(Statistic::Trimmed(trim, Bound::Open, Bound::Part(part(rest)?)));
        }
        let (low, high) = rest.strip_prefix('(')?.strip_suffix(')')?.split_once(':')?;
        let (low, high) = (bound(low)?, bound(high)?);
        let sensible = match (low, high) {
            (Bound::Open, Bound::Open) => false,
            (Bound::Part(low), Bound::Part(high)) | (Bound::Value(low), Bound::Value(high)) => low < high,
            (Bound::Part(_), Bound::Value(_)) | (Bound::Value(_), Bound::Part(_)) => false,
            _ => true,
        };
        // A rank in percent of percents says nothing.
        let ranked =
            trim != Trim::PercentRank || !matches!((low, high), (Bound::Part(_), _) | (_, Bound::Part(_)));
        (sensible && ranked).then_some(Statistic::Trimmed(trim, low, high))
    }

    /// Whether the values themselves are needed.
    pub(super) fn needs_distribution(&self) -> bool {
        matches!(self, Statistic::Percentile(_) | Statistic::Trimmed(..))
    }

    /// The statistic of a period; `None` where the values are needed and nobody knows them.
    pub(super) fn of(&self, aggregate: &Aggregate) -> Option<f64> {
        match self {
            Statistic::SampleCount => Some(aggregate.count),
            Statistic::Average => Some(aggregate.average()),
            Statistic::Sum => Some(aggregate.sum),
            Statistic::Minimum => Some(aggregate.minimum),
            Statistic::Maximum => Some(aggregate.maximum),
            Statistic::Percentile(part) => percentile(&aggregate.distribution.sorted()?, *part),
            Statistic::Trimmed(trim, low, high) => {
                trimmed(&aggregate.distribution.sorted()?, *trim, *low, *high)
            }
        }
        .filter(|value| value.is_finite())
    }
}

/// Percent as written, at most ten digits behind the point, as a part.
fn part(percent: &str) -> Option<f64> {
    let digits = !percent.is_empty() && percent.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let percent: f64 = percent.parse().ok().filter(|_| digits)?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

fn bound(text: &str) -> Option<Bound> {
    match text.strip_suffix('%') {
        Some(percent) => part(percent).map(Bound::Part),
        None if text.is_empty() => Some(Bound::Open),
        None => text.parse().ok().filter(|value: &f64| value.is_finite()).map(Bound::Value),
    }
}

fn total(values: &[(f64, f64)]) -> f64 {
    values.iter().map(|(_, count)| count).sum()
}

/// Nearest rank: the least value of which, with those below it, there are enough.
fn percentile(values: &[(f64, f64)], part: f64) -> Option<f64> {
    // A hair below, so that the rounding of a product does not skip a rank.
    let wanted = part * total(values) * (1.0 - 1e-12);
    let mut seen = 0.0;
    let found = values.iter().find(|(_, count)| {
        seen += count;
        seen >= wanted
    });
    found.or(values.last()).map(|(value, _)| *value)
}

/// Values with the part of their counts that is between the bounds.
fn between(values: &[(f64, f64)], low: Bound, high: Bound) -> Vec<(f64, f64)> {
    let total = total(values);
    let rank = |bound, open: f64| match bound {
        Bound::Part(part) => part * total,
        _ => open,
    };
    let (first, last) = (rank(low, 0.0), rank(high, total));
    let mut seen = 0.0;
    let mut kept = Vec::new();
    for (value, count) in values {
        let (from, to) = (seen, seen + count);
        seen = to;
        // The lower bound is exclusive, the upper one inclusive.
        let above = !matches!(low, Bound::Value(low) if *value <= low);
        let below = !matches!(high, Bound::Value(high) if *value > high);
        let inside = to.min(last) - from.max(first);
        if above && below && inside > 0.0 {
            kept.push((*value, inside));
        }
    }
    kept
}

fn trimmed(values: &[(f64, f64)], trim: Trim, low: Bound, high: Bound) -> Option<f64> {
    let kept = between(values, low, high);
    let count = total(&kept);
    let sum: f64 = kept.iter().map(|(value, count)| value * count).sum();
    match trim {
        Trim::Count => Some(count),
        Trim::Sum => Some(sum),
        Trim::PercentRank => Some(100.0 * count / total(values)),
        Trim::Mean => (count > 0.0).then(|| sum / count),
        Trim::WinsorizedMean => {
            let (first, last) = (kept.first()?.0, kept.last()?.0);
            let moved: f64 = values.iter().map(|(value, count)| value.clamp(first, last) * count).sum();
            Some(moved / total(values))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::metrics::Sample;

    fn of(name: &str, values: &[f64]) -> Option<f64> {
        let mut aggregate = Aggregate::empty(true);
        for value in values {
            aggregate.add(&Sample::value(0, *value));
        }
        Statistic::parse(name).unwrap_or_else(|| panic!("{name}")).of(&aggregate)
    }

    #[test]
    fn statistics_of_one_to_ten() {
        let values: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        for (name, expected) in [
            ("SampleCount", 10.0),
            ("Average", 5.5),
            ("Sum", 55.0),
            ("Minimum", 1.0),
            ("Maximum", 10.0),
            ("p0", 1.0),
            ("p10", 1.0),
            ("p50", 5.0),
            ("p70", 7.0),
            ("p99.9", 10.0),
            ("p100", 10.0),
            ("tm90", 5.0),
            ("TM(10%:90%)", 5.5),
            ("TM(:3)", 2.0),
            ("TM(3:)", 7.0),
            ("tc80", 8.0),
            ("TC(2:4)", 2.0),
            ("ts50", 15.0),
            ("wm80", (36.0 + 16.0) / 10.0),
            ("WM(2:9)", (3.0 * 3.0 + 4.0 + 5.0 + 6.0 + 7.0 + 8.0 + 9.0 * 2.0) / 10.0),
            ("PR(:3)", 30.0),
            ("PR(3:7)", 40.0),
            ("IQM", 5.5),
        ] {
            assert_eq!(of(name, &values), Some(expected), "{name}");
        }
    }

    #[test]
    fn unknown_values_have_no_percentile_and_empty_ranges_no_mean() {
        let mut aggregate = Aggregate::empty(true);
        aggregate.add(&Sample { at_seconds: 0, count: 2.0, sum: 3.0, minimum: 1.0, maximum: 2.0 });
        assert_eq!(Statistic::Percentile(0.5).of(&aggregate), None);
        assert_eq!(Statistic::Average.of(&aggregate), Some(1.5));
        assert_eq!(of("TM(100:200)", &[1.0]), None);
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in [
            "",
            "average",
            "p",
            "p101",
            "p-1",
            "p1e1",
            "tm",
            "tm101",
            "TM(:)",
            "TM(90%:10%)",
            "TM(1%:5)",
            "PR(1%:)",
            "XX(1:2)",
            "ä",
            "äää",
        ] {
            assert_eq!(Statistic::parse(name), None, "{name}");
        }
    }
}
