//! Latencies in classes of equal ratio, small enough to travel beside captured data as a text.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Classes from one power of two to the next: a percentile is off by 5 % at most.
const CLASSES_PER_OCTAVE: f64 = 8.0;

/// How many latencies fell into each class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    classes: BTreeMap<u16, u64>,
}

impl Latencies {
    /// Adds one latency in microseconds.
    pub fn add(&mut self, microseconds: u64) {
        let class = (microseconds.max(1) as f64).log2() * CLASSES_PER_OCTAVE;
        // 64 octaves of 8 classes fit.
        *self.classes.entry(class as u16).or_default() += 1;
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Latencies) {
        for (class, count) in &other.classes {
            let sum = self.classes.entry(*class).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.classes.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The latency in microseconds that this share of all, from 0 to 1, does not exceed; `None` without any.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let wanted = (share.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0);
        let mut seen = 0.0;
        for (class, count) in &self.classes {
            seen += *count as f64;
            if seen >= wanted {
                return Some(((f64::from(*class) + 0.5) / CLASSES_PER_OCTAVE).exp2());
            }
        }
        None
    }
}

/// `CLASS:COUNT`, by commas.
impl fmt::Display for Latencies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (class, count)) in self.classes.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(formatter, "{comma}{class}:{count}")?;
        }
        Ok(())
    }
}

impl FromStr for Latencies {
    type Err = String;

    fn from_str(text: &str) -> Result<Latencies, String> {
        let mut latencies = Latencies::default();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let read = pair
                .split_once(':')
                .and_then(|(class, count)| Some((class.parse().ok()?, count.parse().ok()?)));
            let (class, count) = read.ok_or_else(|| format!("{pair:?} is not CLASS:COUNT"))?;
            latencies.classes.insert(class, count);
        }
        Ok(latencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_five_percent_and_the_text_keeps_them() {
        let mut latencies = Latencies::default();
        for microseconds in 1..=10_000 {
            latencies.add(microseconds);
        }
        let read: Latencies = latencies.to_string().parse().unwrap();
        assert_eq!(read, latencies);
        for (share, expected) in [(0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let found = read.percentile(share).unwrap();
            assert!((found / expected - 1.0).abs() < 0.06, "{share}: {found}");
        }
        let mut twice = latencies.clone();
        twice.merge(&latencies);
        assert_eq!((twice.count(), twice.percentile(0.5)), (20_000, latencies.percentile(0.5)));
        latencies.add(0);
        latencies.add(u64::MAX);
        assert_eq!(latencies.count(), 10_002);
    }

    #[test]
    fn nothing_has_no_percentile_and_nonsense_is_refused() {
        assert_eq!(Latencies::default().percentile(0.5), None);
        assert_eq!("".parse(), Ok(Latencies::default()));
        assert!("1:2,x".parse::<Latencies>().is_err());
    }
}
