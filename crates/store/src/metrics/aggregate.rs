//! Samples of a period, put together.

use std::collections::BTreeMap;

use super::sample::Sample;

/// Values of one period that are kept one by one; beyond, they are counted in classes.
const MOST_EXACT: usize = 65_536;

/// Bits of a number's mantissa that a class does not tell apart: classes are at most 0.1 % wide.
const CLASS_BITS: u32 = 42;

/// Which periods a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First second of the first period.
    pub start_seconds: i64,
    /// The second after the last one.
    pub end_seconds: i64,
    /// Length of a period; above 0.
    pub period_seconds: i64,
}

impl Window {
    /// First second of the period that `at_seconds`, which is in the window, is in.
    pub fn period_of(&self, at_seconds: i64) -> i64 {
        let into = at_seconds - self.start_seconds;
        at_seconds - into.rem_euclid(self.period_seconds)
    }

    /// Whether a second is in the window.
    pub fn contains(&self, at_seconds: i64) -> bool {
        (self.start_seconds..self.end_seconds).contains(&at_seconds)
    }
}

/// What is known of the samples of one period.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// How many values.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// The least.
    pub minimum: f64,
    /// The greatest.
    pub maximum: f64,
    /// The values themselves, where the query asked for them.
    pub distribution: Distribution,
}

/// The values behind an aggregate.
#[derive(Debug, Clone, PartialEq)]
pub enum Distribution {
    /// The query did not ask.
    NotAsked,
    /// Some samples are summaries, whose values nobody knows.
    Unknown,
    /// Value and count, in any order.
    Exact(Vec<(f64, f64)>),
    /// Counts of values that differ by less than 0.1 %.
    Classes(BTreeMap<i64, f64>),
}

impl Aggregate {
    /// Nothing yet.
    pub fn empty(with_distribution: bool) -> Aggregate {
        Aggregate {
            count: 0.0,
            sum: 0.0,
            minimum: f64::INFINITY,
            maximum: f64::NEG_INFINITY,
            distribution: if with_distribution {
                Distribution::Exact(Vec::new())
            } else {
                Distribution::NotAsked
            },
        }
    }

    /// Adds a sample, or the summary of several.
    pub fn add(&mut self, sample: &Sample) {
        self.count += sample.count;
        self.sum += sample.sum;
        self.minimum = self.minimum.min(sample.minimum);
        self.maximum = self.maximum.max(sample.maximum);
        self.distribution.add(sample);
    }

    /// Sum over count.
    pub fn average(&self) -> f64 {
        self.sum / self.count
    }
}

impl Distribution {
    fn add(&mut self, sample: &Sample) {
        match self {
            Distribution::NotAsked | Distribution::Unknown => {}
            _ if !sample.is_exact() => *self = Distribution::Unknown,
            Distribution::Exact(values) => {
                values.push((sample.minimum, sample.count));
                if values.len() > MOST_EXACT {
                    let mut classes = BTreeMap::new();
                    for (value, count) in values.iter() {
                        *classes.entry(class(*value)).or_default() += count;
                    }
                    *self = Distribution::Classes(classes);
                }
            }
            Distribution::Classes(classes) => {
                *classes.entry(class(sample.minimum)).or_default() += sample.count;
            }
        }
    }

    /// Value and count in the order of the values; `None` when they are not known.
    pub fn sorted(&self) -> Option<Vec<(f64, f64)>> {
        match self {
            Distribution::NotAsked | Distribution::Unknown => None,
            Distribution::Exact(values) => {
                let mut values = values.clone();
                values.sort_by(|left, right| left.0.total_cmp(&right.0));
                Some(values)
            }
            Distribution::Classes(classes) => {
                Some(classes.iter().map(|(class, count)| (middle(*class), *count)).collect())
            }
        }
    }
}

/// The class of a number; classes are in the order of the numbers.
fn class(value: f64) -> i64 {
    ordered(value.to_bits() as i64) >> CLASS_BITS
}

/// The number in the middle of a class.
fn middle(class: i64) -> f64 {
    let bits = (class << CLASS_BITS) | (1 << (CLASS_BITS - 1));
    f64::from_bits(ordered(bits) as u64)
}

/// Bits of a number as an integer that compares as the number does, and back.
fn ordered(bits: i64) -> i64 {
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_at_the_start_of_the_window() {
        let window = Window { start_seconds: -90, end_seconds: 120, period_seconds: 60 };
        assert_eq!(window.period_of(-90), -90);
        assert_eq!(window.period_of(-31), -90);
        assert_eq!(window.period_of(-30), -30);
        assert_eq!(window.period_of(119), 90);
    }

    #[test]
    fn many_values_are_counted_in_narrow_classes_that_keep_the_order() {
        let mut aggregate = Aggregate::empty(true);
        for step in 0..200_000 {
            aggregate.add(&Sample::value(0, f64::from(step - 100_000) / 1000.0));
        }
        assert!(matches!(aggregate.distribution, Distribution::Classes(_)));
        let sorted = aggregate.distribution.sorted().unwrap();
        assert!(sorted.is_sorted_by(|left, right| left.0 < right.0));
        assert_eq!(sorted.iter().map(|(_, count)| count).sum::<f64>(), 200_000.0);
        let (first, last) = (sorted[0].0, sorted[sorted.len() - 1].0);
        assert!((first + 100.0).abs() < 0.1 && (last - 100.0).abs() < 0.1, "{first} {last}");
        aggregate.add(&Sample { at_seconds: 0, count: 2.0, sum: 3.0, minimum: 1.0, maximum: 2.0 });
        assert_eq!(aggregate.distribution.sorted(), None);
    }
}
