//! Two sides that got the same requests: a running mean with its interval, and a test of paired failures.

use serde::{Deserialize, Serialize};

use super::normal::{Z_95, above_normal};

/// Up to so many, discordant pairs are tested exactly.
const EXACT_PAIRS: u64 = 1000;

/// Mean and variance of numbers that come one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mean {
    /// How many there are.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Sum of the squares of the distances from it.
    pub squares: f64,
}

impl Mean {
    /// Adds a number.
    pub fn add(&mut self, number: f64) {
        self.count += 1;
        let distance = number - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (number - self.mean);
    }

    /// Where the mean lies with 95 % confidence; none for fewer than two numbers.
    pub fn interval(&self) -> Option<(f64, f64)> {
        let count = self.count as f64;
        (self.count > 1).then(|| {
            let error = Z_95 * (self.squares / (count - 1.0) / count).sqrt();
            (self.mean - error, self.mean + error)
        })
    }
}

/// How likely it is that one side alone fails so much more often than the other by chance (McNemar's test, both sides).
pub fn paired_chance(one: u64, other: u64) -> f64 {
    let count = one + other;
    if count == 0 {
        return 1.0;
    }
    if count > EXACT_PAIRS {
        let distance = (one as f64 - other as f64).abs();
        return 2.0 * above_normal(((distance - 1.0).max(0.0)) / (count as f64).sqrt());
    }
    // The binomial sum, by logarithms so that nothing is too small.
    let mut term = -(count as f64) * std::f64::consts::LN_2;
    let mut sum = term.exp();
    for drawn in 0..one.min(other) {
        term += ((count - drawn) as f64 / (drawn + 1) as f64).ln();
        sum += term.exp();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_knows_how_sure_it_is() {
        let mut mean = Mean::default();
        assert_eq!(mean.interval(), None);
        for number in [1.0, 2.0, 3.0, 4.0, 5.0] {
            mean.add(number);
        }
        let (low, high) = mean.interval().unwrap();
        // The standard deviation is the root of 2.5.
        let half = Z_95 * (2.5_f64 / 5.0).sqrt();
        assert!((low - (3.0 - half)).abs() < 1e-12 && (high - (3.0 + half)).abs() < 1e-12);
    }

    #[test]
    fn paired_failures_are_tested_exactly_and_by_the_normal_distribution() {
        let about =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-3, "{found} {expected}");
        about(paired_chance(0, 0), 1.0);
        about(paired_chance(5, 5), 1.0);
        about(paired_chance(0, 5), 0.0625);
        about(paired_chance(6, 0), 0.03125);
        about(paired_chance(1, 9), 0.0215);
        assert!(paired_chance(0, 900) < 1e-100);
        // Two and a half standard deviations, less the correction.
        about(paired_chance(5_126, 4_874), 0.0121);
    }
}
