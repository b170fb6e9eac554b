//! Rates: how many of so many, with how sure that is, and two of them compared.

use super::normal::{Z_95, above_normal};

/// Two rates compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// The second minus the first.
    pub difference: f64,
    /// The interval that has the difference with 95 percent confidence.
    pub interval: (f64, f64),
    /// How likely a difference of that size is, either way, when there is none.
    pub p_value: f64,
}

/// Compares how many of so many were hit, once and again; `None` where one of them has none. The interval is Newcombe's.
pub fn rates((hits, of): (f64, f64), (other_hits, other_of): (f64, f64)) -> Option<Rates> {
    if of <= 0.0 || other_of <= 0.0 {
        return None;
    }
    let (first, second) = (hits / of, other_hits / other_of);
    let pooled = (hits + other_hits) / (of + other_of);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / of + 1.0 / other_of)).sqrt();
    let difference = second - first;
    let p_value = if deviation > 0.0 { 2.0 * above_normal((difference / deviation).abs()) } else { 1.0 };
    let (low, high) = rate_interval(hits, of);
    let (other_low, other_high) = rate_interval(other_hits, other_of);
    let interval = (
        difference - ((second - other_low).powi(2) + (high - first).powi(2)).sqrt(),
        difference + ((other_high - second).powi(2) + (first - low).powi(2)).sqrt(),
    );
    Some(Rates { difference, interval, p_value: p_value.min(1.0) })
}

/// Where a rate of `hits` in `of` lies with 95 % confidence (Wilson's interval); anywhere where there is none.
pub fn rate_interval(hits: f64, of: f64) -> (f64, f64) {
    if of <= 0.0 {
        return (0.0, 1.0);
    }
    let rate = hits / of;
    let spread = Z_95 * (rate * (1.0 - rate) / of + Z_95 * Z_95 / (4.0 * of * of)).sqrt();
    let middle = rate + Z_95 * Z_95 / (2.0 * of);
    let scale = 1.0 + Z_95 * Z_95 / of;
    (((middle - spread) / scale).max(0.0), ((middle + spread) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() < within, "{found} is not {expected}");
    }

    #[test]
    fn rates_agree_with_a_worked_example() {
        // 15 of 100 against 30 of 100: z = 2.5400, p = 0.01108; Newcombe's interval.
        let found = rates((15.0, 100.0), (30.0, 100.0)).unwrap();
        is_near(found.difference, 0.15, 1e-12);
        is_near(found.p_value, 0.011_085, 2e-5);
        is_near(found.interval.0, 0.034, 2e-3);
        is_near(found.interval.1, 0.261, 2e-3);
        assert_eq!(rates((0.0, 50.0), (0.0, 70.0)).unwrap().p_value, 1.0);
        assert_eq!(rates((0.0, 0.0), (1.0, 7.0)), None);
    }

    #[test]
    fn rates_are_never_certain() {
        let about = |(low, high): (f64, f64), expected: (f64, f64)| {
            assert!((low - expected.0).abs() < 1e-3 && (high - expected.1).abs() < 1e-3, "{low} {high}");
        };
        about(rate_interval(0.0, 100.0), (0.0, 0.0370));
        about(rate_interval(50.0, 100.0), (0.4038, 0.5962));
        about(rate_interval(100.0, 100.0), (0.9630, 1.0));
        assert_eq!(rate_interval(0.0, 0.0), (0.0, 1.0));
    }
}
