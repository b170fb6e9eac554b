//! Values with their counts: quantiles, moments, and tests of whether two lists of them differ.

use super::normal::above_normal;

/// Values with how often each came, sorted by value.
pub type Weighted = Vec<(f64, f64)>;

/// How many values there are.
pub fn count(values: &[(f64, f64)]) -> f64 {
    values.iter().map(|(_, count)| count).sum()
}

/// The least value that this part of the values does not exceed.
pub fn quantile(values: &[(f64, f64)], part: f64) -> Option<f64> {
    let wanted = part * count(values) * (1.0 - 1e-12);
    let mut seen = 0.0;
    let found = values.iter().find(|(_, count)| {
        seen += count;
        seen >= wanted
    });
    found.or(values.last()).map(|(value, _)| *value)
}

/// Mean and variance.
pub fn moments(values: &[(f64, f64)]) -> Option<(f64, f64)> {
    let total = count(values);
    if total <= 0.0 {
        return None;
    }
    let mean = values.iter().map(|(value, count)| value * count).sum::<f64>() / total;
    let squares: f64 = values.iter().map(|(value, count)| (value - mean).powi(2) * count).sum();
    Some((mean, if total > 1.0 { squares / (total - 1.0) } else { 0.0 }))
}

/// Both lists in one: each value with its count in the first and in the second.
fn merged(first: &[(f64, f64)], second: &[(f64, f64)]) -> Vec<(f64, f64, f64)> {
    let mut all: Vec<(f64, f64, f64)> = first
        .iter()
        .map(|(value, count)| (*value, *count, 0.0))
        .chain(second.iter().map(|(value, count)| (*value, 0.0, *count)))
        .collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    all.dedup_by(|later, kept| {
        let is_same = later.0 == kept.0;
        if is_same {
            kept.1 += later.1;
            kept.2 += later.2;
        }
        is_same
    });
    all
}

/// The Mann-Whitney test: how likely it is that a value of the second list is above one of the first (a tie counts half), and the
/// probability of such a difference, either way, when there is none. `None` where one list is empty.
pub fn mann_whitney(first: &[(f64, f64)], second: &[(f64, f64)]) -> Option<(f64, f64)> {
    let (many, others) = (count(first), count(second));
    if many <= 0.0 || others <= 0.0 {
        return None;
    }
    let (mut wins, mut below, mut ties) = (0.0, 0.0, 0.0);
    for (_, one, other) in merged(first, second) {
        wins += other * (below + one / 2.0);
        below += one;
        let tied = one + other;
        ties += tied.powi(3) - tied;
    }
    let total = many + others;
    let superiority = wins / (many * others);
    let variance = many * others / 12.0 * ((total + 1.0) - ties / (total * (total - 1.0)).max(1.0));
    if variance <= 0.0 {
        return Some((superiority, 1.0));
    }
    let z = (wins - many * others / 2.0).abs() / variance.sqrt();
    Some((superiority, (2.0 * above_normal(z)).min(1.0)))
}

/// The Kolmogorov-Smirnov test of two samples: the greatest distance of their distributions, and the probability of such a distance
/// when there is none. `None` where one is empty.
pub fn kolmogorov_smirnov(first: &[(f64, f64)], second: &[(f64, f64)]) -> Option<(f64, f64)> {
    let (many, others) = (count(first), count(second));
    if many <= 0.0 || others <= 0.0 {
        return None;
    }
    let (mut seen, mut seen_others, mut distance) = (0.0, 0.0, 0.0_f64);
    for (_, one, other) in merged(first, second) {
        seen += one / many;
        seen_others += other / others;
        distance = distance.max((seen - seen_others).abs());
    }
    let effective = (many * others / (many + others)).sqrt();
    let scaled = (effective + 0.12 + 0.11 / effective) * distance;
    // The series alternates and its terms fall fast, but for distances near 0, where it does not matter.
    let mut p_value = 0.0;
    for term in 1..=100 {
        let number = f64::from(term);
        let sign = if term % 2 == 1 { 1.0 } else { -1.0 };
        p_value += sign * 2.0 * (-2.0 * number * number * scaled * scaled).exp();
    }
    Some((distance, if scaled < 0.2 { 1.0 } else { p_value.clamp(0.0, 1.0) }))
}

/// Values as they came, each once.
pub fn weighted(values: impl IntoIterator<Item = f64>) -> Weighted {
    let mut sorted: Weighted = values.into_iter().map(|value| (value, 1.0)).collect();
    sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() < within, "{found} is not {expected}");
    }

    #[test]
    fn ranks_tell_shifted_values_from_equal_ones() {
        let low = weighted((0..100).map(f64::from));
        let high = weighted((0..100).map(|value| f64::from(value) + 30.0));
        let (superiority, p_value) = mann_whitney(&low, &high).unwrap();
        is_near(superiority, 0.755, 1e-9);
        assert!(p_value < 1e-8, "{p_value}");
        let (superiority, p_value) = mann_whitney(&low, &low).unwrap();
        assert_eq!((superiority, p_value), (0.5, 1.0));
        // Counts mean the same as values that come again.
        let counted = mann_whitney(&[(1.0, 3.0), (2.0, 1.0)], &[(1.0, 1.0), (2.0, 3.0)]);
        let listed = mann_whitney(&weighted([1.0, 1.0, 1.0, 2.0]), &weighted([1.0, 2.0, 2.0, 2.0]));
        assert_eq!(counted, listed);
        assert_eq!(mann_whitney(&[], &low), None);
        assert_eq!(mann_whitney(&[(1.0, 9.0)], &[(1.0, 9.0)]), Some((0.5, 1.0)));
    }

    #[test]
    fn distributions_apart_are_found() {
        let one = weighted((0..200).map(f64::from));
        let (distance, p_value) = kolmogorov_smirnov(&one, &one).unwrap();
        assert_eq!((distance, p_value), (0.0, 1.0));
        let other = weighted((0..200).map(|value| f64::from(value) + 100.0));
        let (distance, p_value) = kolmogorov_smirnov(&one, &other).unwrap();
        is_near(distance, 0.5, 1e-9);
        assert!(p_value < 1e-20, "{p_value}");
        // 0.136 is the five percent limit of two samples of 200.
        let near = weighted((0..200).map(|value| f64::from(value) + 27.2));
        is_near(kolmogorov_smirnov(&one, &near).unwrap().1, 0.05, 0.02);
    }

    #[test]
    fn quantiles_and_moments_count_the_counts() {
        let values = [(1.0, 98.0), (5.0, 1.0), (9.0, 1.0)];
        assert_eq!(quantile(&values, 0.5), Some(1.0));
        assert_eq!(quantile(&values, 0.99), Some(5.0));
        assert_eq!(quantile(&[], 0.5), None);
        let (mean, variance) = moments(&[(1.0, 2.0), (3.0, 2.0)]).unwrap();
        is_near(mean, 2.0, 1e-12);
        is_near(variance, 4.0 / 3.0, 1e-12);
    }
}
