//! What the functions of metric math do with time series.

use super::value::{Points, Series};

/// How several numbers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Summary {
    Average,
    Sum,
    Minimum,
    Maximum,
    Deviation,
}

impl Summary {
    pub(super) fn named(name: &str) -> Option<Summary> {
        Some(match name {
            "AVG" => Summary::Average,
            "SUM" => Summary::Sum,
            "MIN" => Summary::Minimum,
            "MAX" => Summary::Maximum,
            "STDDEV" => Summary::Deviation,
            _ => return None,
        })
    }

    /// The summary of some numbers; nothing comes of none.
    pub(super) fn of(self, values: impl Iterator<Item = f64> + Clone) -> Option<f64> {
        let count = values.clone().count() as f64;
        let sum: f64 = values.clone().sum();
        if count == 0.0 {
            return None;
        }
        Some(match self {
            Summary::Sum => sum,
            Summary::Average => sum / count,
            Summary::Minimum => values.fold(f64::INFINITY, f64::min),
            Summary::Maximum => values.fold(f64::NEG_INFINITY, f64::max),
            Summary::Deviation => {
                let mean = sum / count;
                (values.map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
            }
        })
    }

    /// One series of several. A value that one of them has not counts as 0, except for the least and the greatest.
    pub(super) fn across(self, array: &[Series]) -> Series {
        let mut moments: Vec<i64> =
            array.iter().flat_map(|series| series.points.iter().map(|(at, _)| *at)).collect();
        moments.sort_unstable();
        moments.dedup();
        let sparse = matches!(self, Summary::Minimum | Summary::Maximum);
        let at = |moment: i64| {
            let values: Vec<f64> =
                array.iter().filter_map(|series| series.at(moment).or((!sparse).then_some(0.0))).collect();
            Some((moment, self.of(values.into_iter())?))
        };
        let points: Points = moments.into_iter().filter_map(at).collect();
        let period_seconds = array.iter().map(|series| series.period_seconds).min().unwrap_or(60);
        Series { label: String::new(), period_seconds, points }.with_finite()
    }
}

impl Series {
    fn with_finite(self) -> Series {
        self.with(self.points.clone())
    }

    /// The values at the moments that both series have.
    pub(super) fn zip(&self, other: &Series, change: impl Fn(f64, f64) -> f64) -> Series {
        let both = self.points.iter().filter_map(|(at, value)| Some((*at, change(*value, other.at(*at)?))));
        self.with(both.collect())
    }

    /// From each value and the one before it, with the seconds between them.
    pub(super) fn steps(&self, change: impl Fn(f64, f64, f64) -> f64) -> Series {
        let steps = self.points.windows(2).map(|pair| {
            let seconds = (pair[1].0 - pair[0].0) as f64;
            (pair[1].0, change(pair[0].1, pair[1].1, seconds))
        });
        self.with(steps.collect())
    }

    pub(super) fn running_sum(&self) -> Series {
        let mut sum = 0.0;
        let add = |(at, value): &(i64, f64)| {
            sum += value;
            (*at, sum)
        };
        self.with(self.points.iter().map(add).collect())
    }

    /// Something of each moment, whatever its value.
    pub(super) fn moments(&self, change: impl Fn(i64) -> f64) -> Series {
        self.with(self.points.iter().map(|(at, _)| (*at, change(*at))).collect())
    }

    /// The series with a value at every moment of `grid`.
    pub(super) fn fill(&self, grid: &[i64], filling: &Filling) -> Series {
        let points = grid.iter().filter_map(|at| {
            let known = self.at(*at);
            Some((*at, known.or_else(|| self.filled(*at, filling))?))
        });
        self.with(points.collect())
    }

    fn filled(&self, at: i64, filling: &Filling) -> Option<f64> {
        let next = self.points.partition_point(|(moment, _)| *moment < at);
        let before = next.checked_sub(1).map(|index| self.points[index]);
        match filling {
            Filling::Number(number) => Some(*number),
            Filling::Series(other) => other.at(at),
            Filling::Repeat => before.map(|(_, value)| value),
            Filling::Linear => {
                let ((start, from), (end, to)) = (before?, *self.points.get(next)?);
                Some(from + (to - from) * (at - start) as f64 / (end - start) as f64)
            }
        }
    }
}

/// What FILL puts where there is no value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filling {
    Number(f64),
    Series(Series),
    /// The value before.
    Repeat,
    /// A line from the value before to the next one.
    Linear,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: &[(i64, f64)]) -> Series {
        Series { label: "s".into(), period_seconds: 60, points: points.to_vec() }
    }

    #[test]
    fn gaps_are_filled_in_each_way() {
        let sparse = series(&[(60, 10.0), (240, 40.0)]);
        let grid = [0, 60, 120, 180, 240, 300];
        let filled = |filling| sparse.fill(&grid, &filling).points;
        assert_eq!(
            filled(Filling::Number(0.0)),
            [(0, 0.0), (60, 10.0), (120, 0.0), (180, 0.0), (240, 40.0), (300, 0.0)]
        );
        assert_eq!(filled(Filling::Repeat), [(60, 10.0), (120, 10.0), (180, 10.0), (240, 40.0), (300, 40.0)]);
        assert_eq!(filled(Filling::Linear), [(60, 10.0), (120, 20.0), (180, 30.0), (240, 40.0)]);
        assert_eq!(filled(Filling::Series(series(&[(0, 1.0)]))), [(0, 1.0), (60, 10.0), (240, 40.0)]);
    }

    #[test]
    fn arrays_become_one_series() {
        let array = [series(&[(0, 1.0), (60, 5.0)]), series(&[(60, 7.0), (120, -3.0)])];
        let across = |summary: Summary| summary.across(&array).points;
        assert_eq!(across(Summary::Sum), [(0, 1.0), (60, 12.0), (120, -3.0)]);
        assert_eq!(across(Summary::Average), [(0, 0.5), (60, 6.0), (120, -1.5)]);
        assert_eq!(across(Summary::Minimum), [(0, 1.0), (60, 5.0), (120, -3.0)]);
        assert_eq!(across(Summary::Maximum), [(0, 1.0), (60, 7.0), (120, -3.0)]);
        assert_eq!(across(Summary::Deviation), [(0, 0.5), (60, 1.0), (120, 1.5)]);
    }

    #[test]
    fn steps_and_sums_follow_the_order_of_time() {
        let one = series(&[(0, 1.0), (60, 4.0), (180, 10.0)]);
        assert_eq!(one.steps(|before, after, _| after - before).points, [(60, 3.0), (180, 6.0)]);
        assert_eq!(
            one.steps(|before, after, seconds| (after - before) / seconds).points,
            [(60, 0.05), (180, 0.05)]
        );
        assert_eq!(one.running_sum().points, [(0, 1.0), (60, 5.0), (180, 15.0)]);
        assert_eq!(one.zip(&one.map(|value| value - 4.0), |left, right| left / right).points.len(), 2);
    }
}
